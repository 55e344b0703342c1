import math

import pytest

from appliance.contract.ids import Plane, Slot
from appliance.core.estimate import UNMEASURED, Counts
from appliance.core.liveness import (
    BURSTS,
    FALL_MEMORY_S,
    MOMENT_S,
    MOST_PATIENCE_S,
    acquit,
    answer,
    came_late,
    doubted_until,
    end_boost,
    fall,
    forget,
    holding,
    is_dying_with_others,
    is_wrong,
    miss,
    moment,
    needed,
    patience,
    spend_burst,
)
from appliance.core.sequential import UNTROUBLED, LossTest
from appliance.core.state import Bucket, Liveness, PathState

UP = PathState(
    Plane(Slot(1), Slot(1)),
    Liveness.UP,
    since=0.0,
    up_since=0.0,
    bursts=Bucket(BURSTS, 0.0),
    estimate=UNMEASURED._replace(answered=100, delay_us=20_000.0),
)


@pytest.mark.parametrize(
    ("lost", "probes"), [(0, 4), (9, 4), (30, 5), (90, 6), (300, 9), (900, 18), (3000, 20)]
)
def test_how_many_missing_answers_it_takes_depends_on_the_habit(lost, probes) -> None:
    estimate = UNMEASURED._replace(current=Counts(3000, lost, lost, 0))
    assert needed(estimate) == probes


def test_chance_alone_condemns_a_usual_line_less_than_once_in_ten_thousand_half_hours() -> None:
    assert 90_000 * 0.003 ** needed(UNMEASURED) < 1e-4


def test_a_missing_answer_makes_suspect_and_an_answer_clears() -> None:
    suspect = miss(UP, 1, 0.5)
    assert suspect.liveness is Liveness.SUSPECT
    assert suspect.unanswered == 1
    cleared = answer(suspect, 1.0, 1)
    assert (cleared.liveness, cleared.unanswered) == (Liveness.UP, 0)
    assert cleared.up_since == UP.up_since  # a single loss is no trouble


def test_missing_answers_of_neighbours_add_up_once_it_was_more_than_a_moment() -> None:
    first = miss(UP, 1, 10.0)
    assert is_dying_with_others(miss(first, 2, 10.02), [miss(first, 2, 10.02)], 10.02)
    assert not is_dying_with_others(miss(first, 2, 10.02), [first], 10.02)  # three are too few
    together = [miss(UP, 2, 10.0)] * 5
    assert not is_dying_with_others(miss(UP, 2, 10.0), together, 10.0)  # one full queue
    assert not is_dying_with_others(miss(first, 2, 10.02), [UP, fall(first, 10.01)], 10.02)


def test_missing_answers_of_a_lossy_neighbour_say_little() -> None:
    lossy = UP._replace(estimate=UP.estimate._replace(current=Counts(100, 20, 20, 0)))
    first = miss(UP, 1, 10.0)
    assert not is_dying_with_others(miss(first, 2, 10.02), [miss(lossy, 4, 10.0)], 10.02)


def test_the_way_up_takes_answers_and_time() -> None:
    lossy = UP._replace(tests=(LossTest(is_violated=True),))
    path = answer(fall(lossy, 10.0), 20.0, 1)
    assert path.liveness is Liveness.RISING
    assert answer(path, 20.5, 10).liveness is Liveness.RISING  # many, but too soon
    assert answer(path, 22.0, 1).liveness is Liveness.RISING  # late, but too few
    risen = answer(answer(path, 20.5, 3), 21.0, 1)
    assert risen.liveness is Liveness.UP
    assert risen.up_since == 20.0
    assert risen.estimate is UNMEASURED  # what it was like before says nothing now
    assert risen.tests == (UNTROUBLED,)


@pytest.mark.parametrize(
    "path",
    [
        PathState(UP.plane),
        UP._replace(liveness=Liveness.SUSPECT, unanswered=1),
        UP,
        fall(UP, 90.0),
        fall(UP, 90.0)._replace(liveness=Liveness.RISING, since=99.5),
        fall(UP, 90.0)._replace(liveness=Liveness.RISING, since=95.0, answers=9),
    ],
)
def test_with_an_answer_nothing_is_left_to_forgive(path: PathState) -> None:
    assert answer(path._replace(forgiven=8), 100.0, 1).forgiven == 0


def test_a_path_that_never_fell_is_up_with_its_first_answer() -> None:
    path = answer(PathState(UP.plane), 5.0, 1)
    assert (path.liveness, path.up_since) == (Liveness.UP, 5.0)


def test_a_path_whose_uplink_came_back_has_to_rise() -> None:
    path = forget(fall(UP, 10.0), 20.0)
    assert path.liveness is Liveness.UNKNOWN
    assert answer(path, 21.0, 1).liveness is Liveness.RISING


def test_falling_twice_is_one_fall() -> None:
    once = fall(UP, 10.0)
    assert fall(once, 11.0) is once


def test_a_wrong_verdict_is_taken_back_with_the_history() -> None:
    path = acquit(fall(UP, 100.0), 100.1)
    assert (path.liveness, path.up_since) == (Liveness.UP, UP.up_since)
    assert doubted_until(path) == pytest.approx(102.1)


@pytest.mark.parametrize(("missing", "enough"), [(9, 3), (3, 3), (2, 2), (1, 1), (0, 1)])
def test_it_was_wrong_when_what_was_missing_comes_after_all(missing: int, enough: int) -> None:
    path = fall(UP._replace(unanswered=missing, missed_at=99.9, late=9), 100.0)
    assert not is_wrong(path, 100.1)
    for count in range(enough):
        assert path.late == count
        assert not is_wrong(path, 100.1)
        path = came_late(path, 99.9)
    assert is_wrong(path, 100.1)
    assert not is_wrong(path, 104.0)  # so late it may have come back meanwhile


