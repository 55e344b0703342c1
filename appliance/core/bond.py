"""Which paths carry single flows together, in mode `bond`, and which of them comes first.

Each is to add a line: as many as possible that share no uplink at either end, and one more for each
uplink that is left over, where one end has fewer. What carries the class already is preferred, then
the better path, so that the set changes for a reason only. A flow begins on the first of them and
takes the others as well once it fills that: it should be a quick one, for flows that never do.

Their delays must go together. TCP takes a packet for lost that others have overtaken by more than
one round trip (RFC 8985 section 6.2: the reordering window is at most SRTT), and slows down. Over
lines of 20 Mbit/s and 10 ms beside 25, 40 and 60 ms one way, one flow had 28, 29 and 5 Mbit/s, and
over the first alone 17.
"""

import math
from collections.abc import Collection, Sequence, Set

from appliance.contract.ids import Plane, Slot
from appliance.core.layout import ClassPlan
from appliance.core.selection import Standing, best, gains, look_again_s
from appliance.core.state import ClassState
from appliance.core.steering import Assignment
from appliance.core.verdict import FIRM_ANSWERS

# How many times the quickest one's round trip another member's may be, half of which is one way:
# what joins is overtaken by one round trip of the quickest at most; at one and a half it leaves.
JOINS, STAYS = 3.0, 4.0


def together(standings: Sequence[Standing], held: Collection[Plane]) -> tuple[Standing, ...]:
    """The members of a bond, out of paths that are all good enough to be one."""
    ranked = sorted(standings, key=lambda s: (s.candidate.plane not in held, s.rank))
    kept = [s for s in ranked if s.candidate.plane in held]
    (pairs, left), (most, others) = _choose(kept), _choose(ranked)
    if (len(pairs), len(left)) >= (len(most), len(others)):
        return *pairs, *left
    return *most, *others


def near(standings: Sequence[Standing], held: Set[Plane]) -> Sequence[Standing]:
    """Those whose delays go together: what carries most by the rates, or the quickest of as much.

    By the long view of delays, which neither a moment of a mobile line nor one of a queue changes.
    """
    delays = {
        s.candidate.plane: s.path.estimate.long_delay_us
        for s in standings
        if s.path.estimate.answered >= FIRM_ANSWERS
    }
    if max(delays.values(), default=0.0) <= JOINS * min(delays.values(), default=0.0):
        return standings
    groups = []
    for first, least in sorted(delays.items(), key=lambda each: each[1]):
        far = {
            plane
            for plane, delay in delays.items()
            if not least <= delay <= least * (STAYS if {plane, first} <= held else JOINS)
        }
        groups.append([s for s in standings if s.candidate.plane not in far])
    return max(groups, key=_rate_bps)


def _rate_bps(standings: Sequence[Standing]) -> float:
    """What their lines carry together, as far as rates are given: the lesser of both ends."""
    ours = {s.candidate.plane.local: s.candidate.up_bps for s in standings}
    theirs = {s.candidate.plane.remote: s.candidate.down_bps for s in standings}
    return min(
        sum(math.inf if rate is None else rate for rate in ends.values()) for ends in (ours, theirs)
    )


def lead(
    plan: ClassPlan, members: Sequence[Standing], held: ClassState | None, now: float
) -> tuple[list[Standing], float]:
    """The members in order, the first one first, and when to look again which that should be.

    It is the best one, or who was, unless another is far quicker and the hold time is over.
    """
    carriers = held.assignment.carriers if held else ()
    in_order = sorted(members, key=lambda s: s.candidate.plane)
    before = [s for s in in_order if carriers and s.candidate.plane == carriers[0].path.plane]
    leader = best(in_order)
    rested_at = held.voluntary_at + plan.policy.hold_s if held else now
    for first in before:
        is_slow = leader is not None and gains(leader.path.estimate, first.path.estimate)
        if now < rested_at or not is_slow:
            leader = first
    look_at = max(rested_at, now + look_again_s(plan.policy.hold_s))
    return sorted(in_order, key=lambda s: s is not leader), look_at


def is_led_anew(before: Assignment, after: Assignment) -> bool:
    """Are the members the same, and another one is first?"""
    was, now = ([c.path for c in each.carriers] for each in (before, after))
    return len(was) > 1 and set(was) == set(now) and was[0] != now[0]


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
