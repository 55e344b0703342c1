"""The running numbers of one session between two samples.

It adds up, and keeps the two things that outlive an interval: where the best one-way delays lie
and the smoothed jitter. It knows nothing of packets, deadlines or sequence gaps.
"""

from appliance.stamp.window import Sample

_STEP_NS = 50_000_000


class Interval:
    """Counts and delays since the last sample."""

    __slots__ = (
        "_answered",
        "_backward_base",
        "_backward_known",
        "_backward_ns",
        "_delay_ns",
        "_forward_base",
        "_forward_known",
        "_forward_ns",
        "_ipdv_backward_ns",
        "_ipdv_count",
        "_ipdv_forward_ns",
        "_jitter_backward",
        "_jitter_forward",
        "_last_backward",
        "_last_forward",
        "_longest_ns",
        "_lost",
        "_one_way",
        "_opened_ns",
        "_overdue_from",
        "_overdue_next",
        "_recovered",
        "_shortest_ns",
        "_two_way",
    )

    def __init__(self) -> None:
        self._opened_ns: int | None = None
        self._overdue_from = 0  # first sequence number given up in this interval
        self._overdue_next = 0
        self._forward_known = 0  # losses of the session that samples have told of
        self._backward_known = 0
        # The one-way transits, clock offset and all, of the least two-way delay so far.
        self._forward_base: int | None = None
        self._backward_base = 0
        self._last_forward: int | None = None
        self._last_backward = 0
        self._jitter_forward = 0  # J of RFC 3550, times 16
        self._jitter_backward = 0
        self._clear()

    def _clear(self) -> None:
        self._answered = 0
        self._lost = 0
        self._recovered = 0
        self._two_way = 0
        self._delay_ns = 0
        self._shortest_ns = 0
        self._longest_ns = 0
        self._one_way = 0
        self._forward_ns = 0
        self._backward_ns = 0
        self._ipdv_count = 0
        self._ipdv_forward_ns = 0
        self._ipdv_backward_ns = 0

    def count_overdue(self, sequence: int) -> None:
        """A probe was given up. They are given up in the order in which they were sent."""
        self._lost += 1
        self._overdue_next = sequence + 1

    def count_answer(self, sequence: int, was_overdue: bool) -> None:
        """A probe was answered, for the first time."""
        if not was_overdue:
            self._answered += 1
        elif sequence >= self._overdue_from:  # no sample has told of its loss
            self._answered += 1
            self._lost -= 1
        else:
            self._recovered += 1

    def count_two_way(self, delay_ns: int) -> None:
        if not self._two_way or delay_ns < self._shortest_ns:
            self._shortest_ns = delay_ns
        if delay_ns > self._longest_ns:
            self._longest_ns = delay_ns
        self._two_way += 1
        self._delay_ns += delay_ns

    def count_delay(self, delay_ns: int, forward: int, backward: int) -> None:
        """Transits of one answer, each with the unknown offset between the two clocks in it.

        The offset cancels in their sum, `delay_ns`. Of the least sum so far both transits are
        taken as delay zero. Later a transit below its zero can only come from the clocks drifting
        apart, so both zeros move, in opposite directions: their sum stays the least delay.
        """
        self.count_two_way(delay_ns)
        base = self._forward_base
        if base is None or delay_ns < base + self._backward_base:
            self._forward_base = base = forward
            self._backward_base = backward
        elif forward < base:
            self._backward_base += base - forward
            self._forward_base = base = forward
        elif backward < self._backward_base:
            self._forward_base = base = base + self._backward_base - backward
            self._backward_base = backward
        self._one_way += 1
        self._forward_ns += forward - base
        self._backward_ns += backward - self._backward_base

        if self._last_forward is not None:
            forward_d = abs(forward - self._last_forward)
            backward_d = abs(backward - self._last_backward)
            # Far apart in opposite directions at once: a clock was set, no packet was delayed.
            if (
                forward_d < _STEP_NS
                or backward_d < _STEP_NS
                or (forward > self._last_forward) == (backward > self._last_backward)
            ):
                self._ipdv_count += 1
                self._ipdv_forward_ns += forward_d
                self._ipdv_backward_ns += backward_d
                self._jitter_forward += forward_d - (self._jitter_forward + 8 >> 4)
                self._jitter_backward += backward_d - (self._jitter_backward + 8 >> 4)
        self._last_forward = forward
        self._last_backward = backward

    def close(self, now_ns: int, forward_lost: int, backward_lost: int) -> Sample | None:
        """The sample, and a fresh interval. The losses by direction are the session's, so far.

        None, with nothing changed, when no probe was resolved or taken back.
        """
        opened_ns = now_ns if self._opened_ns is None else self._opened_ns
        if self._opened_ns is None:
            self._opened_ns = now_ns
        if not (self._answered or self._lost or self._recovered):
            return None
        forward = forward_lost - self._forward_known
        backward = backward_lost - self._backward_known
        sample = Sample(
            sent=self._answered + self._lost,
            answered=self._answered,
            lost=self._lost,
            recovered=self._recovered,
            lost_forward=max(0, forward),
            lost_backward=max(0, backward),
            recovered_forward=max(0, -forward),
            recovered_backward=max(0, -backward),
            delay_us=_mean_us(self._delay_ns, self._two_way),
            delay_min_us=self._shortest_ns // 1000,
            delay_max_us=self._longest_ns // 1000,
            delay_forward_us=_mean_us(self._forward_ns, self._one_way),
            delay_backward_us=_mean_us(self._backward_ns, self._one_way),
            ipdv_forward_us=_mean_us(self._ipdv_forward_ns, self._ipdv_count),
            ipdv_backward_us=_mean_us(self._ipdv_backward_ns, self._ipdv_count),
            jitter_forward_us=self._jitter_forward // 16_000,
            jitter_backward_us=self._jitter_backward // 16_000,
            span_us=(now_ns - opened_ns) // 1000,
        )
        self._opened_ns = now_ns
        self._overdue_from = self._overdue_next
        self._forward_known = forward_lost
        self._backward_known = backward_lost
        self._clear()
        return sample


def _mean_us(total_ns: int, count: int) -> int:
    return total_ns // (count * 1000) if count else 0
