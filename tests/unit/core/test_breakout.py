"""By which uplinks classes leave for the internet, and which flows end with an uplink."""

import math
from dataclasses import replace
from ipaddress import ip_address

import pytest

from appliance.config.intent import (
    Fallback,
    Intent,
    Internet,
    Mode,
    Policy,
    Sla,
    Target,
    TargetKind,
)
from appliance.contract.ids import INTERNET, ClassName, SiteName, Slot, exit_plane
from appliance.core.actions import Action, AskTargets, Cause, EndFlows, MoveClass
from appliance.core.breakout import END_S, FRESH_S
from appliance.core.decide import decide, initial_state, next_deadline
from appliance.core.events import (
    DeadlinePassed,
    Event,
    IntentChanged,
    SteeringAdopted,
    UplinkChanged,
    UplinkProbed,
)
from appliance.core.state import State, steering, working
from appliance.core.steering import Assignment, Carrier
from appliance.core.why import explain
from tests.unit.core.examples import (
    DEFAULT,
    DEFAULT_POLICY,
    VOICE,
    VOICE_POLICY,
    facts,
    intent,
    path,
    peer,
    policy,
    uplink,
)
from tests.unit.core.world import World

TARGETS = tuple(Target(TargetKind.ICMP, ip_address(f"192.0.2.{n}")) for n in (1, 2, 3))
HOLD_S = DEFAULT_POLICY.hold_s


class Box:
    """A branch whose tunnels say nothing: what the kernel and the targets tell decides."""

    def __init__(
        self, wanted: Intent, *, adopt: SteeringAdopted | None = None, carrier: bool = True
    ) -> None:
        self.now = 100.0
        self.state: State = initial_state()
        self.actions: list[Action] = []
        self.tell(IntentChanged(wanted))
        if adopt is not None:
            self.tell(adopt)
        for each in wanted.uplinks:
            self.tell(UplinkChanged(facts(each.slot, carrier=carrier)))
        self.wait(10)

    def tell(self, event: Event) -> tuple[Action, ...]:
        self.state, actions = decide(self.state, event, self.now)
        self.actions += actions
        return actions

    def wait(self, seconds: float) -> None:
        end = self.now + seconds
        while (due := next_deadline(self.state)) is not None and due <= end:
            self.now = max(self.now, due)
            self.tell(DeadlinePassed())
        self.now = end

    def unplug(self, slot: int) -> None:
        self.tell(UplinkChanged(facts(slot, carrier=False)))

    def plug_in(self, slot: int) -> None:
        self.tell(UplinkChanged(facts(slot)))

    def over(self, class_name: ClassName = DEFAULT) -> list[int]:
        return over(self.state, class_name)

    def ended(self) -> list[tuple[int, tuple[str, ...]]]:
        """What `EndFlows` asked for since this was asked last."""
        found = [(int(a.uplink), a.classes) for a in self.actions if isinstance(a, EndFlows)]
        self.actions.clear()
        return found


def over(state: State, class_name: ClassName = DEFAULT) -> list[int]:
    """The slots by which a class leaves."""
    held = state.internet.site.classes[class_name]
    assert all(c.path.site == INTERNET for c in held.assignment.carriers)
    return [c.path.plane.local for c in held.assignment.carriers]


def probed(slot: int, answered: int, *, is_healthy: bool) -> UplinkProbed:
    return UplinkProbed(Slot(slot), answered, 3, is_healthy, f"{answered} of 3 targets answered")


def test_a_class_leaves_by_its_first_tier():
    box = Box(intent(default=policy(DEFAULT_POLICY, tiers=(("dsl",), ("fibre",)))))
    assert box.over() == [2]
    assert box.over(VOICE) == [1]
    assert steering(box.state).assignments[DEFAULT, INTERNET] == Assignment(
        (Carrier(path("internet", 2, 0)),)
    )


