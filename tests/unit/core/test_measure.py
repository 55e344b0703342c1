"""Transcripts of single paths: bursts, paces, traffic, sizes, what the far end says."""

import pytest

from appliance.core.actions import MoveClass, RaiseWarning, SetProbeInterval, VerifyPath
from appliance.core.events import (
    AnswerLate,
    AnswerReturned,
    FarEndReported,
    PathMtuChanged,
    PathsSampled,
    ProbeOverdue,
    TrafficSampled,
)
from appliance.core.liveness import BOX_BURSTS, BOX_BURSTS_RATE, BOX_HINT_BURSTS
from appliance.core.pace import BOOST_S
from appliance.core.state import Liveness
from appliance.stamp.sample import Sample
from tests.unit.core.box import GOOD, LOSSY, Box, kinds, named
from tests.unit.core.examples import DEFAULT, VOICE_POLICY, intent, path, peer, policy, uplink

FIBRE = named("hq/1-1")


@pytest.fixture
def box() -> Box:
    box = Box()
    box.wait(10)
    box.actions.clear()
    return box


def overdue(unanswered: int = 1, name: str = "hq/1-1") -> ProbeOverdue:
    return ProbeOverdue(named(name), 0.024, unanswered, 0.01)


# -- suspect, then verify ---------------------------------------------------------------------


def test_a_late_answer_on_a_carrying_path_is_verified_at_once_over_other_uplinks(box) -> None:
    assert box.tell(AnswerLate(FIBRE, 0.001)) == [VerifyPath(FIBRE, named("hq/2-2"))]
    assert box.path("hq/1-1").liveness is Liveness.UP


def test_a_late_answer_elsewhere_has_the_neighbours_verified_that_carry_something(box) -> None:
    assert box.tell(AnswerLate(named("hq/2-1"), 0.001)) == [VerifyPath(FIBRE, named("hq/2-2"))]
    box.now += 1
    assert box.tell(AnswerLate(named("hq/2-2"), 0.001)) == []  # it shares no uplink with 1-1


def test_a_missing_answer_makes_any_candidate_suspect_and_is_verified(box) -> None:
    actions = box.tell(overdue(name="hq/2-2"))
    assert actions == [VerifyPath(named("hq/2-2"), FIBRE)]
    assert box.path("hq/2-2").liveness is Liveness.SUSPECT
    actions = box.tell(overdue(name="hq/2-1"))
    assert [a.path for a in actions if isinstance(a, VerifyPath)] == [named("hq/2-1"), FIBRE]
    assert box.path("hq/2-1").liveness is Liveness.SUSPECT


def test_one_burst_at_a_time(box) -> None:
    box.tell(AnswerLate(FIBRE, 0.001))
    box.now += 0.003
    assert "VerifyPath" not in kinds(box.tell(overdue()))


def test_a_hub_verifies_few_of_the_paths_whose_answers_are_all_missing() -> None:
    """It is more likely the hub itself that is busy, and thousands of bursts would keep it so."""
    peers = [peer(f"s{n}", n + 2) for n in range(100)]
    hub = Box(intent(peers=peers, interval_s=4.0))
    hub.wait(60, GOOD)
    hints = [hub.tell(AnswerLate(path(f"s{n}", 1, 1), 0.001)) for n in range(100)]
    assert sum("VerifyPath" in kinds(each) for each in hints) == BOX_BURSTS - BOX_HINT_BURSTS + 1
    missing = [hub.tell(overdue(name=f"s{n}/2-1")) for n in range(100)]
    assert sum(kinds(each).count("VerifyPath") for each in missing) == BOX_HINT_BURSTS - 1
    hub.now += 1.0
    missing = [hub.tell(overdue(name=f"s{n}/2-2")) for n in range(100)]
    assert sum(kinds(each).count("VerifyPath") for each in missing) == BOX_BURSTS_RATE


def test_the_alternative_is_none_when_there_is_no_other_path() -> None:
    box = Box(intent(uplinks=(uplink(1, "fibre"),), peers=(peer("hq", 3, ("cable",)),)))
    box.wait(5)
    assert box.tell(AnswerLate(FIBRE, 0.001)) == [VerifyPath(FIBRE, None)]


def test_four_missing_answers_are_enough_on_a_line_that_loses_little(box) -> None:
    box.tell(overdue(3))
    assert box.carrier() == "1-1"
    box.now += 0.02
    box.tell(overdue(4))
    assert box.carrier() == "1-2"


def test_any_number_of_answers_missing_at_one_moment_prove_nothing(box) -> None:
    """They met the same full queue, or the far end was busy for as long."""
    for count in range(1, 20):
        box.now += 0.0008
        box.tell(overdue(count))
    assert box.carrier() == "1-1"
    box.now += 0.005
    box.tell(overdue(20))
    assert box.carrier() == "1-2"


