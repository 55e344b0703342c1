"""How much of what comes in thousands is kept or told."""


class Budget:
    """A token bucket of one second's depth, full at first."""

    def __init__(self, per_s: float) -> None:
        self._per_s = per_s
        self._tokens = per_s
        self._at = 0.0

    def take(self, now: float, count: int) -> bool:
        self._tokens = min(self._per_s, self._tokens + (now - self._at) * self._per_s)
        self._at = now
        if count > self._tokens:
            return False
        self._tokens -= count
        return True
