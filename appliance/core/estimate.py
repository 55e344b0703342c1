"""What a path is like: short and long views of its samples, as one frozen value.

It only measures; whether a number is good enough is said by `verdict`. The short view follows a
change within a few samples, and the long one needs tens of seconds to be convinced. Loss is
counted, not smoothed: over the last seconds for people, and over a minute for how lossy the path
is by habit. (The verdict on loss is `sequential`'s.)

A named tuple and not a dataclass, because one is made for every sample of every path, and making
it costs a third.
"""

from typing import NamedTuple

from appliance.stamp.sample import Sample

SHORT_S = 0.5  # time constant of the short view
LONG_S = 20.0  # time constant of the long view
TREND_SPAN_US = 150_000  # an interval this long is a trend by itself; shorter ones take two
TREND_ANSWERS = 3
BUCKET_S = 5.0
BUCKETS = 12  # a minute of counted losses
RECENT_BUCKETS = 2  # complete ones that count as "recent", with the one being filled


class Counts(NamedTuple):
    """Probes resolved and lost. A direction's share may trail the two-way count."""

    sent: int = 0
    lost: int = 0  # two-way
    forward: int = 0
    backward: int = 0

    @property
    def ratio(self) -> float:
        """The worse direction's loss ratio, 0..1; the two-way one until directions are told."""
        return _ratio(max(self.forward, self.backward), self.sent)

    @property
    def two_way_ratio(self) -> float:
        return _ratio(self.lost, self.sent)


def _ratio(lost: int, sent: int) -> float:
    return min(1.0, max(0.0, lost / sent)) if sent else 0.0


NONE = Counts()


class Estimate(NamedTuple):
    """Delays are two-way, jitter is the worse direction's; all in microseconds."""

    at: float = 0.0  # when the last sample came
    answered: int = 0  # since the path was last forgotten
    delay_us: float = 0.0  # short view
    jitter_us: float = 0.0
    long_delay_us: float = 0.0
    long_jitter_us: float = 0.0
    floor_us: int = 0  # no answer of the last moments was faster: see `trend`
    ceiling_us: int = 0  # none was slower
    trend: int = 0  # answers that floor and ceiling are taken over; 0 when there are too few
    last: tuple[int, int, int] = (0, 0, 0)  # least, most and number of the last sample's delays
    untold: int = 0  # lost probes whose direction no later answer has told yet
    bucket: int = 0  # number of the bucket being filled
    current: Counts = NONE
    past: tuple[Counts, ...] = ()  # complete buckets, oldest first
    total: Counts = NONE  # of `past`

    @property
    def is_measured(self) -> bool:
        return self.answered > 0

    def recent(self) -> Counts:
        """Loss over the last ten seconds or a little more."""
        return _sum((*self.past[-RECENT_BUCKETS:], self.current))

    def minute(self) -> Counts:
        """Loss over the last minute."""
        past, now = self.total, self.current
        return Counts(
            past.sent + now.sent,
            past.lost + now.lost,
            past.forward + now.forward,
            past.backward + now.backward,
        )


UNMEASURED = Estimate()


def _sum(counts: tuple[Counts, ...]) -> Counts:
    return Counts(
        sum([c.sent for c in counts]),
        sum([c.lost for c in counts]),
        sum([c.forward for c in counts]),
        sum([c.backward for c in counts]),
    )


def directions(estimate: Estimate, sample: Sample) -> tuple[int, int]:
    """Losses on the way forth and back that a sample tells of, late answers taken off.

    What was lost before the path was last forgotten is left out: after a blackout the sample
    tells of all of it in one piece, and that says nothing of the path as it is now.
    """
    forward = sample.lost_forward - sample.recovered_forward
    backward = sample.lost_backward - sample.recovered_backward
    if forward + backward <= 0:
        return forward, backward
    known = max(0, estimate.untold + sample.lost - sample.recovered)
    forward = min(forward, known)
    return forward, min(backward, known - forward)


def observe(estimate: Estimate, sample: Sample, told: tuple[int, int], now: float) -> Estimate:
    """Take in one sample, whose interval closed at `now`, with the `directions` it told."""
    current, past, total, bucket = estimate.current, estimate.past, estimate.total, estimate.bucket
    number = int(now / BUCKET_S)
    if number != bucket:
        past, total = _rotate(past, current, number - bucket if bucket else 0)
        current, bucket = NONE, number
    forward, backward = told
    lost = sample.lost - sample.recovered
    current = Counts(
        current.sent + sample.sent,
        current.lost + lost,
        current.forward + forward,
        current.backward + backward,
    )
    untold = max(0, estimate.untold + lost - forward - backward)
    answers = sample.answered + sample.recovered
    if not answers:
        return estimate._replace(
            at=now,
            trend=0,
            last=(0, 0, 0),
            untold=untold,
            bucket=bucket,
            current=current,
            past=past,
            total=total,
        )
    least, most = sample.delay_min_us, sample.delay_max_us
    delay, jitter = sample.delay_us, max(sample.jitter_forward_us, sample.jitter_backward_us)
    if not estimate.answered:
        # Some of these probes waited for WireGuard's handshake; the fastest one waited least.
        # Nothing is violated by such a wait, so the short view begins without jitter.
        most = least
        short = long = float(least)
        short_jitter, long_jitter = 0.0, float(jitter)
    else:
        mean = float(delay)
        if answers > 2:  # one straggler among several says nothing of the rest
            mean = (delay * answers - most) / (answers - 1)
        age = min(max(now - estimate.at, sample.span_us / 1e6), 10.0)
        gain, slow = age / (age + SHORT_S), age / (age + LONG_S)
        short = estimate.delay_us + gain * (mean - estimate.delay_us)
        short_jitter = estimate.jitter_us + gain * (jitter - estimate.jitter_us)
        long = estimate.long_delay_us + slow * (mean - estimate.long_delay_us)
        long_jitter = estimate.long_jitter_us + slow * (jitter - estimate.long_jitter_us)
    floor, ceiling, trend = least, most, answers
    if sample.span_us < TREND_SPAN_US or answers < TREND_ANSWERS:
        before_least, before_most, before = estimate.last
        if before:
            floor, ceiling = min(least, before_least), max(most, before_most)
        trend = trend + before if before and trend + before >= TREND_ANSWERS else 0
    return Estimate(
        now,
        estimate.answered + answers,
        short,
        short_jitter,
        long,
        long_jitter,
        floor,
        ceiling,
        trend,
        (least, most, answers),
        untold,
        bucket,
        current,
        past,
        total,
    )


def _rotate(
    past: tuple[Counts, ...], current: Counts, steps: int
) -> tuple[tuple[Counts, ...], Counts]:
    if steps <= 0:
        return past, _sum(past)
    if steps > BUCKETS:
        return (), NONE
    past = (*past, current, *(NONE,) * (steps - 1))[-BUCKETS:]
    return past, _sum(past)
