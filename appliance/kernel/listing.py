"""What the kernel lists over rtnetlink, as items of a plan. The inverse of `rtnetlink`.

Everything without our mark is left out here, at the first opportunity.
"""

import struct
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from typing import NamedTuple

from appliance.config.addressing import DEVICE_PREFIX, ROUTE_PROTOCOL
from appliance.config.intent import Interface
from appliance.kernel import rtnetlink as rt
from appliance.kernel.kernel import QueueCounters
from appliance.kernel.netlink import attributes
from appliance.plan.plan import (
    Device,
    DeviceAddress,
    Item,
    Key,
    Kind,
    Link,
    Nexthop,
    NexthopGroup,
    Route,
    Rule,
)

_VERSIONS = {family: version for version, family in rt.FAMILIES.items()}
_QUEUE = struct.Struct("=IIIII")  # length, backlog, drops, requeues, overlimits
_BASIC = struct.Struct("=QI")  # octets, packets
_U32 = struct.Struct("=I")
_ADDRESSES: Mapping[int, Callable[[bytes], IPv4Address | IPv6Address]] = {
    4: IPv4Address,
    6: IPv6Address,
}


class SeenLink(NamedTuple):
    """A device of this network namespace."""

    ifindex: int
    name: str
    kind: str  # "wireguard", "dummy", ... or "" for a physical one
    mtu: int
    is_up: bool


def link(payload: bytes) -> SeenLink:
    _, _, index, flags, _ = rt.LINK_HEADER.unpack_from(payload)
    found = attributes(payload, rt.LINK_HEADER.size)
    info = attributes(found.get(rt.LINKINFO, b""))
    return SeenLink(
        index,
        _text(found[rt.IFNAME]),
        _text(info.get(rt.INFO_KIND, b"")),
        _u32(found[rt.MTU]),
        bool(flags & rt.IFF_UP),
    )


def link_item(seen: SeenLink) -> tuple[Key, Item]:
    """A device of ours by its prefix, or the up flag of one that is not."""
    if seen.name.startswith(DEVICE_PREFIX):
        return Key(Kind.DEVICE, (seen.name,)), Device(seen.kind, seen.mtu, seen.is_up)
    return Key(Kind.LINK, (seen.name,)), Link(seen.is_up)


def address(payload: bytes, names: Mapping[int, str]) -> tuple[Key, DeviceAddress, bool]:
    """An address, and whether it bears our mark."""
    family, size, _, _, index = rt.ADDRESS_HEADER.unpack_from(payload)
    found = attributes(payload, rt.ADDRESS_HEADER.size)
    packed = found.get(rt.IFA_LOCAL, found.get(rt.IFA_ADDRESS, b""))
    interface: Interface = (
        IPv4Interface((packed, size))
        if _VERSIONS.get(family) == 4
        else IPv6Interface((packed, size))
    )
    key = Key(Kind.ADDRESS, (names.get(index, ""), str(interface)))
    return key, DeviceAddress(interface), found.get(rt.IFA_PROTO) == bytes([ROUTE_PROTOCOL])


def nexthop(payload: bytes, names: Mapping[int, str]) -> tuple[Key, Item] | None:
    """A nexthop object or group of ours."""
    family, _, protocol, flags = rt.NEXTHOP_HEADER.unpack_from(payload)
    if protocol != ROUTE_PROTOCOL:
        return None
    found = attributes(payload, rt.NEXTHOP_HEADER.size)
    ident = _u32(found[rt.NHA_ID])
    if (group := found.get(rt.NHA_GROUP)) is not None:
        members = ((hop, weight + 1) for hop, weight, _, _ in rt.GROUP_MEMBER.iter_unpack(group))
        return Key(Kind.GROUP, (ident,)), NexthopGroup(tuple(sorted(members)))
    device = names.get(_u32(found[rt.NHA_OIF]), "") if rt.NHA_OIF in found else ""
    version, via = _VERSIONS.get(family, family), found.get(rt.NHA_GATEWAY)
    gateway = _address(version, via) if via is not None and version in _ADDRESSES else None
    on_link = bool(flags & rt.ONLINK)
    return Key(Kind.NEXTHOP, (ident,)), Nexthop(version, device, gateway, on_link)


def qdisc(payload: bytes) -> tuple[int, str]:
    """The device of a queueing discipline, by its index, and what kind it is."""
    index: int = rt.TC_HEADER.unpack_from(payload)[1]
    return index, _text(attributes(payload, rt.TC_HEADER.size).get(rt.TCA_KIND, b""))


