"""The running numbers of one session between two samples.

It adds up, and keeps what outlives an interval: where the best one-way delays lie, and the
smoothed jitter. It knows nothing of packets, deadlines or gaps in sequence numbers.
"""

from typing import Final

from appliance.stamp.sample import Sample

FOLD: Final = 16  # so many answers may wait to be added up
STEP_NS: Final = 50_000_000  # transits this far apart, in opposite directions: a clock was set

# Of the interval: answers, delay, shortest, longest; answers with one-way transits, delay forward
# and backward; pairs of such answers, |D| forward and backward.
_NOTHING = (0, 0, 0, 0, 0, 0, 0, 0, 0, 0)


class Interval:
    """Counts and delays since the last sample, in nanoseconds.

    Of each answer the sender appends (two-way delay, forward transit) to `pending`, the latter
    None when the reflector's times were no good. They are added up a few at a time, in locals,
    for half of what it would cost one by one: `fold` when there are `FOLD` of them.
    """

    __slots__ = (
        "_known",
        "_lasting",
        "_opened_ns",
        "_sums",
        "lost",
        "overdue_from",
        "pending",
        "recovered",
    )

    def __init__(self) -> None:
        self.pending: list[tuple[int, int | None]] = []
        self.lost = 0  # probes given up
        self.recovered = 0  # answers to probes that an earlier sample counted as lost
        self.overdue_from = 0  # sequence number from which on no sample has told of a loss
        self._opened_ns: int | None = None
        self._known = (0, 0)  # losses forward and backward that samples have told of
        self._sums: tuple[int, ...] = _NOTHING
        # The transits of the least two-way delay so far, the last transits, and J of RFC 3550
        # times 16: forward and backward of each.
        self._lasting: tuple[int | None, int, int | None, int, int, int] = (None, 0, None, 0, 0, 0)

    def take_back(self, sequence: int) -> None:
        """A probe that was given up was answered."""
        if sequence >= self.overdue_from:
            self.lost -= 1
        else:
            self.recovered += 1

    def fold(self) -> None:
        """Add up the answers that wait.

        A transit is a one-way delay plus the unknown offset between two clocks; in the sum of the
        two the offset cancels. Of the least sum so far both transits are taken as delay zero. A
        later transit below its zero can only come from the clocks drifting apart, so both zeros
        move, in opposite directions: together they stay the least two-way delay.
        """
        count, total, shortest, longest, transits, forward_sum, backward_sum, *ipdv = self._sums
        steps, forward_ipdv, backward_ipdv = ipdv
        base, backward_base, last, last_backward, jitter, backward_jitter = self._lasting
        for delay, forward in self.pending:
            if delay < shortest or not count:
                shortest = delay
            if delay > longest:
                longest = delay
            count += 1
            total += delay
            if forward is None:
                continue
            backward = delay - forward
            if base is None or delay < base + backward_base:
                base, backward_base = forward, backward
            elif forward < base:
                backward_base += base - forward
                base = forward
            elif backward < backward_base:
                base += backward_base - backward
                backward_base = backward
            transits += 1
            forward_sum += forward - base
            backward_sum += backward - backward_base
            if last is not None:
                forward_d, backward_d = forward - last, backward - last_backward
                was_set = (forward_d >= STEP_NS and backward_d <= -STEP_NS) or (
                    forward_d <= -STEP_NS and backward_d >= STEP_NS
                )
                if not was_set:
                    if forward_d < 0:
                        forward_d = -forward_d
                    if backward_d < 0:
                        backward_d = -backward_d
                    steps += 1
                    forward_ipdv += forward_d
                    backward_ipdv += backward_d
                    jitter += forward_d - (jitter + 8 >> 4)
                    backward_jitter += backward_d - (backward_jitter + 8 >> 4)
            last, last_backward = forward, backward
        self.pending.clear()
        ipdv = [steps, forward_ipdv, backward_ipdv]
        self._sums = (count, total, shortest, longest, transits, forward_sum, backward_sum, *ipdv)
        self._lasting = (base, backward_base, last, last_backward, jitter, backward_jitter)

    def close(self, now_ns: int, forward_lost: int, backward_lost: int) -> Sample | None:
        """The sample, and a fresh interval. Losses by direction are the session's, so far.

        None, with nothing changed, when no probe was resolved or taken back.
        """
        self.fold()
        count, total, shortest, longest, transits, forward_sum, backward_sum, *ipdv = self._sums
        lost, recovered = self.lost, self.recovered
        opened_ns = self._opened_ns
        if opened_ns is None:
            self._opened_ns = opened_ns = now_ns
        if not (count or lost or recovered):
            return None
        steps, forward_ipdv, backward_ipdv = ipdv
        forward, backward = forward_lost - self._known[0], backward_lost - self._known[1]
        answered = count - recovered
        per_answer = count * 1000 or 1
        per_transit = transits * 1000 or 1
        per_step = steps * 1000 or 1
        sample = Sample(
            answered + lost,
            answered,
            lost,
            recovered,
            forward if forward > 0 else 0,
            backward if backward > 0 else 0,
            -forward if forward < 0 else 0,
            -backward if backward < 0 else 0,
            total // per_answer,
            shortest // 1000,
            longest // 1000,
            forward_sum // per_transit,
            backward_sum // per_transit,
            forward_ipdv // per_step,
            backward_ipdv // per_step,
            self._lasting[4] // 16_000,
            self._lasting[5] // 16_000,
            (now_ns - opened_ns) // 1000,
        )
        self._opened_ns = now_ns
        self._known = (forward_lost, backward_lost)
        self._sums = _NOTHING
        self.lost = self.recovered = 0
        return sample
