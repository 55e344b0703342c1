"""Transcripts: who carries a class, and when it may go elsewhere."""

import pytest

from appliance.core.actions import Cause, MoveClass
from appliance.core.events import (
    IntentChanged,
    PathMtuChanged,
    PathsSampled,
    ProbeOverdue,
    SteeringAdopted,
    UplinkChanged,
)
from appliance.core.steering import Assignment, Carrier
from tests.unit.core.box import GOOD, LOSSY, SLOW, Box, named
from tests.unit.core.examples import (
    DEFAULT,
    DEFAULT_POLICY,
    DSL,
    FIBRE,
    HQ,
    LTE,
    VOICE,
    VOICE_POLICY,
    Fallback,
    Mode,
    Sla,
    facts,
    intent,
    path,
    peer,
    policy,
    uplink,
)

ONE_FAR = (peer("hq", 3, ("cable",)),)
THREE = (uplink(1, "fibre"), uplink(2, "dsl", weight=3), uplink(3, "lte", metered=True))


def box(voice=VOICE_POLICY, default=DEFAULT_POLICY, uplinks=THREE, **more) -> Box:
    """Three uplinks, one far end with one: paths 1-1 (fibre), 2-1 (dsl), 3-1 (lte)."""
    return Box(intent(uplinks=uplinks, peers=ONE_FAR, voice=voice, default=default), **more)


# -- single -----------------------------------------------------------------------------------


def test_a_violated_sla_is_left_at_once_and_returned_to_after_the_hold_time() -> None:
    b = box()
    b.wait(70)
    b.wait(5, but={"hq/1-1": SLOW})
    assert b.moves() == ["initial 1-1", "sla-violated 2-1"]
    assert b.moves(DEFAULT) == ["initial 1-1"]  # it has no SLA
    b.wait(58)
    assert b.carrier() == "2-1"
    b.wait(6)
    assert b.moves()[-1] == "recovered 1-1"


def test_paths_that_come_back_together_are_chosen_among_and_not_raced() -> None:
    b = Box(intent(uplinks=THREE))  # two planes over the fibre: 1-1 is the first choice
    b.wait(70)
    b.kill("hq/1-1", "hq/1-2")
    b.revive("hq/1-2")
    b.now += 0.3
    b.revive("hq/1-1")
    b.wait(70)
    assert b.moves()[2:] == ["recovered 1-1"]


def test_trouble_during_the_hold_time_starts_it_anew() -> None:
    b = box()
    b.wait(70)
    b.wait(5, but={"hq/1-1": SLOW})
    b.wait(50)
    b.wait(5, but={"hq/1-1": SLOW})
    b.wait(55)
    assert b.carrier() == "2-1"
    b.wait(10)
    assert b.carrier() == "1-1"


def test_a_dead_path_is_left_for_the_next_tier_and_a_dead_one_is_not_chosen() -> None:
    b = box()
    b.wait(5)
    b.kill("hq/2-1")
    b.kill("hq/1-1")
    assert b.moves() == ["initial 1-1", "path-down 3-1"]


def test_a_violator_is_not_left_for_a_path_that_violates_too() -> None:
    b = box(uplinks=THREE[:2])
    b.wait(70)
    b.wait(5, SLOW)
    assert b.carrier() == "1-1"
    assert "sla-unmet voice to hq" in b.warnings
    b.wait(5)
    assert b.warnings == {}


def test_among_violators_the_far_less_bad_one_is_preferred_after_a_while() -> None:
    b = box(uplinks=THREE[:2])
    b.wait(70)
    awful = SLOW._replace(delay_us=900_000, delay_min_us=890_000, delay_max_us=910_000)
    b.wait(30, SLOW, but={"hq/1-1": awful})
    assert b.moves() == ["initial 1-1", "sla-violated 2-1"]
    # ... and the preferred tier again when it is no worse, after the hold time.
    b.wait(90, SLOW)
    assert b.moves()[-1] == "recovered 1-1"


