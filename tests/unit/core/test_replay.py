import pytest

from appliance.contract.ids import Slot
from appliance.core.actions import Cause, MoveClass
from appliance.core.codec import RecordingError, decode_event, encode_event
from appliance.core.events import DeadlinePassed, IntentChanged, UplinkChanged, UplinkFacts
from appliance.core.replay import replay
from appliance.core.state import steering
from tests.unit.core.examples import DSL, FIBRE, HQ, VOICE, VOICE_POLICY, intent, policy
from tests.unit.core.world import World


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