def queue(payload: bytes) -> QueueCounters | None:
    """What a queueing discipline counts (struct gnet_stats_basic, struct gnet_stats_queue)."""
    found = attributes(payload, rt.TC_HEADER.size)
    stats = attributes(found.get(rt.TCA_STATS2, b""))
    basic, waiting = stats.get(rt.TCA_STATS_BASIC, b""), stats.get(rt.TCA_STATS_QUEUE, b"")
    if len(basic) < _BASIC.size or len(waiting) < _QUEUE.size:
        return None
    octets, packets = _BASIC.unpack_from(basic)
    _, backlog, dropped, _, _ = _QUEUE.unpack_from(waiting)
    return QueueCounters(octets, packets, dropped, backlog)


def route_request(family: int) -> bytes:
    """Asks for our routes only: with strict checking the kernel leaves the others out itself."""
    return rt.ROUTE_HEADER.pack(rt.FAMILIES[family], 0, 0, 0, 0, ROUTE_PROTOCOL, 0, 0, 0)


def route(payload: bytes, names: Mapping[int, str]) -> tuple[Key, Route] | None:
    """A route of ours. One that we would never make compares unequal to every planned one."""
    family, size, _, _, table, protocol, _, kind, flags = rt.ROUTE_HEADER.unpack_from(payload)
    if protocol != ROUTE_PROTOCOL or family not in _VERSIONS:
        return None
    found = attributes(payload, rt.ROUTE_HEADER.size)
    version = _VERSIONS[family]
    prefix = _prefix(version, found.get(rt.RTA_DST, bytes(4 if version == 4 else 16)), size)
    metric = _u32(found[rt.RTA_PRIORITY]) if rt.RTA_PRIORITY in found else 0
    where = _u32(found[rt.RTA_TABLE]) if rt.RTA_TABLE in found else table
    key = Key(Kind.ROUTE, (where, prefix, metric))
    mtu = attributes(found.get(rt.RTA_METRICS, b"")).get(rt.RTAX_MTU)
    source = found.get(rt.RTA_PREFSRC)
    hop = found.get(rt.RTA_NH_ID)
    device = gateway = None
    if kind == rt.UNICAST and hop is None:
        device = names.get(_u32(found[rt.RTA_OIF]), "") if rt.RTA_OIF in found else ""
        gateway = _address(version, found[rt.RTA_GATEWAY]) if rt.RTA_GATEWAY in found else None
    elif kind not in (rt.UNICAST, rt.UNREACHABLE):
        device = f"route type {kind}"
    return key, Route(
        nexthop=_u32(hop) if hop is not None else None,
        device=device,
        gateway=gateway,
        source=_address(version, source) if source is not None else None,
        mtu=_u32(mtu) if mtu is not None else None,
        on_link=hop is None and bool(flags & rt.ONLINK),
    )


@lru_cache(maxsize=1 << 14)
def _prefix(version: int, destination: bytes, size: int) -> str:
    """Kept, since a hub has thousands, each in the tables of all classes."""
    return f"{_ADDRESSES[version](destination)}/{size}"


@lru_cache(maxsize=256)
def _address(version: int, packed: bytes) -> IPv4Address | IPv6Address:
    return _ADDRESSES[version](packed)


def rule(payload: bytes) -> tuple[Key, Rule] | None:
    """A rule of ours."""
    family = rt.RULE_HEADER.unpack_from(payload)[0]
    found = attributes(payload, rt.RULE_HEADER.size)
    if found.get(rt.FRA_PROTOCOL) != bytes([ROUTE_PROTOCOL]) or family not in _VERSIONS:
        return None
    mark = found.get(rt.FRA_FWMARK)
    mask = found.get(rt.FRA_FWMASK)
    key = Key(Kind.RULE, (_VERSIONS[family], _u32(found.get(rt.FRA_PRIORITY, bytes(4)))))
    return key, Rule(
        _u32(found.get(rt.FRA_TABLE, bytes(4))),
        _u32(mark) if mark is not None else None,
        _u32(mask) if mask is not None and mark is not None else None,
        found.get(rt.FRA_SUPPRESS_PREFIXLEN) == bytes(4),
    )


def each_rule(payloads: Iterator[bytes]) -> dict[Key, Item]:
    """Of two rules with one priority the first counts, which is the older.

    A crash in the middle of a change leaves both, and the older is the one that has to go.
    """
    found: dict[Key, Item] = {}
    for payload in payloads:
        if (seen := rule(payload)) is not None:
            found.setdefault(*seen)
    return found


def _u32(data: bytes) -> int:
    value: int = _U32.unpack_from(data)[0]
    return value


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")
