import pytest

from appliance.core.estimate import (
    BUCKET_S,
    UNMEASURED,
    Estimate,
    directions,
    observe,
)
from appliance.stamp.sample import Sample
from tests.unit.core.box import GOOD, SLOW


def feed(estimate: Estimate, sample: Sample, times: int, gap: float = 0.1) -> Estimate:
    for _ in range(times):
        now = (estimate.at or 100.0) + gap
        estimate = observe(estimate, sample, directions(estimate, sample), now)
    return estimate


def test_the_first_sample_is_the_estimate_without_the_wait_for_a_handshake() -> None:
    waited = GOOD._replace(delay_us=164_000, delay_max_us=900_000, jitter_forward_us=19_000)
    for sample in (GOOD, waited):
        estimate = feed(UNMEASURED, sample, 1)
        assert estimate.is_measured
        assert estimate.long_delay_us == estimate.delay_us == GOOD.delay_min_us
        assert estimate.floor_us == estimate.ceiling_us == GOOD.delay_min_us
        assert estimate.jitter_us == 0
        assert estimate.long_jitter_us == sample.jitter_forward_us
        assert feed(estimate, GOOD, 10).jitter_us == pytest.approx(200, rel=0.2)


def test_the_short_view_follows_a_step_in_half_a_second_and_the_long_one_does_not() -> None:
    estimate = feed(feed(UNMEASURED, GOOD, 50), SLOW, 5)
    assert estimate.delay_us > 60_000
    assert estimate.long_delay_us < 25_000
    assert feed(estimate, SLOW, 15).delay_us > 95_000
    assert feed(estimate, SLOW, 600).long_delay_us > 90_000


def test_one_straggler_says_nothing_of_the_rest() -> None:
    straggler = GOOD._replace(delay_us=216_000, delay_max_us=1_000_000)
    estimate = feed(feed(UNMEASURED, GOOD, 50), straggler, 1)
    assert estimate.delay_us < 21_000


def test_a_trend_takes_two_short_samples_or_one_long_one() -> None:
    estimate = feed(UNMEASURED, GOOD, 5)
    once = feed(estimate, SLOW, 1)
    assert (once.floor_us, once.ceiling_us) == (19_500, 101_000)
    assert feed(once, SLOW, 1).floor_us == 99_000
    assert feed(estimate, SLOW._replace(span_us=250_000), 1).floor_us == 99_000


def test_few_answers_are_no_trend() -> None:
    one = Sample(1, 1, delay_us=9, delay_min_us=9, delay_max_us=9, span_us=1_000_000)
    assert feed(UNMEASURED, one, 1).trend == 0
    assert feed(UNMEASURED, one, 2).trend == 0
    three = one._replace(sent=3, answered=3)
    assert feed(UNMEASURED, three, 1).trend == 3


def test_silence_ends_a_trend_and_keeps_the_rest() -> None:
    estimate = feed(UNMEASURED, GOOD, 5)
    silent = feed(estimate, Sample(5, 0, 5, span_us=100_000), 1)
    assert silent.trend == 0
    assert silent.delay_us == estimate.delay_us
    assert silent.recent().lost == 5


def test_loss_is_counted_over_a_minute_and_forgotten_after() -> None:
    lossy = GOOD._replace(answered=4, lost=1, lost_forward=1)
    estimate = feed(UNMEASURED, lossy, 10)
    assert estimate.minute() == estimate.recent() == (50, 10, 10, 0)
    later = feed(estimate, GOOD, 300)
    assert later.minute().lost == 10
    assert later.recent().lost == 0
    assert feed(later, GOOD, 400).minute().lost == 0


def test_counts_of_the_minute_add_up_whatever_the_gaps() -> None:
    estimate, total = UNMEASURED, []
    now = 1000.0
    for step in (
        *(5.0,) * 20,
        *(2.5,) * 40,
        0.1,
        3.0,
        4.9,
        5.0,
        12.0,
        0.5,
        30.0,
        2.0,
        59.0,
        0.1,
        200.0,
        1.0,
    ):
        now += step
        estimate = observe(estimate, GOOD, (0, 0), now)
        total.append(now)
        bucket = int(now / BUCKET_S)
        within = [t for t in total if int(t / BUCKET_S) >= bucket - 12]
        assert estimate.minute().sent == 5 * len(within)


def test_an_age_of_silence_costs_nothing() -> None:
    estimate = observe(feed(UNMEASURED, GOOD, 5), GOOD, (0, 0), 1e15)
    assert estimate.minute().sent == 5


def test_a_late_answer_takes_its_loss_back() -> None:
    lossy = GOOD._replace(answered=4, lost=1, lost_forward=1)
    back = GOOD._replace(recovered=1, recovered_forward=1)
    estimate = feed(feed(UNMEASURED, lossy, 1), back, 1)
    assert estimate.minute() == (10, 0, 0, 0)


def test_the_worse_direction_is_the_loss_ratio() -> None:
    lossy = GOOD._replace(sent=10, answered=7, lost=3, lost_forward=2, lost_backward=1)
    counts = feed(UNMEASURED, lossy, 1).minute()
    assert counts.ratio == pytest.approx(0.2)
    assert counts.two_way_ratio == pytest.approx(0.3)


def test_losses_from_before_the_path_was_forgotten_count_for_nothing() -> None:
    late_news = GOOD._replace(lost_forward=300)
    assert directions(UNMEASURED, late_news) == (0, 0)
    told_next = feed(UNMEASURED, GOOD._replace(answered=4, lost=1), 1)
    assert told_next.untold == 1
    assert directions(told_next, GOOD._replace(lost_forward=300)) == (1, 0)
    assert directions(told_next, GOOD._replace(lost_backward=1)) == (0, 1)
    assert feed(told_next, GOOD._replace(lost_backward=1), 1).untold == 0
