"""Transcripts: where the copies of a class in mode `duplicate` go."""

from appliance.config.intent import When
from appliance.core.actions import MoveClass
from appliance.core.codec import decode_event, encode_event
from appliance.core.events import (
    IntentChanged,
    PathMtuChanged,
    ProbeOverdue,
    SteeringAdopted,
    UplinkChanged,
)
from appliance.core.state import steering
from appliance.core.steering import Assignment, Carrier
from tests.unit.core.box import GOOD, LOSSY, SLOW, Box, named
from tests.unit.core.examples import (
    DEFAULT,
    DEFAULT_POLICY,
    HQ,
    VOICE,
    Mode,
    facts,
    intent,
    path,
    peer,
    policy,
    uplink,
)

TWICE = policy(mode=Mode.DUPLICATE)


def box(voice=TWICE, **more) -> Box:
    """Fibre (1) and dsl (2) at both ends: four paths, voice on 1-1."""
    adopted = more.pop("adopted", None)
    return Box(intent(voice=voice, **more), adopted=adopted)


def second(b: Box) -> str:
    found = b.state.sites[HQ].classes[VOICE].assignment.second
    return str(found.plane) if found else "-"


def told(b: Box) -> list[str]:
    return [a.reason for _, a in b.actions if isinstance(a, MoveClass) and a.class_name == VOICE]


def test_copies_go_over_other_uplinks_at_both_ends() -> None:
    b = box()
    b.wait(70)
    assert (b.carrier(), second(b)) == ("1-1", "2-2")
    assert b.moves() == ["initial 1-1"]
    assert told(b)[0].endswith("; copies go over dsl to cable2 (2-2)")
    assert b.state.sites[HQ].carrying >= {path("hq", 2, 2).plane}


def test_other_classes_and_other_modes_have_no_copies() -> None:
    b = box()
    b.wait(5)
    assert b.state.sites[HQ].classes[DEFAULT].assignment.second is None
    b = box(policy())
    b.wait(5)
    assert second(b) == "-"


def test_when_the_first_dies_the_second_carries_and_another_gets_the_copies() -> None:
    b = box()
    b.wait(70)
    b.kill("hq/1-1")
    assert (b.carrier(), second(b)) == ("2-2", "1-2")
    b.kill("hq/1-2")
    assert (b.carrier(), second(b)) == ("2-2", "2-1")


def test_an_uplink_that_attaches_late_gets_the_copies_as_soon_as_it_answers() -> None:
    b = Box(intent(voice=TWICE), attached=[1])
    b.wait(5)
    assert (b.carrier(), second(b)) == ("1-1", "1-2")
    b.tell(UplinkChanged(facts(2)))
    b.wait(3)
    assert second(b) == "2-2"


def test_when_the_second_dies_the_class_stays_and_the_way_back_waits_for_the_hold_time() -> None:
    b = box()
    b.wait(70)
    since = b.state.sites[HQ].classes[VOICE].since
    b.kill("hq/2-2")
    assert (b.carrier(), second(b)) == ("1-1", "2-1")
    assert b.moves()[-1] == "second-path 1-1"
    assert "sends copies over dsl to cable (2-1) and not over dsl to cable2 (2-2)" in told(b)[-1]
    assert b.state.sites[HQ].classes[VOICE].since == since
    b.revive("hq/2-2")
    b.wait(50)
    assert second(b) == "2-1"
    b.wait(15)
    assert second(b) == "2-2"


def test_without_a_second_path_that_works_there_is_none_and_with_one_there_is() -> None:
    b = box(uplinks=(uplink(1, "fibre"), uplink(2, "dsl")), peers=(peer("hq", 3, ("cable",)),))
    b.wait(5)
    assert (b.carrier(), second(b)) == ("1-1", "2-1")
    b.tell(UplinkChanged(facts(2, carrier=False)))
    assert second(b) == "-"
    assert told(b)[-1] == "voice to hq sends no copies any more: no second path works"
    b.tell(UplinkChanged(facts(2)))
    b.wait(5)
    assert second(b) == "2-1"


