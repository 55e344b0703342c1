"""The only module that reads a clock or draws by chance. What decides takes both as parameters."""

import random
import time
from collections.abc import Callable


def monotonic() -> float:
    """Seconds on CLOCK_MONOTONIC, the clock of every `now`: it never jumps."""
    return time.monotonic()


def monotonic_ns() -> int:
    """Nanoseconds on the same clock as `monotonic`."""
    return time.monotonic_ns()


def wall_ns() -> int:
    """Nanoseconds since 1970 on CLOCK_REALTIME: for people and for kernel timestamps only."""
    return time.time_ns()


def jitter() -> Callable[[], float]:
    """A source of numbers in 0..1 that differs from box to box and from start to start."""
    return random.Random().random  # noqa: S311 - spreads load, guards nothing
