"""What the programs are told, and how their filters are known again. Loading them is the lab's."""

import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.kernel import duplicate
from appliance.kernel.ebpf import MapSpec, parse_object
from appliance.kernel.filters import BpfFilters, Place, Seen, destination
from appliance.kernel.netlink import Netlink
from appliance.plan.plan import Copy, Key, Kind, Once

ARRAY, LRU_HASH, LPM_TRIE = 2, 9, 11
PLACES = Path(duplicate.__file__).parent
NAMES = {7: "bl-2-2", 8: "bl-1-1"}
INGRESS, EGRESS = 45312, 45313


def built(name: str):
    file = PLACES / f"{name}.bpf.o"
    assert file.exists(), "type: make bpf"
    return parse_object(file.read_bytes(), name)


def seen(hook: str, priority: int, handle: int, name: str):
    found = Seen(Place(hook, priority, handle), tuple(name.split(" ")), 5)
    return duplicate._seen("bl-1-1", found, NAMES)


def test_the_maps_are_those_that_are_filled_in() -> None:
    maps = built("twice").maps
    assert maps["settings_of"] == MapSpec(ARRAY, 4, duplicate._COPY_SETTINGS.size, 1)
    assert maps["prefixes"] == MapSpec(LPM_TRIE, len(destination("::/0")), 4, 4096)
    maps = built("once").maps
    assert maps["settings_of"] == MapSpec(ARRAY, 4, duplicate._ONCE_SETTINGS.size, 1)
    assert maps["seen"] == MapSpec(LRU_HASH, 8, 8, 65536)


def test_packets_of_the_overlay_are_known_by_their_first_octets() -> None:
    assert duplicate._first_octets("fd12:3456:789a::/48").hex() == "fd123456789a0000"


def test_filters_are_known_again_by_their_names() -> None:
    once = Once("fd12:3456:789a::/48")
    found = seen("ingress", INGRESS, 1, duplicate._once_name(once))
    assert found == (Key(Kind.ONCE, ("bl-1-1",)), once)
    for copy, index in ((Copy("bl-2-2", "all"), 7), (Copy(None, "0123abcd"), 0)):
        found = seen("egress", EGRESS, 0x10003, duplicate._copy_name(copy, index))
        assert found == (Key(Kind.COPY, ("bl-1-1", 1, 3)), copy)


def test_one_that_somebody_changed_or_that_is_of_another_build_is_another() -> None:
    copy = Copy("bl-2-2", "all")
    name = duplicate._copy_name(copy, 7)
    for wrong in (
        name.replace(" 7 ", " 9 "),  # the plane was made anew
        name[:-1] + ("0" if name[-1] != "0" else "1"),
        name + " more",
        "twice",
        "",
    ):
        found = seen("egress", EGRESS, 0x10003, wrong)
        assert found is not None
        assert found[1] == Copy(duplicate.STRANGE, "")
    found = seen("ingress", INGRESS, 1, "branchline-once fd00::/48 0")
    assert found is not None
    assert found[1] == Once(duplicate.STRANGE)


def test_what_is_not_at_a_place_of_ours_is_passed_over() -> None:
    name = duplicate._once_name(Once("fd00::/48"))
    assert seen("ingress", INGRESS + 1, 1, name) is None
    assert seen("egress", EGRESS + 1, 1, name) is None


@given(st.text(max_size=80))
def test_no_name_breaks_the_reading(name: str) -> None:
    for begin in ("", "branchline-once ", "branchline-copy "):
        assert seen("ingress", INGRESS, 1, begin + name) is not None
        assert seen("egress", EGRESS, 1, begin + name) is not None


class NoNetlink(Netlink):
    def __init__(self) -> None:
        pass


def test_without_bpf_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    duplication = duplicate.Duplication(BpfFilters(NoNetlink()))
    assert duplication.trouble() == "not outside of the lab"  # tests/unit/conftest.py

    def missing(_: str) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(duplicate, "built", missing)
    assert duplication.trouble() == "No such file or directory"