def test_a_little_less_bad_is_not_worth_a_move_among_violators() -> None:
    b = box(uplinks=THREE[:2])
    b.wait(70)
    twice = SLOW._replace(delay_us=200_000, delay_min_us=190_000, delay_max_us=210_000)
    b.wait(60, SLOW, but={"hq/1-1": twice})
    assert b.path("hq/1-1").verdicts[0].severity == b.path("hq/2-1").verdicts[0].severity + 1
    assert b.moves() == ["initial 1-1"]


def test_a_violator_is_not_left_for_its_neighbour_that_has_lost_something_too() -> None:
    b = Box()
    b.wait(70)
    b.sample("hq/1-2", GOOD._replace(answered=4, lost=1, lost_forward=1))
    b.sample("hq/1-1", LOSSY, 5)
    assert b.moves()[-1] == "sla-violated 2-1"
    b = Box()
    b.wait(70)
    b.sample("hq/1-1", LOSSY, 5)
    assert b.moves()[-1] == "sla-violated 1-2"  # nothing speaks against it


def test_two_lines_that_take_turns_in_violating_do_not_make_a_class_bounce() -> None:
    b = box(uplinks=THREE[:2])
    b.wait(70)
    for _ in range(20):
        b.wait(2, but={"hq/1-1": SLOW})
        b.wait(2, but={"hq/2-1": SLOW})
    assert len(b.moves()) <= 20  # a rest of 5 s for whoever violated, so not at every turn


def test_equal_paths_of_a_tier_do_not_draw_a_class_to_and_fro() -> None:
    both = policy(VOICE_POLICY, tiers=((FIBRE, DSL),))
    b = box(voice=both, uplinks=THREE[:2])
    a_bit = GOOD._replace(delay_us=24_000, delay_min_us=23_500, delay_max_us=24_500)
    b.wait(300, but={"hq/1-1": a_bit})
    assert b.moves() == ["initial 1-1"]


def test_a_much_better_path_of_the_same_tier_wins_after_the_hold_time() -> None:
    both = policy(VOICE_POLICY, tiers=((FIBRE, DSL),), sla=Sla(delay_us=200_000))
    b = box(voice=both, uplinks=THREE[:2])
    b.wait(55, but={"hq/1-1": SLOW})
    assert b.carrier() == "1-1"
    b.wait(120, but={"hq/1-1": SLOW})
    assert b.moves() == ["initial 1-1", "better-path 2-1"]


def test_an_uplink_that_appears_later_is_a_better_path_after_the_hold_time() -> None:
    b = box(attached=[2, 3])
    b.wait(10, but={"hq/1-1": None})
    assert b.carrier() == "2-1"
    b.tell(UplinkChanged(facts(1)))
    b.wait(55)
    assert b.carrier() == "2-1"
    b.wait(10)
    assert b.moves() == ["initial 2-1", "better-path 1-1"]


def test_the_best_path_is_not_metered_if_the_policy_says_so() -> None:
    b = box(voice=policy(VOICE_POLICY, metered=False))
    b.wait(5)
    b.kill("hq/1-1", "hq/2-1")
    assert b.carrier() in ("1-1", "2-1")  # dead, but lte is none of its candidates
    assert b.carrier(DEFAULT) == "3-1"


# -- what works badly, what does not work -------------------------------------------------------


def test_fail_closed_discards_and_carries_again_as_soon_as_a_path_meets() -> None:
    b = box(voice=policy(VOICE_POLICY, fallback=Fallback.FAIL_CLOSED), uplinks=THREE[:1])
    b.wait(5)
    b.wait(3, SLOW)
    assert b.moves() == ["initial 1-1", "sla-violated -"]
    assert "class-discarded voice to hq" in b.warnings
    b.wait(4)
    assert b.moves()[-1] == "initial 1-1"
    assert b.warnings == {}
    b.kill("hq/1-1")
    assert b.moves()[-1] == "no-path -"


def test_an_unproven_path_gives_way_to_one_that_answers() -> None:
    b = box(uplinks=THREE[:2])
    b.wait(2, but={"hq/1-1": None})
    assert b.carrier() == "1-1"  # nothing is known against it
    b.wait(3, but={"hq/1-1": None})
    assert b.moves() == ["initial 1-1", "path-down 2-1"]


