"""A hierarchy of HTB classes as `tc` shows it: a shaper of ours, or something that somebody made.

What is seen is compared with all that `plan/hierarchy.py` would make of the same rates, so that
nothing that was added, removed or changed passes for ours.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_network
from typing import Any

from appliance.config.addressing import CLASS_MARK_MASK, QDISC_HANDLE, class_mark
from appliance.plan.hierarchy import (
    CONTROL,
    CONTROL_PRIORITY,
    FIRST_SITE,
    MARKS_PRIORITY,
    OTHERS,
    ROOT,
    TOS,
    TOS_MASK,
    leaf_handle,
    nodes,
    site_filters,
)
from appliance.plan.plan import Shaper, Share, SiteQueue

Row = Mapping[str, Any]
NOT_OURS = Shaper(0, 0, is_ingress=False, shares=(Share(0, 0, 0),))  # has to go as a whole
_MAJOR = f"{QDISC_HANDLE:x}:"
_QDISC_OPTIONS = ("default", "bandwidth", "diffserv", "nat", "split_gso", "limit", "flows")


def is_hierarchy(qdisc: Row) -> bool:
    """Is this the root of one, with our handle?"""
    return qdisc.get("kind") == "htb" and qdisc.get("handle") == _MAJOR


def read_hierarchy(qdiscs: Sequence[Row], classes: Sequence[Row], filters: Sequence[Row]) -> Shaper:
    """The shaper that all this of one device is; `NOT_OURS` when it is none of ours."""
    # CAKE shows a class for each flow that waits in it.
    classes = [each for each in classes if each.get("class") != "cake"]
    seen = {str(each.get("handle")): each for each in classes}
    root = seen.get(f"{_MAJOR}{ROOT:x}", {})
    shares = tuple(
        [
            Share(index, _bps(share, "rate"), _bps(share, "ceil"))
            for index in range(1, OTHERS)
            if (share := seen.get(f"{_MAJOR}{index:x}")) is not None
        ]
    )
    overhead = root.get("overhead", 0)
    sites = tuple(_sites(seen, filters))
    if not (shares or sites) or type(overhead) is not int or not _bps(root, "rate"):
        return NOT_OURS
    shaper = Shaper(_bps(root, "rate"), overhead, False, shares, _overlay(filters), sites=sites)
    found = (
        [tuple(_qdisc(each)) for each in qdiscs],
        [tuple(_class(each)) for each in classes],
        [tuple(_filter(each)) for each in filters if "options" in each],
    )
    expected = (_expected_qdiscs(shaper), _expected_classes(shaper), _expected_filters(shaper))
    pairs = zip(found, expected, strict=True)
    is_ours = all(sorted(map(repr, seen)) == sorted(map(repr, ours)) for seen, ours in pairs)
    return shaper if is_ours else NOT_OURS


def _bps(row: Row, key: str) -> int:
    octets = row.get(key)
    return 8 * octets if type(octets) is int else 0


def _qdisc(row: Row) -> Iterator[object]:
    options = _mapping(row.get("options"))
    yield from (row.get("kind"), row.get("handle"), row.get("parent"))
    for key in _QDISC_OPTIONS:
        yield str(options.get(key))


def _expected_qdiscs(shaper: Shaper) -> Iterator[tuple[object, ...]]:
    yield ("htb", _MAJOR, None, f"{OTHERS:#x}", *["None"] * (len(_QDISC_OPTIONS) - 1))
    for node in nodes(shaper):
        if node.leaf:
            kind, *words = node.leaf.split()
            given = dict(zip(words[::2], words[1::2], strict=True)) if kind == "fq_codel" else {}
            if kind == "cake":
                given = {"bandwidth": words[0], "diffserv": words[1]}
                given |= {"nat": str("nat" in words), "split_gso": str("split-gso" in words)}
            handle, parent = f"{leaf_handle(node.minor):x}:", f"{_MAJOR}{node.minor:x}"
            yield (kind, handle, parent, *(given.get(key, "None") for key in _QDISC_OPTIONS))


def _class(row: Row) -> Iterator[object]:
    yield from (row.get(key) for key in ("class", "handle", "parent", "leaf", "prio", "quantum"))
    yield from (_bps(row, "rate"), _bps(row, "ceil"), row.get("overhead", 0))


def _expected_classes(shaper: Shaper) -> Iterator[tuple[object, ...]]:
    for node in nodes(shaper):
        parent = f"{_MAJOR}{node.parent:x}" if node.parent else None
        shown: tuple[object, ...] = (None,) * 3  # of a class that has others below it
        if node.leaf:
            shown = f"{leaf_handle(node.minor):#x}", node.priority, node.quantum
        rates = node.rate_bps, node.ceiling_bps
        yield "htb", f"{_MAJOR}{node.minor:x}", parent, *shown, *rates, shaper.overhead


def _sites(seen: Mapping[str, Row], filters: Sequence[Row]) -> Iterator[SiteQueue]:
    """The queues of sites, as far as they follow each other."""
    leading: dict[str, list[tuple[Row, str]]] = {}
    for each in filters:
        options = _mapping(each.get("options"))
        way = _mapping(options.get("keys")), str(options.get("indev", ""))
        leading.setdefault(str(options.get("classid")), []).append(way)
    places = {f"{_MAJOR}{minor:x}": minor for minor in range(FIRST_SITE, FIRST_SITE + len(seen))}
    for handle in places:
        if handle not in seen:
            return
        ways = leading.get(handle, [])
        is_received = any("src_ip" in keys for keys, _ in ways)
        side = "src_ip" if is_received else "dst_ip"
        networks = tuple([network for keys, _ in ways for network in _networks(keys.get(side))])
        device = min([device for _, device in ways], default="")
        row = seen[handle]
        within = places.get(str(row.get("parent")), FIRST_SITE - 1) - FIRST_SITE + 1
        rates = _bps(row, "rate"), _bps(row, "ceil")
        yield SiteQueue(*rates, networks, device, is_received, within)


def _networks(shown: object) -> Iterator[str]:
    """One, if it is one. A host has no prefix length in what tc shows."""
    with contextlib.suppress(ValueError):
        yield str(ip_network(str(shown)))


def _overlay(filters: Sequence[Row]) -> str:
    keys = (_mapping(_mapping(each.get("options")).get("keys")) for each in filters)
    return next((str(found["src_ip"]) for found in keys if "src_ip" in found), "")


def _filter(row: Row) -> Iterator[object]:
    options = _mapping(row.get("options"))
    yield from (row.get("protocol"), row.get("pref"), row.get("kind"), options.get("classid"))
    yield str(options.get("indev", ""))
    keys, mark = _mapping(options.get("keys")), _mapping(options.get("fw"))
    shown = [
        (key, next(_networks(value), value) if key in {"src_ip", "dst_ip"} else value)
        for key, value in (keys or mark).items()
    ]
    yield tuple(sorted(shown, key=str))


def _expected_filters(shaper: Shaper) -> Iterator[tuple[object, ...]]:
    control = f"{_MAJOR}{CONTROL:x}"
    keys = {"eth_type": "ipv6", "ip_tos": TOS, "ip_tos_mask": f"{TOS_MASK:x}"}
    shown = tuple(sorted([*keys.items(), ("src_ip", shaper.overlay)], key=str))
    yield "ipv6", CONTROL_PRIORITY, "flower", control, "", shown
    for each in site_filters(shaper):
        shown = tuple(sorted((("eth_type", f"ipv{each.version}"), (each.side, each.network))))
        classid = f"{_MAJOR}{each.minor:x}"
        yield each.protocol, each.priority, "flower", classid, each.device, shown
    for share in shaper.shares:
        mark = {"mark": f"{class_mark(share.class_index):#x}", "mask": f"{CLASS_MARK_MASK:#x}"}
        shown = tuple(sorted(mark.items(), key=str))
        classid = f"{_MAJOR}{share.class_index:x}"
        yield "all", MARKS_PRIORITY, "fw", classid, "", shown


def _mapping(value: object) -> Row:
    return value if isinstance(value, dict) else {}