def test_while_a_path_is_probed_fast_a_moment_is_longer(box) -> None:
    box.tell(overdue())
    box.now += 0.03
    box.tell(AnswerReturned(FIBRE, 1))
    box.now += 0.1  # it is looked at closely by now
    assert box.path("hq/1-1").boosted_at is not None
    for count in range(1, 20):
        box.now += 0.0025
        box.tell(overdue(count))
    assert box.carrier() == "1-1"
    box.now += 0.01
    box.tell(overdue(21))
    assert box.carrier() == "1-2"


def test_a_miss_of_long_ago_does_not_make_a_moment_longer(box) -> None:
    box.tell(overdue())
    box.tell(AnswerReturned(FIBRE, 1))
    box.wait(60)
    box.tell(overdue(4))
    assert box.carrier() == "1-1"


def test_the_far_uplink_dies_and_both_paths_over_it_prove_it_together(box) -> None:
    for _ in range(2):
        for name in ("hq/2-1", "hq/1-1"):
            count = box.path(name).unanswered + 1
            box.now += 0.01
            box.tell(overdue(count, name))
    assert box.carrier() == "1-2"
    assert "down, 2 probes in a row and others over the same uplink unanswered" in box.reason()


def test_a_line_that_loses_more_by_habit_takes_more() -> None:
    box = Box()
    box.wait(60, GOOD._replace(sent=30, answered=29, lost=1))
    assert box.carrier(DEFAULT) == "1-1"
    box.tell(overdue(6))
    assert box.carrier(DEFAULT) == "1-1"
    box.now += 0.02
    box.tell(overdue(7))
    assert box.carrier(DEFAULT) == "1-2"


def test_an_answer_clears_the_suspicion_and_costs_nothing_else(box) -> None:
    box.tell(overdue())
    actions = box.tell(AnswerReturned(FIBRE, 1))
    assert {type(each) for each in actions} == {SetProbeInterval}
    assert box.path("hq/1-1").liveness is Liveness.UP


def test_a_clean_sample_clears_it_too_and_one_with_losses_does_not(box) -> None:
    box.tell(overdue())
    box.sample("hq/1-1", GOOD._replace(answered=4, lost=1))
    assert box.path("hq/1-1").liveness is Liveness.SUSPECT
    box.sample("hq/1-1", GOOD)
    assert box.path("hq/1-1").liveness is Liveness.UP


# -- what the far end says ----------------------------------------------------------------------


def test_the_far_ends_word_shortens_the_wait(box) -> None:
    box.tell(overdue(2))
    actions = box.tell(FarEndReported(FIBRE, 3, 0))
    assert kinds(actions) == ["RaiseWarning", "MoveClass", "MoveClass"]
    assert "none of 3 arrived there" in box.reason()


def test_that_they_arrived_is_a_hint_but_no_verdict(box) -> None:
    box.tell(overdue(2))
    box.tell(FarEndReported(FIBRE, 3, 3))
    assert box.carrier() == "1-1"
    box.now += 0.02
    box.tell(overdue(4))
    assert "all 3 arrived there: the way back is cut" in box.reason()
    assert box.warnings == {
        "one-way-loss hq/1-1": "fibre to cable (1-1) to hq: "
        "our packets arrive, but no answer comes back"
    }


def test_one_missing_answer_is_too_little_whatever_the_far_end_says(box) -> None:
    box.tell(overdue(1))
    box.tell(FarEndReported(FIBRE, 3, 0))
    assert box.carrier() == "1-1"


def test_old_news_about_a_path_that_answers_again_is_ignored(box) -> None:
    box.tell(overdue(2))
    box.tell(AnswerReturned(FIBRE, 1))
    assert box.tell(FarEndReported(FIBRE, 3, 0)) == []
    assert box.warnings == {}
    box.tell(overdue(2))  # and it does not count the next time either
    assert box.carrier() == "1-1"


# -- looking closer -----------------------------------------------------------------------------


def pace(actions, name: str = "hq/1-1") -> list[float]:
    return [
        a.interval_s for a in actions if isinstance(a, SetProbeInterval) and a.path == named(name)
    ]


def test_a_loss_has_the_carrying_path_probed_faster_for_a_while(box) -> None:
    assert pace(box.tell(overdue())) == []  # it may be dead, which a burst finds out
    assert pace(box.tell(AnswerReturned(FIBRE, 1))) == [BOOST_S]
    clean = GOOD._replace(sent=40, answered=40)
    assert pace(box.sample("hq/1-1", clean, 10)) == []
    assert pace(box.sample("hq/1-1", clean, 1)) == [0.02]


