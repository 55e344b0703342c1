"""A hierarchy as `tc -json -d` of iproute2 6.15 shows it: ours as a whole, or none of ours."""

from copy import deepcopy
from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.kernel.htb import NOT_OURS, is_hierarchy, read_hierarchy
from appliance.plan.hierarchy import leaf_handle, nodes
from appliance.plan.plan import Shaper, Share, SiteQueue

SHAPER = Shaper(
    19_000_000,
    78,
    is_ingress=False,
    shares=(Share(1, 5_000_000, 19_000_000), Share(3, 8_000, 1_000_000)),
    overlay="fd12:3456:789a::/48",
)
# A site that is held to a share, with two lines; a line of another; and what a third one sends.
SITES = replace(
    SHAPER,
    sites=(
        SiteQueue(4_000_000, 8_000_000),
        SiteQueue(3_000_000, 6_000_000, ("192.0.2.0/24", "2001:db8:2::/64"), "bl-1-1", within=1),
        SiteQueue(1_000_000, 2_000_000, ("192.0.2.0/24", "2001:db8:2::/64"), "bl-1-2", within=1),
        SiteQueue(1_000_000, 5_000_000, ("198.51.100.7/32", "2001:db8::7/128"), "bl-1-1"),
        SiteQueue(8_000, 19_000_000, ("203.0.113.0/24",), is_received=True),
    ),
)


def shown(shaper: Shaper) -> dict[str, list[dict[str, Any]]]:
    """What tc prints of a shaper."""
    cake = {
        "flowmode": "triple-isolate",
        "wash": False,
        "split_gso": True,
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
        each |= {"parent": f"b1:{node.parent:x}"} if node.parent else {"root": True}
        if not node.leaf:
            classes.append({**each, "level": 7})
            continue
        kind, *words = node.leaf.split()
        options = {"limit": 1000, "flows": 128, "ecn": True}
        if kind == "cake":
            options = {**cake, "bandwidth": words[0], "diffserv": words[1], "nat": "nat" in words}
        handle = leaf_handle(node.minor)
        parent = f"b1:{node.minor:x}"
        qdiscs.append(
            {"kind": kind, "handle": f"{handle:x}:", "parent": parent, "options": options}
        )
        each |= {"leaf": f"{handle:#x}", "level": 0}
        classes.append({**each, "prio": node.priority, "quantum": node.quantum})
    keys = {"eth_type": "ipv6", "ip_tos": 192, "ip_tos_mask": "c0", "src_ip": shaper.overlay}
    options = {"handle": 1, "classid": "b1:10", "keys": keys, "not_in_hw": True}
    filters = entry(1, "ipv6", "flower", options)
    for version, protocol in ((4, "ip"), (6, "ipv6")):
        own = [
            (position, queue, network)
            for position, queue in enumerate(shaper.sites)
            for network in map(ip_network, queue.networks)
            if network.version == version
        ]
        for number, (position, queue, network) in enumerate(own):
            side = "src_ip" if queue.is_received else "dst_ip"
            host = network.prefixlen == network.max_prefixlen
            keys = {side: str(network.network_address if host else network)}
            keys |= {"eth_type": f"ipv{version}"}
            options = {"handle": number + 1, "classid": f"b1:{0x20 + position:x}", "keys": keys}
            options |= {"indev": queue.device} if queue.device else {}
            filters += entry(2 + (version == 6), protocol, "flower", options)[number > 0 :]
    for number, share in enumerate(shaper.shares):
        fw = {"mark": f"{share.class_index << 28:#x}", "mask": "0xf0000000"}
        found = entry(4, "all", "fw", {"fw": fw, "classid": f"b1:{share.class_index:x}"})
        filters += found[number > 0 :]  # one head for each priority
    return {"qdiscs": qdiscs, "classes": classes, "filters": filters}


def entry(pref: int, protocol: str, kind: str, options: dict[str, Any]) -> list[dict[str, Any]]:
    head = {"protocol": protocol, "pref": pref, "kind": kind, "chain": 0}
    return [head, {**head, "options": options}]


def test_what_was_made_is_read_back() -> None:
    many = tuple([SiteQueue(8_000, 1_000_000, (f"10.0.{n}.0/24",)) for n in range(40)])
    for shaper in (*(SHAPER, SITES, replace(SITES, shares=()), replace(SITES, sites=many)),):
        assert read_hierarchy(**shown(shaper)) == shaper
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


@pytest.mark.parametrize("shaper", [SHAPER, SITES])
@pytest.mark.parametrize("part", ["qdiscs", "classes", "filters"])
def test_what_somebody_added_or_removed_is_made_anew(part: str, shaper: Shaper) -> None:
    seen = shown(shaper)
    for place in range(len(seen[part])):
        less = deepcopy(seen)
        removed = less[part].pop(place)
        if part != "filters" or "options" in removed:
            assert not read_hierarchy(**less).is_like(shaper), removed
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