def test_a_metered_path_is_used_only_if_the_policy_permits_it() -> None:
    both = (uplink(1, "fibre"), uplink(2, "dsl", metered=True))
    one = (peer("hq", 3, ("cable",)),)
    for permits, expected in ((True, "2-1"), (False, "-")):
        b = box(policy(TWICE, metered=permits), uplinks=both, peers=one)
        b.wait(5)
        assert (b.carrier(), second(b)) == ("1-1", expected)


def test_a_path_that_violates_the_sla_is_the_last_choice_among_equals_and_not_left_for_it() -> None:
    b = box()
    b.wait(70)
    b.wait(10, but={"hq/2-2": LOSSY})
    assert second(b) == "2-2"
    three = (uplink(1, "fibre"), uplink(2, "dsl"), uplink(3, "lte"))
    b = box(uplinks=three, peers=(peer("hq", 3, ("cable",)),))
    assert second(b) == "2-1"


def test_the_smaller_of_both_paths_says_how_large_packets_may_be() -> None:
    b = box()
    b.wait(5)
    b.tell(PathMtuChanged(named("hq/2-2"), 1300))
    assert b.state.sites[HQ].classes[VOICE].assignment.mtu == 1300
    assert b.moves()[-1] == "mtu-changed 1-1"


def test_what_was_adopted_stays() -> None:
    found = Assignment((Carrier(path("hq", 1, 1)),), None, path("hq", 2, 1))
    adopted = SteeringAdopted(((VOICE, HQ, found),))
    assert decode_event(encode_event(1.0, adopted)) == (1.0, adopted)
    b = box(adopted=adopted)
    assert steering(b.state).assignments[VOICE, HQ] == found
    b.wait(2, None)
    assert (b.moves(), second(b)) == ([], "2-1")
    b.wait(2)  # it answers, and is further apart
    assert (b.moves(), second(b)) == (["second-path 1-1"], "2-2")


def test_another_policy_begins_and_ends_it() -> None:
    b = box(policy())
    b.wait(5)
    b.tell(IntentChanged(intent(voice=TWICE)))
    assert second(b) == "2-2"
    b.tell(IntentChanged(intent(voice=policy())))
    assert second(b) == "-"
    assert "its policy does not want them" in told(b)[-1]
    assert b.moves(DEFAULT) == ["initial 1-1"]
    assert DEFAULT_POLICY.mode is Mode.SINGLE


WARY = policy(TWICE, when=When.IMPAIRED)


def test_while_the_path_is_well_there_are_no_copies() -> None:
    b = box(WARY)
    b.wait(70)
    assert (b.carrier(), second(b)) == ("1-1", "-")


def test_a_missing_answer_begins_it_and_a_minute_without_a_loss_ends_it() -> None:
    b = box(WARY)
    b.wait(70)
    b.now += 0.01
    b.tell(ProbeOverdue(named("hq/1-1"), 0.024, 1, 0.01))
    assert (b.carrier(), second(b)) == ("1-1", "2-2")
    b.sample("hq/1-1", GOOD._replace(lost=1, lost_forward=1))
    b.wait(50)
    assert second(b) == "2-2"
    b.wait(20)
    assert second(b) == "-"
    assert told(b)[-1].endswith(
        "no copies any more: nothing was lost for a minute, or none can be sent"
    )


def test_losses_begin_it_and_one_by_chance_does_not() -> None:
    b = box(WARY)
    b.wait(70)
    b.sample("hq/1-1", GOOD._replace(lost=1, lost_forward=1, answered=4))
    assert second(b) == "-"
    b.sample("hq/1-1", GOOD._replace(lost=1, lost_forward=1, answered=4))
    assert (b.carrier(), second(b)) == ("1-1", "2-2")


def test_a_violated_sla_begins_it_where_nothing_better_carries() -> None:
    b = box(WARY, uplinks=(uplink(1, "fibre"), uplink(2, "dsl")))
    b.wait(70)
    b.wait(5, SLOW)
    assert (b.carrier(), second(b)) == ("1-1", "2-2")


def test_what_was_adopted_stays_until_more_is_known() -> None:
    for found in (None, path("hq", 2, 2)):
        assignment = Assignment((Carrier(path("hq", 1, 1)),), None, found)
        b = box(WARY, adopted=SteeringAdopted(((VOICE, HQ, assignment),)))
        b.wait(2, None)
        assert b.moves() == []
        b.wait(90)
        assert second(b) == "-"
