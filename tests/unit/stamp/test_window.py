import pytest

from appliance.stamp.window import Sample, Totals, Window


def test_ratios_of_nothing_are_zero() -> None:
    assert Sample().loss_ratio == 0.0
    assert Sample().loss_forward_ratio == 0.0
    assert Window(1.0).total(0.0) == Sample()


def test_ratios_take_late_answers_off() -> None:
    sample = Sample(sent=10, answered=6, lost=4, recovered=1, lost_forward=3, lost_backward=1)
    assert sample.loss_ratio == 0.3
    assert sample.loss_forward_ratio == 0.3
    assert sample.loss_backward_ratio == 0.1
    assert Sample(sent=2, answered=2, recovered=2).loss_ratio == 0.0


def test_jitter_is_the_worse_direction() -> None:
    assert Sample(jitter_forward_us=3, jitter_backward_us=4).jitter_us == 4


def test_means_are_weighted_by_answers() -> None:
    window = Window(1.0)
    window.add(Sample(sent=3, answered=3, delay_us=10, delay_min_us=8, delay_max_us=12), 0.1)
    window.add(Sample(sent=1, answered=1, delay_us=50, delay_min_us=50, delay_max_us=50), 0.2)
    total = window.total(0.2)
    assert (total.delay_us, total.delay_min_us, total.delay_max_us) == (20, 8, 50)


def test_a_sample_without_answers_moves_no_delay() -> None:
    window = Window(1.0)
    window.add(Sample(sent=1, answered=1, delay_us=9, delay_min_us=9, delay_max_us=9), 0.0)
    window.add(Sample(sent=2, lost=2), 0.1)
    total = window.total(0.1)
    assert (total.delay_us, total.delay_min_us, total.delay_max_us) == (9, 9, 9)
    assert total.loss_ratio == pytest.approx(2 / 3)


def test_the_last_measured_jitter_stands() -> None:
    window = Window(1.0)
    window.add(Sample(sent=1, answered=1, jitter_forward_us=5, jitter_backward_us=7), 0.0)
    window.add(Sample(sent=1, answered=1, jitter_forward_us=3, jitter_backward_us=2), 0.1)
    window.add(Sample(sent=1, lost=1), 0.2)
    assert window.total(0.2).jitter_forward_us == 3
    assert window.total(0.2).jitter_backward_us == 2


def test_a_late_answer_takes_its_loss_back() -> None:
    window = Window(1.0)
    window.add(Sample(sent=4, answered=2, lost=2, lost_backward=2), 0.0)
    assert window.total(0.0).loss_ratio == 0.5
    window.add(Sample(recovered=2, recovered_backward=2), 0.1)
    assert window.total(0.1) == Sample(sent=4, answered=4)


def test_a_late_answer_cannot_make_loss_negative() -> None:
    window = Window(1.0)
    window.add(Sample(sent=4, lost=4), 0.0)
    window.add(Sample(sent=1, lost=1, recovered=4), 2.5)  # the four are out of the window
    assert window.total(2.5).lost == 0
    assert window.total(2.5).loss_ratio == 0.0


def test_old_samples_leave_and_memory_is_bounded() -> None:
    window = Window(1.0, buckets=4)
    for tick in range(1000):
        window.add(Sample(sent=1, answered=1, delay_us=tick), tick / 100)
    assert len(window._buckets) <= 5
    total = window.total(9.99)
    assert 100 <= total.sent <= 125  # the span, and at most a bucket more
    assert window.total(30.0) == Sample()


def test_clear_forgets() -> None:
    window = Window(1.0)
    window.add(Sample(sent=1, lost=1), 0.0)
    window.clear()
    assert window.total(0.0) == Sample()


@pytest.mark.parametrize(("span_s", "buckets"), [(0.0, 1), (-1.0, 1), (1.0, 0)])
def test_a_window_needs_a_span_and_a_bucket(span_s: float, buckets: int) -> None:
    with pytest.raises(ValueError, match="window"):
        Window(span_s, buckets)


def test_totals_of_one_sample_is_the_sample() -> None:
    sample = Sample(sent=3, answered=2, lost=1, lost_forward=1, delay_us=7, delay_max_us=9)
    totals = Totals()
    totals.add(sample)
    assert totals.sample() == sample
