"""Which ways out carry a class to the internet in each address family.

Decides nothing about uplinks: it fits what was decided to what the uplinks have.
"""

from collections.abc import Collection, Iterable, Mapping

from appliance.config.intent import Intent, permits
from appliance.contract.ids import ClassName, Plane, Slot, exit_plane

Exits = frozenset[tuple[Slot, int]]  # uplinks that lead to the internet, each with a family
NO_EXITS: Exits = frozenset()
DEFAULT_ROUTE = {4: "0.0.0.0/0", 6: "::/0"}


def spares(intent: Intent) -> dict[ClassName, tuple[Plane, ...]]:
    """The ways out that a class may take, the best tier first.

    The first of them that has an address family takes what those that carry the class have not.
    """
    found = {}
    for policy in intent.policies:
        tier_of = {label: tier for tier, labels in enumerate(policy.tiers) for label in labels}
        permitted = [u for u in intent.uplinks if permits(policy, u)]
        permitted.sort(key=lambda u: (tier_of[u.label], u.metered, u.slot))
        found[policy.class_name] = tuple(exit_plane(u.slot) for u in permitted)
    return found


def leading(
    weights: Mapping[Plane, int],
    spare: Iterable[Plane],
    open_to: Exits,
    family: int,
    working: Collection[Slot] = (),
) -> dict[Plane, int]:
    """Of the ways that carry a class those that lead out in a family, else the first spare one.

    One that is known to work is the better spare, whatever its tier.
    """
    found = {p: weight for p, weight in weights.items() if (p.local, family) in open_to}
    if weights and not found:
        able = [p for p in spare if (p.local, family) in open_to]
        able.sort(key=lambda plane: plane.local not in working)
        found = dict.fromkeys(able[:1], 1)
    return found
