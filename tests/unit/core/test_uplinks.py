"""Transcripts: local uplinks that lose their carrier, fall silent, come back."""

from dataclasses import replace

import pytest

from appliance.config.intent import Intent, Uplink
from appliance.contract.ids import SiteName, Slot, UplinkName
from appliance.core.actions import Action, DetourPlanes, MoveClass
from appliance.core.decide import decide, next_deadline
from appliance.core.events import (
    AnswerReturned,
    DeadlinePassed,
    FarEndReported,
    IntentChanged,
    LoopStalled,
    PathsSampled,
    ProbeOverdue,
    SteeringAdopted,
    UplinkChanged,
    UplinkProbed,
)
from appliance.core.settle import SLICE
from appliance.core.state import Liveness
from appliance.core.steering import Assignment, Carrier
from appliance.stamp.sample import Sample
from tests.unit.core.box import SLOW, Box, kinds, named
from tests.unit.core.examples import (
    DEFAULT,
    DEFAULT_POLICY,
    DSL,
    FIBRE,
    HQ,
    SHOP,
    VOICE,
    facts,
    intent,
    path,
    peer,
    policy,
    uplink,
)

TWO_SITES = (peer("hq", 3), peer("shop", 4))
UPLINKS = (uplink(1, "fibre"), uplink(2, "dsl"), uplink(3, "lte", metered=True))
INTENT = intent(uplinks=UPLINKS, peers=TWO_SITES)


@pytest.fixture
def box() -> Box:
    box = Box(INTENT)
    box.wait(70)
    return box


def miss(
    box: Box, name: str, gap: float = 0.01, sent_age: float = 0.024, answered_age: float = 0.06
) -> list[Action]:
    """A little later an answer is missing on a path."""
    box.now += gap
    return box.tell(ProbeOverdue(named(name), sent_age, 1, answered_age))


def detours(box: Box) -> dict[str, str]:
    return {str(plane): str(other) for plane, other in box.state.detours.items()}


# -- what the kernel says ---------------------------------------------------------------------


def test_carrier_loss_moves_everything_in_one_decision_the_detour_first(box) -> None:
    actions = box.tell(UplinkChanged(facts(1, carrier=False)))
    assert kinds(actions) == ["RaiseWarning", "DetourPlanes", *["MoveClass"] * 4]
    assert {str(a.after.carriers[0].path) for a in actions if isinstance(a, MoveClass)} == {
        *("hq/2-1", "shop/2-1")
    }
    assert {a.cause.value for a in actions if isinstance(a, MoveClass)} == {"uplink-down"}
    assert "uplink has no carrier" in box.reason()
    assert detours(box) == {"1-1": "2-1", "1-2": "2-2"}
    assert box.warnings == {"uplink-down fibre": "uplink fibre has no carrier"}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"has_device": False, "has_carrier": False, "addresses": ()}, "has lost its device"),
        ({"has_carrier": False}, "has no carrier"),
        ({"addresses": ()}, "has no address"),
    ],
)
def test_whatever_an_uplink_lacks_is_named(box, change, says) -> None:
    box.tell(UplinkChanged(replace(facts(1), **change)))
    assert box.warnings["uplink-down fibre"] == f"uplink fibre {says}"
    assert box.carrier().startswith("2")


def test_another_gateway_or_address_is_no_trouble(box) -> None:
    assert box.tell(UplinkChanged(replace(facts(1), gateways=()))) == []


def test_the_detour_is_undone_when_the_uplink_is_back_and_traffic_returns_later(box) -> None:
    box.tell(UplinkChanged(facts(1, carrier=False)))
    box.wait(5, but={str(p): None for p in box.paths if p.plane.local == 1})
    actions = box.tell(UplinkChanged(facts(1)))
    assert kinds(actions) == ["ClearWarning", "DetourPlanes"]
    assert detours(box) == {}
    assert box.path("hq/1-1").liveness is Liveness.UNKNOWN
    assert box.paces()["hq/1-1"] == 0.02  # it is probed at once, not once a second
    box.wait(58)
    assert box.carrier() == "2-1"
    box.wait(10)
    assert box.carrier() == "1-1"


