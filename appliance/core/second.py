"""Over which path the copies of a class go, in mode `duplicate`.

The second path should share no fate with the first: another uplink at both ends, if there is one
that works. It may change at any time, because while it does the first carries everything. Yet it is
left only when it is dead or when another is further apart from the first, and for one that fell
before only after the hold time: each change is work for the kernel.

With `when: impaired` there is none but while the first is in trouble and a minute after.
"""

import math
from collections.abc import Sequence
from enum import IntEnum

from appliance.contract.ids import Plane
from appliance.core.layout import ClassPlan
from appliance.core.liveness import holding
from appliance.core.selection import Standing
from appliance.core.state import Liveness, PathState
from appliance.core.sticky import UNPROVEN_S

FEW = 2  # lost probes of the last seconds that are no chance any more ...
LOSSY = 0.005  # ... when they are so many of them
_PROVEN, _UNRIPE, _RISING, _UNPROVEN = range(4)


def choose_second(
    plan: ClassPlan,
    standings: Sequence[Standing],
    carriers: Sequence[Standing],
    held: Plane | None,
    now: float,
) -> tuple[Standing | None, float]:
    """The second path beside the only carrier, or None, and when time alone could change it.

    `held` is where copies go now.
    """
    if not plan.is_duplicated or len(carriers) != 1:
        return None, math.inf
    first = carriers[0].candidate.plane
    if plan.is_wary and not _is_needed(carriers[0], is_held=held is not None):
        return None, math.inf
    others = [s for s in standings if s.candidate.plane != first and s.is_usable]
    dues = [due for s in others if (due := _due(plan, s, now)) > now]
    best = min(others, key=lambda s: _merit(plan, s, first, held, now), default=None)
    return best, min(dues, default=math.inf)


class Trouble(IntEnum):
    """Of the path that carries a class: are copies worth sending?"""

    NONE = 0  # a minute without a loss
    LITTLE = 1  # nothing new is begun for it, and what was begun is not ended
    MUCH = 2


def trouble(path: PathState) -> Trouble:
    """What a path lost lately, and whether an answer is missing."""
    estimate = path.estimate
    recent = estimate.recent()
    if path.liveness not in (Liveness.UP, Liveness.UNKNOWN):
        return Trouble.MUCH
    if recent.lost >= FEW and recent.two_way_ratio >= LOSSY:
        return Trouble.MUCH
    minute = estimate.minute()
    return Trouble.LITTLE if minute.lost or not minute.sent else Trouble.NONE


def _is_needed(carrier: Standing, *, is_held: bool) -> bool:
    if not carrier.meets:
        return True
    found = trouble(carrier.path)
    return found is Trouble.MUCH or (found is Trouble.LITTLE and is_held)


def _due(plan: ClassPlan, standing: Standing, now: float) -> float:
    """When more is known of a path by nothing but time."""
    path = standing.path
    if path.liveness is Liveness.UNKNOWN:
        return path.since + UNPROVEN_S
    if not path.falls:
        return -math.inf
    return path.up_since + holding(path, plan.policy.hold_s, now)


def _merit(
    plan: ClassPlan, standing: Standing, first: Plane, held: Plane | None, now: float
) -> tuple[int, bool, bool, bool, bool, int, bool, Plane]:
    """Less is better. A total order, in which who has it is one of the criteria."""
    candidate = standing.candidate
    plane = candidate.plane
    return (
        _doubt(plan, standing, now, is_held=plane == held),
        plane.local == first.local,
        plane.remote == first.remote,
        plane != held,
        not standing.meets,
        candidate.tier,
        candidate.is_metered,
        plane,
    )


def _doubt(plan: ClassPlan, standing: Standing, now: float, *, is_held: bool) -> int:
    liveness, is_due = standing.path.liveness, _due(plan, standing, now) <= now
    if liveness is Liveness.RISING:
        return _RISING
    if liveness is Liveness.UNKNOWN and is_due:
        return _UNPROVEN
    is_proven = liveness is not Liveness.UNKNOWN and is_due
    return _PROVEN if is_held or is_proven else _UNRIPE
