"""The engine's timer, on a real loop."""

import asyncio

import pytest

from appliance.config.addressing import plane_nexthop
from appliance.contract.ids import Slot, exit_plane
from appliance.core.actions import EndFlows
from appliance.core.decide import initial_state
from appliance.core.events import AnswerLate, IntentChanged, UplinkChanged, UplinkProbed
from appliance.core.state import State, steering
from appliance.plan.breakout import NO_EXITS, Exits
from appliance.plan.text import render_op
from appliance.supervisor.engine import Engine
from tests.unit.core.examples import facts, intent, path, peer

SITES = 100


class _Prober:
    def verify(self, path, alternative) -> None: ...
    def set_interval(self, path, interval_s) -> None: ...


def hub() -> Engine:
    """A hub both of whose uplinks are attached, with nothing decided yet."""
    engine = Engine(
        initial_state(),
        prober=_Prober(),
        steer=lambda _ops: None,
        end_flows=lambda _action: None,
        ask_targets=lambda _slot: None,
        exits=lambda _state: NO_EXITS,
        is_in_force=lambda: True,
        on_drift=lambda: pytest.fail("nothing drifts"),
    )
    engine.handle(IntentChanged(intent(peers=[peer(f"s{n}", n + 2) for n in range(SITES)])))
    for slot in (Slot(1), Slot(2)):
        engine.handle(UplinkChanged(facts(slot)))
    return engine


async def test_what_is_pending_is_worked_off_though_events_never_end() -> None:
    engine = hub()
    assert len(engine.state.pending) > 0
    loop, turns = asyncio.get_running_loop(), 0

    def event() -> None:
        nonlocal turns
        turns += 1
        engine.handle(AnswerLate(path("s1", 1, 1), 0.01))
        if engine.state.pending and turns < 20 * SITES:
            loop.call_soon(event)  # ahead of every timer of the next turn

    loop.call_soon(event)
    async with asyncio.timeout(10):
        while engine.state.pending and turns < 20 * SITES:  # noqa: ASYNC110 - each turn counts
            await asyncio.sleep(0)
    engine.close()
    assert not engine.state.pending, f"nothing was decided in {turns} turns"
    assert turns > 3, "there was an event in each turn"


def _with_carrier(state: State) -> Exits:
    return frozenset(
        (slot, 4)
        for slot, uplink in state.uplinks.items()
        if uplink.facts is not None and uplink.facts.has_carrier
    )


async def test_a_dead_uplink_is_left_for_the_internet_at_once_and_its_flows_end_soon() -> None:
    steered: list[str] = []
    ended: list[tuple[int, tuple[str, ...]]] = []
    is_ended = asyncio.Event()
    asked: list[Slot] = []

    def end(action: EndFlows) -> None:
        ended.append((action.uplink, action.classes))
        is_ended.set()

    engine = Engine(
        initial_state(),
        prober=_Prober(),
        steer=lambda ops: steered.extend(render_op(op) for op in ops),
        end_flows=end,
        ask_targets=asked.append,
        exits=_with_carrier,  # of the dead one the kernel has nothing any more
        is_in_force=lambda: True,
        on_drift=lambda: pytest.fail("nothing drifts"),
    )
    engine.handle(IntentChanged(intent()))
    for slot in (Slot(1), Slot(2)):
        engine.handle(UplinkChanged(facts(slot)))
    steered.clear()
    engine.handle(UplinkChanged(facts(1, carrier=False)))
    ways_out = [command for command in steered if " default " in command]
    hop = plane_nexthop(exit_plane(Slot(2)), 4)
    assert [f"replace default nhid {hop}" in command for command in ways_out] == [True, True]
    assert ended == []
    async with asyncio.timeout(10):
        await is_ended.wait()
    assert ended == [(1, ("voice", "default"))]
    assert asked == []  # it has no carrier
    assert engine.steering == steering(engine.state)
    assert engine.steering.working == {2}
    engine.close()


async def test_an_uplink_that_nothing_takes_and_that_dies_is_no_way_to_the_internet() -> None:
    """Its targets tell, while the kernel says nothing of it and no class moves."""
    engine = hub()
    async with asyncio.timeout(10):
        while engine.state.pending:  # noqa: ASYNC110 - each turn counts
            await asyncio.sleep(0)
    assert engine.steering.working == {1, 2}
    moves = engine.moves.total()
    engine.handle(UplinkProbed(Slot(2), 0, 3, is_healthy=False, evidence="evidence"))
    assert engine.moves.total() == moves
    assert engine.steering.working == {1}
    engine.close()
