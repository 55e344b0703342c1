"""Does a path meet an SLA? One limit violated violates the SLA.

Delay and jitter are judged on the short view, loss by the sequential test, MOS by both: the delay
and jitter that are there, and the loss that would spoil the score. Limits have a margin on the
way back, so that a path at its limit is not judged anew with every sample.
"""

import math
from enum import StrEnum
from typing import NamedTuple

from appliance.core.estimate import Estimate
from appliance.core.layout import SlaPlan
from appliance.core.mos import mos
from appliance.core.sequential import LossLimit, LossTest

RETURN = 0.9  # a violated delay or jitter limit is met again below this part of it
RETURN_MOS = 0.1  # a violated score must be exceeded by this much
FIRM_ANSWERS = 8  # before, a mean of the short view is none
FIRM_PROBES = 1000  # a minute's loss ratio over fewer of them is no part of a score
WORST = 4  # severities 1..WORST


class Limit(StrEnum):
    LOSS = "loss"
    DELAY = "delay"
    JITTER = "jitter"
    MOS = "MOS"


class Verdict(NamedTuple):
    """What an SLA says of a path."""

    violated: Limit | None = None
    since: float = -math.inf  # a path is innocent until measured
    severity: int = 0  # 0: meets; each step doubles the excess over the limit
    evidence: str = ""  # "loss 3.1 % over 96 probes violates 1 %"

    @property
    def meets(self) -> bool:
        return self.violated is None


MEETS = Verdict()


def judge(
    before: Verdict,
    plan: SlaPlan,
    estimate: Estimate,
    tests: tuple[LossTest, ...],
    limits: tuple[LossLimit, ...],
    now: float,
) -> Verdict:
    """The verdict after a sample. Returns `before` itself while nothing notable changed."""
    limit = _violated(before.violated, plan, estimate, tests)
    if limit is None:
        return before if before.violated is None else Verdict(None, now)
    severity = _severity(limit, plan, estimate, limits)
    if limit is before.violated and severity == before.severity:
        return before
    since = before.since if before.violated else now
    return Verdict(limit, since, severity, _evidence(limit, plan, estimate, tests))


def _violated(
    before: Limit | None, plan: SlaPlan, estimate: Estimate, tests: tuple[LossTest, ...]
) -> Limit | None:
    sla = plan.sla
    if plan.loss is not None and tests[plan.loss].is_violated:
        return Limit.LOSS
    if not estimate.answered:
        return before  # nothing new: a path that went silent is judged by its liveness
    is_firm = estimate.answered >= FIRM_ANSWERS
    if sla.delay_us is not None:
        most = sla.delay_us * (RETURN if before is Limit.DELAY else 1.0)
        if estimate.trend and estimate.floor_us > most:
            return Limit.DELAY
        # When the last answers are all better, the mean only has not forgotten yet.
        is_over = estimate.ceiling_us > most or not estimate.trend
        if is_firm and is_over and estimate.delay_us > most:
            return Limit.DELAY
    if sla.jitter_us is not None and is_firm:
        most = sla.jitter_us * (RETURN if before is Limit.JITTER else 1.0)
        if estimate.jitter_us > most:
            return Limit.JITTER
    if sla.mos is not None:
        if plan.mos_loss is not None and tests[plan.mos_loss].is_violated:
            return Limit.MOS
        least = sla.mos + (RETURN_MOS if before is Limit.MOS else 0.0)
        if is_firm and score(estimate) < least:
            return Limit.MOS
    return None


def score(estimate: Estimate) -> float:
    """MOS of what is firmly known: few lost packets are no loss ratio yet."""
    minute = estimate.minute()
    loss = minute.ratio if minute.sent >= FIRM_PROBES else 0.0
    return mos(estimate.delay_us, estimate.jitter_us, loss)


def _severity(
    limit: Limit,
    plan: SlaPlan,
    estimate: Estimate,
    limits: tuple[LossLimit, ...],
) -> int:
    excess = 1.0
    sla = plan.sla
    if limit is Limit.LOSS and plan.loss is not None:
        excess = max(estimate.recent().ratio, limits[plan.loss].ratio) / limits[plan.loss].ratio
    elif limit is Limit.DELAY and sla.delay_us:
        excess = estimate.delay_us / sla.delay_us
    elif limit is Limit.JITTER and sla.jitter_us:
        excess = estimate.jitter_us / sla.jitter_us
    elif sla.mos:
        now = mos(estimate.delay_us, estimate.jitter_us, estimate.recent().ratio)
        excess = 1 + 4 * max(0.0, sla.mos - now)
    return min(WORST, 1 + int(math.log2(max(1.0, excess))))


def _evidence(
    limit: Limit,
    plan: SlaPlan,
    estimate: Estimate,
    tests: tuple[LossTest, ...],
) -> str:
    sla = plan.sla
    if limit is Limit.LOSS and plan.loss is not None:
        run, direction = tests[plan.loss].worse
        return (
            f"loss {percent(run.ratio)} over {run.sent} packets ({direction}) "
            f"violates {percent(sla.loss_ratio or 0.0)}"
        )
    if limit is Limit.DELAY:
        worst = max(estimate.delay_us, estimate.floor_us if estimate.trend else 0)
        return f"delay {ms(worst)} violates {ms(sla.delay_us or 0)}"
    if limit is Limit.JITTER:
        return f"jitter {ms(estimate.jitter_us)} violates {ms(sla.jitter_us or 0)}"
    loss = ""
    if plan.mos_loss is not None and tests[plan.mos_loss].is_violated:
        run, direction = tests[plan.mos_loss].worse
        loss = f" with loss {percent(run.ratio)} over {run.sent} packets ({direction})"
    now = mos(estimate.delay_us, estimate.jitter_us, estimate.recent().ratio)
    return f"MOS {now:.1f} at {ms(estimate.delay_us)}{loss} violates {sla.mos}"


def percent(ratio: float) -> str:
    """A ratio for people: "3.1 %", "1 %"."""
    text = f"{100 * ratio:.1f}" if ratio >= 0.001 or not ratio else f"{100 * ratio:.2f}"
    return f"{text.removesuffix('.0') if ratio else text} %"


def ms(delay_us: float) -> str:
    """A delay for people: "24 ms", "0.8 ms"."""
    return f"{delay_us / 1000:.0f} ms" if delay_us >= 9_500 else f"{delay_us / 1000:.1f} ms"
