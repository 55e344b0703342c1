"""What the scenarios of the benchmarks share. Runs in the lab's guest."""

import math
import platform
import time
from collections.abc import Mapping, Sequence

from lab.topology import Lab


def record(
    lab: Lab,
    name: str,
    value: float,
    unit: str,
    *,
    samples: Sequence[float],
    peer: object = None,
    also: Sequence[Mapping[str, object]] = (),
    **conditions: object,
) -> None:
    """Hand out a benchmark's number: `samples` are what it was made of, `peer` what others reach.

    `also` is what the target asks for besides: what, value, unit and limit of each. The conditions
    tell the reader under what it was measured.
    """
    lab.record(
        name,
        value,
        unit,
        samples=list(samples),
        peer=peer,
        also=list(also),
        conditions=conditions,
        guest={"kernel": platform.release(), "python": platform.python_version()},
    )


def percentile(samples: Sequence[float], share: float) -> float:
    """The least sample that at least that share of the samples do not exceed (nearest rank)."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def wait_for_phase(interval_s: float, phase: float) -> None:
    """Sleep to the next but one multiple of the interval on the guest's clock, and a share of it.

    Spreads what a story does over the phases of whatever ticks at that interval.
    """
    now = time.monotonic()
    time.sleep((int(now / interval_s) + 2 + phase) * interval_s - now)