def test_an_unproven_path_has_as_long_from_when_others_answer() -> None:
    """A hub opens thousands of paths one after the other, and may come late to any of them."""
    b = box(uplinks=THREE[:2])
    b.wait(20, None)
    b.wait(2, but={"hq/1-1": None})
    assert b.carrier() == "1-1"
    b.wait(5)
    assert b.moves() == ["initial 1-1"]


def test_a_suspect_is_the_second_choice() -> None:
    b = box()
    b.wait(5)
    b.tell(ProbeOverdue(named("hq/2-1"), 0.024, 1, 0.01))
    b.kill("hq/1-1")
    assert b.carrier() == "3-1"
    b.tell(PathsSampled(((named("hq/2-1"), GOOD),)))
    b.wait(3, but={"hq/1-1": None})
    # dsl had been clean for the whole time but the box knows it for less than the hold time.
    assert b.carrier() == "3-1"


# -- nothing to choose from ---------------------------------------------------------------------

NEVER_METERED = policy(VOICE_POLICY, metered=False)
DISCARDED = "no path that the policy of voice to hq permits works: its packets are discarded"


def test_a_class_whose_paths_are_all_dead_at_the_start_is_not_left_to_the_default_class() -> None:
    b = box(NEVER_METERED, attached=[3])
    assert b.moves(DEFAULT) == ["initial 3-1"]
    assert b.moves() == ["no-path -"]
    assert b.warnings["class-discarded voice to hq"] == DISCARDED
    b.tell(UplinkChanged(facts(2)))
    assert b.moves() == ["no-path -", "initial 2-1"]  # at once, as at a cold start
    assert "class-discarded voice to hq" not in b.warnings


@pytest.mark.parametrize("fallback", Fallback)
def test_a_class_with_no_permitted_path_to_a_site_is_discarded(fallback) -> None:
    lte = (uplink(3, "lte", metered=True),)
    b = box(policy(NEVER_METERED, fallback=fallback), uplinks=lte)
    b.wait(100)
    assert b.moves(DEFAULT) == ["initial 3-1"]
    assert b.moves() == ["no-path -"]
    assert "class-discarded voice to hq" in b.warnings
    b.tell(IntentChanged(intent(uplinks=lte, peers=ONE_FAR)))
    assert b.moves() == ["no-path -", "initial 3-1"]
    assert "class-discarded voice to hq" not in b.warnings


def test_with_no_uplink_at_all_the_site_is_said_to_be_gone_not_each_class() -> None:
    b = box(attached=[])
    assert b.moves() == b.moves(DEFAULT) == []
    assert "no-path hq" in b.warnings
    assert not any(name.startswith("class-discarded") for name in b.warnings)


def test_what_was_adopted_and_is_forbidden_now_ends_even_when_the_rest_is_dead() -> None:
    shares = Assignment((Carrier(path("hq", 1, 1)), Carrier(path("hq", 3, 1))))
    adopted = SteeringAdopted(((VOICE, HQ, shares),))
    b = box(policy(NEVER_METERED, mode=Mode.SHARE), attached=[3], adopted=adopted)
    assert b.moves() == ["configured 1-1"]  # dead, and used again the moment it works


# -- share --------------------------------------------------------------------------------------

SHARED = policy(VOICE_POLICY, mode=Mode.SHARE, tiers=((FIBRE, DSL), (LTE,)))


def last_move(b: Box) -> MoveClass:
    return [a for _, a in b.actions if isinstance(a, MoveClass) and a.class_name == VOICE][-1]


def test_sharing_uses_the_whole_tier_by_weight() -> None:
    b = box(voice=SHARED)
    assert b.carrier() == "1-1 2-1"
    assert [c.weight for c in last_move(b).after.carriers] == [1, 3]


@pytest.mark.parametrize("sample", [SLOW, LOSSY])
def test_a_member_that_violates_is_dropped_and_joins_again_after_the_hold_time(sample) -> None:
    b = box(voice=SHARED)
    b.wait(70)
    b.wait(5, but={"hq/1-1": sample})
    assert b.moves()[-1] == "sla-violated 2-1"
    b.wait(58)
    assert b.carrier() == "2-1"
    b.wait(70)  # it takes 268 clean probes to believe that the loss is over
    assert b.moves()[-1] == "recovered 1-1 2-1"


