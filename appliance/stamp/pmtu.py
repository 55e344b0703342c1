"""Packetization layer path MTU discovery for a path (RFC 8899), with padded STAMP probes.

It decides which size to probe next and what size is known to get through. It trusts no ICMP
message: only an answer to a padded probe raises the size, and only missing answers lower it. The
caller sends the probes, and tells of losses only while small probes are answered, because a dead
path says nothing about sizes (RFC 8899 section 4.3).

Sizes are octets of the inner IPv6 packet; times are integer nanoseconds on the monotonic clock.
"""

from enum import StrEnum

BASE = 1280  # every IPv6 path carries this (RFC 8200 section 5); RFC 8899's BASE_PLPMTU
STEP = 8  # the search stops when the answer is known this closely
MAX_PROBES = 3  # RFC 8899 section 5.1.2
PROBE_GAP_NS = 200_000_000  # between two probes of a search, and before a repeated one
CONFIRM_NS = 5_000_000_000  # how often a size that is in use is tried again, at the most
RAISE_NS = 600_000_000_000  # PMTU_RAISE_TIMER, RFC 8899 section 5.1.1
# A size that was lowered is doubted sooner, at doubling intervals: a busy line loses padded probes
# too, and what was then taken for too large should not stay so for the whole timer. Where that
# happens again and again the intervals go on doubling.
FIRST_RAISE_NS = 10_000_000_000


class Phase(StrEnum):
    """The states of RFC 8899 section 5.2 that a path with a guaranteed base size needs."""

    SEARCHING = "searching"
    COMPLETE = "search-complete"


class PathMtu:
    """The search for one path's MTU.

    `mtu` is the largest size known to pass. It starts at the ceiling, as a device's own MTU would
    have it, because nearly every path carries it and the first probe tells.
    """

    def __init__(self, ceiling: int, now_ns: int, *, base: int = BASE) -> None:
        """`ceiling` is the MTU of the plane's device: nothing larger can be sent."""
        self.base = min(base, ceiling)
        self.ceiling = ceiling
        self.mtu = ceiling
        self.phase = Phase.SEARCHING
        self._passes = self.base  # largest size known, or promised, to pass
        self._fails = ceiling + STEP  # smallest size known, or assumed, to fail
        self.candidate = ceiling
        self._losses = 0
        self._due_ns = now_ns
        self._raise_ns = now_ns
        self._raise_after_ns = FIRST_RAISE_NS
        self._since_ns = now_ns  # `mtu` is what it is

    @property
    def is_confirmed(self) -> bool:
        """Is nothing searched for, and does nothing speak against the size in use?"""
        return self.phase is Phase.COMPLETE and not self._losses

    def next_deadline_ns(self) -> int:
        """When `next_probe` will have something to send."""
        return self._due_ns

    def next_probe(self, now_ns: int) -> int | None:
        """The size to probe now, or None when it is not time yet."""
        if now_ns < self._due_ns:
            return None
        if self.is_confirmed and now_ns >= self._raise_ns and self.mtu < self.ceiling:
            self._search(self.mtu, self.ceiling + STEP, self.ceiling)
        self._due_ns = now_ns + (CONFIRM_NS if self.phase is Phase.COMPLETE else PROBE_GAP_NS)
        return self.candidate

    def answered(self, size: int, now_ns: int) -> bool:
        """A probe of this size came back. True when `mtu` changed."""
        if size != self.candidate:
            return False
        self._losses = 0
        if self.phase is Phase.COMPLETE:
            return False
        self._passes = size
        return self._advance(now_ns, self.mtu if self.mtu > size else size)

    def lost(self, size: int, now_ns: int) -> bool:
        """A probe of this size did not come back though the path lives. True when `mtu` changed."""
        if size != self.candidate:
            return False
        self._losses += 1
        self._due_ns = min(self._due_ns, now_ns + PROBE_GAP_NS)
        if self._losses < MAX_PROBES:
            return False
        self._losses = 0
        if self.phase is Phase.COMPLETE:
            # A black hole (RFC 8899 section 4.3): be safe at once, then look how much still passes.
            self._search(self.base, size, (self.base + size) // 2)
            self._due_ns = now_ns
            if now_ns - self._since_ns > self._raise_after_ns:
                self._raise_after_ns = FIRST_RAISE_NS
            return self._settle(self.base, now_ns)
        self._fails = size
        return self._advance(now_ns, min(self.mtu, self._passes))

    def _search(self, passes: int, fails: int, candidate: int) -> None:
        self.phase = Phase.SEARCHING
        self._passes, self._fails, self.candidate = passes, fails, candidate
        self._losses = 0

    def _advance(self, now_ns: int, mtu: int) -> bool:
        """Choose the next candidate between what passes and what fails, or finish."""
        if self._fails - self._passes <= STEP:
            self.phase = Phase.COMPLETE
            self.candidate = self._passes
            self._due_ns = now_ns + CONFIRM_NS
            self._raise_ns = now_ns + self._raise_after_ns
            self._raise_after_ns = min(2 * self._raise_after_ns, RAISE_NS)
            return self._settle(self._passes, now_ns)
        self.candidate = (self._passes + self._fails) // 2
        self._due_ns = now_ns
        return self._settle(mtu, now_ns)

    def _settle(self, mtu: int, now_ns: int) -> bool:
        if mtu == self.mtu:
            return False
        self.mtu, self._since_ns = mtu, now_ns
        return True