def test_the_stand_in_dies_too_and_another_stands_in_for_both(box) -> None:
    box.tell(UplinkChanged(facts(1, carrier=False)))
    box.tell(UplinkChanged(facts(2, carrier=False)))
    # Nothing referred to the planes of fibre any more; those of dsl carried everything.
    assert detours(box) == {"1-1": "2-1", "1-2": "2-2", "2-1": "3-1", "2-2": "3-2"}
    assert box.carrier() == "3-1"


def test_with_no_uplink_left_classes_stay_where_they_were(box) -> None:
    for slot in (1, 2, 3):
        box.tell(UplinkChanged(facts(slot, carrier=False)))
    assert box.carrier() == "3-1"
    assert "no-path hq" in box.warnings
    box.tell(UplinkChanged(facts(2)))
    assert box.carrier() == "2-1"  # at once: nothing else works, so there is nothing to wait for
    assert "no-path hq" not in box.warnings


def test_an_unhealthy_uplink_is_a_warning_and_no_reason_to_move(box) -> None:
    box.tell(UplinkProbed(Slot(1), 0, 3, False, "0 of 3 targets answered"))
    assert box.warnings == {"uplink-unhealthy fibre": "uplink fibre: 0 of 3 targets answered"}
    box.wait(5)
    assert box.carrier() == "1-1"
    box.tell(UplinkProbed(Slot(1), 3, 3, True, "3 of 3 targets answered"))
    assert box.warnings == {}


def renamed(*uplinks: Uplink) -> Intent:
    return replace(INTENT, uplinks=(*uplinks, *INTENT.uplinks[len(uplinks) :]))


def test_another_name_for_an_uplink_moves_nothing(box) -> None:
    first = INTENT.uplinks[0]
    box.tell(UplinkChanged(facts(2, carrier=False)))
    actions = box.tell(
        IntentChanged(renamed(replace(first, name=UplinkName("wire")), INTENT.uplinks[1]))
    )
    assert "MoveClass" not in kinds(actions)
    assert box.state.uplinks[Slot(1)].is_usable
    assert box.carrier() == "1-1"


def test_the_warning_of_an_uplink_follows_its_name(box) -> None:
    box.tell(UplinkChanged(facts(1, carrier=False)))
    box.tell(IntentChanged(renamed(replace(INTENT.uplinks[0], name=UplinkName("wire")))))
    assert box.warnings == {"uplink-down wire": "uplink wire has no carrier"}


def test_another_device_of_an_uplink_is_unusable_until_it_is_told_of(box) -> None:
    box.tell(IntentChanged(renamed(replace(INTENT.uplinks[0], device="eth9"))))
    assert box.carrier() == "2-1"
    box.tell(UplinkChanged(facts(1)))
    assert box.state.uplinks[Slot(1)].is_usable
    assert "uplink-down fibre" not in box.warnings


# -- shared fate --------------------------------------------------------------------------------


def test_missing_answers_over_several_sites_condemn_the_uplink(box) -> None:
    for name in ("hq/1-1", "shop/1-1", "hq/1-2"):
        assert "DetourPlanes" not in kinds(miss(box, name))
    actions = miss(box, "shop/1-2")
    assert kinds(actions)[:2] == ["RaiseWarning", "DetourPlanes"]
    assert box.carrier(VOICE, HQ) == box.carrier(DEFAULT, SHOP) == "2-1"
    assert "its uplink is silent: 4 probes on 4 paths unanswered, none answered" in box.reason()


def test_an_answer_to_a_later_probe_acquits_the_uplink(box) -> None:
    for name in ("hq/1-1", "shop/1-1", "hq/1-2"):
        miss(box, name)
    miss(box, "shop/1-2", answered_age=0.02)  # sent after all of these
    for name in ("hq/1-1", "shop/1-1", "hq/1-2"):
        miss(box, name, sent_age=0.015, answered_age=0.02)
    assert box.carrier() == "1-1"


