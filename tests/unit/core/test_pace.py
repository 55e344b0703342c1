import pytest

from appliance.config.intent import Probing
from appliance.contract.ids import Plane, Slot
from appliance.core.decide import initial_state
from appliance.core.draft import Draft
from appliance.core.pace import (
    BOOST_LEAST,
    BOOST_MIN_S,
    BOOST_RESERVE,
    BOOST_S,
    BOOSTS,
    BOOSTS_RATE,
    BOX_BOOSTS,
    BOX_BOOSTS_RATE,
    boost,
    interval,
    is_grave,
    unboost,
)
from appliance.core.sequential import UNTROUBLED, LossTest, Run
from appliance.core.state import Bucket, Liveness, PathState

LONE = LossTest(False, Run(1.6, 5, 1))
GRAVE = LossTest(False, Run(3.2, 20, 2))
UP = PathState(
    Plane(Slot(1), Slot(1)), Liveness.UP, boosts=Bucket(BOOSTS, 0.0), tests=(UNTROUBLED,)
)


def at(now: float) -> Draft:
    """A box that has looked at nothing closely so far."""
    return Draft(initial_state(), now)


def pace(path: PathState = UP, base: float = 0.02, **changes: bool) -> float:
    flags = {
        "is_attached": True,
        "is_used": True,
        "is_metered": False,
        "is_carrying": True,
        **changes,
    }
    return interval(path, Probing(interval_s=base), **flags)


def test_every_candidate_is_probed_at_the_base_interval() -> None:
    assert pace() == pace(is_carrying=False) == 0.02


def test_what_no_policy_would_use_is_probed_at_leisure() -> None:
    assert pace(is_used=False) == 1.0


def test_a_path_that_is_down_or_detached_is_probed_once_a_second() -> None:
    assert pace(UP._replace(liveness=Liveness.DOWN)) == 1.0
    assert pace(is_attached=False) == 1.0


def test_a_metered_path_costs_less_until_it_carries_something() -> None:
    assert pace(is_metered=True, is_carrying=False) == 0.5
    assert pace(is_metered=True) == 0.02
    rising = UP._replace(liveness=Liveness.RISING)
    assert pace(rising, is_metered=True, is_carrying=False) == 0.02


def test_a_hubs_long_base_interval_is_the_shortest_but_for_a_closer_look() -> None:
    assert pace(base=2.0, is_used=False) == 2.0
    fast = UP._replace(boosted_at=0.0)
    assert pace(fast, base=1.0) == 0.1
    assert pace(fast) == BOOST_S
    assert pace(fast, is_metered=True) == 0.01


def test_a_closer_look_ends_when_nothing_is_found() -> None:
    path = boost(at(10.0), UP)
    assert path.boosted_at == 10.0
    assert unboost(path, 10.0 + BOOST_MIN_S / 2) is path
    assert unboost(path, 10.0 + BOOST_MIN_S).boosted_at is None


def test_it_goes_on_while_there_is_some_suspicion_and_ends_with_the_verdict() -> None:
    path = boost(at(10.0), UP)._replace(tests=(GRAVE,))
    assert unboost(path, 12.0) is path
    violated = path._replace(tests=(LossTest(True),))
    assert unboost(violated, 12.0).boosted_at is None


@pytest.mark.parametrize(("test", "spent"), [(LONE, BOOSTS - BOOST_RESERVE), (GRAVE, BOOSTS)])
def test_its_cost_is_bounded_and_a_lone_loss_leaves_a_reserve(test, spent) -> None:
    path = boost(at(10.0), UP)._replace(tests=(test,))
    assert unboost(path, 10.0 + spent - 0.1) is path
    after = unboost(path, 10.0 + spent)
    assert after.boosted_at is None
    assert boost(at(10.0 + spent), after) is after
    if test is LONE:  # a second loss follows: the reserve is for that
        assert boost(at(10.0 + spent), after._replace(tests=(GRAVE,))).boosted_at is not None
    later = boost(at(10.0 + spent + (BOOST_LEAST + BOOST_RESERVE) / BOOSTS_RATE + 1), after)
    assert later.boosted_at is not None


def test_what_speaks_for_a_return_is_nothing_grave() -> None:
    recovering = LossTest(True, Run(4.6, 300, 0))
    assert is_grave(UP._replace(tests=(recovering, GRAVE)))
    assert not is_grave(UP._replace(tests=(recovering, LONE)))


def test_a_lone_loss_leaves_half_of_the_tokens() -> None:
    path = UP._replace(boosts=Bucket(BOOSTS / 2, 10.0), tests=(LONE,))
    assert boost(at(10.0), path) is path
    assert boost(at(10.0), path._replace(tests=(GRAVE,))).boosted_at == 10.0


def test_what_a_brownout_costs_is_there_again_after_twenty_seconds() -> None:
    brownout_s, pause_s, now = 2.5, 20.0, 10.0
    path = UP
    for _ in range(20):
        path = boost(at(now), path)._replace(tests=(GRAVE,))
        assert unboost(path, now + brownout_s - 0.01) is path
        path = unboost(path._replace(tests=(LossTest(True),)), now + brownout_s)
        assert path.boosted_at is None
        now += pause_s


def test_a_path_that_does_not_answer_is_not_looked_at_closer() -> None:
    for liveness in (Liveness.DOWN, Liveness.RISING, Liveness.UNKNOWN):
        path = UP._replace(liveness=liveness)
        assert boost(at(10.0), path) is path


def test_a_box_looks_closely_at_few_paths_at_a_time() -> None:
    draft = at(100.0)
    looked = [boost(draft, UP).boosted_at is not None for _ in range(8)]
    assert looked == [True] * int(BOX_BOOSTS) + [False] * (8 - int(BOX_BOOSTS))
    later = Draft(draft.freeze(), 100.0 + 1 / BOX_BOOSTS_RATE)
    assert boost(later, UP).boosted_at == later.now
    assert boost(later, UP) is UP
