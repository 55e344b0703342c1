"""Stories: what happens on the lines, and what is decided about it, end to end."""

import pytest

from appliance.core.actions import Cause, DetourPlanes
from tests.unit.core.examples import DEFAULT, HQ, VOICE, intent
from tests.unit.core.world import World


@pytest.fixture
def world() -> World:
    world = World(intent())
    world.run(5)
    return world


def causes(world: World, start: float) -> list[tuple[str, str]]:
    return [(m.class_name, m.cause.value) for m in world.since(start)]


def test_a_cold_start_takes_the_first_choice_at_once() -> None:
    world = World(intent())
    assert [(m.class_name, m.cause, str(m.after.carriers[0].path)) for _, m in world.moves] == [
        ("voice", Cause.INITIAL, "hq/1-1"),
        ("default", Cause.INITIAL, "hq/1-1"),
    ]
    world.run(10)
    assert len(world.moves) == 2  # and having measured it changes nothing


def test_a_cut_of_the_own_uplink_moves_everything_within_the_blackout_budget(world: World) -> None:
    stream = world.stream(VOICE, HQ, 200)
    world.run(1)
    cut = world.now
    world.lines[1].cut()
    world.run(1)
    assert causes(world, cut) == [("voice", "uplink-down"), ("default", "uplink-down")]
    assert world.carrier(VOICE, HQ) == "2-1"
    assert world.first_move_after(cut, VOICE) <= 0.06
    assert len(stream.lost) <= 12
    detours = [a for at, _, acts in world.log for a in acts if isinstance(a, DetourPlanes)]
    assert [str(plane) for pair in detours[0].detours for plane in pair] == [
        *("1-1", "2-1"),
        *("1-2", "2-2"),
    ]


def test_traffic_returns_after_the_hold_time_and_not_before(world: World) -> None:
    world.lines[1].cut()
    world.run(3)
    world.lines[1].heal()
    healed = world.now
    world.run(59)
    assert world.carrier(VOICE, HQ) == "2-1"
    world.run(5)
    assert world.carrier(VOICE, HQ) == "1-1"
    assert causes(world, healed) == [("voice", "recovered"), ("default", "recovered")]
    assert world.state.detours == {}
    assert world.state.warnings == {}


def test_a_cut_at_the_far_end_leaves_that_uplink_only(world: World) -> None:
    cut = world.now
    world.far[HQ, 1].cut_out = True
    world.run(1)
    assert causes(world, cut) == [("voice", "path-down"), ("default", "path-down")]
    assert world.carrier(VOICE, HQ) == "1-2"
    assert world.first_move_after(cut, VOICE) <= 0.06
    text = world.state.warnings["one-way-loss", "hq/1-1"].text
    assert text == "fibre to cable (1-1) to hq: our packets do not arrive"


def test_a_delay_that_only_voice_forbids_keeps_voice_away_and_takes_the_rest_back(
    world: World,
) -> None:
    world.run(70)
    world.lines[1].delay_s += 0.08
    world.run(10)
    assert world.carrier(VOICE, HQ) == "2-1"
    # The jump looked like a blackout for a moment; the late answers showed it was none.
    assert world.carrier(DEFAULT, HQ) == "1-1"


def test_with_every_uplink_dead_the_first_that_answers_carries_at_once(world: World) -> None:
    world.lines[1].cut()
    world.lines[2].cut()
    world.run(5)
    assert ("no-path", "hq") in world.state.warnings
    carrier = world.carrier(VOICE, HQ)
    assert carrier is not None  # packets will flow again the moment the path does
    back = 1 if carrier.startswith("2") else 2
    world.lines[back].heal()
    healed = world.now
    world.run(3)
    assert world.first_move_after(healed, VOICE) <= 1.1  # a dead path is probed once a second
    assert ("no-path", "hq") not in world.state.warnings