def test_what_was_asked_before_the_silence_says_nothing_of_it() -> None:
    path = fall(UP._replace(unanswered=4, missed_at=99.9), 100.0)
    assert came_late(path, 99.89) is path
    alive = UP._replace(missed_at=99.9)
    assert came_late(alive, 99.9) is alive


def test_a_path_that_stood_still_once_is_given_more_time_for_ten_minutes() -> None:
    estimate = UNMEASURED._replace(delay_us=20_000)
    path = fall(UP._replace(unanswered=4, missed_at=100.0, estimate=estimate), 100.05)
    assert moment(path, 100.05) == MOMENT_S
    path = acquit(path, 100.08)  # it stood still for 60 ms
    assert moment(path, 101.0) == patience(path, 700.0) == pytest.approx(0.09)
    assert moment(path, 701.0) == MOMENT_S
    more = acquit(fall(path._replace(missed_at=200.0), 200.1), 200.5)
    assert patience(more, 201.0) == MOST_PATIENCE_S
    less = acquit(fall(more._replace(missed_at=300.0), 300.1), 300.05)
    assert patience(less, 301.0) == MOST_PATIENCE_S


def test_a_fall_counts_when_patience_will_not_cover_its_reason() -> None:
    """It stood still for half a second, and may do so again and again."""
    path = UP
    for now in (100.0, 200.0):
        path = acquit(fall(path._replace(missed_at=now), now + 0.05), now + 0.5)
    assert path.falls == 2
    assert holding(path, 5.0, 201.0) == 60.0


def test_a_fall_that_is_taken_back_leaves_the_one_before_it_where_it_was() -> None:
    real = fall(UP, 0.0)._replace(liveness=Liveness.UP, missed_at=590.0)
    wrong = acquit(fall(real, 590.0), 590.1)
    assert (wrong.falls, wrong.fell_at) == (1, 0.0)
    assert holding(fall(wrong, 1150.0), 5.0, 1151.0) == 5.0


def test_fast_probing_ends_with_a_fall_and_has_its_price() -> None:
    path = UP._replace(boosts=Bucket(6.0, 100.0), boosted_at=100.0)
    after = fall(path, 105.5)
    assert after.boosted_at is None
    assert after.boosts == (0.5, 105.5)
    assert end_boost(after, 107.0) is after


def test_a_wrong_verdict_does_not_make_the_next_fall_a_second_one() -> None:
    path = fall(acquit(fall(UP._replace(missed_at=100.0), 100.0), 100.1), 130.0)
    assert holding(path, 5.0, 140.0) == 5.0
    assert holding(fall(path._replace(liveness=Liveness.UP), 150.0), 5.0, 160.0) == 60.0


def test_two_wrong_verdicts_in_close_succession_are_a_trouble_of_its_own() -> None:
    once = acquit(fall(UP._replace(missed_at=100.0), 100.0), 100.1)
    again = acquit(fall(once._replace(missed_at=130.0), 130.0), 130.1)
    assert again.up_since == 130.1
    assert again.falls == 0  # yet no reason to hold it off for longer and longer


@pytest.mark.parametrize(
    ("hold_s", "expected"),
    [
        (60.0, [60, 60, 60, 120, 240, 480, 480]),
        (20.0, [20, 60, 60, 60, 80, 160, 160]),
        (1.0, [1, 60, 60, 60, 60, 60, 60]),
    ],
)
def test_a_path_that_falls_again_and_again_must_hold_for_longer(hold_s, expected) -> None:
    path, holds = UP, []
    for fall_at in (0, 30, 60, 90, 120, 150, 180):
        path = fall(answer(path, fall_at, 9)._replace(liveness=Liveness.UP), float(fall_at))
        holds.append(holding(path, hold_s, fall_at + 1.0))
    assert holds == expected
    assert holding(path, hold_s, 180 + FALL_MEMORY_S + 1) == hold_s


def test_a_path_that_does_not_answer_yet_has_not_fallen_again() -> None:
    silent = fall(PathState(UP.plane), 1.0)
    assert (silent.liveness, silent.falls) == (Liveness.DOWN, 0)
    unplugged = fall(UP, 100.0)
    assert unplugged.falls == 1
    again = fall(forget(unplugged, 101.0), 102.0)
    assert (again.liveness, again.falls) == (Liveness.DOWN, 1)
    assert holding(again, 5.0, 110.0) == 5.0
    assert acquit(silent, 1.1).falls == 0


def test_bursts_are_bounded_and_the_last_is_for_a_missing_answer() -> None:
    path, now, hints = UP, 100.0, 0
    while (spent := spend_burst(path, now, is_hint=True)) is not None:
        path, now, hints = spent, now + 0.1, hints + 1
    assert hints == 2
    assert spend_burst(path, now, is_hint=False) is not None
    assert spend_burst(path._replace(bursts=Bucket(0.0, now)), now, is_hint=False) is None
    assert spend_burst(path, now + 10, is_hint=True) is not None  # they come back


def test_a_burst_on_its_way_is_not_repeated() -> None:
    path = spend_burst(UP, 100.0, is_hint=False)
    assert path is not None
    assert spend_burst(path, 100.03, is_hint=False) is None
    assert spend_burst(path, 100.05, is_hint=False) is not None


def test_unknown_paths_have_no_clean_time() -> None:
    assert forget(UP, 3.0).up_since == math.inf
