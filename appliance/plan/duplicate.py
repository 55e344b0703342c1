"""Filters that send packets twice and let them in once (docs/adr/0016-voice-twice.md).

On the egress of the plane that carries a class, a copy goes into the plane of its second path. The
sites of a class that a plane carries mostly have the same second plane: one filter says it for all
of them, and others say it of the sites that differ. Decides nothing: steering names both paths.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256

from appliance.config.addressing import plane_device
from appliance.config.intent import Intent, Peer, TrafficClass, planes
from appliance.contract.ids import ClassName, PathId, Plane, SiteName
from appliance.core.steering import Carrier, Steering
from appliance.plan.plan import Clsact, Copy, Item, Key, Kind, Observed, Once
from appliance.plan.steer import site_prefixes

Seconds = Mapping[tuple[Plane, ClassName, int], Plane]  # by plane, class and site id; site 0 is all
ALL = "all"  # in place of a digest of prefixes


def duplicating_items(intent: Intent, steering: Steering) -> dict[Key, Item]:
    """Everything of a plan that duplicates. Empty while no policy does."""
    found: dict[Key, Item] = {}
    for plane in planes(intent) if intent.duplicated else ():
        device = plane_device(plane)
        found[Key(Kind.CLSACT, (device,))] = Clsact()
        found[Key(Kind.ONCE, (device,))] = Once(str(intent.overlay))
    for each in intent.duplicated:
        for plane, sites in _carried(intent, each.name, steering).items():
            found.update(_copies(each, plane, sites))
    return found


def second_paths(
    intent: Intent, observed: Observed
) -> Mapping[tuple[Plane, ClassName, int], Plane]:
    """Where copies go, by plane, class and site id, as far as it is observed; site 0 is all."""
    devices = {plane_device(p): p for p in planes(intent)}
    found: dict[tuple[Plane, ClassName, int], Plane] = {}
    for key, item in observed.items():
        if isinstance(item, Copy):
            device, index, site = key.ident
            plane, to = devices.get(str(device)), devices.get(item.to or "")
            for each in intent.duplicated:
                # An exception without a copy names the plane itself.
                if each.index == index and plane is not None and (to or item.to is None):
                    found[plane, each.name, int(site)] = to or plane
    return found


def second_of(
    seconds: Seconds, carriers: Sequence[Carrier], name: ClassName, peer: Peer
) -> PathId | None:
    """The second path of a class to a site beside its only carrier, as `second_paths` found."""
    if len(carriers) != 1:
        return None
    first = carriers[0].path.plane
    general = seconds.get((first, name, 0))
    plane = seconds.get((first, name, peer.site_id), general)
    return None if plane is None or plane == first else PathId(peer.name, plane)


def _carried(
    intent: Intent, name: ClassName, steering: Steering
) -> Mapping[Plane, list[tuple[Peer, Plane | None]]]:
    """The sites whose class a plane carries, each with its second plane."""
    found: dict[Plane, list[tuple[Peer, Plane | None]]] = {}
    known = frozenset(planes(intent))
    for peer in intent.peers:
        assignment = steering.assignments.get((name, SiteName(peer.name)))
        if assignment is not None and len(assignment.carriers) == 1 and peer.prefixes:
            plane = assignment.carriers[0].path.plane
            to = assignment.second.plane if assignment.second else None
            if plane in known:
                found.setdefault(plane, []).append((peer, to if to in known else None))
    return found


def _copies(
    each: TrafficClass, plane: Plane, sites: list[tuple[Peer, Plane | None]]
) -> Iterator[tuple[Key, Item]]:
    device = plane_device(plane)
    counted = Counter(to for _, to in sites)
    usual = min(counted, key=lambda to: (-counted[to], to or plane))
    if usual is not None:
        yield Key(Kind.COPY, (device, each.index, 0)), Copy(plane_device(usual), ALL)
    for peer, to in sites:
        if to != usual:
            prefixes = tuple(prefix for prefix, _ in site_prefixes(peer))
            digest = sha256(" ".join(prefixes).encode()).hexdigest()[:16]
            copy = Copy(plane_device(to) if to else None, digest, prefixes)
            yield Key(Kind.COPY, (device, each.index, peer.site_id)), copy
