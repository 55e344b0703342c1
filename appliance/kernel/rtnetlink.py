"""Operations as rtnetlink messages (linux/{rtnetlink,if_link,if_addr,fib_rules,nexthop}.h).

This is the product's core at its rim: a move is encoded with precompiled structs, because a
general-purpose library needs about a millisecond for what takes ten microseconds here.
"""

import errno
import socket
import struct
from functools import lru_cache
from ipaddress import ip_network

from appliance.config.addressing import QDISC_HANDLE, ROUTE_PROTOCOL
from appliance.kernel.netlink import (
    CREATE,
    EXCL,
    REPLACE,
    REQUEST,
    attribute,
    attribute_u32,
    message,
    nested,
    text,
)
from appliance.plan.hierarchy import Node, burst, nodes
from appliance.plan.overlay import is_dummy, is_unshared
from appliance.plan.plan import (
    Add,
    Change,
    Delete,
    Device,
    DeviceAddress,
    Item,
    Key,
    Link,
    Nexthop,
    NexthopGroup,
    Op,
    Route,
    Rule,
    Shaper,
)

NEWLINK, DELLINK, GETLINK = 16, 17, 18
NEWADDR, DELADDR, GETADDR = 20, 21, 22
NEWROUTE, DELROUTE, GETROUTE = 24, 25, 26
NEWRULE, DELRULE, GETRULE = 32, 33, 34
NEWQDISC, GETQDISC, NEWTCLASS = 36, 38, 40
NEWNEXTHOP, DELNEXTHOP, GETNEXTHOP = 104, 105, 106

LINK_HEADER = struct.Struct("=BxHiII")  # family, type, index, flags, change
ADDRESS_HEADER = struct.Struct("=BBBBI")  # family, prefix length, flags, scope, index
ROUTE_HEADER = struct.Struct(
    "=BBBBBBBBI"
)  # family, dst, src, tos, table, proto, scope, type, flags
RULE_HEADER = struct.Struct("=BBBBBBBBI")  # family, dst, src, tos, table, 0, 0, action, flags
TC_HEADER = struct.Struct("=BxxxiIII")  # family, index, handle, parent, info
NEXTHOP_HEADER = struct.Struct("=BBBxI")  # family, scope, protocol, flags
GROUP_MEMBER = struct.Struct("=IBBH")  # id, weight - 1

IFNAME, MTU, LINKINFO, INFO_KIND = 3, 4, 18, 1
IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_FLAGS, IFA_PROTO = 1, 2, 4, 8, 11
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 4, 5, 6, 7
TCA_KIND, TCA_OPTIONS, TCA_STATS2, TCA_STATS_BASIC, TCA_STATS_QUEUE = 1, 2, 7, 1, 3
CAKE_BASE_RATE64, HTB_PARAMETERS = 2, 1
# Twice cell_log, linklayer, overhead, cell_align, mpu, rate; buffer, cbuffer, quantum, level, prio.
HTB_CLASS = struct.Struct("=BBHhHIBBHhHIIIIII")
_ETHERNET = 1  # TC_LINKLAYER_ETHERNET
RTA_METRICS, RTA_TABLE, RTA_NH_ID, RTAX_MTU = 8, 15, 30, 2
FRA_PRIORITY, FRA_FWMARK, FRA_TABLE, FRA_FWMASK, FRA_PROTOCOL = 6, 10, 15, 16, 21
FRA_SUPPRESS_PREFIXLEN = 14
NHA_ID, NHA_GROUP, NHA_OIF, NHA_GATEWAY = 1, 2, 5, 6
IFF_UP = 1
UNICAST, UNREACHABLE = 1, 7
ONLINK = 4
FAMILIES: dict[int, int] = {4: socket.AF_INET, 6: socket.AF_INET6}
_NODAD = 0x02
_ROOT, _ECHO = 0xFFFFFFFF, 0x08  # TC_H_ROOT, NLM_F_ECHO
_SCOPE_LINK, _SCOPE_ANY = 253, 255
_TO_TABLE = 1  # FR_ACT_TO_TBL

# A route by nexthop id, whole: header, rtmsg, table, priority, nexthop id, destination.
_ROUTE: dict[int, struct.Struct] = {
    family: struct.Struct(f"=IHHIIBBBBBBBBIHHIHHIHHIHH{size}s")
    for family, size in ((socket.AF_INET, 4), (socket.AF_INET6, 16))
}

# What says that the thing to be deleted is not there.
ABSENT = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.ENXIO, errno.EADDRNOTAVAIL})


