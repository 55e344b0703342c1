"""Does this kernel have what we need? Found out by trying, never by version.

For the first start of a boot, and for what another configuration needs in addition: trying makes
objects under a name of ours and removes them again.
"""

import asyncio
import errno
import re
import socket
from collections.abc import Callable, Mapping
from ipaddress import ip_interface

from appliance.config.addressing import (
    DEVICE_PREFIX,
    FILTER_PRIORITY_FIRST,
    LOG_GROUP,
    NEXTHOP_ID_BASE,
    NFT_TABLE,
    TABLE_BASE,
)
from appliance.kernel import listing, tc
from appliance.kernel import rtnetlink as rt
from appliance.kernel.kernel import KernelError, MissingFeature
from appliance.kernel.netlink import Netlink, collect
from appliance.kernel.process import ProcessError, run
from appliance.kernel.sysctl import read_sysctl
from appliance.plan.hierarchy import FEW_SITES
from appliance.plan.plan import (
    Add,
    Clsact,
    Delete,
    Device,
    DeviceAddress,
    Item,
    Key,
    Kind,
    Nexthop,
    Redirect,
    Route,
    Shaper,
    Share,
    SiteQueue,
)

_DEVICE = f"{DEVICE_PREFIX}probe"
_PLANE = re.compile(rf"{DEVICE_PREFIX}\d+-\d+")  # as plane_device names them
_HOP = NEXTHOP_ID_BASE + 0xFFFF
_TABLE = TABLE_BASE + 0xFFFF
_KERNEL = "use a kernel of 6.1 or later with"


def is_proven() -> bool:
    """Does the kernel hold a plane of ours? Then it could make it, and is not tried."""
    return any(_PLANE.fullmatch(name) for _, name in socket.if_nameindex())


async def missing_features() -> tuple[MissingFeature, ...]:
    """What is missing; empty on a box that can do it all. Needs CAP_NET_ADMIN.

    What can only be tried with something that is missing itself is not judged, and not told.
    """
    netlink = Netlink(socket.NETLINK_ROUTE)
    try:
        found = _rtnetlink(netlink)
    finally:
        netlink.close()
    if read_sysctl("net/ipv6/conf/all/forwarding") is None:
        found.append(MissingFeature("IPv6", "boot without ipv6.disable=1: the overlay needs it"))
    found += await _nftables()
    return tuple(found)


async def missing_for_shaping(*, has_shares: bool) -> tuple[MissingFeature, ...]:
    """What shaping lacks; empty when nothing. Needs CAP_NET_ADMIN."""
    netlink = Netlink(socket.NETLINK_ROUTE)
    key = Key(Kind.DEVICE, (_DEVICE,))
    try:
        # The kernel may load a module meanwhile, from a slow disk.
        if not await asyncio.to_thread(_can_anew, netlink, key, Device("ifb", 1500)):
            return (MissingFeature("ifb devices", f"{_KERNEL} CONFIG_IFB, or: modprobe ifb"),)
        return await _traffic_control(_SHAPING | (_SHARES if has_shares else {}))
    finally:
        _undo(netlink, key)
        netlink.close()


_SHAPING: dict[MissingFeature, tuple[Key, Item]] = {
    MissingFeature("the CAKE shaper", f"{_KERNEL} CONFIG_NET_SCH_CAKE"): (
        Key(Kind.SHAPER, (_DEVICE,)),
        Shaper(1_000_000, 0, is_ingress=True),
    ),
    MissingFeature("clsact qdiscs", f"{_KERNEL} CONFIG_NET_SCH_INGRESS"): (
        Key(Kind.CLSACT, (_DEVICE,)),
        Clsact(),
    ),
    MissingFeature("flower filters", f"{_KERNEL} CONFIG_NET_CLS_FLOWER and _ACT_GACT"): (
        Key(Kind.REDIRECT, (_DEVICE, "egress", FILTER_PRIORITY_FIRST)),
        Redirect("ip", None, (1, 2)),
    ),
    MissingFeature("redirection", f"{_KERNEL} CONFIG_NET_CLS_MATCHALL and _ACT_MIRRED"): (
        Key(Kind.REDIRECT, (_DEVICE, "ingress", FILTER_PRIORITY_FIRST)),
        Redirect("all", _DEVICE),
    ),
}
_SHARES: dict[MissingFeature, tuple[Key, Item]] = {
    MissingFeature("shares of classes and sites", f"{_KERNEL} CONFIG_NET_SCH_HTB and _CLS_FW"): (
        Key(Kind.SHAPER, (_DEVICE,)),
        Shaper(1_000_000, 0, False, (Share(1, 100_000, 1_000_000),), "fd00::/48"),
    ),
    MissingFeature("queues of many sites", f"{_KERNEL} CONFIG_NET_SCH_FQ_CODEL"): (
        Key(Kind.SHAPER, (_DEVICE,)),
        Shaper(
            1_000_000,
            0,
            is_ingress=False,
            overlay="fd00::/48",
            sites=tuple(
                [SiteQueue(8_000, 8_000, (f"192.0.2.{n}/32",)) for n in range(FEW_SITES + 1)]
            ),
        ),
    ),
    MissingFeature("marks of flows", f"{_KERNEL} CONFIG_NET_ACT_CTINFO"): (
        Key(Kind.REDIRECT, (_DEVICE, "ingress", FILTER_PRIORITY_FIRST)),
        Redirect("all", _DEVICE, is_marked=True),
    ),
}


