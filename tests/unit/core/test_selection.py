import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.contract.ids import Plane, Slot
from appliance.core.estimate import UNMEASURED, Counts, Estimate
from appliance.core.layout import Candidate
from appliance.core.selection import Standing, best, gains, stand
from appliance.core.state import Liveness, PathState
from appliance.core.verdict import MEETS, Limit, Verdict

VIOLATES = Verdict(Limit.LOSS, 0.0, 1, "loss")
WORSE = Verdict(Limit.LOSS, 0.0, 3, "loss")


def measured(delay_ms: float = 20.0, lost: int = 0) -> Estimate:
    return UNMEASURED._replace(
        answered=1000,
        delay_us=delay_ms * 1000,
        long_delay_us=delay_ms * 1000,
        current=Counts(1000, lost, lost, 0),
    )


def standing(
    name: int = 1,
    *,
    tier: int = 0,
    metered: bool = False,
    liveness: Liveness = Liveness.UP,
    verdict: Verdict = MEETS,
    delay_ms: float = 20.0,
    attached: bool = True,
) -> Standing:
    plane = Plane(Slot(name), Slot(1))
    path = PathState(plane, liveness, estimate=measured(delay_ms), verdicts=(verdict,))
    candidate = Candidate(plane, tier, metered, 1, f"u{name}")
    return stand(candidate, path, verdict, is_attached=attached)


BETTER_FIRST = [
    standing(9),
    standing(8, delay_ms=100),  # quality decides among equals only
    standing(7, metered=True),
    standing(6, tier=1),
    standing(5, verdict=VIOLATES),
    standing(4, verdict=VIOLATES, tier=1),
    standing(3, verdict=WORSE),
    standing(2, liveness=Liveness.SUSPECT),
    standing(1, liveness=Liveness.RISING),
    standing(11, liveness=Liveness.UNKNOWN),
    standing(10, liveness=Liveness.DOWN),
]


@pytest.mark.parametrize(("better", "worse"), list(itertools.pairwise(BETTER_FIRST)))
def test_each_rule_outranks_the_next(better, worse) -> None:
    assert better.rank < worse.rank


def test_a_path_whose_uplink_is_dead_is_unusable_whatever_it_looked_like() -> None:
    assert not standing(attached=False).is_usable
    assert standing(liveness=Liveness.RISING).is_usable


def test_the_plane_decides_between_twins() -> None:
    assert best([standing(2), standing(1)]) == standing(1)


def test_nothing_to_rank() -> None:
    assert best([]) is None


standings = st.builds(
    standing,
    st.integers(1, 5),
    tier=st.integers(0, 2),
    metered=st.booleans(),
    liveness=st.sampled_from(Liveness),
    verdict=st.sampled_from([MEETS, VIOLATES, WORSE]),
    delay_ms=st.sampled_from([20.0, 21.0, 90.0]),
    attached=st.booleans(),
)


@given(st.lists(standings, min_size=1, unique_by=lambda s: s.candidate.plane), st.randoms())
def test_rank_ignores_the_order_of_visiting(found, rnd) -> None:
    shuffled = found[:]
    rnd.shuffle(shuffled)
    assert best(shuffled) == best(found)


@given(standings, standings, standings)
def test_rank_is_transitive(a, b, c) -> None:
    if a.rank <= b.rank <= c.rank:
        assert a.rank <= c.rank


def test_small_differences_are_no_gain() -> None:
    assert not gains(measured(19), measured(20))
    assert not gains(measured(60), measured(75))  # 15 ms less is nobody's gain
    assert not gains(measured(200), measured(220))
    assert not gains(measured(20), measured(20, lost=3))  # 0.3 % of loss neither


def test_real_differences_are_a_gain() -> None:
    assert gains(measured(20), measured(60))
    assert gains(measured(20), measured(20, lost=50))
    assert not gains(measured(20, lost=50), measured(60))  # fast but lossy


@given(st.floats(1, 500), st.floats(1, 500), st.integers(0, 200), st.integers(0, 200))
def test_gaining_is_never_mutual(a, b, lost_a, lost_b) -> None:
    first, second = measured(a, lost_a), measured(b, lost_b)
    assert not (gains(first, second) and gains(second, first))


def test_unmeasured_paths_gain_nothing() -> None:
    assert not gains(UNMEASURED, measured(500))
    assert not gains(measured(1), UNMEASURED)