def encode(op: Op) -> tuple[bytes, ...]:
    """The messages that carry an operation out, in order. Raises OSError for a missing device."""
    key, item = op.key, op.item
    if isinstance(op, Delete):
        return (_delete(key, item),)
    flags = CREATE | EXCL if isinstance(op, Add) else REPLACE
    match item:
        case Route():
            if flags == REPLACE and str(key.ident[1]).endswith("/0"):
                flags |= CREATE  # it went with the uplink's carrier, as its nexthop object did
            return (_route(key, item, flags),)
        case NexthopGroup():
            # One of ways to the internet goes with the carrier of the last of them.
            return (_nexthop(key, item, flags | CREATE),)
        case Nexthop():
            return (_nexthop(key, item, flags),)
        case Rule() if not isinstance(op, Add):
            # Rules cannot be replaced: the new one comes before the old one goes.
            return _rule(NEWRULE, CREATE | EXCL, key, item), _delete(key, op.before)
        case Rule():
            return (_rule(NEWRULE, flags, key, item),)
        case DeviceAddress():
            return (_address(NEWADDR, CREATE | EXCL, key, item),)
        case Device(kind, mtu, is_up):
            link = nested(LINKINFO, text(INFO_KIND, kind)) if isinstance(op, Add) else b""
            extra = attribute_u32(MTU, mtu) + link
            return (_link(str(key.ident[0]), is_up, extra, flags if link else 0),)
        case Link(is_up):
            return (_link(str(key.ident[0]), is_up),)
        case Shaper() if isinstance(op, Change):
            return _rates(str(key.ident[0]), item)
        case _:
            raise ValueError(key.kind)