def test_a_member_that_dies_is_dropped_at_once_and_the_last_one_for_the_next_tier() -> None:
    b = box(voice=SHARED)
    b.wait(5)
    b.kill("hq/1-1")
    assert b.moves()[-1] == "path-down 2-1"
    b.kill("hq/2-1")
    assert b.moves()[-1] == "path-down 3-1"


def test_a_better_tier_takes_over_as_a_whole() -> None:
    b = box(voice=SHARED)
    b.wait(5)
    b.kill("hq/1-1", "hq/2-1")
    b.revive("hq/1-1", "hq/2-1")
    assert b.carrier() == "3-1"
    b.wait(70)
    assert b.moves()[-1] == "recovered 1-1 2-1"


def test_the_smallest_carrier_bounds_the_packets() -> None:
    b = box(voice=SHARED)
    b.wait(5)
    b.tell(PathMtuChanged(named("hq/1-1"), 1300))
    b.tell(PathMtuChanged(named("hq/2-1"), 1380))
    assert last_move(b).after.mtu == 1300
    b.kill("hq/1-1")
    assert last_move(b).after.mtu == 1380


# -- configuration ------------------------------------------------------------------------------


def reconfigure(b: Box, voice) -> None:
    b.tell(IntentChanged(intent(uplinks=THREE, peers=ONE_FAR, voice=voice)))


def test_a_new_configuration_keeps_what_it_permits() -> None:
    b = box()
    b.wait(10)
    reconfigure(b, policy(VOICE_POLICY, tiers=((DSL,), (FIBRE,)), sla=Sla(delay_us=80_000)))
    assert b.carrier() == "1-1"
    b.wait(70)
    assert b.moves() == ["initial 1-1", "better-path 2-1"]


def test_a_new_configuration_ends_what_it_does_not_permit() -> None:
    b = box()
    b.wait(10)
    reconfigure(b, policy(VOICE_POLICY, tiers=((LTE,),)))
    assert b.moves() == ["initial 1-1", "configured 3-1"]
    assert "the configuration does not want it there" in b.reason()


def test_sharing_can_be_switched_on_and_off() -> None:
    b = box()
    b.wait(100)
    reconfigure(b, SHARED)
    assert b.carrier() == "1-1 2-1"
    reconfigure(b, VOICE_POLICY)
    assert b.carrier() == "1-1"
    assert last_move(b).cause is Cause.CONFIGURED


def test_what_is_shared_follows_tiers_that_differ_now() -> None:
    shared = policy(mode=Mode.SHARE, tiers=((FIBRE, LTE), (DSL,)), sla=Sla(loss_ratio=0.05))
    b = box(shared)
    b.wait(70)
    assert b.carrier() == "1-1 3-1"
    apart = policy(mode=Mode.SHARE, tiers=((FIBRE,), (LTE,)), sla=Sla(loss_ratio=0.05))
    b.tell(IntentChanged(intent(uplinks=THREE, peers=ONE_FAR, voice=apart)))
    assert b.moves()[-1] == "configured 1-1"


def found_discarded() -> Box:
    """A box that starts with its voice discarded, as it was found in the kernel."""
    return box(
        policy(fallback=Fallback.FAIL_CLOSED, sla=Sla(loss_ratio=0.01)),
        adopted=SteeringAdopted(assignments=((VOICE, HQ, Assignment()),)),
    )


def test_a_class_that_is_found_discarded_waits_until_a_path_is_known_to_meet() -> None:
    b = found_discarded()
    lossy = {f"hq/{n}-1": LOSSY for n in (1, 2, 3)}
    b.wait(60, but=lossy)
    assert b.moves() == []
    b.wait(90)  # the test of the loss takes some 300 clean probes
    assert b.carrier() == "1-1"


def test_it_does_not_wait_longer_than_it_takes_to_know() -> None:
    b = found_discarded()
    b.wait(4)
    assert b.carrier() == "-"
    b.wait(3)
    assert b.carrier() == "1-1"
