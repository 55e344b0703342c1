"""Ranking of the paths that a class may use: a total order with no memory.

Stickiness (who carries the class now, since when, how long to wait) is in `sticky`, apart from
this: a comparison with stickiness inside is not transitive, and its winner depends on the order of
visiting.
"""

import math
from collections.abc import Container, Mapping, Sequence
from typing import NamedTuple

from appliance.contract.ids import Plane, Slot
from appliance.core.estimate import Estimate
from appliance.core.layout import Candidate, ClassPlan
from appliance.core.mos import mos
from appliance.core.state import Liveness, PathState
from appliance.core.verdict import Verdict

# As targets of a move: a path with one answer missing may be the next to go, one that has just
# come back has proved little, and one that never answered nothing at all.
ORDER = {
    Liveness.UP: 0,
    Liveness.SUSPECT: 1,
    Liveness.RISING: 2,
    Liveness.UNKNOWN: 3,
    Liveness.DOWN: 4,
}
SUSPECT = ORDER[Liveness.SUSPECT]
UNUSABLE = ORDER[Liveness.DOWN]
MOS_STEP = 0.25  # scores this close are equal
DELAY_STEPS = 3  # delays within a third of a doubling are equal ...
DELAY_BASE_MS = 10.0  # ... and so are all that are short against this

Merit = tuple[bool, int, int, bool]
Lead = tuple[int, bool, int, int, bool]
Rank = tuple[Lead, tuple[int, int], Plane]


class Standing(NamedTuple):
    """A candidate as a class sees it now."""

    candidate: Candidate
    path: PathState
    is_attached: bool  # does the local uplink work at all?
    verdict: Verdict
    lead: Lead  # the part of the rank that rarely leaves anything to decide

    @property
    def order(self) -> int:
        """By liveness; `UNUSABLE` for a path that carries nothing."""
        return self.lead[0]

    @property
    def is_usable(self) -> bool:
        return self.lead[0] != UNUSABLE

    @property
    def is_up(self) -> bool:
        return self.lead[0] == 0

    @property
    def meets(self) -> bool:
        return self.verdict.violated is None

    @property
    def merit(self) -> Merit:
        """What makes a path preferable by the policy, whatever its liveness and quality."""
        return self.lead[1:]

    @property
    def rank(self) -> Rank:
        """Best first. A total order with no memory."""
        return (self.lead, quality(self.path.estimate), self.candidate.plane)


def stand(
    candidate: Candidate, path: PathState, verdict: Verdict, *, is_attached: bool
) -> Standing:
    """What a candidate is worth now."""
    return Standing(
        candidate,
        path,
        is_attached,
        verdict,
        (
            ORDER[path.liveness] if is_attached else UNUSABLE,
            verdict.violated is not None,
            verdict.severity,
            candidate.tier,
            candidate.is_metered,
        ),
    )


def stand_all(
    plan: ClassPlan, paths: Mapping[Plane, PathState], usable: Container[Slot]
) -> list[Standing]:
    """All candidates of a class toward one site. `usable` are the local uplinks that work."""
    standings = []
    for candidate in plan.candidates:
        path = paths[candidate.plane]
        is_attached = candidate.plane.local in usable
        standings.append(stand(candidate, path, path.verdicts[plan.sla], is_attached=is_attached))
    return standings


def best(standings: Sequence[Standing]) -> Standing | None:
    """The first in rank, or None. Quality is looked at only where the lead leaves a choice."""
    if not standings:
        return None
    lead = min([s.lead for s in standings])
    first = [s for s in standings if s.lead == lead]
    return first[0] if len(first) == 1 else min(first, key=lambda s: s.rank)


def quality(estimate: Estimate) -> tuple[int, int]:
    """How good a path is beyond every limit, lower is better, in coarse steps."""
    if not estimate.answered:
        return (0, 0)
    delay_ms = estimate.long_delay_us / 1000
    score = mos(estimate.long_delay_us, estimate.long_jitter_us, estimate.minute().ratio)
    return (
        -int(score / MOS_STEP),
        int(DELAY_STEPS * math.log2(1 + delay_ms / DELAY_BASE_MS)),
    )


LOOK_AGAIN = 0.5  # of the hold time: when to look again for a gain in quality
SHORTEST_LOOK_S = 5.0


def look_again_s(hold_s: float) -> float:
    """How long after a look that found no gain to look for one again."""
    return max(SHORTEST_LOOK_S, LOOK_AGAIN * hold_s)


GAIN_MOS = 0.3
GAIN_DELAY_US = 20_000
GAIN_DELAY = 0.7  # of the incumbent's


def gains(challenger: Estimate, incumbent: Estimate) -> bool:
    """Is one path of equal standing so much better than another that a move is worth it?

    By the long view, and by far more than noise or the step between two ranks.
    """
    if not (challenger.answered and incumbent.answered):
        return False
    ours, theirs = [
        mos(e.long_delay_us, e.long_jitter_us, e.minute().ratio) for e in (challenger, incumbent)
    ]
    if ours >= theirs + GAIN_MOS:
        return True
    return (
        challenger.long_delay_us < GAIN_DELAY * incumbent.long_delay_us
        and challenger.long_delay_us < incumbent.long_delay_us - GAIN_DELAY_US
        and ours >= theirs - MOS_STEP / 2
    )
