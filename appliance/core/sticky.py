"""Who carries a class from now on: rank, tempered by who carries it already.

A dead path is left at once; one that violates the SLA as soon as another meets it; one that works
only for a path of better merit that has been clean for the hold time, and never twice within it.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from appliance.contract.ids import OUTSIDE
from appliance.core.actions import Cause
from appliance.core.bond import near, together
from appliance.core.layout import ClassPlan
from appliance.core.liveness import doubted_until, holding
from appliance.core.selection import SUSPECT, Standing, best, gains, look_again_s
from appliance.core.state import ClassState, Liveness
from appliance.core.verdict import FIRM_ANSWERS

REST_S = 5.0  # a path that violated must meet for this long before it relieves another violator
ENDURE_S = 10.0  # between moves among paths that all violate
ENDURE_STEPS = 2  # severities by which such a move must gain
UNPROVEN_S = 3.0  # how long a path that never answered may carry a class while others answer
NEAR_LOOK_S = 5.0  # how often to look whether the delays of a bond still go together
GLANCE_S = 1.0  # when to look again at a path that is suspect at the moment
SOON_S = 0.5  # paths of one uplink return some milliseconds apart: the best of them is waited for


class Choice(NamedTuple):
    """What to do about a class. `after` None: nothing; empty: discard its packets."""

    after: tuple[Standing, ...] | None = None
    cause: Cause | None = None
    review_at: float = math.inf  # when time alone could change the answer


def choose(
    plan: ClassPlan, standings: list[Standing], held: ClassState | None, now: float
) -> Choice:
    """Decide about one class toward one site."""
    choice = _choose(plan, standings, held, now)
    if not plan.is_bonded:
        return choice
    carrying = {c.path.plane for c in held.assignment.carriers} if held else set()
    members = [s for s in standings if s.candidate.plane in carrying and s.is_usable and s.meets]
    found = members if choice.after is None else choice.after
    close = near(found, carrying)
    after = together(close, carrying)
    if len(found) > 1:
        choice = choice._replace(review_at=min(choice.review_at, now + NEAR_LOOK_S))
    stay = [s for s in members if s in close]
    is_slow = bool(stay) and any(s in found and s not in close for s in members)
    if choice.after:
        is_slow = is_slow and choice.cause in (Cause.RECOVERED, Cause.BETTER_PATH)
        return choice._replace(after=after, cause=Cause.REORDERING if is_slow else choice.cause)
    if choice.after is None and len(after) < len(members) == len(carrying):
        # When their delays go together, flows were spread until now.
        return Choice(after, Cause.REORDERING if is_slow else Cause.CONFIGURED, choice.review_at)
    return choice


def _choose(
    plan: ClassPlan, standings: list[Standing], held: ClassState | None, now: float
) -> Choice:
    carriers = held.assignment.carriers if held else ()
    by_plane = {s.candidate.plane: s for s in standings}
    members = [by_plane[c.path.plane] for c in carriers if c.path.plane in by_plane]
    live, review_at = _live(members, standings, now)
    good = [m for m in live if m.meets]
    if not plan.is_single and (kept := _of_one_tier(good)) != good:
        return Choice(tuple(kept), Cause.CONFIGURED, review_at)  # they were equal until now
    if held and good and len(good) == len(carriers) and not (plan.is_single and len(good) > 1):
        choice = _volunteer(plan, standings, good, held, now)
        return choice._replace(review_at=min(choice.review_at, review_at))
    if good and not plan.is_single:
        return Choice(tuple(good), _cause(members, len(carriers), good), review_at)
    if good:
        return Choice(_pick(plan, good), Cause.CONFIGURED)  # it was shared until now
    # Nothing that carries the class now is good.
    eligible = [s for s in standings if s.meets and s.is_usable]
    if live:
        up = [s for s in eligible if s.is_up]
        eligible, review_at = _ripe(up, _rested_at, now, review_at)
        eligible = _apart(eligible, live) or eligible
    elif plan.is_fail_closed and held:
        eligible = [s for s in eligible if s.path.liveness is not Liveness.UNKNOWN]
        if held.cause is None:
            eligible, review_at = _ripe(eligible, _proven_at, now, review_at)
    chosen = () if live else _second(plan, held, eligible)
    chosen = chosen or _pick(plan, eligible)
    if chosen:
        return Choice(chosen, _cause(members, len(carriers), live), review_at)
    if plan.is_fail_closed:
        if not carriers and held:
            return Choice(review_at=review_at)
        cause = Cause.SLA_VIOLATED if live else Cause.NO_PATH
        return Choice((), cause, review_at)
    if held and live:
        if len(live) < len(carriers):
            return Choice(tuple(live), _cause(members, len(carriers), live), review_at)
        choice = _endure(plan, standings, live, held, now)
        return choice._replace(review_at=min(choice.review_at, review_at))
    last = best(standings)
    if last is None or not last.is_usable:
        if held is None:
            # What has no route of its own would go where the default class goes: discard it.
            return Choice((), Cause.NO_PATH)
        if len(members) < len(carriers):
            return Choice(tuple(members), Cause.CONFIGURED)  # the rest is not permitted any more
        return Choice()  # nothing works: stay, so that packets flow again the moment the path does
    return Choice((last,), _cause(members, len(carriers), live), review_at)


def _live(
    members: list[Standing], standings: list[Standing], now: float
) -> tuple[list[Standing], float]:
    """Those that carry packets, as far as is known, and when to look at the unproven again."""
    unproven = [m for m in members if m.is_usable and m.path.liveness is Liveness.UNKNOWN]
    live = [m for m in members if m.is_usable]
    proven = [s.path.since for s in standings if s.is_up]
    if not unproven or not proven:
        return live, math.inf
    due = max(min(proven), min([m.path.since for m in unproven])) + UNPROVEN_S
    if now < due:
        return live, due
    return [m for m in live if m.path.liveness is not Liveness.UNKNOWN], math.inf


def _ripe(
    standings: list[Standing],
    due_at: Callable[[Standing, float], float],
    now: float,
    review_at: float,
) -> tuple[list[Standing], float]:
    """Those that are due by now, and when to look again at the others."""
    due = [(due_at(standing, now), standing) for standing in standings]
    later = [at for at, _ in due if at > now]
    return [standing for at, standing in due if at <= now], min([review_at, *later])


def _rested_at(standing: Standing, now: float) -> float:
    """When it may relieve a violator: measured, and not violating itself until just now."""
    due = max(standing.verdict.since + REST_S, doubted_until(standing.path))
    is_known = standing.path.estimate.answered or standing.candidate.plane.remote == OUTSIDE
    return due if is_known else max(due, now + GLANCE_S)


def _proven_at(standing: Standing, now: float) -> float:
    """When it is known to meet, of a path of which nothing is remembered.

    A class that is found discarded may have been so because all of them violate.
    """
    path = standing.path
    is_firm = path.estimate.answered >= FIRM_ANSWERS and all(test.is_calm for test in path.tests)
    return max(path.up_since + REST_S, now if is_firm else now + GLANCE_S)


def _of_one_tier(members: list[Standing]) -> list[Standing]:
    """Those of the best tier that is among them."""
    best_tier = min([m.candidate.tier for m in members], default=0)
    return [m for m in members if m.candidate.tier == best_tier]


def _apart(eligible: list[Standing], leaving: list[Standing]) -> list[Standing]:
    """Without those that share an uplink with a violator and have lost something lately too."""
    ends = {m.candidate.plane.local for m in leaving}, {m.candidate.plane.remote for m in leaving}
    return [
        s
        for s in eligible
        if not (s.candidate.plane.local in ends[0] or s.candidate.plane.remote in ends[1])
        or all(test.is_calm for test in s.path.tests)
    ]


def _second(
    plan: ClassPlan, held: ClassState | None, eligible: list[Standing]
) -> tuple[Standing, ...]:
    """The path of the copies: it carries the class already, while others may share its fate."""
    if held is None or held.assignment.second is None or not plan.is_duplicated:
        return ()
    plane = held.assignment.second.plane
    return tuple([s for s in eligible if s.candidate.plane == plane and s.is_up])


def _pick(plan: ClassPlan, eligible: list[Standing]) -> tuple[Standing, ...]:
    """The best, or in mode `share` all that are as good by policy."""
    first = best(eligible)
    if first is None:
        return ()
    if plan.is_single:
        return (first,)
    return tuple(
        [s for s in eligible if s.order == first.order and s.candidate.tier == first.candidate.tier]
    )


def _cause(members: list[Standing], count: int, kept: list[Standing]) -> Cause:
    """Why the class cannot stay as it is."""
    if not count:
        return Cause.INITIAL
    lost = [m for m in members if m not in kept] or members
    if not lost or len(members) < count:
        return Cause.CONFIGURED
    if any(not m.is_attached for m in lost):
        return Cause.UPLINK_DOWN
    if any(m.path.liveness in (Liveness.DOWN, Liveness.UNKNOWN) for m in lost):
        return Cause.PATH_DOWN
    return Cause.SLA_VIOLATED


def _volunteer(
    plan: ClassPlan,
    standings: list[Standing],
    members: list[Standing],
    held: ClassState,
    now: float,
) -> Choice:
    """The incumbents are good. Is there something better, and has it been for long enough?"""
    hold_s = plan.policy.hold_s
    worst = max([m.merit for m in members])
    lowest = max([m.candidate.tier for m in members])
    ripe: list[Standing] = []
    soon: list[Standing] = []
    review_at = math.inf
    for standing in standings:
        path = standing.path
        if standing in members or not standing.meets or standing.order > SUSPECT:
            continue  # what rises, or meets again, is looked at when it does
        merit, is_tie = standing.merit, False
        if plan.is_single:
            is_tie = merit == worst
            if merit > worst:
                continue
        elif standing.candidate.tier > lowest:
            continue
        due = max(
            path.up_since + holding(path, hold_s, now),
            standing.verdict.since + hold_s,
            doubted_until(path),
            held.voluntary_at + hold_s,
        )
        if not standing.is_up:
            due = max(due, now + GLANCE_S)
        if is_tie and due <= now and not gains(path.estimate, members[0].path.estimate):
            due = now + look_again_s(hold_s)
        if due > now:
            review_at = min(review_at, due)
        if due <= now + SOON_S:
            (soon if due > now else ripe).append(standing)
    if ripe and ((plan.is_bonded and soon) or best([*ripe, *soon]) in soon):
        return Choice(review_at=review_at)
    return _promote(plan, members, ripe, review_at)


def _promote(
    plan: ClassPlan, members: list[Standing], ripe: list[Standing], review_at: float
) -> Choice:
    chosen = best(ripe)
    if chosen is None:
        return Choice(review_at=review_at)
    after: tuple[Standing, ...] = (chosen,)
    if not plan.is_single:
        tier = chosen.candidate.tier
        after = tuple([s for s in (*members, *ripe) if s.candidate.tier == tier])
    is_back = any(max(s.path.fell_at, s.path.erred_at, s.verdict.since) > -math.inf for s in ripe)
    return Choice(after, Cause.RECOVERED if is_back else Cause.BETTER_PATH, review_at)


def _endure(
    plan: ClassPlan,
    standings: list[Standing],
    live: list[Standing],
    held: ClassState,
    now: float,
) -> Choice:
    """Nothing meets the SLA. Stay on what works, unless another is far less bad or preferred."""
    hold_s = plan.policy.hold_s
    _, severity, *preference = max([m.merit for m in live])
    review_at = math.inf
    found: dict[Cause, list[Standing]] = {Cause.SLA_VIOLATED: [], Cause.RECOVERED: []}
    for standing in standings:
        path = standing.path
        if standing in live or standing.meets or not standing.is_up or not path.estimate.answered:
            continue  # what meets the SLA again only has to rest a while
        if standing.verdict.severity + ENDURE_STEPS <= severity:
            cause, due = Cause.SLA_VIOLATED, held.since + ENDURE_S
        elif standing.verdict.severity <= severity and [*standing.merit[2:]] < preference:
            cause = Cause.RECOVERED
            due = max(path.up_since + holding(path, hold_s, now), held.since + hold_s)
        else:
            continue
        due = max(due, doubted_until(path))
        if due <= now:
            found[cause].append(standing)
        else:
            review_at = min(review_at, due)
    for cause, standings_found in found.items():
        chosen = best(standings_found)
        if chosen:
            return Choice((chosen,), cause, review_at)
    return Choice(review_at=review_at)
