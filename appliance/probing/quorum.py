"""Judges the health of an uplink from what its targets answered. Pure.

It decides when an uplink counts as healthy; it must never condemn one for a single target, nor for
ICMP that somebody filters. Windows of numbers are not its business: those are the tunnels' probes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.config.intent import Target, TargetKind

RISE = 3  # good rounds in a row until an unhealthy uplink is healthy
FALL = 3  # bad rounds in a row until a healthy uplink is unhealthy


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one question. `detail` says why there was no answer that counts."""

    target: Target
    is_answered: bool
    detail: str = ""
    delay_us: int | None = None  # from the question to the answer


@dataclass(frozen=True, slots=True)
class Round:
    """One question to every target, counted."""

    answered: int
    asked: int
    is_good: bool
    evidence: str  # "2 of 3 targets answered; 192.0.2.53 (dns) did not: timed out"


@dataclass(frozen=True, slots=True)
class Health:
    """The verdict so far, and how many rounds in a row spoke against it.

    `is_healthy` is None before the first verdict: one good round makes it healthy, but bad ones
    must be as many as later, since the first may be sent before our routes are in place.
    """

    is_healthy: bool | None = None
    against: int = 0

    @property
    def is_in_doubt(self) -> bool:
        """Is it worth asking again soon?"""
        return self.is_healthy is None or self.against > 0


def count(outcomes: Sequence[Outcome], quorum: int) -> Round:
    """Count one round. `outcomes` has one entry per target; `quorum` is 1..len(outcomes).

    Networks filter ICMP on purpose. When every ICMP target is silent while every other target
    answers, the silence says nothing about the line, and the quorum is asked of the others only.
    """
    answered = sum(o.is_answered for o in outcomes)
    silent = [o for o in outcomes if not o.is_answered]
    others = [o for o in outcomes if o.target.kind is not TargetKind.ICMP]
    icmp_blocked = (
        bool(silent)
        and bool(others)
        and all(o.is_answered == (o.target.kind is not TargetKind.ICMP) for o in outcomes)
    )
    needed = min(quorum, len(others)) if icmp_blocked else quorum
    evidence = f"{answered} of {len(outcomes)} targets answered"
    if silent:
        evidence += "; " + ", ".join(f"{_name(o.target)} did not: {o.detail}" for o in silent)
    if icmp_blocked and needed < quorum:
        evidence += "; ICMP seems to be filtered and is not counted"
    return Round(answered, len(outcomes), answered >= needed, evidence)


def judge(health: Health, is_good: bool) -> Health:
    """The verdict after one more round."""
    if is_good == health.is_healthy:
        return Health(health.is_healthy)
    if health.is_healthy is None and is_good:
        return Health(True)
    against = health.against + 1
    if against >= (RISE if is_good else FALL):
        return Health(is_good)
    return Health(health.is_healthy, against)


def evidence(counted: Round, health: Health) -> str:
    """The sentence for people: what the round said, and why the verdict does not follow it yet."""
    if not health.against:
        return counted.evidence
    kind, needed = ("bad", FALL) if health.is_healthy else ("good", RISE)
    pending = f"{health.against} of the {needed} {kind} rounds that change the verdict"
    return f"{counted.evidence}; {pending}"


def _name(target: Target) -> str:
    return f"{target.address} ({target.kind})"
