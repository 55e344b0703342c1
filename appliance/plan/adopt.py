"""Read the steering back from what is observed, so that a restarted supervisor moves nothing.

The inverse of `steer`. It never guesses: what no route of ours says is left out.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from appliance.config.addressing import (
    class_table,
    internet_table,
    management_address,
    plane_device,
    plane_nexthop,
)
from appliance.config.intent import Intent, Peer, TrafficClass, planes
from appliance.contract.ids import INTERNET, ClassName, PathId, Plane, SiteName, exit_plane
from appliance.core.steering import DEVICE_MTU, Assignment, Carrier, Steering
from appliance.plan.breakout import DEFAULT_ROUTE
from appliance.plan.duplicate import second_of, second_paths
from appliance.plan.overlay import EVERYWHERE
from appliance.plan.plan import (
    Key,
    Kind,
    Nexthop,
    NexthopGroup,
    Observed,
    Route,
    WireguardPeer,
)
from appliance.plan.steer import FAMILIES, METRIC


def steering_from(intent: Intent, observed: Observed) -> Steering:
    """The steering that the kernel follows.

    Carriers come in the order of their planes. Where the routes of one class to one site disagree,
    which a crash in the middle of a move leaves behind, the first prefix speaks for all.
    """
    hops = {plane_nexthop(p, family): p for p in planes(intent) for family in FAMILIES}
    seconds = second_paths(intent, observed)
    gateway = _gateway(intent, observed)
    assignments: dict[tuple[ClassName, SiteName], Assignment] = {}
    tables = {key.ident[0] for key in observed if key.kind is Kind.ROUTE}
    for each in intent.classes:
        is_bonded = each in intent.bonded
        for peer in intent.peers if class_table(each.index) in tables else ():
            for key in _routes(intent, each, peer):
                route = observed.get(key)
                if isinstance(route, Route):
                    carriers = _carriers(peer.name, route, observed, hops, is_bonded=is_bonded)
                    assignments[each.name, peer.name] = Assignment(
                        carriers,
                        None if route.mtu == DEVICE_MTU else route.mtu,
                        second_of(seconds, carriers, each.name, peer),
                    )
                    break
        if (outside := _internet(intent, each, observed, hops, gateway)) is not None:
            assignments[each.name, INTERNET] = outside
    detours = MappingProxyType(_detours(intent, observed))
    return Steering(MappingProxyType(assignments), detours, gateway)


def _gateway(intent: Intent, observed: Observed) -> SiteName | None:
    """The site that everything else comes from, as the tunnels have it."""
    for name in intent.gateways:
        peer = intent.peer(name)
        if peer is None:
            continue
        for plane in planes(intent):
            seen = observed.get(Key(Kind.PEER, (plane_device(plane), peer.public_key)))
            if isinstance(seen, WireguardPeer) and seen.allowed_ips >= EVERYWHERE:
                return name
    return None


def _internet(
    intent: Intent,
    each: TrafficClass,
    observed: Observed,
    planes_of: Mapping[int, Plane],
    gateway: SiteName | None,
) -> Assignment | None:
    """What carries a class to the internet; None without a route there.

    The first address family with a carrier speaks for both.
    """
    hops = {
        plane_nexthop(exit_plane(u.slot), f): exit_plane(u.slot)
        for u in intent.uplinks
        for f in FAMILIES
    }
    found: Assignment | None = None
    for default in DEFAULT_ROUTE.values():
        route = observed.get(Key(Kind.ROUTE, (internet_table(each.index), default, METRIC)))
        if isinstance(route, Route):
            found = Assignment(_carriers(INTERNET, route, observed, hops))
            if not found.carriers and gateway is not None:
                size = None if route.mtu == DEVICE_MTU else route.mtu
                is_bonded = each in intent.bonded
                found = Assignment(
                    _carriers(gateway, route, observed, planes_of, is_bonded=is_bonded), size
                )
            if found.carriers:
                break
    return found


def _routes(intent: Intent, each: TrafficClass, peer: Peer) -> Iterator[Key]:
    table = class_table(each.index)
    for prefix in peer.prefixes:
        yield Key(Kind.ROUTE, (table, str(prefix), METRIC))
    if each is intent.default_class:
        management = management_address(intent.overlay, peer.site_id)
        yield Key(Kind.ROUTE, (table, f"{management}/128", METRIC))


def _carriers(
    site: SiteName,
    route: Route,
    observed: Observed,
    hops: Mapping[int, Plane],
    *,
    is_bonded: bool = False,
) -> tuple[Carrier, ...]:
    if route.nexthop is None:
        return ()
    if route.nexthop in hops:
        return (Carrier(PathId(site, hops[route.nexthop])),)
    group = observed.get(Key(Kind.GROUP, (route.nexthop,)))
    if not isinstance(group, NexthopGroup):
        return ()
    members = sorted((hops[hop], weight) for hop, weight in group.members if hop in hops)
    if is_bonded:  # the weights tell which comes first
        members = [(plane, 1) for plane, _ in sorted(members, key=lambda m: (-m[1], m[0]))]
    return tuple(Carrier(PathId(site, plane), weight) for plane, weight in members)


def _detours(intent: Intent, observed: Observed) -> dict[Plane, Plane]:
    devices = {plane_device(p): p for p in planes(intent)}
    found: dict[Plane, Plane] = {}
    for plane in planes(intent):
        for family in FAMILIES:
            hop = observed.get(Key(Kind.NEXTHOP, (plane_nexthop(plane, family),)))
            if isinstance(hop, Nexthop) and devices.get(hop.device, plane) != plane:
                found[plane] = devices[hop.device]
    return found
