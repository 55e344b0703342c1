import math
from collections.abc import Iterable
from dataclasses import replace

import pytest

from appliance.config.intent import Internet, Mode
from appliance.contract.ids import Slot
from appliance.core.actions import Action, Cause, DetourPlanes, MoveClass, UseGateway
from appliance.core.codec import RecordingError, decode_event, encode_event
from appliance.core.decide import decide, initial_state
from appliance.core.events import (
    DeadlinePassed,
    Event,
    IntentChanged,
    LineFilled,
    PathMtuChanged,
    SteeringAdopted,
    UplinkChanged,
    UplinkFacts,
    UplinkProbed,
)
from appliance.core.replay import recall, replay
from appliance.core.state import State, steering
from tests.unit.core.box import Box
from tests.unit.core.examples import (
    DEFAULT_POLICY,
    DSL,
    FIBRE,
    HQ,
    SHOP,
    VOICE,
    VOICE_POLICY,
    intent,
    path,
    peer,
    policy,
)
from tests.unit.core.world import World

HOLD_S = 5.0
STEP_S = 70.0  # a path that fell again is held off for a minute


@pytest.fixture(scope="module")
def world() -> World:
    """A stream, a brownout, a blackout, the return."""
    world = World(intent(), seed=7)
    world.stream(VOICE, HQ, 50)
    world.run(3)
    world.lines[1].loss_out = 0.05
    world.run(10)
    world.lines[2].cut()
    world.run(3)
    world.lines[2].heal()
    world.run(10)
    world.lines[1].heal()
    world.run(75)
    return world


def lines(world: World) -> list[bytes]:
    return [encode_event(at, event) for at, event, _ in world.log]


def test_a_recording_is_decided_the_same_way_again(world: World) -> None:
    decided = [(at, actions) for at, _, actions in world.log if actions]
    assert sum(isinstance(a, MoveClass) for _, actions in decided for a in actions) >= 5
    assert list(replay(lines(world))) == decided


def test_every_line_reads_back_as_the_event_it_was(world: World) -> None:
    kinds = {type(event).__name__ for _, event, _ in world.log}
    assert {"ProbeOverdue", "PathsSampled", "TrafficSampled", "FarEndReported"} <= kinds
    for at, event, _ in world.log:
        assert decode_event(encode_event(at, event)) == (at, event)


def test_another_intent_shows_what_would_have_differed(world: World) -> None:
    prefer_dsl = intent(voice=policy(VOICE_POLICY, tiers=((DSL,), (FIBRE,))))
    moves = [
        a for _, acts in replay(lines(world), prefer_dsl) for a in acts if isinstance(a, MoveClass)
    ]
    voice = [m for m in moves if m.class_name == VOICE and m.site == HQ]
    assert str(voice[0].after.carriers[0].path) == "hq/2-1"
    assert voice[1].cause in (
        Cause.PATH_DOWN,
        Cause.UPLINK_DOWN,
    )  # dsl never browned out, it was cut


def test_another_intent_gets_its_own_deadlines(world: World) -> None:
    patient = intent(voice=policy(VOICE_POLICY, hold_s=30.0))
    moves = [
        (at, a)
        for at, acts in replay(lines(world), patient)
        for a in acts
        if isinstance(a, MoveClass) and a.is_voluntary and a.class_name == VOICE
    ]
    recorded = [at for at, m in world.moves if m.is_voluntary and m.class_name == VOICE]
    assert moves[0][0] <= recorded[0] - 29


def test_the_same_intent_as_override_changes_nothing(world: World) -> None:
    decided = [(at, actions) for at, _, actions in world.log if actions]
    assert list(replay(lines(world), intent())) == decided


def test_a_recording_begins_with_the_intent() -> None:
    with pytest.raises(RecordingError, match="begin with the intent"):
        list(replay([encode_event(1.0, DeadlinePassed())]))


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"now": NaN, "event": "DeadlinePassed"}', "NaN is no number"),
        (b'{"now": 1e999, "event": "DeadlinePassed"}', "no number"),
        (b'{"now": "inf", "event": "DeadlinePassed"}', "finite"),
        (b"[]", "must be an object"),
        (b'{"now": 1, "event": "Doomsday"}', "no such event"),
        (b'{"now": 1, "event": "DeadlinePassed", "x": 1}', "DeadlinePassed has no x"),
        (b'{"now": 1, "event": "LoopStalled"}', "LoopStalled lacks late_s"),
        (b'{"now": 1, "event": "LoopStalled", "late_s": "x"}', "no number"),
        (b'{"now": 1, "event": "LoopStalled", "late_s": true}', "no number"),
        (b'{"now": 1, "event": "AnswerLate", "path": ["hq", [1]], "late_s": 1}', "1 parts"),
        (b'{"now": 1, "event": "PathMtuChanged", "path": ["hq", [1, 1]], "mtu": 1.5}', "integer"),
        (
            b'{"now": 1, "event": "UplinkChanged", "facts": {"slot": 1, "gateways": ["x"]}}',
            "parts expected",
        ),
    ],
)
def test_what_is_no_event_is_refused_with_the_reason(line: bytes, says: str) -> None:
    with pytest.raises(RecordingError, match=says):
        decode_event(line)


def test_what_is_at_its_default_takes_no_room() -> None:
    line = encode_event(1.5, UplinkChanged(UplinkFacts(Slot(1), has_device=True)))
    assert line == b'{"now":1.5,"event":"UplinkChanged","facts":{"slot":1,"has_device":true}}'


def test_an_intent_survives_the_way_through_text() -> None:
    event = IntentChanged(intent())
    assert decode_event(encode_event(0.0, event)) == (0.0, event)


