"""Over which planes single flows are spread (docs/adr/0021-one-flow-over-all-lines.md).

Decides nothing: steering names the paths that carry a class of mode `bond` together. One filter on
each of their planes is told of all bonds of the box, and is part of a move.
"""

from collections.abc import Iterator, Mapping
from hashlib import sha256

from appliance.config.addressing import plane_device
from appliance.config.intent import Intent, TrafficClass, planes
from appliance.contract.ids import INTERNET, Plane, SiteName
from appliance.core.steering import Assignment, Steering
from appliance.plan.breakout import DEFAULT_ROUTE
from appliance.plan.plan import MOST_BONDED, Bond, Clsact, Item, Key, Kind, Stripe

_EVERYWHERE = tuple(DEFAULT_ROUTE.values())


LEAD = 255  # times as many flows begin on the first member as on each other one


def led(weights: Mapping[Plane, int]) -> dict[Plane, int]:
    """Weights of the nexthop group of a bond: the kernel's groups have no other order."""
    return {plane: 1 if place else LEAD for place, plane in enumerate(weights)}


class Bonder:
    """Renders the bonds of one intent."""

    def __init__(self, intent: Intent) -> None:
        self._classes = intent.bonded
        self._planes = frozenset(planes(intent))
        self._overlay = str(intent.overlay)
        self._networks = {
            peer.name: tuple(str(prefix) for prefix in peer.prefixes)
            for peer in (intent.peers if self._classes else ())
        }
        self.names = frozenset(each.name for each in self._classes)
        self._rendered: tuple[Steering, dict[Key, Item]] | None = None  # a move begins with these

    def hooks(self) -> dict[Key, Item]:
        """What the filters hang on."""
        devices = map(plane_device, sorted(self._planes) if self._classes else ())
        return {Key(Kind.CLSACT, (device,)): Clsact() for device in devices}

    def items(self, steering: Steering) -> dict[Key, Item]:
        """The filters. Empty while nothing is carried by two planes together."""
        if self._rendered is None or self._rendered[0] is not steering:
            self._rendered = steering, self._items(steering)
        return self._rendered[1]

    def _items(self, steering: Steering) -> dict[Key, Item]:
        stripes = tuple(s for each in self._classes for s in self._stripes(each, steering))
        devices = {device for stripe in stripes for device in stripe.devices}
        if not devices:
            return {}
        bond = Bond(sha256(repr(stripes).encode()).hexdigest()[:16], stripes)
        return {Key(Kind.BOND, (device,)): bond for device in sorted(devices)}

    def _stripes(self, each: TrafficClass, steering: Steering) -> Iterator[Stripe]:
        outward = self._members(steering.assignments.get((each.name, INTERNET)), steering)
        for site, networks in self._networks.items():
            assignment = steering.assignments.get((each.name, SiteName(site)))
            members = self._members(assignment, steering)
            if networks and (members or outward):  # or it would be taken for the internet
                yield Stripe(each.index, networks, members)
        if outward:
            yield Stripe(each.index, (self._overlay,), ())  # what boxes say themselves
            yield Stripe(each.index, _EVERYWHERE, outward)

    def _members(self, assignment: Assignment | None, steering: Steering) -> tuple[str, ...]:
        """The devices of planes that carry something together; empty when they are not several."""
        found = [
            carrier.path.plane
            for carrier in (assignment.carriers if assignment else ())
            if carrier.path.plane in self._planes and carrier.path.plane not in steering.detours
        ]
        devices = [plane_device(plane) for plane in sorted(found[:MOST_BONDED])]
        return tuple(devices) if len(devices) > 1 else ()