def test_probes_that_were_lost_at_one_moment_condemn_nothing(box) -> None:
    """The prober sends in ticks: all of one tick may meet the same full queue."""
    for _ in range(2):
        for name in ("hq/1-1", "shop/1-1", "hq/1-2", "shop/1-2"):
            miss(box, name, gap=0.0)
    assert box.state.uplinks[Slot(1)].is_usable
    assert box.carrier() == "1-1"


def test_one_site_alone_condemns_no_uplink_that_leads_to_others(box) -> None:
    for _ in range(3):
        for name in ("hq/1-1", "hq/1-2"):
            miss(box, name)
    assert box.state.uplinks[Slot(1)].is_usable


def test_a_far_end_that_dies_is_not_taken_for_all_uplinks_dying() -> None:
    box = Box(intent())
    box.wait(5)
    for _ in range(4):
        for name in ("hq/1-1", "hq/2-1", "hq/1-2", "hq/2-2"):
            miss(box, name, 0.001)
    assert all(u.is_usable for u in box.state.uplinks.values())
    box.kill("hq/1-1", "hq/2-1", "hq/1-2", "hq/2-2")
    assert list(box.warnings) == ["no-path hq"]


def test_what_was_answered_after_all_excuses_no_other_uplink() -> None:
    """One answer over the dsl came late: that the far end is alive, the fibre is dead."""
    box = Box(intent())
    box.wait(5)
    miss(box, "hq/2-1")
    box.tell(AnswerReturned(named("hq/2-1"), 1, sent_age_s=0.024, is_late=True))
    for _ in range(4):
        for name in ("hq/1-1", "hq/1-2"):
            miss(box, name)
    assert not box.state.uplinks[Slot(1)].is_usable
    assert box.carrier() == "2-1"


def test_no_uplink_without_any_answer_stands_in_for_a_silent_one() -> None:
    """The far end may have fallen silent; and what is known to be dead is worse in any case."""
    box = Box(intent())
    box.wait(5)
    box.kill("hq/1-1", "hq/1-2")
    assert box.carrier() == "2-1"
    box.wait(4, but={"hq/1-1": None, "hq/1-2": None})
    for _ in range(3):
        for name in ("hq/2-1", "hq/2-2"):
            miss(box, name)
    assert not box.state.uplinks[Slot(2)].is_usable
    assert detours(box) == {}
    assert box.carrier() == "2-1"
    box.tell(UplinkChanged(facts(2, carrier=False)))
    assert detours(box) == {"2-1": "1-1", "2-2": "1-2"}  # this one is dead for certain


@pytest.mark.parametrize("change", [{"metered": False}, {"tiers": ((FIBRE,), (DSL,))}])
def test_no_uplink_stands_in_that_a_class_must_not_use(change) -> None:
    """The detour comes before any class is asked, and takes all of them along."""
    box = Box(intent(default=policy(DEFAULT_POLICY, **change), uplinks=(UPLINKS[0], UPLINKS[2])))
    box.wait(5)
    assert box.carrier(VOICE) == box.carrier(DEFAULT) == "1-1"
    box.tell(UplinkChanged(facts(1, carrier=False)))
    assert detours(box) == {}
    assert box.carrier(VOICE) == "3-1"
    assert box.carrier(DEFAULT) in ("1-1", "-")


def condemn(box: Box) -> None:
    for name in ("hq/1-1", "shop/1-1", "hq/1-2", "shop/1-2"):
        miss(box, name)
    assert not box.state.uplinks[Slot(1)].is_usable


