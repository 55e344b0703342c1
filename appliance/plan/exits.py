"""Ways to the internet as kernel objects: what does not go to a site leaves by an uplink itself.

Each uplink's gateway is a nexthop object, and a class has a table of its own for them, which is
asked after everything that knows a destination by more than "default". It ends in `unreachable`:
what its class may not send never takes the default routes of the box itself.
"""

from collections.abc import Collection, Iterator, Mapping

from appliance.config.addressing import (
    CLASS_MARK_MASK,
    UPLINK_MARK_MASK,
    class_mark,
    internet_table,
    plane_nexthop,
    uplink_mark,
)
from appliance.config.fields import MAX_SLOT
from appliance.config.intent import Intent, Internet, permits
from appliance.contract.ids import ClassName, Slot, exit_plane
from appliance.core.events import UplinkFacts
from appliance.plan.breakout import DEFAULT_ROUTE, Exits
from appliance.plan.plan import Item, Key, Kind, Nexthop, Route
from appliance.plan.underlay import LAST_METRIC, gateway_routes, uplink_addresses


def exit_items(intent: Intent, facts: Mapping[Slot, UplinkFacts]) -> dict[Key, Item]:
    """Everything of a plan that ways to the internet rest on, whoever takes them."""
    found: dict[Key, Item] = {}
    for each in intent.classes:
        for default in DEFAULT_ROUTE.values():
            table = internet_table(each.index)
            found[Key(Kind.ROUTE, (table, default, LAST_METRIC))] = Route()
    for slot, family, route in _routes(intent, facts):
        if route.device is not None:
            found[exit_key(slot, family)] = Nexthop(
                family, route.device, route.gateway, route.on_link
            )
    return found


def exit_key(slot: Slot, family: int) -> Key:
    """The nexthop object of an uplink's gateway."""
    return Key(Kind.NEXTHOP, (plane_nexthop(exit_plane(slot), family),))


def flow_marks(
    intent: Intent, slot: Slot, names: Collection[ClassName]
) -> tuple[tuple[int, int], ...]:
    """Conntrack marks, each with its mask, of the flows of classes that left by an uplink."""
    found = [each for each in intent.classes if each.name in names]
    if len(found) == len(intent.classes):
        return ((uplink_mark(slot), UPLINK_MARK_MASK),)
    mask = UPLINK_MARK_MASK | CLASS_MARK_MASK
    return tuple((uplink_mark(slot) | class_mark(each.index), mask) for each in found)


def forbidden_marks(intent: Intent) -> tuple[tuple[int, int], ...]:
    """The same of flows that the rules let out by no uplink, or by another than theirs.

    A supervisor with another configuration may have left them: they would hang until they expire.
    """
    permitted = {
        (u.slot, p.class_name)
        for p in intent.policies
        for u in intent.uplinks
        if p.internet is Internet.LOCAL and permits(p, u)
    }
    names = [each.name for each in intent.classes]
    found: tuple[tuple[int, int], ...] = ()
    for slot in map(Slot, range(1, MAX_SLOT + 1)):
        found += flow_marks(intent, slot, [n for n in names if (slot, n) not in permitted])
    return found


def exits(intent: Intent, facts: Mapping[Slot, UplinkFacts]) -> Exits:
    """By which uplinks, and in which families, packets could leave now."""
    return frozenset((slot, family) for slot, family, _ in _routes(intent, facts))


def _routes(intent: Intent, facts: Mapping[Slot, UplinkFacts]) -> Iterator[tuple[Slot, int, Route]]:
    addresses = uplink_addresses(intent, facts)
    for uplink in intent.uplinks:
        seen = facts.get(uplink.slot, UplinkFacts(uplink.slot))
        for family, route in gateway_routes(uplink, seen, addresses[uplink.slot]):
            yield uplink.slot, family, route