def test_what_is_sent_twice_to_sites_leaves_once_for_the_internet():
    twice = policy(DEFAULT_POLICY, tiers=(("fibre", "dsl"),), mode=Mode.DUPLICATE)
    box = Box(intent(default=twice))
    assert box.over() == [1]
    assert box.state.internet.site.classes[DEFAULT].assignment.second is None


def test_before_any_uplink_works_nothing_is_decided():
    box = Box(intent(), carrier=False)
    assert not [a for a in box.actions if isinstance(a, MoveClass) and a.site == INTERNET]
    box.plug_in(1)
    moves = [a for a in box.actions if isinstance(a, MoveClass) and a.site == INTERNET]
    assert {move.cause for move in moves} == {Cause.INITIAL}


def test_shared_by_the_weights_of_the_uplinks():
    shared = policy(DEFAULT_POLICY, tiers=(("fibre", "dsl"),), mode=Mode.SHARE)
    box = Box(intent(uplinks=[uplink(1, "fibre", weight=5), uplink(2, "dsl")], default=shared))
    held = box.state.internet.site.classes[DEFAULT]
    assert [(c.path.plane.local, c.weight) for c in held.assignment.carriers] == [(1, 5), (2, 1)]
    box.unplug(1)
    assert box.over() == [2]


def test_carrier_loss_moves_new_flows_at_once_and_ends_old_ones_a_moment_later():
    box = Box(intent())
    box.actions.clear()
    box.unplug(1)
    assert box.over() == [2]
    moved = [a for a in box.actions if isinstance(a, MoveClass) and a.site == INTERNET]
    assert {m.class_name for m in moved} == {VOICE, DEFAULT}
    assert "fibre: its uplink has no carrier; dsl works" in moved[0].reason
    assert box.ended() == []
    box.wait(END_S - 0.01)
    assert box.ended() == []
    box.wait(0.02)
    assert box.ended() == [(1, (VOICE, DEFAULT))]
    box.wait(100)
    assert box.ended() == [], "once for each death"


def test_an_uplink_that_was_just_attached_is_given_time():
    box = Box(intent())
    box.unplug(1)
    box.wait(60)
    box.plug_in(1)
    box.ended()
    box.plug_in(2)
    box.wait(0.1)
    silent = replace(box.state.uplinks[Slot(1)], condemned_at=box.now)
    box.state = replace(box.state, uplinks={**box.state.uplinks, Slot(1): silent})
    box.wait(0.1)
    box.tell(DeadlinePassed())
    box.wait(FRESH_S - 0.5)
    assert box.ended() == []
    box.wait(1)
    assert box.ended() == [(1, (VOICE, DEFAULT))]


def test_the_targets_of_an_uplink_are_asked_each_time_it_seems_dead():
    """Whatever made it seem so; of one that is away nobody needs to ask."""
    box = Box(intent())
    box.actions.clear()
    for _ in range(2):
        silent = replace(box.state.uplinks[Slot(1)], condemned_at=box.now)
        box.state = replace(box.state, uplinks={**box.state.uplinks, Slot(1): silent})
        box.tell(DeadlinePassed())
        assert [a for a in box.actions if isinstance(a, AskTargets)] == [AskTargets(Slot(1))]
        box.actions.clear()
        box.wait(0.1)
        box.tell(probed(1, 3, is_healthy=True))
        box.wait(1)
        assert box.ended() == []
    box.unplug(1)
    box.tell(probed(2, 0, is_healthy=False))  # who fell by its targets was asked already
    assert not any(isinstance(a, AskTargets) for a in box.actions)


def test_targets_that_were_asked_before_an_uplink_fell_silent_do_not_vouch_for_it():
    box = Box(intent(uplinks=[replace(uplink(1, "fibre"), targets=TARGETS), uplink(2, "dsl")]))
    silent = replace(box.state.uplinks[Slot(1)], condemned_at=box.now)
    box.state = replace(box.state, uplinks={**box.state.uplinks, Slot(1): silent})
    answered = probed(1, 3, is_healthy=True)
    box.wait(0.3)
    box.tell(replace(answered, took_s=0.4))
    assert box.over() == [2]
    box.wait(END_S)
    assert box.ended() == [(1, (VOICE, DEFAULT))]
    box.tell(replace(answered, took_s=0.4))
    assert working(box.state) == {1, 2}, "it was asked after that"