def test_a_carrier_that_comes_back_starts_with_a_clean_slate(box) -> None:
    condemn(box)
    box.tell(UplinkChanged(facts(1, carrier=False)))
    box.tell(UplinkChanged(facts(1)))
    assert box.state.uplinks[Slot(1)].is_usable
    for name in ("hq/1-1", "shop/1-1", "hq/1-2"):
        miss(box, name)
    box.tell(UplinkChanged(facts(1, carrier=False)))
    box.tell(UplinkChanged(facts(1)))
    miss(box, "shop/1-2")
    assert box.state.uplinks[Slot(1)].is_usable


def test_a_condemned_uplink_is_acquitted_by_the_first_answer(box) -> None:
    condemn(box)
    actions = box.tell(AnswerReturned(path("hq", 1, 1), 1))
    assert kinds(actions) == ["ClearWarning", "DetourPlanes"]
    assert box.path("hq/1-1").liveness is Liveness.RISING
    assert box.path("shop/1-1").liveness is Liveness.DOWN  # each path proves itself


def test_a_verdict_that_was_an_error_is_taken_back_quickly(box) -> None:
    """A stall of a tenth of a second looked like death: the answers came after all."""
    condemn(box)
    box.now += 0.1
    late = [p for p in box.paths if p.plane.local == 1]
    for count in range(1, 4):
        for each in late:
            box.tell(AnswerReturned(each, count, sent_age_s=0.12, is_late=True))
    assert box.path("hq/1-1").liveness is Liveness.UP
    box.wait(1, but={"hq/1-1": SLOW, "hq/1-2": SLOW})
    assert box.moves(DEFAULT)[-1] == "uplink-down 2-1"  # there is some doubt left
    box.wait(3, but={"hq/1-1": SLOW, "hq/1-2": SLOW})
    assert box.moves(DEFAULT)[-1] == "recovered 1-1"  # 2 s later, as it had been clean before
    assert box.carrier(VOICE) == "2-1"  # its SLA forbids such a delay: it holds for longer


def test_an_answer_from_before_the_silence_acquits_nobody(box) -> None:
    condemn(box)
    assert box.tell(AnswerReturned(path("hq", 1, 1), 1, sent_age_s=0.5)) == []
    assert box.path("hq/1-1").liveness is Liveness.DOWN
    assert not box.state.uplinks[Slot(1)].is_usable


def test_the_far_ends_word_waits_for_a_path_that_may_stand_still(box) -> None:
    """What it has not got yet may be on its way, as it was the last time."""
    one = path("hq", 1, 1)

    def miss_two() -> None:
        for count in (1, 2):
            box.now += 0.02
            box.tell(ProbeOverdue(one, 0.024, count, 0.0))

    miss_two()
    box.tell(FarEndReported(one, 3, 0))
    assert box.path("hq/1-1").liveness is Liveness.DOWN
    box.now += 0.04
    for count in (1, 2):
        box.tell(AnswerReturned(one, count, sent_age_s=0.08, is_late=True))
    assert box.path("hq/1-1").liveness is Liveness.UP
    box.wait(5)
    miss_two()
    box.tell(FarEndReported(one, 3, 0))
    assert box.path("hq/1-1").liveness is Liveness.SUSPECT
    box.now += 0.05
    box.tell(ProbeOverdue(one, 0.024, 3, 0.0))
    assert box.path("hq/1-1").liveness is Liveness.SUSPECT
    box.now += 0.1
    box.tell(ProbeOverdue(one, 0.024, 4, 0.0))
    assert box.path("hq/1-1").liveness is Liveness.DOWN


def test_a_stall_forgives_what_was_missing_and_is_told_of_later(box) -> None:
    for count in (1, 2, 3):
        box.now += 0.02
        box.tell(ProbeOverdue(path("hq", 1, 1), 0.024, count, 0.08))
    box.tell(LoopStalled(0.3))
    box.now += 0.01
    box.tell(ProbeOverdue(path("hq", 1, 1), 0.024, 4, 0.09))  # sent before the stall ended
    assert box.path("hq/1-1").liveness is Liveness.UP
    for count in (5, 6, 7):
        box.now += 0.02
        box.tell(ProbeOverdue(path("hq", 1, 1), 0.008, count, 0.2))
        assert box.path("hq/1-1").liveness is Liveness.SUSPECT
        assert box.path("hq/1-1").unanswered == count - 4
    box.tell(AnswerReturned(path("hq", 1, 1), 1))
    assert box.path("hq/1-1").forgiven == 0
    box.tell(ProbeOverdue(path("hq", 1, 1), 0.001, 4, 0.2))
    assert box.path("hq/1-1").unanswered == 4