def test_a_loss_on_a_path_that_shares_an_uplink_does_so_too(box) -> None:
    for name, paces in {"hq/2-2": [], "hq/1-2": [BOOST_S]}.items():  # no end in common, and one
        box.tell(overdue(name=name))
        assert pace(box.tell(AnswerReturned(named(name), 1))) == paces


def test_a_second_loss_has_the_neighbours_probed_faster_too(box) -> None:
    one_lost = GOOD._replace(answered=4, lost=1, lost_forward=1)
    assert pace(box.sample("hq/1-1", one_lost), "hq/1-2") == []
    actions = box.sample("hq/1-1", one_lost)
    assert pace(actions, "hq/1-2") == pace(actions, "hq/2-1") == [BOOST_S]
    assert pace(actions, "hq/2-2") == []


def test_nothing_is_probed_faster_where_nobody_limits_loss() -> None:
    box = Box(intent(voice=policy(VOICE_POLICY, sla=VOICE_POLICY.sla.__class__(delay_us=60_000))))
    box.wait(10)
    assert pace(box.tell(overdue())) == []


def test_paces_follow_the_state_of_a_path(box) -> None:
    assert set(box.paces().values()) == {0.02}
    box.kill("hq/1-1")
    assert box.paces()["hq/1-1"] == 1.0
    box.revive("hq/1-1")
    assert box.paces()["hq/1-1"] == 0.02


def test_a_metered_line_is_probed_at_leisure_until_it_is_needed() -> None:
    uplinks = (uplink(1, "fibre"), uplink(3, "lte", metered=True))
    box = Box(intent(uplinks=uplinks, peers=(peer("hq", 3, ("cable",)),)))
    box.wait(5)
    assert box.paces() == {"hq/1-1": 0.02, "hq/3-1": 0.5}
    box.kill("hq/1-1")
    assert box.paces() == {"hq/1-1": 1.0, "hq/3-1": 0.02}


# -- real traffic -------------------------------------------------------------------------------


def loaded(box, lost: int, probes: Sample, times: int = 12) -> list[str]:
    """Real packets, 200/s, and probes beside them: why voice moves."""
    moves = []
    for _ in range(times):
        box.now += 0.25
        moves += box.tell(TrafficSampled(FIBRE, 50, lost))
        moves += box.tell(PathsSampled(((FIBRE, probes),)))
    return [a.cause.value for a in moves if isinstance(a, MoveClass)]


def test_traffic_shows_a_violation_before_the_probes_would(box) -> None:
    clean = GOOD._replace(sent=12, answered=12)
    assert loaded(box, 2, clean, times=7) == ["sla-violated"]


def test_traffic_that_the_far_end_does_not_count_accuses_nobody(box) -> None:
    clean = GOOD._replace(sent=12, answered=12)
    for lost in (50, 25, 5):
        assert loaded(box, lost, clean, times=200) == []
    assert box.warnings == {
        "traffic-uncounted hq/1-1": "packets to hq are not counted there, though probes arrive: "
        "does hq list all networks of this box as its prefixes?"
    }
    box.wait(6)
    assert loaded(box, 0, clean, times=4) == []
    assert box.warnings == {}
    assert box.carrier() == "1-1"


def test_the_probes_word_counts_in_spite_of_such_traffic(box) -> None:
    assert loaded(box, 50, GOOD._replace(sent=12, answered=12)) == []
    lossy = GOOD._replace(sent=12, answered=11, lost=1, lost_forward=1)
    assert loaded(box, 50, lossy) == ["sla-violated"]


def test_the_first_loss_of_traffic_has_a_path_looked_at_more_closely(box) -> None:
    assert pace(box.tell(TrafficSampled(FIBRE, 50, 1))) == [BOOST_S]


def test_clean_traffic_is_evidence_too(box) -> None:
    box.sample("hq/1-1", GOOD._replace(sent=5, answered=4, lost=1, lost_forward=1))
    (test,) = box.path("hq/1-1").tests
    box.tell(TrafficSampled(FIBRE, 100, 0))
    assert not test.is_calm
    assert box.path("hq/1-1").tests[0].is_calm


def test_traffic_on_a_dead_path_says_nothing_of_its_quality(box) -> None:
    box.kill("hq/1-1")
    before = box.path("hq/1-1")
    box.tell(TrafficSampled(FIBRE, 100, 100))
    assert box.path("hq/1-1") == before


# -- coming back --------------------------------------------------------------------------------


