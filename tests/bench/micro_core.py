"""What decisions cost: `python -m tests.bench.micro_core`. Microseconds on this host.

A steady box (8 paths sampled together), a hub's samples, a hub whose uplink dies.
"""

import timeit
from dataclasses import replace
from functools import partial

from appliance.contract.ids import SiteName, Slot
from appliance.core.actions import DetourPlanes, MoveClass
from appliance.core.decide import decide, initial_state, next_deadline
from appliance.core.events import (
    AnswerLate,
    DeadlinePassed,
    IntentChanged,
    PathsSampled,
    ProbeOverdue,
    UplinkChanged,
)
from appliance.core.state import State
from appliance.stamp.sample import Sample
from tests.unit.core.examples import facts, intent, path, peer

SAMPLE = Sample(
    sent=5,
    answered=5,
    delay_us=20_000,
    delay_min_us=19_500,
    delay_max_us=20_500,
    jitter_forward_us=300,
    jitter_backward_us=250,
    span_us=100_000,
)


def box(sites: int) -> tuple[State, float]:
    """A settled box with so many sites, every path measured."""
    peers = [peer(f"s{n}", n + 2) for n in range(sites)]
    now = 1000.0
    state, _ = decide(initial_state(), IntentChanged(intent(peers=peers)), now)
    for slot in (1, 2):
        state, _ = decide(state, UplinkChanged(facts(slot)), now)
    state = _drain(state)
    for _ in range(12):
        now += 0.1
        for n in range(sites):
            state, _ = decide(state, sampled(n), now)
    return _drain(state), now


def sampled(site: int) -> PathsSampled:
    return PathsSampled(tuple((path(f"s{site}", x, y), SAMPLE) for x in (1, 2) for y in (1, 2)))


def _drain(state: State) -> State:
    while state.pending:
        state, _ = decide(state, DeadlinePassed(), next_deadline(state) or 0.0)
    return state


def _us(what, number: int) -> float:
    return min(timeit.repeat(what, number=number, repeat=5)) / number * 1e6


def main() -> None:
    state, now = box(2)
    event = PathsSampled(sampled(0).samples + sampled(1).samples)
    cost = _us(lambda: decide(state, event, now + 0.1), 2000)
    print(f"8 paths sampled together: {cost:.1f} us, {cost / 8:.2f} us a sample")
    lossy = replace_samples(event, lost=1, lost_forward=1)
    cost = _us(lambda: decide(state, lossy, now + 0.1), 2000)
    print(f"the same with a loss on each: {cost:.1f} us, {cost / 8:.2f} us a sample")
    late = AnswerLate(path("s0", 1, 2), 0.001)
    print(f"a late answer: {_us(lambda: decide(state, late, now + 0.1), 5000):.1f} us")

    hub, now = box(1000)
    one, four = PathsSampled(sampled(7).samples[:1]), sampled(7)
    many = PathsSampled(tuple(s for n in range(40) for s in sampled(n).samples))
    print(f"hub, one sample: {_us(lambda: decide(hub, one, now + 1), 500):.1f} us")
    print(f"hub, four samples: {_us(lambda: decide(hub, four, now + 1), 500):.1f} us")
    cost = _us(lambda: decide(hub, many, now + 1), 50)
    print(f"hub, 160 samples together: {cost:.0f} us, {cost / 160:.2f} us a sample")
    overdue = [ProbeOverdue(path(f"s{n}", 1, 1), 0.024, 1, 0.1) for n in range(40)]

    def die() -> State:
        after = hub
        for n, each in enumerate(overdue):  # sent over more than a moment
            after, actions = decide(after, each, now + 1 + n * 0.002)
            if any(isinstance(a, DetourPlanes) for a in actions):
                return after
        raise AssertionError

    cost = _us(die, 5)
    dead = die()
    print(f"hub, from the first overdue probe to the detour: {cost:.0f} us of deciding")
    steps = moves = 0
    worst = 0.0
    while dead.pending:
        before = dead
        cost = _us(partial(decide, before, DeadlinePassed(), now + 1), 1)
        worst = max(worst, cost)
        dead, actions = decide(before, DeadlinePassed(), now + 1)
        steps += 1
        moves += sum(isinstance(a, MoveClass) for a in actions)
    print(f"hub, the moves after it: {moves} in {steps} steps of at most {worst:.0f} us")
    carrier = replace(facts(1), has_carrier=False)
    cost = _us(lambda: decide(hub, UplinkChanged(carrier), now + 1), 20)
    print(f"hub, carrier loss to the detour: {cost:.0f} us")
    assert dead.sites[SiteName("s7")].carrying
    assert Slot(2) in {plane.local for plane in dead.sites[SiteName("s7")].carrying}


def replace_samples(event: PathsSampled, **changes: int) -> PathsSampled:
    return PathsSampled(tuple((p, s._replace(**changes)) for p, s in event.samples))


if __name__ == "__main__":
    main()
