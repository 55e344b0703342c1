"""Whatever counters and probes say, a learned rate is a number between its bounds."""

import math

from hypothesis import given
from hypothesis import strategies as st

from appliance.contract.ids import PathId, Plane, SiteName, Slot
from appliance.core.autorate import Bounds, Probe, begin, follow

PATHS = [PathId(SiteName(name), Plane(Slot(1), Slot(1))) for name in ("a", "b")]
rates = st.integers(100_000, 10_000_000_000)
bounds = st.tuples(rates, rates).map(lambda pair: Bounds(min(pair), max(pair)))
probes = st.dictionaries(
    st.sampled_from(PATHS),
    st.lists(
        st.tuples(
            st.floats(-1.0, 0.1),
            st.integers(-(10**15), 10**15) | st.integers(0, 200_000),
            st.integers(0, 10**7),
        ),
        min_size=1,
        max_size=4,
    ),
)
moments = st.lists(
    st.tuples(st.sampled_from([0.0, 0.001, 0.1, 0.2, 70.0]), st.integers(0, 10**9), probes),
    min_size=1,
    max_size=30,
)


@given(bounds, moments, st.booleans())
def test_a_rate_stays_between_its_bounds(limits: Bounds, told: list, is_down: bool) -> None:
    line, now, octets = begin(limits.start_bps, 100.0), 100.0, 0
    for wait_s, more, answered in told:
        now, octets = now + wait_s, octets + more
        met = {
            path: [Probe(now + sent, transit, delay) for sent, transit, delay in each]
            for path, each in answered.items()
        }
        line = follow(line, limits, octets, met, now, is_down=is_down)
        assert limits.least_bps * 0.999 <= line.rate_bps <= limits.most_bps * 1.001
        assert math.isfinite(line.used_bps)
        assert line.used_bps >= 0
        assert line.capacity_bps is None or (
            math.isfinite(line.capacity_bps) and line.capacity_bps > 0
        )
        assert line.queue_us is None or math.isfinite(line.queue_us)
        assert 0 <= line.noise_us <= 30_000


@given(
    st.lists(st.floats(0.0, 0.5), min_size=2, max_size=4),
    st.lists(st.integers(0, 10**6), min_size=1, max_size=4),
    st.booleans(),
)
def test_what_was_sent_before_anything_was_counted_tells_nothing_of_a_line(
    ages: list[float], counts: list[int], is_down: bool
) -> None:
    limits = Bounds(4_000_000, 40_000_000)
    line = begin(limits.start_bps, 100.0)
    answered = [Probe(100 - age, 50_000 + 35_000 * n, 160_000) for n, age in enumerate(ages)]
    octets, now = 0, 100.0
    line = follow(line, limits, octets, {}, now, is_down=is_down)
    for at, count in enumerate([*counts, *[500_000] * 40]):
        octets, now = octets + count, now + 0.1
        late = [Probe(now - 0.1, 50_000, 100_000)]
        met = {PATHS[0]: answered if at == 0 else late}
        line = follow(line, limits, octets, met, now, is_down=is_down)
        assert line.capacity_bps is None or line.capacity_bps > 0


@given(bounds, moments)
def test_a_rate_that_is_given_stays_what_it_is(limits: Bounds, told: list) -> None:
    given_rate = Bounds(limits.most_bps, limits.most_bps)
    line, now, octets = begin(limits.most_bps, 100.0), 100.0, 0
    for wait_s, more, answered in told:
        now, octets = now + wait_s, octets + more
        met = {path: [Probe(now, t, d) for _, t, d in each] for path, each in answered.items()}
        line = follow(line, given_rate, octets, met, now, is_down=False)
        assert line.rate_bps == limits.most_bps