def test_a_rise_needs_no_samples_when_answers_are_told_of(box) -> None:
    box.kill("hq/1-1")
    for count in range(1, 6):
        box.now += 0.02
        box.tell(AnswerReturned(FIBRE, count))
    box.wait(1.1, but={"hq/1-1": None})
    assert box.path("hq/1-1").liveness is Liveness.UP


def test_a_rise_needs_no_word_of_answers_when_samples_tell(box) -> None:
    box.kill("hq/1-1")
    box.wait(1, but={"hq/1-1": None})
    box.wait(3)
    assert box.path("hq/1-1").liveness is Liveness.UP


def test_a_rise_ends_with_two_missing_answers(box) -> None:
    box.kill("hq/1-1")
    box.revive("hq/1-1")
    box.tell(overdue(1))
    assert box.path("hq/1-1").liveness is Liveness.RISING
    box.now += 0.02
    box.tell(overdue(2))
    assert box.path("hq/1-1").liveness is Liveness.DOWN


def test_the_losses_of_a_blackout_do_not_count_against_the_path_that_is_back(box) -> None:
    box.kill("hq/1-1")
    box.wait(3, but={"hq/1-1": None})
    for count in range(1, 6):
        box.tell(AnswerReturned(FIBRE, count))
    box.wait(1.5, but={"hq/1-1": None})
    assert box.path("hq/1-1").liveness is Liveness.UP
    news = GOOD._replace(sent=12, lost=7, lost_forward=150)
    box.sample("hq/1-1", news)
    assert box.path("hq/1-1").verdicts[0].meets
    assert box.path("hq/1-1").estimate.minute() == (5, 0, 0, 0)


def test_probes_lost_before_a_path_first_answered_do_not_count_against_it() -> None:
    box = Box()
    unheard = GOOD._replace(answered=0, sent=10, lost=10)
    box.sample("hq/1-1", unheard, 2)
    late = GOOD._replace(sent=15, lost=10, recovered=2, recovered_forward=2)
    box.sample("hq/1-1", late)
    assert box.path("hq/1-1").estimate.minute() == (5, 0, 0, 0)
    box.sample("hq/1-1", LOSSY)
    assert box.path("hq/1-1").estimate.minute() == (45, 4, 4, 0)


def test_a_blackout_is_no_loss_ratio(box) -> None:
    box.kill("hq/1-1")
    box.sample("hq/1-1", LOSSY, 10)
    assert box.path("hq/1-1").verdicts[0].meets


def test_a_decision_about_another_path_does_not_forget_the_one_that_rises(box) -> None:
    box.kill("hq/1-1")
    for count in range(1, 6):
        box.tell(AnswerReturned(FIBRE, count))
    box.tell(PathMtuChanged(named("hq/1-2"), 1300))
    silent = {"hq/1-1": None, "hq/1-2": None, "hq/2-1": None, "hq/2-2": None}
    box.wait(1.1, but=silent)
    assert box.path("hq/1-1").liveness is Liveness.UP


def test_answers_from_before_the_fall_do_not_raise_the_path(box) -> None:
    box.kill("hq/1-1")
    box.now += 0.05
    box.tell(PathsSampled(((FIBRE, GOOD._replace(lost=4)),)))  # it closed after the fall
    assert box.path("hq/1-1").liveness is Liveness.DOWN


# -- sizes --------------------------------------------------------------------------------------


def test_a_path_that_carries_less_keeps_working_with_smaller_packets(box) -> None:
    actions = box.tell(PathMtuChanged(FIBRE, 1384))
    moves = [a for a in actions if isinstance(a, MoveClass)]
    assert [(m.cause.value, m.after.mtu, m.before.carriers == m.after.carriers) for m in moves] == [
        ("mtu-changed", 1384, True)
    ] * 2
    assert [a.code for a in actions if isinstance(a, RaiseWarning)] == ["path-mtu"]
    assert box.tell(PathMtuChanged(FIBRE, 1384)) == []
    box.kill("hq/1-1", "hq/1-2")
    assert box.state.sites[FIBRE.site].classes[DEFAULT].assignment.mtu is None
    box.tell(PathMtuChanged(FIBRE, 1420))
    assert box.warnings == {}


def test_a_loss_report_without_probes_is_nothing(box) -> None:
    before = box.state
    box.tell(FarEndReported(FIBRE, 0, 0))
    assert box.state.sites == before.sites


def test_an_empty_sample_is_nothing(box) -> None:
    box.tell(PathsSampled(((FIBRE, Sample()),)))
    assert box.carrier() == "1-1"


def test_losses_of_both_directions_count(box) -> None:
    backward = LOSSY._replace(lost_forward=0, lost_backward=4)
    box.sample("hq/1-1", backward, 5)
    assert "(backward)" in box.reason()
    assert box.carrier() == "1-2"