def test_all_moves_together_are_the_steering(world: World) -> None:
    held = {}
    for _, _, actions in world.log:
        held |= {(a.class_name, a.site): a.after for a in actions if isinstance(a, MoveClass)}
    assert held == steering(world.state).assignments


@pytest.fixture(scope="module")
def eventful() -> World:
    """Exits, a gateway that dies, copies, a detour, targets that fall silent, a full line."""
    voice = policy(VOICE_POLICY, mode=Mode.DUPLICATE, hold_s=HOLD_S)
    default = policy(DEFAULT_POLICY, internet=Internet.GATEWAY, hold_s=HOLD_S)
    peers = [peer("hq", 3), peer("shop", 4)]
    gateways = (HQ, SHOP)
    intended = intent(peers=peers, voice=voice, default=default, interval_s=0.1)
    world = World(replace(intended, gateways=gateways))
    world.run(15)
    world.tell(PathMtuChanged(path("hq", 2, 1), 1300))
    world.run(5)
    far = [world.far[HQ, Slot(1)], world.far[HQ, Slot(2)]]
    for step in (
        world.lines[1].cut,
        world.lines[1].heal,
        lambda: [line.cut() for line in far],
        lambda: [line.heal() for line in far],
        lambda: setattr(world.lines[1], "loss_out", 0.05),
        world.lines[1].heal,
        lambda: world.tell(UplinkProbed(Slot(1), 0, 3, is_healthy=False, evidence="evidence")),
        lambda: world.tell(UplinkProbed(Slot(1), 3, 3, is_healthy=True, evidence="evidence")),
        lambda: world.tell(LineFilled(Slot(1), is_full=True)),
    ):
        step()
        world.run(STEP_S)
    return world


def test_a_state_that_is_recalled_steers_as_the_true_one(eventful: World) -> None:
    """Apart from detours that nothing takes any more, and copies while no other path works."""
    state = initial_state()
    seen: set[object] = set()
    for place, (at, event, _) in enumerate(eventful.log):
        state, actions = decide(state, event, at)
        if not state.is_settled or (place % 500 and not any(map(_is_move, actions))):
            continue
        again = state_after((at, one) for one in recall(state))
        truly, found = steering(state), steering(again)
        assert found.gateway == truly.gateway
        for place_of, assigned in truly.assignments.items():
            again_assigned = found.assignments[place_of]
            assert again_assigned.carriers == assigned.carriers
            assert again_assigned == assigned or assigned.second is None
        adopted = recall(state)[1]
        assert isinstance(adopted, SteeringAdopted)
        assert dict(adopted.detours) == truly.detours
        assert found.detours.items() <= truly.detours.items()
        assert facts_of(again) == facts_of(state)
        seen |= {truly.gateway, bool(truly.detours)}
        seen |= {"second" for assigned in truly.assignments.values() if assigned.second}
    assert seen == {None, HQ, SHOP, True, False, "second"}


def test_what_was_recalled_goes_on_to_decide_the_same(eventful: World) -> None:
    """Wherever the recording is cut, all goes over the same uplinks a while later.

    Which of two equal paths over one uplink it is may differ: what is measured decides.
    """
    told = [(at, event) for at, event, _ in eventful.log]
    ends = [eventful.now - STEP_S * count for count in reversed(range(9))]
    truly = steered(told, ends)
    for number, cut in enumerate(ends, start=1):
        beginning = recall(state_after(one for one in told if one[0] <= cut))
        events = [(cut, one) for one in beginning] + [one for one in told if one[0] > cut]
        assert steered(events, ends[number:]) == truly[number:]


def test_each_path_of_a_class_is_recalled_with_its_own_size() -> None:
    """Of the whole class the core is told the smallest only."""
    box = Box(intent(voice=policy(VOICE_POLICY, mode=Mode.DUPLICATE)))
    box.wait(5)
    held = box.state.sites[HQ].classes[VOICE].assignment
    assert held.second is not None
    box.tell(PathMtuChanged(held.second, 1300))
    assert box.state.sites[HQ].classes[VOICE].assignment.mtu == 1300
    again = state_after((box.now, event) for event in recall(box.state))
    sizes = {each: again.sites[HQ].paths[each.plane].mtu for each in held.paths}
    assert sizes == {held.carriers[0].path: None, held.second: 1300}


def test_a_line_that_is_full_is_recalled_as_full() -> None:
    box = Box()
    box.tell(LineFilled(Slot(2), is_full=True))
    again = state_after((box.now, event) for event in recall(box.state))
    assert {slot: uplink.filled.since for slot, uplink in again.uplinks.items()} == {
        1: None,
        2: 0.0,
    }
    box.tell(LineFilled(Slot(2), is_full=False))
    assert not any(isinstance(event, LineFilled) for event in recall(box.state))


def steered(events: list[tuple[float, Event]], ends: list[float]) -> list[object]:
    """By which uplinks everything goes at some times."""
    found: list[object] = []
    state = initial_state()
    for at, event in [*events, (math.inf, DeadlinePassed())]:
        while len(found) < len(ends) and at > ends[len(found)]:
            now = steering(state)
            locals_of = {
                place: {carrier.path.plane.local for carrier in assigned.carriers}
                for place, assigned in now.assignments.items()
            }
            found.append((locals_of, now.gateway))
        if at < math.inf:
            state, _ = decide(state, event, at)
    return found


def facts_of(state: State) -> list[Event]:
    return [event for event in recall(state)[2:] if not isinstance(event, PathMtuChanged)]


def state_after(events: Iterable[tuple[float, Event]]) -> State:
    state = initial_state()
    for at, event in events:
        state, _ = decide(state, event, at)
    return state


def _is_move(action: Action) -> bool:
    return isinstance(action, MoveClass | UseGateway | DetourPlanes)
