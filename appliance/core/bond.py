"""Which paths carry single flows together, in mode `bond`, and which of them comes first.

Each is to add a line: as many as possible that share no uplink at either end, and one more for each
uplink that is left over, where one end has fewer. What carries the class already is preferred, then
the better path, so that the set changes for a reason only. A flow begins on the first of them and
takes the others as well once it fills that: it should be a quick one, for flows that never do.
"""

from collections.abc import Collection, Sequence

from appliance.contract.ids import Plane, Slot
from appliance.core.selection import Standing, best, gains


def together(standings: Sequence[Standing], held: Collection[Plane]) -> tuple[Standing, ...]:
    """The members of a bond, out of paths that are all good enough to be one."""
    ranked = sorted(standings, key=lambda s: (s.candidate.plane not in held, s.rank))
    kept = [s for s in ranked if s.candidate.plane in held]
    (pairs, left), (most, others) = _choose(kept), _choose(ranked)
    if (len(pairs), len(left)) >= (len(most), len(others)):
        return *pairs, *left
    return *most, *others


def lead(members: Sequence[Standing], first: Plane | None) -> list[Standing]:
    """The members in order: the best first, or who was, unless another is far quicker."""
    by_plane = sorted(members, key=lambda s: s.candidate.plane)
    leader = best(by_plane)
    for standing in by_plane:
        is_left = leader is not None and gains(leader.path.estimate, standing.path.estimate)
        if standing.candidate.plane == first and not is_left:
            leader = standing
    return sorted(by_plane, key=lambda s: s is not leader)


def _choose(ranked: Sequence[Standing]) -> tuple[list[Standing], list[Standing]]:
    """As many as possible that share nothing, and those that add one more uplink each."""
    by_far: dict[Slot, Standing] = {}

    def place(own: Slot, asked: set[Slot]) -> bool:
        """Pair an uplink of ours with a far one; who had that may take another (Kuhn)."""
        ours = [s for s in ranked if s.candidate.plane.local == own]
        for standing in sorted(ours, key=lambda s: s.candidate.plane.remote in by_far):
            far = standing.candidate.plane.remote
            if far not in asked:
                asked.add(far)
                before = by_far.get(far)
                if before is None or place(before.candidate.plane.local, asked):
                    by_far[far] = standing
                    return True
        return False

    for own in dict.fromkeys(s.candidate.plane.local for s in ranked):
        place(own, set())
    pairs = list(by_far.values())
    left: list[Standing] = []
    for standing in ranked:
        chosen = [s.candidate.plane for s in (*pairs, *left)]
        local, far = standing.candidate.plane
        if local not in {p.local for p in chosen} or far not in {p.remote for p in chosen}:
            left.append(standing)
    return pairs, left