async def _traffic_control(
    tries: Mapping[MissingFeature, tuple[Key, Item]],
) -> tuple[MissingFeature, ...]:
    try:
        await run(["tc", "-V"])
    except ProcessError as error:
        return (MissingFeature("tc", f"install iproute2 ({error})"),)
    missing = []
    for feature, (key, item) in tries.items():
        try:
            # One shaper after the other: of the same name, no other kind can replace it.
            gone = [Delete(key, item)] if key.kind is Kind.SHAPER else []
            await tc.apply([*gone, Add(key, item)])
        except KernelError:
            missing.append(feature)
    return tuple(missing)


def _rtnetlink(netlink: Netlink) -> list[MissingFeature]:
    key = Key(Kind.DEVICE, (_DEVICE,))
    address = Key(Kind.ADDRESS, (_DEVICE, "fd00::1/128"))
    hop, route = Key(Kind.NEXTHOP, (_HOP,)), Key(Kind.ROUTE, (_TABLE, "fd00::/64", 100))
    wireguard = MissingFeature("WireGuard", f"{_KERNEL} CONFIG_WIREGUARD, or: modprobe wireguard")
    on_each_other: list[tuple[MissingFeature, Callable[[], bool]]] = [
        (
            MissingFeature("dummy devices", f"{_KERNEL} CONFIG_DUMMY, or: modprobe dummy"),
            lambda: _can(netlink, key, Device("dummy", 1500)),
        ),
        (
            MissingFeature("marked addresses", f"{_KERNEL} IFA_PROTO (5.18)"),
            lambda: (
                _can(netlink, address, DeviceAddress(ip_interface("fd00::1/128")))
                and _is_marked(netlink, address)
            ),
        ),
        (
            MissingFeature("nexthop objects", f"{_KERNEL} RTM_NEWNEXTHOP (5.3)"),
            lambda: _can(netlink, hop, Nexthop(6, _DEVICE)),
        ),
        (
            MissingFeature("routes by nexthop id", f"{_KERNEL} CONFIG_IPV6_MULTIPLE_TABLES"),
            lambda: _can(netlink, route, Route(nexthop=_HOP)),
        ),
    ]
    _undo(netlink, key)
    try:
        missing = [] if _can(netlink, key, Device("wireguard", 1420)) else [wireguard]
        _undo(netlink, key)
        for feature, is_there in on_each_other:
            if not is_there():
                missing.append(feature)
                break  # what follows stands on it, and would be blamed for its absence
        return missing
    finally:
        _undo(netlink, key)  # takes everything on it along


def _can(netlink: Netlink, key: Key, item: Item) -> bool:
    try:
        refused = netlink.send(rt.encode(Add(key, item)))
    except OSError:
        return False
    if any(refusal.errno == errno.EPERM for refusal in refused):
        raise PermissionError(errno.EPERM, "finding out what the kernel can do needs CAP_NET_ADMIN")
    return not refused


def _can_anew(netlink: Netlink, key: Key, item: Item) -> bool:
    _undo(netlink, key)
    return _can(netlink, key, item)


def _undo(netlink: Netlink, key: Key) -> None:
    netlink.send(rt.encode(Delete(key, Device("", 0))))


def _is_marked(netlink: Netlink, wanted: Key) -> bool:
    names = {socket.if_nametoindex(_DEVICE): _DEVICE}
    request = rt.ADDRESS_HEADER.pack(0, 0, 0, 0, 0)
    seen = (listing.address(p, names) for p in collect(netlink.dump(rt.GETADDR, request)))
    return any(key == wanted and is_ours for key, _, is_ours in seen)


async def _nftables() -> list[MissingFeature]:
    table = f"{NFT_TABLE}_probe"
    tries = {
        MissingFeature("nftables conntrack", f"{_KERNEL} CONFIG_NFT_CT"): (
            f"table inet {table} {{\nchain c {{\ntype filter hook prerouting priority mangle\n"
            "ct mark set ct mark and 0x0fffffff or 0x10000000\n}\n}\n"
        ),
        MissingFeature("nftables log", f"{_KERNEL} CONFIG_NFT_LOG and _NETFILTER_NETLINK_LOG"): (
            f"table inet {table} {{\nchain c {{\ntype filter hook prerouting priority mangle\n"
            f"log group {LOG_GROUP}\n}}\n}}\n"
        ),
        MissingFeature("nftables flowtable", f"{_KERNEL} CONFIG_NF_FLOW_TABLE_INET"): (
            f"table inet {table} {{\nflowtable f {{\n"
            "hook ingress priority filter\ndevices = { lo }\n}\n}\n"
        ),
        MissingFeature("nftables egress hook", f"{_KERNEL} CONFIG_NETFILTER_EGRESS (5.16)"): (
            f"table netdev {table} {{\nchain c {{\n"
            'type filter hook egress device "lo" priority -10\n}\n}\n'
        ),
    }
    try:
        await run(["nft", "--version"])
    except ProcessError as error:
        return [MissingFeature("nft", f"install nftables 1.0.6 or later ({error})")]
    missing = []
    for feature, script in tries.items():
        # `-c` lets the kernel check the whole transaction and then drops it.
        done = await run(["nft", "-c", "-f", "-"], input=script.encode())
        if done.status:
            missing.append(feature)
        await asyncio.sleep(0)
    return missing
