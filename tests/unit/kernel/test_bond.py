"""What the program is told, and how its filters are known again. Loading it is the lab's."""

import errno
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.kernel import bond
from appliance.kernel import rtnetlink as rt
from appliance.kernel.ebpf import MapSpec, parse_object
from appliance.kernel.filters import HOOKS, BpfFilters, Place, Seen, destination
from appliance.kernel.kernel import KernelError
from appliance.kernel.netlink import Netlink, attribute, nested, text
from appliance.plan.bond import Bonder
from appliance.plan.plan import MOST_BONDED, Add, Bond, Delete, Key, Kind, Stripe
from tests.unit.plan import examples as ex

LRU_HASH, LPM_TRIE = 9, 11
OBJECT = Path(bond.__file__).with_name("bond.bpf.o")
PRIORITY = 45314
ITEM = Bond(
    "0123abcd",
    (
        Stripe(1, ("192.168.3.0/24", "2001:db8:3::/48"), ("bl-1-1", "bl-2-2")),
        Stripe(2, ("192.168.2.0/24",), ()),
    ),
)
INDEXES = {"bl-1-1": 8, "bl-2-2": 7}
NAMES = {index: name for name, index in INDEXES.items()}


def seen(name: str, indexes: dict[str, int]) -> Bond:
    found = Seen(Place("egress", PRIORITY, 1), tuple(name.split(" ")), 5)
    return bond._seen(found, bond._digest(indexes))


def test_the_maps_are_those_that_are_filled_in() -> None:
    assert OBJECT.exists(), "type: make bpf"
    maps = parse_object(OBJECT.read_bytes(), "bond").maps
    key = destination("::/0", bytes(bond._CLASS.size))
    assert maps["bonds"] == MapSpec(LPM_TRIE, len(key), bond._BOND.size, 65536)
    assert maps["queues"].kind == LRU_HASH
    assert maps["queues"].key_size == 8
    assert bond._BOND.size == 4 + 4 * MOST_BONDED


def test_a_destination_is_a_class_and_a_prefix_of_either_family() -> None:
    members = bond._BOND.pack(2, 8, 7, *[0] * (MOST_BONDED - 2))
    four = (32 + 96 + 24).to_bytes(4, "little") + b"\x10\0\0\0" + bytes(10) + b"\xff\xff"
    six = (32 + 48).to_bytes(4, "little") + b"\x10\0\0\0" + b"\x20\x01\x0d\xb8\0\x03" + bytes(10)
    other = (32 + 96 + 24).to_bytes(4, "little") + b"\x20\0\0\0" + bytes(10) + b"\xff\xff"
    assert bond._entries(ITEM, INDEXES) == {
        four + b"\xc0\xa8\x03\x00": members,
        six: members,
        other + b"\xc0\xa8\x02\x00": bytes(bond._BOND.size),
    }


def test_no_more_devices_are_told_than_there_is_room_for() -> None:
    many = {f"bl-{n}-1": n for n in range(1, MOST_BONDED + 3)}
    stripe = Stripe(1, ("192.168.3.0/24",), tuple(many))
    (value,) = bond._entries(Bond("", (stripe,)), many).values()
    assert bond._BOND.unpack(value) == (MOST_BONDED, *range(1, MOST_BONDED + 1))


def test_a_plan_has_no_more_members_than_that() -> None:
    ends = range(1, 5)
    uplinks = tuple(ex.uplink(n, f"line{n}", f"eth{n}") for n in ends)
    far = replace(
        ex.BRANCH.peers[0],
        uplinks=tuple(replace(ex.BRANCH.peers[0].uplinks[0], slot=u.slot) for u in uplinks),
    )
    intent = replace(ex.BONDED, uplinks=uplinks, peers=(far,))
    all_of_them = ex.carried(*(ex.path("hq", x, y) for x in ends for y in ends))
    steering = replace(ex.BONDED_STEERING, assignments={(ex.BULK, ex.HQ): all_of_them}, detours={})
    assert len(Bonder(intent).items(steering)) == MOST_BONDED


def test_a_filter_is_known_again_by_its_name() -> None:
    name = bond._name(ITEM, INDEXES)
    assert len(name) < 256  # CLS_BPF_NAME_LEN
    assert seen(name, dict(reversed(INDEXES.items()))) == ITEM


def test_one_that_somebody_changed_or_that_is_of_another_build_is_another() -> None:
    name = bond._name(ITEM, INDEXES)
    strange = Bond(bond.STRANGE)
    assert seen(name, {**INDEXES, "bl-2-2": 9}) == strange  # the plane was made anew
    assert seen(name, {"bl-1-1": 8}) == strange  # and has no filter yet
    assert seen(name.replace("0123abcd", "4567"), INDEXES) == Bond("4567")
    for wrong in (
        name[:-1] + ("0" if name[-1] != "0" else "1"),
        name + " more",
        name.replace("-bond", "-once"),
        "bond",
        "",
    ):
        assert seen(wrong, INDEXES) == strange


