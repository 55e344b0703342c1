"""Steering as routes and nexthop objects, and the operations of one move.

Decides nothing: it renders assignments and detours. A move touches the routes of one class to one
site (or their group), a detour one nexthop object per plane and family, and nothing else: this is
the fast path, and its result is what `diff` of the two whole plans would give.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import lru_cache

from appliance.config.addressing import (
    class_table,
    group_nexthop,
    internet_table,
    management_address,
    plane_device,
    plane_nexthop,
)
from appliance.config.intent import Intent, Mode, Network, Peer, planes
from appliance.contract.ids import INTERNET, ClassName, Plane, SiteId, SiteName, Slot
from appliance.core.steering import DEVICE_MTU, Assignment, Steering
from appliance.plan.bond import Bonder, led
from appliance.plan.breakout import DEFAULT_ROUTE, NO_EXITS, Exits, leading, spares
from appliance.plan.diff import diff
from appliance.plan.plan import Change, Item, Key, Kind, Nexthop, NexthopGroup, Op, Route

# One explicit metric for both families: unset, IPv4 reads 0 and IPv6 reads 1024.
METRIC = 100
FAMILIES = (4, 6)
WEIGHT_LIMIT = 256  # of a member of a nexthop group
UNREACHABLE = Route()
_NO_SITE = SiteId(0)


class Steerer:
    """Renders the steering of one intent. Made once per intent, so that a move costs little."""

    def __init__(self, intent: Intent) -> None:
        self._classes = {c.name: c for c in intent.classes}
        self._default = intent.default_class.name
        together = {Mode.SHARE, Mode.BOND}
        self._sharing = {p.class_name for p in intent.policies if p.mode in together}
        self._bonder = Bonder(intent)
        self._peers = {p.name: p for p in intent.peers}
        self._prefixes = {p.name: site_prefixes(p) for p in intent.peers}
        self._management = {
            p.name: f"{management_address(intent.overlay, p.site_id)}/128" for p in intent.peers
        }
        self._source = management_address(intent.overlay, intent.site_id)
        self._planes = frozenset(planes(intent))
        self._spares = spares(intent)
        # What was rendered last for each class and site, with the assignment that it renders.
        self._rendered: dict[tuple[ClassName, SiteName], tuple[Assignment, Mapping[Key, Item]]] = {}

    def items(self, steering: Steering, exits: Exits = NO_EXITS) -> dict[Key, Item]:
        """Everything of a plan that depends on steering. `exits` lead to the internet now."""
        found = self._nexthops(self._planes, steering.detours)
        for where, assignment in steering.assignments.items():
            if where[1] == INTERNET:
                found.update(self._internet(where[0], assignment, exits, steering.working))
                continue
            known = self._rendered.get(where)
            if known is None or known[0] is not assignment:
                known = assignment, self._assignment(*where, assignment)
                self._rendered[where] = known
            found.update(known[1])
        return {**found, **self._bonder.hooks(), **self._bonder.items(steering)}

    def ops(
        self,
        before: Steering,
        after: Steering,
        moved: Collection[tuple[ClassName, SiteName]] | None = None,
        exits: Exits = NO_EXITS,
        left_exits: Exits | None = None,
    ) -> tuple[Op, ...]:
        """The operations that turn one steering into another.

        `moved` names the classes and sites that may differ, where that is known: a hub has
        thousands, and comparing them all for one move would take longer than the move.
        `left_exits` led to the internet before, if they were others than now.
        """
        if left_exits is None:
            left_exits = exits
        old: dict[Key, Item] = {}
        new: dict[Key, Item] = {}
        touched = {
            plane
            for plane in (*before.detours, *after.detours)
            if before.detours.get(plane, plane) != after.detours.get(plane, plane)
        } & self._planes
        old.update(self._nexthops(touched, before.detours))
        new.update(self._nexthops(touched, after.detours))
        if moved is None:
            moved = before.assignments.keys() | after.assignments.keys()
        if touched or any(name in self._bonder.names for name, _ in moved):
            old.update(self._bonder.items(before))
            new.update(self._bonder.items(after))
        if exits != left_exits or before.working != after.working:
            moved = {*moved, *((name, INTERNET) for name in self._classes)}
        for where in moved:
            left, taken = before.assignments.get(where), after.assignments.get(where)
            if where[1] == INTERNET:
                old.update(self._internet(where[0], left, left_exits, before.working))
                new.update(self._internet(where[0], taken, exits, after.working))
            elif left is not taken and left != taken:
                old.update(self._assignment(*where, left))
                new.update(self._assignment(*where, taken))
        ops = diff(new, old)
        return (*ops, *_again(ops, new)) if left_exits - exits else ops

    def move(
        self,
        class_name: ClassName,
        site: SiteName,
        before: Assignment | None,
        after: Assignment | None,
    ) -> tuple[Op, ...]:
        """The operations of one `MoveClass`. None is a site that nothing was decided for yet."""
        return diff(
            self._assignment(class_name, site, after), self._assignment(class_name, site, before)
        )

    def detour(self, before: Mapping[Plane, Plane], after: Mapping[Plane, Plane]) -> tuple[Op, ...]:
        """The operations of one `DetourPlanes`: both sides are all detours, before and after."""
        return self.ops(Steering(detours=before), Steering(detours=after))

    def _nexthops(self, of: Iterable[Plane], detours: Mapping[Plane, Plane]) -> dict[Key, Item]:
        return {
            Key(Kind.NEXTHOP, (plane_nexthop(plane, family),)): nexthop(
                family, detours.get(plane, plane)
            )
            for plane in of
            for family in FAMILIES
        }

    def _assignment(
        self, class_name: ClassName, site: SiteName, assignment: Assignment | None
    ) -> dict[Key, Item]:
        traffic_class, peer = self._classes.get(class_name), self._peers.get(site)
        if assignment is None or traffic_class is None or peer is None:
            return {}
        weights: dict[Plane, int] = {}
        for carrier in assignment.carriers:
            plane = carrier.path.plane
            if plane in self._planes:
                weights[plane] = min(WEIGHT_LIMIT, weights.get(plane, 0) + carrier.weight)
        if class_name in self._bonder.names:
            weights = led(weights)
        is_group = len(weights) > 1 or (bool(weights) and class_name in self._sharing)
        found: dict[Key, Item] = {}
        routes: dict[int, Route] = {}
        table = class_table(traffic_class.index)
        for prefix, family in self._destinations(class_name, site):
            if family not in routes:
                hop: int | None = None
                if is_group:
                    hop = group_nexthop(traffic_class.index, peer.site_id, family)
                    found[Key(Kind.GROUP, (hop,))] = _group(family, weights)
                elif weights:
                    hop = plane_nexthop(next(iter(weights)), family)
                routes[family] = self._route(family, hop, assignment.mtu)
            found[Key(Kind.ROUTE, (table, prefix, METRIC))] = routes[family]
        return found

    def _internet(
        self,
        class_name: ClassName,
        assignment: Assignment | None,
        exits: Exits,
        working: Collection[Slot],
    ) -> dict[Key, Item]:
        """The default routes of a class: by those of its carriers that have the family."""
        traffic_class = self._classes.get(class_name)
        if assignment is None or traffic_class is None:
            return {}
        is_out = {c.path.plane: c.path.site == INTERNET for c in assignment.carriers}
        wanted = {
            c.path.plane: min(WEIGHT_LIMIT, c.weight)
            for c in assignment.carriers
            if is_out[c.path.plane] or c.path.plane in self._planes
        }
        # Through a gateway it is as toward the site; out of an uplink the line's own MTU holds.
        is_through = not any(is_out.values())
        mtu = assignment.mtu or DEVICE_MTU if is_through else None
        found: dict[Key, Item] = {}
        for family in FAMILIES:
            weights = wanted
            if not is_through:
                weights = leading(wanted, self._spares[class_name], exits, family, working)
            elif class_name in self._bonder.names:
                weights = led(wanted)
            route = UNREACHABLE
            if weights and (class_name in self._sharing or (is_through and len(weights) > 1)):
                hop = group_nexthop(traffic_class.index, _NO_SITE, family)
                found[Key(Kind.GROUP, (hop,))] = _group(family, weights)
                route = Route(nexthop=hop, mtu=mtu)
            elif weights:
                route = Route(nexthop=plane_nexthop(next(iter(weights)), family), mtu=mtu)
            table = internet_table(traffic_class.index)
            found[Key(Kind.ROUTE, (table, DEFAULT_ROUTE[family], METRIC))] = route
        return found

    def _destinations(self, class_name: ClassName, site: SiteName) -> Iterator[tuple[str, int]]:
        yield from self._prefixes[site]
        if class_name == self._default:
            yield self._management[site], 6

    def _route(self, family: int, hop: int | None, mtu: int | None) -> Route:
        if hop is None:
            return UNREACHABLE  # the class is closed toward this site
        # What the box itself sends must not bear a plane's address: that would tie it to the plane.
        # IPv4 has no such address: naming a LAN's would lose the routes together with that LAN.
        # The MTU is always said: an IPv4 route by nexthop id without metrics takes those of another
        # such route in its table (kernel 6.12, fib_find_info_nh does not compare them).
        source = self._source if family == 6 else None
        return Route(nexthop=hop, source=source, mtu=mtu or DEVICE_MTU)


def _again(ops: Iterable[Op], new: Mapping[Key, Item]) -> Iterator[Op]:
    """Default routes over groups that change: with its last member a group goes, and they too."""
    groups = {op.key.ident[0] for op in ops if op.key.kind is Kind.GROUP}
    done = {op.key for op in ops}
    for key, item in new.items():
        if isinstance(item, Route) and item.nexthop in groups and key not in done:
            yield Change(key, item, item)


def site_prefixes(peer: Peer) -> tuple[tuple[str, int], ...]:
    """Each prefix behind a site as text, with its family."""
    return tuple((_text(prefix), prefix.version) for prefix in peer.prefixes)


@lru_cache(maxsize=8192)
def _text(prefix: Network) -> str:
    """Kept, because a plan names each prefix several times, and making the text is slow."""
    return str(prefix)


@lru_cache(maxsize=1024)
def nexthop(family: int, plane: Plane) -> Nexthop:
    """The nexthop object that leads into a plane: shared, so that comparing it costs nothing."""
    return Nexthop(family, plane_device(plane))


def _group(family: int, weights: Mapping[Plane, int]) -> NexthopGroup:
    members = ((plane_nexthop(plane, family), weight) for plane, weight in weights.items())
    return NexthopGroup(tuple(sorted(members)))
