"""The only module that reads a clock. Everything that decides takes `now` as a parameter."""

import time


def monotonic() -> float:
    """Seconds on CLOCK_MONOTONIC, the clock of every `now`: it never jumps."""
    return time.monotonic()


def monotonic_ns() -> int:
    """Nanoseconds on the same clock as `monotonic`."""
    return time.monotonic_ns()


def wall_ns() -> int:
    """Nanoseconds since 1970 on CLOCK_REALTIME: for people and for kernel timestamps only."""
    return time.time_ns()