def test_a_blip_ends_nothing():
    box = Box(intent())
    box.unplug(1)
    box.wait(END_S / 2)
    box.plug_in(1)
    box.wait(HOLD_S - 1)
    assert box.over() == [2], "the hold time is kept"
    box.wait(2)
    assert box.over() == [1]
    assert box.ended() == []


def test_flows_on_an_uplink_that_carries_nothing_new_end_with_it():
    box = Box(intent())
    box.unplug(1)
    box.wait(END_S + 0.1)
    box.plug_in(1)
    box.wait(2 * HOLD_S)
    assert box.over() == [1]
    box.ended()
    box.unplug(2)  # flows that began meanwhile are still there
    box.wait(END_S + 0.1)
    assert box.ended() == [(2, (VOICE, DEFAULT))]


def test_nothing_ends_while_no_uplink_works_and_the_dead_ones_when_one_does():
    box = Box(intent())
    box.actions.clear()
    box.unplug(1)
    box.unplug(2)
    box.wait(60)
    assert box.over() == [2], "best effort stays"
    assert box.ended() == []
    assert ("no-internet", INTERNET) in box.state.warnings
    box.plug_in(2)
    box.wait(END_S)
    assert box.ended() == [(1, (VOICE, DEFAULT))]
    assert ("no-internet", INTERNET) not in box.state.warnings


def test_fail_closed_discards_and_opens_again():
    closed = policy(DEFAULT_POLICY, tiers=(("fibre",),), fallback=Fallback.FAIL_CLOSED)
    box = Box(intent(default=closed))
    box.unplug(1)
    assert box.over() == []
    assert ("class-discarded", "default to internet") in box.state.warnings
    box.plug_in(1)
    assert box.over() == [1]
    assert ("class-discarded", "default to internet") not in box.state.warnings


def test_metered_uplinks_are_left_to_those_that_may():
    wanted = intent(
        uplinks=[uplink(1, "fibre"), uplink(2, "dsl", metered=True)],
        default=policy(DEFAULT_POLICY, metered=False),
    )
    box = Box(wanted)
    box.unplug(1)
    assert box.over(VOICE) == [2]
    assert box.over() == [1], "it waits for the fibre"
    box.wait(60)
    assert box.ended() == [(1, (VOICE,))], "what cannot move is not ended"


def test_none_is_nowhere_and_no_reason_for_a_warning():
    box = Box(intent(default=policy(DEFAULT_POLICY, internet=Internet.NONE)))
    assert box.over() == []
    assert box.state.warnings == {}
    told = explain(box.state, DEFAULT, INTERNET)
    assert told.reason == "default to internet is discarded, as its policy says: internet none"
    assert {c.verdict for c in told.candidates} == {"not-permitted"}
    assert {c.remarks for c in told.candidates} == {("the policy has no internet",)}


@pytest.mark.parametrize("answered", [0, 3])
def test_targets_condemn_and_acquit(answered):
    with_targets = [replace(uplink(1, "fibre"), targets=TARGETS, quorum=2), uplink(2, "dsl")]
    box = Box(intent(uplinks=with_targets))
    box.tell(probed(1, answered, is_healthy=answered >= 2))
    assert box.over() == ([1] if answered else [2])
    if not answered:
        reason = box.state.internet.site.classes[DEFAULT].reason
        assert "fibre: is not answered outside the tunnels: 0 of 3 targets answered" in reason