class Listing(Netlink):
    """Says the same of each device: one filter, of this name and program."""

    def __init__(self, filters: dict[int, tuple[str, int]], priority: int = PRIORITY) -> None:
        self._filters, self._priority = filters, priority

    def dump(self, _kind: int, payload: bytes) -> Generator[list[bytes]]:
        _, index, _, parent, _ = rt.TC_HEADER.unpack(payload)
        if parent == HOOKS["egress"] and index in self._filters:
            name, program = self._filters[index]
            head = rt.TC_HEADER.pack(0, index, 1, parent, self._priority << 16 | 0x300)
            options = nested(2, text(7, name), attribute(11, program.to_bytes(4, "little")))
            yield [head + text(1, "bpf") + options]


def observed(listing: Listing, hooked: tuple[str, ...] = tuple(INDEXES)) -> dict[str, Bond]:
    found = bond.Bonding(BpfFilters(listing)).observe(hooked, {**NAMES, 3: "eth0"})
    assert {key.kind for key in found} <= {Kind.BOND}
    return {str(key.ident[0]): item for key, item in found.items() if isinstance(item, Bond)}


def test_what_was_made_is_observed() -> None:
    name = bond._name(ITEM, INDEXES)
    made = {8: (name, 5), 7: (name, 5), 3: (name, 5)}
    assert observed(Listing(made), ("bl-1-1", "bl-2-2", "eth0", "bl-9-9")) == {
        "bl-1-1": ITEM,
        "bl-2-2": ITEM,
    }
    assert observed(Listing(made, PRIORITY + 1)) == {}
    assert observed(Listing(made), ()) == {}


def test_one_that_is_another_instance_than_the_others_is_another() -> None:
    indexes = {**INDEXES, "bl-1-2": 6}
    name = bond._name(ITEM, indexes)
    listing = Listing({8: (name, 5), 7: (name, 5), 6: (name, 9)})
    found = bond.Bonding(BpfFilters(listing)).observe(
        tuple(indexes), {index: device for device, index in indexes.items()}
    )
    assert {str(k.ident[0]) for k, i in found.items() if i == ITEM} == {"bl-1-1", "bl-2-2"}
    assert found[Key(Kind.BOND, ("bl-1-2",))] == Bond(bond.STRANGE)


def test_while_one_is_missing_the_others_are_something_else() -> None:
    listing = Listing({8: (bond._name(ITEM, INDEXES), 5)})
    assert observed(listing) == {"bl-1-1": Bond(bond.STRANGE)}


@given(st.text(max_size=80), st.integers(0, 2**32 - 1))
def test_no_name_breaks_the_reading(name: str, program: int) -> None:
    for begin in ("", "branchline-bond "):
        found = observed(Listing({8: (begin + name.replace("\0", ""), program)}))
        assert found == {"bl-1-1": Bond(bond.STRANGE)}


@given(st.binary(max_size=80))
def test_no_listing_breaks_the_reading(octets: bytes) -> None:
    class Anything(Netlink):
        def __init__(self) -> None:
            pass

        def dump(self, _kind: int, payload: bytes) -> Generator[list[bytes]]:
            _, index, _, parent, _ = rt.TC_HEADER.unpack(payload)
            head = rt.TC_HEADER.pack(0, index, 1, parent, PRIORITY << 16)
            yield [head + octets, head + text(1, "bpf") + nested(2, octets)]

    found = bond.Bonding(BpfFilters(Anything())).observe(tuple(INDEXES), NAMES)
    assert set(found.values()) <= {Bond(bond.STRANGE)}


def test_what_is_to_be_taken_from_a_device_that_is_gone_is_gone() -> None:
    bonding = bond.Bonding(BpfFilters(Listing({})))
    nowhere = Key(Kind.BOND, ("bl-nowhere",))
    bonding.apply(Delete(nowhere, ITEM))
    with pytest.raises(KernelError) as raised:
        bonding.apply(Add(nowhere, ITEM))
    assert raised.value.errno == errno.ENODEV


def test_a_member_that_is_missing_is_refused() -> None:
    bonding = bond.Bonding(BpfFilters(Listing({})))
    with pytest.raises(KernelError) as raised:
        bonding.apply(Add(Key(Kind.BOND, ("lo",)), ITEM))
    assert raised.value.errno == errno.ENODEV


def test_without_bpf_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    bonding = bond.Bonding(BpfFilters(Listing({})))
    assert bonding.trouble() == "not outside of the lab"  # tests/unit/conftest.py

    def missing(_: str) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(bond, "built", missing)
    assert bonding.trouble() == "No such file or directory"