def _rates(device: str, shaper: Shaper) -> tuple[bytes, ...]:
    """Other rates, in octets a second, and all else as it is."""
    index, major = socket.if_nametoindex(device), QDISC_HANDLE << 16
    if not shaper.is_hierarchy:
        # tc qdisc change dev DEVICE root handle b1: cake bandwidth RATE
        head = TC_HEADER.pack(0, index, major, _ROOT, 0)
        rate = attribute(CAKE_BASE_RATE64, struct.pack("=Q", shaper.rate_bps // 8))
        kind = text(TCA_KIND, "cake")
        return (message(NEWQDISC, 0, head + kind + nested(TCA_OPTIONS, rate)),)
    return tuple([_class(index, major, node, shaper.overhead) for node in nodes(shaper)])


def _class(index: int, major: int, node: Node, overhead: int) -> bytes:
    """`tc class change dev DEVICE parent b1:P classid b1:M htb ...`: see `hierarchy`."""
    head = TC_HEADER.pack(0, index, major | node.minor, major | node.parent, 0)
    rate, ceiling = node.rate_bps // 8, node.ceiling_bps // 8
    words = HTB_CLASS.pack(
        *(0, _ETHERNET, overhead, 0, 0, rate),
        *(0, _ETHERNET, overhead, 0, 0, ceiling),
        _ticks(burst(node.rate_bps), rate),
        _ticks(burst(node.ceiling_bps), ceiling),
        node.quantum,
        0,
        node.priority,
    )
    options = nested(TCA_OPTIONS, attribute(HTB_PARAMETERS, words))
    return message(NEWTCLASS, 0, head + text(TCA_KIND, "htb") + options)


def _ticks(octets: int, rate: int) -> int:
    """How long octets take at a rate, in units of 64 ns (PSCHED_SHIFT)."""
    return min(0xFFFFFFFF, octets * 1_000_000_000 // rate >> 6)


def _delete(key: Key, item: Item) -> bytes:
    match item:
        case Route():
            family, packed, size = _destination(str(key.ident[1]))
            head = ROUTE_HEADER.pack(family, size, 0, 0, 0, ROUTE_PROTOCOL, _SCOPE_ANY, 0, 0)
            table, metric = int(key.ident[0]), int(key.ident[2])
            body = attribute_u32(RTA_TABLE, table) + attribute_u32(RTA_PRIORITY, metric)
            return message(DELROUTE, 0, head + body + attribute(RTA_DST, packed))
        case Nexthop() | NexthopGroup():
            head = NEXTHOP_HEADER.pack(0, 0, 0, 0)
            return message(DELNEXTHOP, 0, head + attribute_u32(NHA_ID, int(key.ident[0])))
        case Rule():
            return _rule(DELRULE, 0, key, item)
        case DeviceAddress():
            return _address(DELADDR, 0, key, item)
        case Device():
            head = LINK_HEADER.pack(0, 0, 0, 0, 0)
            return message(DELLINK, 0, head + text(IFNAME, str(key.ident[0])))
        case _:
            raise ValueError(key.kind)


def _link(name: str, is_up: bool, extra: bytes = b"", flags: int = 0) -> bytes:
    head = LINK_HEADER.pack(0, 0, 0, IFF_UP if is_up else 0, IFF_UP)
    return message(NEWLINK, flags, head + text(IFNAME, name) + extra)


def link_up(name: str) -> bytes:
    """`ip link set NAME up`. Does nothing when it is."""
    return _link(name, is_up=True)


def get_root_qdisc(device: str) -> bytes:
    """Asks for the root qdisc of a device and its statistics. Raises OSError for a missing one."""
    head = TC_HEADER.pack(0, socket.if_nametoindex(device), 0, _ROOT, 0)
    return message(GETQDISC, _ECHO, head)  # before 6.7 the answer goes to listeners only, else


def _address(kind: int, flags: int, key: Key, item: DeviceAddress) -> bytes:
    device, interface = str(key.ident[0]), item.interface
    network = interface.network
    head = ADDRESS_HEADER.pack(
        FAMILIES[interface.version],
        network.prefixlen,
        0,
        _SCOPE_LINK if is_dummy(interface) else 0,
        socket.if_nametoindex(device),
    )
    packed = interface.ip.packed
    body = attribute(IFA_LOCAL, packed) + attribute(IFA_ADDRESS, packed)
    if kind == NEWADDR:
        if interface.version == 4 and network.prefixlen < 31:
            body += attribute(IFA_BROADCAST, network.broadcast_address.packed)
        if is_unshared(interface, device):
            body += attribute_u32(IFA_FLAGS, _NODAD)
        body += attribute(IFA_PROTO, bytes([ROUTE_PROTOCOL]))
    return message(kind, flags, head + body)


def _nexthop(key: Key, item: Nexthop | NexthopGroup, flags: int) -> bytes:
    ident = attribute_u32(NHA_ID, int(key.ident[0]))
    if isinstance(item, Nexthop):
        on_link = ONLINK if item.on_link else 0
        head = NEXTHOP_HEADER.pack(FAMILIES[item.family], 0, ROUTE_PROTOCOL, on_link)
        body = attribute_u32(NHA_OIF, socket.if_nametoindex(item.device))
        if item.gateway is not None:
            body += attribute(NHA_GATEWAY, item.gateway.packed)
    else:
        head = NEXTHOP_HEADER.pack(0, 0, ROUTE_PROTOCOL, 0)
        members = b"".join(GROUP_MEMBER.pack(hop, weight - 1, 0, 0) for hop, weight in item.members)
        body = attribute(NHA_GROUP, members)
    return message(NEWNEXTHOP, flags, head + ident + body)


def _route(key: Key, route: Route, flags: int) -> bytes:
    if route.nexthop is None:
        return _plain_route(key, route, flags)
    table, prefix, metric = key.ident
    family, packed, size = _destination(str(prefix))
    tail = b""
    if route.source is not None:
        tail = attribute(RTA_PREFSRC, route.source.packed)
    if route.mtu is not None:
        tail += _metrics(route.mtu)
    layout = _ROUTE[family]
    return (
        layout.pack(
            layout.size + len(tail),
            NEWROUTE,
            flags | REQUEST,
            0,
            0,
            family,
            size,
            0,
            0,
            0,
            ROUTE_PROTOCOL,
            0,
            UNICAST,
            0,
            8,
            RTA_TABLE,
            table,
            8,
            RTA_PRIORITY,
            metric,
            8,
            RTA_NH_ID,
            route.nexthop,
            4 + len(packed),
            RTA_DST,
            packed,
        )
        + tail
    )


def _plain_route(key: Key, route: Route, flags: int) -> bytes:
    """A route by device and gateway, or `unreachable`."""
    family, packed, size = _destination(str(key.ident[1]))
    kind = UNICAST if route.device is not None else UNREACHABLE
    is_direct = route.device is not None and route.gateway is None
    scope = _SCOPE_LINK if is_direct and family == socket.AF_INET else 0
    on_link = ONLINK if route.on_link else 0
    body = ROUTE_HEADER.pack(family, size, 0, 0, 0, ROUTE_PROTOCOL, scope, kind, on_link)
    body += attribute_u32(RTA_TABLE, int(key.ident[0]))
    body += attribute_u32(RTA_PRIORITY, int(key.ident[2]))
    body += attribute(RTA_DST, packed)
    if route.device is not None:
        body += attribute_u32(RTA_OIF, socket.if_nametoindex(route.device))
    if route.gateway is not None:
        body += attribute(RTA_GATEWAY, route.gateway.packed)
    if route.source is not None:
        body += attribute(RTA_PREFSRC, route.source.packed)
    if route.mtu is not None:
        body += _metrics(route.mtu)
    return message(NEWROUTE, flags, body)


def _rule(kind: int, flags: int, key: Key, rule: Rule) -> bytes:
    family, priority = int(key.ident[0]), int(key.ident[1])
    body = RULE_HEADER.pack(FAMILIES[family], 0, 0, 0, 0, 0, 0, _TO_TABLE, 0)
    body += attribute_u32(FRA_PRIORITY, priority) + attribute_u32(FRA_TABLE, rule.table)
    if rule.mark is not None:
        mask = 0xFFFFFFFF if rule.mask is None else rule.mask
        body += attribute_u32(FRA_FWMARK, rule.mark) + attribute_u32(FRA_FWMASK, mask)
    if rule.is_specific:
        body += attribute_u32(FRA_SUPPRESS_PREFIXLEN, 0)
    return message(kind, flags, body + attribute(FRA_PROTOCOL, bytes([ROUTE_PROTOCOL])))


@lru_cache(maxsize=64)
def _metrics(mtu: int) -> bytes:
    return nested(RTA_METRICS, attribute_u32(RTAX_MTU, mtu))


@lru_cache(maxsize=16384)
def _destination(prefix: str) -> tuple[int, bytes, int]:
    """(address family, packed address, prefix length); kept, since a move repeats its prefixes."""
    network = ip_network(prefix)
    return FAMILIES[network.version], network.network_address.packed, network.prefixlen