def test_an_uplink_without_a_gateway_leads_nowhere():
    box = Box(intent())
    box.tell(UplinkChanged(replace(facts(1), gateways=())))
    assert box.over() == [2]
    assert "fibre: has no gateway" in box.state.internet.site.classes[DEFAULT].reason


def test_a_change_of_policy_ends_what_it_does_not_permit():
    box = Box(intent())
    box.actions.clear()
    box.tell(IntentChanged(intent(default=policy(DEFAULT_POLICY, tiers=(("dsl",),)))))
    assert box.over() == [2]
    assert box.ended() == [(1, (DEFAULT,))]
    box.tell(IntentChanged(intent(default=policy(DEFAULT_POLICY, internet=Internet.NONE))))
    assert box.over() == []
    assert box.ended() == [(2, (DEFAULT,))]


def test_flows_of_an_uplink_end_when_its_slot_gets_another_device_or_none():
    for uplinks in (
        [replace(uplink(1, "fibre"), device="sfp0"), uplink(2, "dsl")],
        [uplink(2, "dsl")],
    ):
        box = Box(intent())
        box.actions.clear()
        box.tell(IntentChanged(intent(uplinks=uplinks)))
        assert box.ended() == [(1, (VOICE,)), (1, (DEFAULT,))]


@pytest.mark.parametrize("internet", [Internet.NONE, Internet.GATEWAY])
def test_what_was_warned_of_ends_when_the_policy_leads_elsewhere(internet: Internet):
    strict = policy(DEFAULT_POLICY, sla=Sla(delay_us=20_000))
    closed = policy(VOICE_POLICY, tiers=(("lte",),), fallback=Fallback.FAIL_CLOSED)
    box = Box(intent(default=strict, voice=closed))
    for _ in range(10):
        for slot in (1, 2):
            box.tell(replace(probed(slot, 3, is_healthy=True), delays_us=(90_000,) * 3))
        box.wait(5)
    stands = {("sla-unmet", "default to internet"), ("class-discarded", "voice to internet")}
    assert stands <= box.state.warnings.keys()
    after = intent(
        default=replace(strict, internet=internet), voice=replace(closed, internet=internet)
    )
    box.tell(IntentChanged(replace(after, gateways=(SiteName("hq"),))))
    box.wait(1)
    assert not stands & box.state.warnings.keys()


def test_a_reload_that_changes_nothing_moves_and_ends_nothing():
    box = Box(intent())
    box.actions.clear()
    box.tell(IntentChanged(intent()))
    box.wait(200)
    assert [a for a in box.actions if isinstance(a, MoveClass | EndFlows)] == []


def test_an_uplink_that_is_taken_away_is_left():
    box = Box(intent())
    box.tell(IntentChanged(intent(uplinks=[uplink(2, "dsl")])))
    assert box.over() == [2]
    assert list(box.state.internet.site.paths) == [exit_plane(Slot(2))]


def test_what_was_found_in_the_kernel_is_kept():
    found = ((DEFAULT, INTERNET, Assignment((Carrier(path("internet", 2, 0)),))),)
    box = Box(intent(), adopt=SteeringAdopted(found))
    assert box.over() == [2]
    assert not [
        a
        for a in box.actions
        if isinstance(a, MoveClass) and (a.class_name, a.site) == found[0][:2]
    ]
    box.wait(HOLD_S + 1)
    assert box.over() == [1], "home after the hold time"


def test_a_class_found_closed_opens_at_once():
    closed = policy(DEFAULT_POLICY, fallback=Fallback.FAIL_CLOSED)
    box = Box(intent(default=closed), adopt=SteeringAdopted(((DEFAULT, INTERNET, Assignment()),)))
    assert box.over() == [1]


# -- with tunnels ------------------------------------------------------------------------------


def test_silence_in_the_tunnels_is_seen_in_a_moment():
    world = World(intent())
    world.run(10)
    assert over(world.state) == [1]
    world.lines[Slot(1)].cut()
    world.run(0.3)
    assert over(world.state) == [2]