def test_our_own_stall_is_nobodys_fault(box) -> None:
    for name in ("hq/1-1", "shop/1-1", "hq/1-2"):
        miss(box, name)
    assert box.path("hq/1-1").liveness is Liveness.SUSPECT
    box.tell(LoopStalled(0.3))
    assert box.path("hq/1-1").liveness is Liveness.UP
    for name in ("shop/1-2", "hq/1-1", "shop/1-1", "hq/1-2"):  # sent before the stall ended
        miss(box, name)
    assert box.carrier() == "1-1"
    assert box.warnings == {}


def test_a_short_stall_forgives_nothing(box) -> None:
    for name in ("hq/1-1", "shop/1-1", "hq/1-2"):
        miss(box, name)
    box.tell(LoopStalled(0.05))
    miss(box, "shop/1-2")
    assert not box.state.uplinks[Slot(1)].is_usable
    assert box.carrier() == "2-1"


def test_a_stall_leaves_a_verdict_its_reasons(box) -> None:
    """A hub stalls right after it, with thousands of classes to move: they are to say why."""
    condemn(box)
    box.tell(LoopStalled(0.3))
    assert len(box.state.uplinks[Slot(1)].overdue) == 4


# -- a hub ----------------------------------------------------------------------------------------


def hub(sites: int) -> Box:
    box = Box(intent(peers=tuple(peer(f"s{n}", n + 2) for n in range(sites))))
    drain(box)
    box.now += 1
    good = Sample(5, 5, delay_us=20_000, delay_min_us=20_000, delay_max_us=20_000, span_us=10**6)
    for _ in range(3):
        box.now += 1
        box.tell(PathsSampled(tuple((p, good) for p in box.paths)))
        drain(box)
    return box


def drain(box: Box) -> int:
    steps = 0
    while box.state.pending:
        assert next_deadline(box.state) is not None
        box.tell(DeadlinePassed())
        steps += 1
    return steps


def test_a_hub_moves_all_sites_by_the_detour_and_the_classes_in_slices() -> None:
    box = hub(100)
    actions = box.tell(UplinkChanged(facts(1, carrier=False)))
    assert kinds(actions) == ["RaiseWarning", "DetourPlanes"]
    first, *_ = [a for a in actions if isinstance(a, DetourPlanes)]
    assert [(str(a), str(b)) for a, b in first.detours] == [("1-1", "2-1"), ("1-2", "2-2")]
    moved = []
    while box.state.pending:
        assert next_deadline(box.state) == box.now  # at once, but the loop gets its turn
        actions = box.tell(DeadlinePassed())
        moves = [a for a in actions if isinstance(a, MoveClass)]
        assert len(moves) <= 2 * SLICE
        moved += moves
    assert len(moved) == 200
    assert {m.after.carriers[0].path.plane.local for m in moved} == {2}


def test_what_happens_between_the_slices_is_decided_too() -> None:
    box = hub(100)
    box.tell(UplinkChanged(facts(1, carrier=False)))
    box.tell(DeadlinePassed())
    box.tell(UplinkChanged(facts(1)))
    drain(box)
    box.wait(2)
    assert detours(box) == {}
    for site in box.state.sites:
        assert box.carrier(VOICE, site) in ("1-1", "2-1")


def test_chance_condemns_no_uplink_of_a_hub() -> None:
    """More paths give chance more opportunities, so it takes more probes."""
    box = hub(200)
    for n in range(6):
        miss(box, f"s{n}/1-1", 0.003)
    assert box.state.uplinks[Slot(1)].is_usable
    for n in range(6, 14):
        miss(box, f"s{n}/1-1", 0.001)
    assert not box.state.uplinks[Slot(1)].is_usable


