"""How filters are listed, and what their programs are keyed by. Making them is the lab's."""

import errno
import socket
from collections.abc import Generator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.kernel import filters
from appliance.kernel import rtnetlink as rt
from appliance.kernel.filters import HOOKS, BpfFilters, Place, Seen, common_instance, destination
from appliance.kernel.kernel import KernelError
from appliance.kernel.netlink import Netlink, Refusal, attribute, nested, text
from appliance.plan.plan import Add, Delete, Key, Kind, Once

PRIORITY = 45312
KEY, ONCE = Key(Kind.ONCE, ("bl-1-1",)), Once("fd00::/48")


def listed(handle: int, name: str, kind: str = "bpf", program: int = 5) -> bytes:
    options = nested(2, text(7, name), attribute(11, program.to_bytes(4, "little")))
    head = rt.TC_HEADER.pack(0, 8, handle, 0, PRIORITY << 16 | 0x300)
    return head + text(1, kind) + options


class Answers(Netlink):
    """A socket that gives what it was told to."""

    def __init__(self, *refusals: Refusal, listings: dict[int, list[bytes]] | None = None) -> None:
        self._refusals = refusals
        self._listings = listings or {}

    def send(self, _batch: Sequence[bytes]) -> tuple[Refusal, ...]:
        return self._refusals

    def dump(self, _kind: int, payload: bytes) -> Generator[list[bytes]]:
        yield self._listings.get(rt.TC_HEADER.unpack(payload)[3], [])


def test_a_filter_is_listed_with_its_place_its_words_and_its_program() -> None:
    payload = listed(0x10003, "branchline-once fd00::/48 0123")
    assert filters._seen("ingress", payload) == Seen(
        Place("ingress", PRIORITY, 0x10003), ("branchline-once", "fd00::/48", "0123"), 5
    )


def test_what_is_no_program_is_passed_over() -> None:
    assert filters._seen("ingress", listed(1, "a", kind="u32")) is None
    assert filters._seen("ingress", listed(0, "a")) is None  # the head of a priority


@given(st.binary(max_size=80))
def test_no_listing_breaks_the_reading(octets: bytes) -> None:
    head = rt.TC_HEADER.pack(0, 8, 1, 0, PRIORITY << 16)
    filters._seen("ingress", head + octets)
    filters._seen("egress", head + text(1, "bpf") + nested(2, octets))


def test_both_families_share_one_trie() -> None:
    found = destination("192.168.3.0/24")
    assert found == (96 + 24).to_bytes(4, "little") + bytes(10) + b"\xff\xff\xc0\xa8\x03\x00"
    found = destination("2001:db8::/32")
    assert found == (32).to_bytes(4, "little") + b"\x20\x01\x0d\xb8" + bytes(12)


def test_what_stands_before_a_prefix_counts_as_part_of_it() -> None:
    found = destination("2001:db8::/32", b"\x10\0\0\0")
    assert found == (64).to_bytes(4, "little") + b"\x10\0\0\0\x20\x01\x0d\xb8" + bytes(12)
    assert destination("0.0.0.0/0", b"\x10\0\0\0")[:4] == (32 + 96).to_bytes(4, "little")


def test_the_instance_of_all_places_is_ours_or_that_of_the_most() -> None:
    assert common_instance([5, 5, 7], 7) == 7
    assert common_instance([5, 7, 7], 9) == 7
    assert common_instance([5, 7], None) == 7
    assert common_instance([], 9) is None


def test_a_program_that_is_not_built_or_broken_is_an_error_of_the_system(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(FileNotFoundError):
        filters.built("nothing")
    assert not filters.is_built("nothing", "0123")
    assert filters.is_built("once", filters.built("once").digest)
    assert not filters.is_built("once", "0123")
    monkeypatch.setattr(Path, "read_bytes", lambda _: b"no object")
    with pytest.raises(OSError, match="no BPF object"):
        filters.built.__wrapped__("once")


def test_a_deletion_is_done_at_once_and_what_is_gone_is_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = Place("ingress", PRIORITY, 1)
    monkeypatch.setattr(socket, "if_nametoindex", lambda _: 8)
    for code in (errno.ENOENT, errno.ENODEV, errno.EINVAL):
        gone = BpfFilters(Answers(Refusal(0, code, "gone")))
        assert gone.begin(Delete(KEY, ONCE), place) is None
        assert gone.begin(Add(KEY, ONCE), place) == 8
    with pytest.raises(KernelError):
        BpfFilters(Answers(Refusal(0, errno.EPERM, "no"))).begin(Delete(KEY, ONCE), place)


def test_a_device_that_is_gone_matters_only_to_what_is_to_hang_on_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone(name: str) -> int:
        msg = "no interface with this name"
        raise OSError(msg)

    monkeypatch.setattr(socket, "if_nametoindex", gone)
    found, place = BpfFilters(Answers()), Place("ingress", PRIORITY, 1)
    assert found.begin(Delete(KEY, ONCE), place) is None
    with pytest.raises(KernelError) as raised:
        found.begin(Add(KEY, ONCE), place)
    assert raised.value.errno == errno.ENODEV


def test_both_directions_of_a_device_are_listed() -> None:
    listings = {HOOKS[hook]: [listed(1, hook), listed(0, hook)] for hook in HOOKS}
    found = list(BpfFilters(Answers(listings=listings)).listed(8))
    assert [(each.place.hook, each.words) for each in found] == [
        (hook, (hook,)) for hook in ("ingress", "egress")
    ]