def test_the_only_far_end_dies_and_the_internet_stays():
    """All paths over all uplinks fall silent: it is the far end, and no uplink is to blame."""
    world = World(intent())
    world.run(10)
    for line in world.far.values():
        line.cut()
    world.run(30)
    assert over(world.state) == [1]


def test_targets_that_answer_after_the_verdict_overrule_the_tunnels():
    with_targets = [replace(uplink(1, "fibre"), targets=TARGETS, quorum=2), uplink(2, "dsl")]
    world = World(intent(uplinks=with_targets))
    world.run(10)
    world.lines[Slot(1)].cut()  # only UDP, say
    world.run(0.3)
    assert over(world.state) == [2]
    actions = world.tell(probed(1, 3, is_healthy=True))
    assert not any(isinstance(a, EndFlows) for a in actions)
    world.run(DEFAULT_POLICY.hold_s + 2)
    assert over(world.state) == [1]
    ended = [a for _, _, told in world.log for a in told if isinstance(a, EndFlows)]
    assert ended == []


def test_of_one_path_each_the_silent_one_is_dead():
    """Too few paths for shared fate: the other uplink's must answer."""
    world = World(intent(peers=[peer("hq", 3, ("cable",))]))
    world.run(10)
    world.lines[Slot(1)].cut()
    world.run(1)
    assert over(world.state) == [2]


def test_a_deadline_is_told():
    box = Box(intent())
    assert next_deadline(box.state) is None or math.isfinite(next_deadline(box.state) or 0)
    box.unplug(1)
    due = next_deadline(box.state)
    assert due is not None
    assert due <= box.now + END_S


def test_a_policy_is_local_unless_it_says_otherwise():
    assert Policy(DEFAULT, ()).internet is Internet.LOCAL


def slow(slot: int, *delays_ms: int) -> UplinkProbed:
    delays = tuple(1000 * each for each in delays_ms)
    return replace(probed(slot, 3, is_healthy=True), delays_us=delays)


def test_a_way_out_violates_the_sla_by_the_delay_of_its_targets():
    box = Box(intent())  # voice wants 60 ms, the default class nothing
    for at in range(3):
        box.tell(slow(1, 20, 22, 90))
        box.tell(slow(2, 30, 30, 30))
        box.wait(5)
        assert (box.over(VOICE), box.over()) == ([1], [1]), f"one slow target is no verdict ({at})"
    box.tell(slow(1, 80, 82, 150))
    assert box.over(VOICE) == [1], "our own loop may have been late"
    box.wait(5)
    box.tell(slow(1, 80, 82, 150))
    assert box.over(VOICE) == [2]
    assert box.over() == [1]
    reason = box.state.internet.site.classes[VOICE].reason
    assert "violates 60 ms; dsl answers outside within 30 ms" in reason
    assert box.ended() == [], "an uplink that works keeps its flows"
    told = explain(box.state, VOICE, INTERNET)
    assert [(c.name, c.verdict, c.loss_ratio) for c in told.candidates] == [
        ("dsl", "meets", None),
        ("fibre", "violates", None),
    ]
    for _ in range(14):
        box.wait(5)
        box.tell(slow(1, 20, 22, 25))
    assert box.over(VOICE) == [1], "home after the hold time"


def test_all_ways_out_violate_by_each_fallback():
    closed = policy(VOICE_POLICY, fallback=Fallback.FAIL_CLOSED)
    for voice, expected in ((VOICE_POLICY, [2]), (closed, [])):
        box = Box(intent(voice=voice))
        for _ in range(3):
            box.tell(slow(1, 80, 82, 90))
            box.tell(slow(2, 80, 82, 90))
            box.wait(5)
        assert box.over(VOICE) == expected


def test_an_uplink_without_targets_relieves_one_that_violates():
    box = Box(intent())
    for _ in range(3):
        box.tell(slow(1, 80, 82, 90))
        box.wait(5)
    assert box.over(VOICE) == [2]