# -- starting -------------------------------------------------------------------------------------


def adopted(*carriers: tuple[str, str], detour: bool = False) -> SteeringAdopted:
    return SteeringAdopted(
        tuple(
            (VOICE if cls == "voice" else DEFAULT, HQ, Assignment((Carrier(named(name)),)))
            for cls, name in carriers
        ),
        ((path("hq", 1, 1).plane, path("hq", 2, 1).plane),) if detour else (),
    )


def test_a_restart_moves_nothing() -> None:
    box = Box(intent(), adopted=adopted(("voice", "hq/2-1"), ("default", "hq/1-2")))
    assert [a for _, a in box.actions if isinstance(a, MoveClass | DetourPlanes)] == []
    box.wait(50)
    assert (box.carrier(), box.carrier(DEFAULT)) == ("2-1", "1-2")
    assert box.reason() == "found in the kernel at the start"
    box.wait(20)  # the preferred path is believed after the hold time, as ever
    assert box.moves() == ["better-path 1-1"]


def test_what_was_adopted_over_a_dead_uplink_moves_at_once() -> None:
    box = Box(intent(), attached=[2], adopted=adopted(("voice", "hq/1-1"), ("default", "hq/2-1")))
    assert box.moves() == ["uplink-down 2-1"]
    assert box.moves(DEFAULT) == []


def test_an_adopted_detour_stays_until_its_uplink_answers() -> None:
    box = Box(intent(), adopted=adopted(("voice", "hq/1-1"), ("default", "hq/2-1"), detour=True))
    assert detours(box) == {"1-1": "2-1"}
    box.wait(3)
    assert detours(box) == {}
    assert box.moves() == []


def test_what_was_adopted_and_is_gone_from_the_configuration_is_forgotten() -> None:
    strange = SteeringAdopted(((VOICE, SiteName("gone"), Assignment((Carrier(named("hq/1-1")),))),))
    box = Box(intent(), adopted=strange)
    assert box.moves() == ["initial 1-1"]


def test_the_first_decision_waits_for_the_facts_of_all_uplinks_but_not_for_ever() -> None:
    box = Box(intent(), attached=[])
    box.state = replace(box.state, is_settled=False, settle_at=0.5)
    state, actions = decide(box.state, DeadlinePassed(), 0.4)
    assert actions == ()
    assert next_deadline(state) == 0.5
    state, _ = decide(state, DeadlinePassed(), 0.5)
    assert state.is_settled


# -- a hub's reviews ----------------------------------------------------------------------------


def review(box: Box) -> int:
    """Make the reviews that are due. How often was it asked for?"""
    count = 0
    while (due := next_deadline(box.state)) is not None and due <= box.now:
        box.tell(DeadlinePassed())
        count += 1
    return count


def test_what_is_due_soon_after_each_other_is_reviewed_together() -> None:
    hub = Box(intent(peers=[peer(f"s{n}", n + 2) for n in range(100)], interval_s=4.0))
    hub.wait(70)
    names = [f"s{n}/1-1" for n in range(100)]
    hub.kill(*names)
    hub.now += 20
    for name in names:  # each will have risen in a second
        hub.now += 0.01
        hub.revive(name)
        review(hub)
    reviews = 0
    for _ in range(300):
        hub.now += 0.01
        reviews += review(hub)
    assert 100 / SLICE < reviews < 25


def test_answers_of_a_path_that_rises_slowly_are_no_reason_to_look_again(box) -> None:
    box.kill("hq/1-1")
    box.now += 20
    review(box)
    for count in range(1, 4):
        box.tell(AnswerReturned(named("hq/1-1"), count))
        assert box.path("hq/1-1").liveness is Liveness.RISING
        box.now += 4
        assert review(box) == (count == 1)
