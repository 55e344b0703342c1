"""What a path was like: the numbers of one measurement interval, and of the last N seconds.

It only counts. Whether a number is good enough, and what to do about it, is decided in `core`.
Nothing here is a verdict: a probe counted lost whose answer comes after all is taken back.
"""

from collections import deque
from operator import add, sub
from typing import NamedTuple


class Sample(NamedTuple):
    """The probes of one path that were resolved, by an answer or a verdict, in one interval.

    "Forward" is from us to the far end. Delays of one direction are what exceeds the best two-way
    delay of the session, so that no clock needs to agree with another. `recovered` counts probes
    that an earlier sample counted as lost and that were answered after all; their delays are part
    of this sample. Summed over all samples of a session, `lost - recovered` is the number of
    probes never answered, and the same holds for each direction.

    A lost probe belongs to a direction once a later answer has told which: `lost_forward` and
    `lost_backward` may trail `lost`, and after a blackout arrive in one piece.
    """

    sent: int = 0  # resolved: answered + lost
    answered: int = 0
    lost: int = 0  # no answer by the deadline
    recovered: int = 0
    lost_forward: int = 0
    lost_backward: int = 0
    recovered_forward: int = 0
    recovered_backward: int = 0
    delay_us: int = 0  # two-way, mean, without the time spent in the reflector
    delay_min_us: int = 0
    delay_max_us: int = 0
    delay_forward_us: int = 0  # mean above the session's best
    delay_backward_us: int = 0
    ipdv_forward_us: int = 0  # mean of |D| between successive answers (RFC 3393)
    ipdv_backward_us: int = 0
    jitter_forward_us: int = 0  # J of RFC 3550 section 6.4.1 when the interval closed
    jitter_backward_us: int = 0
    span_us: int = 0  # length of the interval

    @property
    def measured(self) -> int:
        """How many delays the means are taken over."""
        return self.answered + self.recovered

    @property
    def loss_ratio(self) -> float:
        """Two-way loss, 0..1; 0 when nothing was resolved."""
        return _ratio(self.lost - self.recovered, self.sent)

    @property
    def loss_forward_ratio(self) -> float:
        return _ratio(self.lost_forward - self.recovered_forward, self.sent)

    @property
    def loss_backward_ratio(self) -> float:
        return _ratio(self.lost_backward - self.recovered_backward, self.sent)

    @property
    def jitter_us(self) -> int:
        """The worse direction's."""
        return max(self.jitter_forward_us, self.jitter_backward_us)


def _ratio(part: int, whole: int) -> float:
    return min(part / whole, 1.0) if whole and part > 0 else 0.0


def _extensive(sample: Sample) -> tuple[int, ...]:
    """What of a sample can be summed, and taken out of a sum again, without rounding."""
    (
        *counts,
        delay,
        _,
        _,
        delay_forward,
        delay_backward,
        ipdv_forward,
        ipdv_backward,
        _,
        _,
        span,
    ) = sample
    weight = sample.answered + sample.recovered
    return (
        *counts,
        delay * weight,
        delay_forward * weight,
        delay_backward * weight,
        ipdv_forward * weight,
        ipdv_backward * weight,
        span,
    )


_NOTHING = _extensive(Sample())


class Totals:
    """Samples added up without rounding, so that any grouping gives the same result."""

    __slots__ = ("jitter", "max_us", "min_us", "sums")

    def __init__(self) -> None:
        self.sums = _NOTHING  # as `_extensive` orders them
        self.min_us = 0  # of the two-way delay; meaningless while nothing was measured
        self.max_us = 0
        self.jitter = (0, 0)  # forward, backward: the last that was measured

    @property
    def measured(self) -> int:
        return self.sums[1] + self.sums[3]

    def add(self, sample: Sample) -> None:
        """Add a later sample."""
        later = Totals()
        later.sums = _extensive(sample)
        later.min_us = sample.delay_min_us
        later.max_us = sample.delay_max_us
        later.jitter = (sample.jitter_forward_us, sample.jitter_backward_us)
        self.merge(later)

    def merge(self, later: "Totals") -> None:
        """Add what came after. Associative; not commutative, because the last jitter stands."""
        if later.measured:
            if later.min_us < self.min_us or not self.measured:
                self.min_us = later.min_us
            if later.max_us > self.max_us:
                self.max_us = later.max_us
            self.jitter = later.jitter
        self.sums = tuple(map(add, self.sums, later.sums))

    def sample(self) -> Sample:
        """The sum as one sample, late answers taken off the losses. Means round down."""
        _, answered, lost, recovered, *rest = self.sums
        lost_forward, lost_backward, recovered_forward, recovered_backward, *rest = rest
        delay, delay_forward, delay_backward, ipdv_forward, ipdv_backward, span_us = rest
        answered += recovered
        # The loss may have left a window before its late answer did: never below nothing.
        lost = lost - recovered if lost > recovered else 0
        weight = answered or 1
        return Sample(
            answered + lost,
            answered,
            lost,
            0,
            max(0, lost_forward - recovered_forward),
            max(0, lost_backward - recovered_backward),
            0,
            0,
            delay // weight,
            self.min_us,
            self.max_us,
            delay_forward // weight,
            delay_backward // weight,
            ipdv_forward // weight,
            ipdv_backward // weight,
            *self.jitter,
            span_us,
        )


class Window:
    """The samples of the last `span_s` seconds as one, in bounded memory.

    Samples are kept in at most `buckets` buckets and one being filled, each of a fixed stretch of
    the caller's clock, so that the window is up to one bucket longer than asked for. `now` is
    seconds on any clock that does not go back.
    """

    __slots__ = ("_buckets", "_keep", "_sums", "_width_s")

    def __init__(self, span_s: float, buckets: int = 10) -> None:
        if span_s <= 0 or buckets < 1:
            msg = f"a window needs a span and a bucket, not {span_s} s in {buckets}"
            raise ValueError(msg)
        self._width_s = span_s / buckets
        self._keep = buckets
        self._buckets: deque[tuple[int, Totals]] = deque()
        self._sums = _NOTHING  # of all buckets: a hub asks for thousands of windows a second

    def add(self, sample: Sample, now: float) -> None:
        """Take in a sample whose interval closed at `now`."""
        index = int(now // self._width_s)
        totals = Totals()
        totals.add(sample)
        self._sums = tuple(map(add, self._sums, totals.sums))
        if self._buckets and self._buckets[-1][0] >= index:
            self._buckets[-1][1].merge(totals)
        else:
            self._expire(index)
            self._buckets.append((index, totals))

    def total(self, now: float) -> Sample:
        """Everything since `span_s` seconds before `now`, netted of late answers."""
        self._expire(int(now // self._width_s))
        whole = Totals()
        whole.sums = self._sums
        measured = [totals for _, totals in self._buckets if totals.measured]
        if measured:
            whole.min_us = min([totals.min_us for totals in measured])
            whole.max_us = max([totals.max_us for totals in measured])
            whole.jitter = measured[-1].jitter
        return whole.sample()

    def clear(self) -> None:
        """Forget everything, as after a path came back from the dead."""
        self._buckets.clear()
        self._sums = _NOTHING

    def _expire(self, index: int) -> None:
        while self._buckets and self._buckets[0][0] < index - self._keep:
            _, totals = self._buckets.popleft()
            self._sums = tuple(map(sub, self._sums, totals.sums))
