"""Delays of one direction, IPDV and jitter, against straightforward computations."""

import random
from itertools import pairwise

from appliance.stamp.interval import FOLD, Interval
from appliance.stamp.sample import Sample

MS = 1_000_000
OFFSET = 10**15  # the far clock is far ahead


def feed(interval: Interval, pairs: list[tuple[int, int]], offset: int = OFFSET) -> None:
    """(one-way delay forth, and back) of each answer, in nanoseconds."""
    for forward, backward in pairs:
        interval.pending.append((forward + backward, forward + offset))
        if len(interval.pending) >= FOLD:
            interval.fold()


def close(interval: Interval) -> Sample:
    sample = interval.close(0, 0, 0)
    assert sample is not None
    return sample


def reference_jitter(transits: list[int]) -> float:
    """RFC 3550 section 6.4.1, as it is written: J += (|D| - J) / 16."""
    jitter = 0.0
    for before, after in pairwise(transits):
        jitter += (abs(after - before) - jitter) / 16
    return jitter


def test_jitter_is_that_of_rfc_3550_in_each_direction() -> None:
    seeded = random.Random(1)
    pairs = [
        (10 * MS + seeded.randrange(5 * MS), 9 * MS + seeded.randrange(MS)) for _ in range(500)
    ]
    interval = Interval()
    done = 0
    for count in (1, 2, 50, 447):
        feed(interval, pairs[done : done + count])
        done += count
        sample = close(interval)
        forward = reference_jitter([forth for forth, _ in pairs[:done]])
        backward = reference_jitter([back for _, back in pairs[:done]])
        assert abs(sample.jitter_forward_us - forward / 1000) <= 1
        assert abs(sample.jitter_backward_us - backward / 1000) <= 1
    assert sample.jitter_forward_us > 3 * sample.jitter_backward_us > 0


def test_ipdv_is_the_mean_difference_of_successive_answers() -> None:
    interval = Interval()
    feed(interval, [(10 * MS, 5 * MS), (12 * MS, 5 * MS), (11 * MS, 8 * MS)])
    sample = close(interval)
    assert (sample.ipdv_forward_us, sample.ipdv_backward_us) == (1500, 1500)
    feed(interval, [(13 * MS, 8 * MS)])  # the last answer of the interval before counts
    sample = close(interval)
    assert (sample.ipdv_forward_us, sample.ipdv_backward_us) == (2000, 0)


def test_one_way_delays_are_above_the_best_two_way_delay() -> None:
    interval = Interval()
    feed(interval, [(10 * MS, 5 * MS), (14 * MS, 5 * MS), (10 * MS, 6 * MS), (12 * MS, 7 * MS)])
    sample = close(interval)
    assert (sample.delay_forward_us, sample.delay_backward_us) == (1500, 750)
    assert (sample.delay_us, sample.delay_min_us, sample.delay_max_us) == (17_250, 15_000, 19_000)
    # A better one is the new zero, for what comes after it.
    feed(interval, [(8 * MS, 4 * MS), (9 * MS, 4 * MS)])
    assert close(interval).delay_forward_us == 500


def test_clocks_that_drift_apart_do_not_look_like_delay() -> None:
    interval = Interval()
    worst = 0
    for second in range(3600):
        drift = second * 50_000  # 50 ppm
        feed(interval, [(10 * MS, 10 * MS)], OFFSET + drift)
        sample = close(interval)
        worst = max(worst, sample.delay_forward_us, sample.delay_backward_us)
    assert worst <= 1


def test_delay_in_one_direction_is_seen_in_spite_of_drift() -> None:
    interval = Interval()
    for second in range(60):
        feed(interval, [(10 * MS, 10 * MS)], OFFSET - second * 20_000)
    close(interval)
    feed(interval, [(40 * MS, 10 * MS)], OFFSET - 60 * 20_000)
    sample = close(interval)
    assert abs(sample.delay_forward_us - 30_000) <= 20
    assert sample.delay_backward_us <= 20


def test_a_far_clock_that_is_set_is_no_jitter() -> None:
    interval = Interval()
    feed(interval, [(10 * MS, 10 * MS)] * 5)
    for offset in (OFFSET + 3_600_000 * MS, OFFSET - 51 * MS):
        feed(interval, [(10 * MS, 10 * MS)] * 5, offset)
        sample = close(interval)
        assert (sample.jitter_forward_us, sample.jitter_backward_us) == (0, 0)
        assert sample.ipdv_forward_us == 0
        assert (sample.delay_forward_us, sample.delay_backward_us) == (0, 0)


def test_delay_that_rises_in_both_directions_is_jitter() -> None:
    interval = Interval()
    feed(interval, [(10 * MS, 10 * MS), (90 * MS, 90 * MS)])
    sample = close(interval)
    assert (sample.ipdv_forward_us, sample.ipdv_backward_us) == (80_000, 80_000)
    assert (sample.jitter_forward_us, sample.jitter_backward_us) == (5_000, 5_000)


def test_answers_without_one_way_times_count_two_way_only() -> None:
    interval = Interval()
    feed(interval, [(10 * MS, 10 * MS)])
    interval.pending.append((50 * MS, None))
    feed(interval, [(12 * MS, 10 * MS)])
    sample = close(interval)
    assert (sample.answered, sample.delay_max_us) == (3, 50_000)
    assert (sample.delay_forward_us, sample.ipdv_forward_us) == (1_000, 2_000)


def test_losses_by_direction_are_told_once_and_taken_back() -> None:
    interval = Interval()
    interval.lost = 3
    first = interval.close(0, 2, 1)
    assert first is not None
    assert (first.lost_forward, first.lost_backward) == (2, 1)
    interval.recovered = 1
    interval.pending.append((MS, None))
    second = interval.close(5_000, 1, 2)
    assert second is not None
    assert (second.lost_forward, second.recovered_forward) == (0, 1)
    assert (second.lost_backward, second.recovered_backward) == (1, 0)
    assert second.span_us == 5


def test_an_interval_without_anything_goes_on() -> None:
    interval = Interval()
    assert interval.close(1_000_000, 0, 0) is None
    interval.lost = 1
    sample = interval.close(9_000_000, 0, 0)
    assert sample is not None
    assert sample.span_us == 8_000
    interval.lost = 1
    following = interval.close(10_000_000, 0, 0)
    assert following is not None
    assert following.span_us == 1_000
