"""A hierarchy as `tc -json -d` of iproute2 6.15 shows it: ours as a whole, or none of ours."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.kernel.htb import NOT_OURS, is_hierarchy, read_hierarchy
from appliance.plan.hierarchy import leaf_handle, nodes
from appliance.plan.plan import Shaper, Share

SHAPER = Shaper(
    19_000_000,
    78,
    is_ingress=False,
    shares=(Share(1, 5_000_000, 19_000_000), Share(3, 8_000, 1_000_000)),
    overlay="fd12:3456:789a::/48",
)


def shown(shaper: Shaper) -> dict[str, list[dict[str, Any]]]:
    """What tc prints of a shaper."""
    cake = {
        "flowmode": "triple-isolate",
        "wash": False,
        "ingress": False,
        "raw": True,
        "overhead": 0,
    }
    root = {"r2q": 10, "default": "0xf", "direct_packets_stat": 0, "direct_qlen": 32}
    qdiscs: list[dict[str, Any]] = [
        {"kind": "htb", "handle": "b1:", "root": True, "refcnt": 2, "options": root}
    ]
    classes: list[dict[str, Any]] = []
    for node in nodes(shaper):
        each: dict[str, Any] = {"class": "htb", "handle": f"b1:{node.minor:x}"}
        each |= {"rate": node.rate_bps // 8, "ceil": node.ceiling_bps // 8, "overhead": 78}
        each |= {"linklayer": "ethernet", "burst": 3028, "cburst": 3028}
        if not node.leaf:
            classes.append({**each, "root": True, "level": 7})
            continue
        sorting, _, nat = node.leaf.partition(" ")
        handle = leaf_handle(node.minor)
        parent = f"b1:{node.minor:x}"
        options = {**cake, "bandwidth": "unlimited", "diffserv": sorting, "nat": nat == "nat"}
        qdiscs.append(
            {"kind": "cake", "handle": f"{handle:x}:", "parent": parent, "options": options}
        )
        each |= {"parent": "b1:ffff", "leaf": f"{handle:#x}", "level": 0}
        classes.append({**each, "prio": node.priority, "quantum": node.quantum})
    keys = {"eth_type": "ipv6", "ip_tos": 192, "ip_tos_mask": "c0", "src_ip": shaper.overlay}
    options = {"handle": 1, "classid": "b1:10", "keys": keys, "not_in_hw": True}
    filters = entry(1, "ipv6", "flower", options)
    for number, share in enumerate(shaper.shares):
        fw = {"mark": f"{share.class_index << 28:#x}", "mask": "0xf0000000"}
        found = entry(2, "all", "fw", {"fw": fw, "classid": f"b1:{share.class_index:x}"})
        filters += found[number > 0 :]  # one head for each priority
    return {"qdiscs": qdiscs, "classes": classes, "filters": filters}


def entry(pref: int, protocol: str, kind: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    head = {"protocol": protocol, "pref": pref, "kind": kind, "chain": 0}
    return [head, {**head, "options": options}]


def test_what_was_made_is_read_back() -> None:
    assert read_hierarchy(**shown(SHAPER)) == SHAPER
    assert is_hierarchy(shown(SHAPER)["qdiscs"][0])
    assert not is_hierarchy({"kind": "htb", "handle": "1:"})
    assert not is_hierarchy({"kind": "cake", "handle": "b1:"})


def test_flows_that_wait_are_nobodys_change() -> None:
    seen = shown(SHAPER)
    seen["classes"].append({"class": "cake", "handle": "b101:212", "parent": "b101:"})
    assert read_hierarchy(**seen) == SHAPER


@pytest.mark.parametrize(
    ("part", "place", "changed"),
    [
        ("qdiscs", 0, {"options": {"default": "0x1"}}),
        ("qdiscs", 1, {"kind": "fq_codel"}),
        ("qdiscs", 2, {"options": {"bandwidth": 1000, "diffserv": "diffserv4", "nat": True}}),
        ("classes", 0, {"rate": 1}),
        ("classes", 1, {"prio": 1}),
        ("classes", 1, {"rate": 7}),
        ("classes", 2, {"overhead": 0}),
        ("classes", 2, {"quantum": 1514 * 9}),
        ("classes", 3, {"leaf": "0x8001"}),
        ("classes", 4, {"ceil": 1000}),
        ("filters", 1, {"pref": 9}),
        ("filters", 3, {"options": {"classid": "b1:f", "keys": {}}}),
        ("filters", 4, {"options": {"classid": "b1:1", "fw": {"mark": "0x1", "mask": "0x1"}}}),
        ("filters", 1, {"options": {"classid": "b1:10", "keys": {"src_ip": "::/0"}}}),
    ],
)
def test_what_somebody_changed_is_none_of_ours(part: str, place: int, changed: Any) -> None:
    seen = shown(SHAPER)
    seen[part][place] |= changed
    assert read_hierarchy(**seen) == NOT_OURS


@pytest.mark.parametrize("part", ["qdiscs", "classes", "filters"])
def test_what_somebody_added_or_removed_is_none_of_ours(part: str) -> None:
    seen = shown(SHAPER)
    for place in range(len(seen[part])):
        less = deepcopy(seen)
        removed = less[part].pop(place)
        if part != "filters" or "options" in removed:
            assert read_hierarchy(**less) == NOT_OURS, removed
    another = {**seen[part][-1], "handle": "b1:5", "pref": 7}
    assert read_hierarchy(**{**seen, part: [*seen[part], another]}) == NOT_OURS


KEYS = ["kind", "handle", "rate", "ceil", "overhead", "options", "class", "prio"]
NAMES = st.sampled_from(["b1:", "b1:ffff", "b1:1"])
NESTED = st.dictionaries(st.sampled_from(["keys", "fw", "default"]), st.integers(), max_size=2)
VALUES = st.none() | st.integers() | st.text(max_size=5) | NAMES | NESTED
ROWS = st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES), max_size=4)
WHOLE = [{"handle": "b1:ffff", "rate": 1_000_000}, {"handle": "b1:1", "rate": 1000, "prio": {}}]


@given(ROWS, ROWS, ROWS)
def test_whatever_is_shown_is_read(qdiscs: Any, classes: Any, filters: Any) -> None:
    for seen in (classes, classes + WHOLE):
        assert read_hierarchy(qdiscs, seen, filters) == NOT_OURS
