"""Adding samples up: any grouping gives the same result, and a window is the sum of its samples."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.stamp.window import Sample, Totals, Window

small = st.integers(0, 5)
micros = st.integers(0, 100_000)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    answered, lost, recovered = draw(small), draw(small), draw(small)
    forward = draw(st.integers(0, lost))
    low, mean, high = sorted((draw(micros), draw(micros), draw(micros)))
    measured = answered + recovered > 0
    return Sample(
        sent=answered + lost,
        answered=answered,
        lost=lost,
        recovered=recovered,
        lost_forward=forward,
        lost_backward=lost - forward,
        delay_us=mean if measured else 0,
        delay_min_us=low if measured else 0,
        delay_max_us=high if measured else 0,
        jitter_forward_us=draw(micros),
        jitter_backward_us=draw(micros),
        span_us=draw(micros),
    )


def _sum(group: list[Sample]) -> Totals:
    totals = Totals()
    for sample in group:
        totals.add(sample)
    return totals


def _merged(first: Totals, second: Totals) -> Totals:
    totals = Totals()
    totals.merge(first)
    totals.merge(second)
    return totals


def _state(totals: Totals) -> tuple[object, ...]:
    return totals.sums, totals.min_us, totals.max_us, totals.jitter


@given(st.lists(samples()), st.lists(samples()), st.lists(samples()))
def test_merging_is_associative(a: list[Sample], b: list[Sample], c: list[Sample]) -> None:
    left = _merged(_merged(_sum(a), _sum(b)), _sum(c))
    right = _merged(_sum(a), _merged(_sum(b), _sum(c)))
    assert _state(left) == _state(right) == _state(_sum(a + b + c))


@given(st.lists(st.tuples(samples(), st.integers(0, 8)), max_size=40), st.integers(1, 6))
def test_a_window_is_the_sum_of_the_samples_in_it(
    steps: list[tuple[Sample, int]], buckets: int
) -> None:
    span = 6 * buckets
    window = Window(float(span), buckets)
    taken: list[tuple[int, Sample]] = []
    now = 0
    for sample, gap in steps:
        now += gap
        window.add(sample, float(now))
        taken.append((now, sample))
        oldest = now // 6 - buckets
        expected = _sum([kept for at, kept in taken if at // 6 >= oldest])
        assert window.total(float(now)) == expected.sample()


@given(st.lists(samples(), min_size=1))
def test_a_sum_adds_up_and_stays_within_its_bounds(group: list[Sample]) -> None:
    total = _sum(group).sample()
    assert total.sent == total.answered + total.lost
    assert 0.0 <= total.loss_ratio <= 1.0
    measured = [sample for sample in group if sample.measured]
    if measured:
        assert total.delay_min_us == min(sample.delay_min_us for sample in measured)
        assert total.delay_min_us <= total.delay_us <= total.delay_max_us
