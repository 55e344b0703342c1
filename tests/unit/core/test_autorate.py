"""Rates that are learned on lines of which only their probes tell: a simulated line, as a fluid.

The line has a rate, a buffer and a delay. What is sent goes through a shaper at the learned rate;
probes pass by the shaper and wait in the line, as on a box.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

import pytest

from appliance.contract.ids import PathId, Plane, SiteName, Slot
from appliance.core.autorate import (
    FORGET_AFTER_S,
    FORGET_S,
    SLOWER_S,
    Bounds,
    Line,
    Probe,
    begin,
    follow,
)

MBIT = 1e6
BOUNDS = Bounds(2_000_000, 60_000_000)
STEP_S, TICK_S, PROBE_S = 0.001, 0.1, 0.05
CLOCKS_US = -123_456_789  # by which the far end's clock differs


def path(number: int = 1) -> PathId:
    return PathId(SiteName("b"), Plane(Slot(1), Slot(number)))


@dataclass
class World:
    """One direction of a line. `sources` wants to send so much, at the rate that it is given."""

    capacity: Callable[[float], float]
    demand: Callable[[float], float] = lambda _: 1e12
    is_down: bool = False
    is_tcp: bool = True  # what is sent slows down to what arrives
    buffer_s: float = 1.0
    jitter_s: float = 0.0
    delay_s: float = 0.025
    bounds: Bounds = BOUNDS
    elsewhere: Callable[[float, int], float] = lambda _now, _path: 0.0  # delay at the far ends
    numbers: int = 1  # paths
    line: Line = field(init=False)
    queues: list[tuple[float, float]] = field(default_factory=list)
    used: list[tuple[float, float]] = field(default_factory=list)  # of the capacity
    rates: list[tuple[float, float]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.line = begin(self.bounds.start_bps, 0.0)

    def run(self, seconds: float) -> None:
        chance = Random(1)
        flow = rate = self.line.rate_bps
        waiting = octets = 0.0  # bits in the line's buffer
        probes: list[tuple[float, PathId, Probe]] = []
        for step in range(round(seconds / STEP_S)):
            now, capacity = step * STEP_S, self.capacity(step * STEP_S)
            offered = min(self.demand(now), flow if self.is_tcp else 1e12)
            sent = offered if self.is_down else min(offered, rate)
            waiting += sent * STEP_S
            out = min(waiting, capacity * STEP_S)
            waiting = min(waiting - out, self.buffer_s * capacity)
            arrived = out / STEP_S
            octets += (arrived if self.is_down else sent) * STEP_S / 8
            limit = min(arrived if waiting else 1e12, rate)
            more = 1.02 if self.is_down else 1.1  # than what passes: it is told by losses
            flow = min(flow * (1 + 0.8 * STEP_S), more * limit + MBIT / 20)
            queue_s = waiting / capacity
            if step % round(PROBE_S / STEP_S) == 0:
                for number in range(1, self.numbers + 1):
                    delay_s = self.delay_s + queue_s + chance.random() * self.jitter_s
                    delay_s += self.elsewhere(now, number)
                    one_way_us = round((delay_s - self.delay_s / 2) * 1e6)
                    probe = Probe(now, one_way_us + CLOCKS_US, round(delay_s * 1e6))
                    probes.append((now + delay_s, path(number), probe))
            if step % round(TICK_S / STEP_S) == 0:
                answered: dict[PathId, list[Probe]] = {}
                for at, of, probe in probes:
                    if at <= now:
                        answered.setdefault(of, []).append(probe)
                probes = [each for each in probes if each[0] > now]
                self.line = follow(
                    self.line, self.bounds, int(octets), answered, now, is_down=self.is_down
                )
                rate = self.line.rate_bps
                self.rates.append((now, rate))
            self.queues.append((now, queue_s))
            self.used.append((now, min(arrived, rate) / capacity))

    def queue_p95(self, start: float, end: float) -> float:
        """The 95th percentile of the queue in the line, in seconds."""
        found = sorted(queue for at, queue in self.queues if start <= at < end)
        return found[int(0.95 * len(found))]

    def used_ratio(self, start: float, end: float) -> float:
        found = [used for at, used in self.used if start <= at < end]
        return sum(found) / len(found)

    def rate(self, at: float) -> float:
        return next(rate for when, rate in self.rates if when >= at - 1e-6)


def steps(at: float) -> float:
    return 40 * MBIT if at < 15 or at >= 35 else 8 * MBIT


@pytest.mark.parametrize("is_down", [False, True])
@pytest.mark.parametrize("jitter_s", [0.0, 0.01])
def test_a_line_that_steps_is_used_and_no_queue_stays(is_down: bool, jitter_s: float) -> None:
    world = World(steps, is_down=is_down, jitter_s=jitter_s)
    world.run(55)
    for start, end in ((3, 15), (18, 35), (38, 55)):
        assert world.queue_p95(start, end) <= 0.015 + 1.5 * jitter_s, (start, end)
        assert world.used_ratio(start, end) >= 0.75, (start, end)


@pytest.mark.parametrize("buffer_s", [0.1, 1.0])
def test_a_flood_that_does_not_slow_down_by_itself_is_tamed(buffer_s: float) -> None:
    world = World(steps, is_tcp=False, buffer_s=buffer_s)
    world.run(35)
    assert world.queue_p95(20, 35) <= 0.015
    assert world.used_ratio(20, 35) >= 0.9


def test_the_rate_stays_within_its_bounds_whatever_the_line_carries() -> None:
    for capacity in (0.5 * MBIT, 500 * MBIT):
        world = World(lambda _, it=capacity: it)  # type: ignore[misc]
        world.run(20)
        assert all(2 * MBIT <= rate <= 60 * MBIT for _, rate in world.rates)
    assert world.rate(19) == 60 * MBIT


def test_what_delays_only_some_paths_is_none_of_this_line() -> None:
    world = World(
        lambda _: 100 * MBIT,
        numbers=3,
        elsewhere=lambda now, number: 0.2 if now > 10 and number < 3 else 0.0,
    )
    world.run(20)
    assert world.rate(19) == 60 * MBIT


def test_a_way_that_became_longer_is_no_queue_once_nothing_is_sent() -> None:
    def demand(now: float) -> float:
        return 0.1 * MBIT if 10 < now < 60 else 1e12

    world = World(lambda _: 30 * MBIT, demand, elsewhere=lambda now, _: 0.04 if now > 20 else 0.0)
    world.run(75)
    assert world.rate(60) >= 9 * MBIT  # it was not cut while nothing was sent
    assert world.used_ratio(68, 75) >= 0.75


def test_a_delay_that_lasts_at_the_least_rate_is_the_lines_own() -> None:
    world = World(lambda _: 30 * MBIT, elsewhere=lambda now, _: 0.05 if now > 10 else 0.0)
    world.run(60)
    assert world.used_ratio(40, 60) >= 0.75


def test_a_rate_that_nobody_uses_goes_back_to_where_it_began() -> None:
    world = World(lambda _: 50 * MBIT, lambda now: 1e12 if now < 10 else 0.0)
    world.run(10 + FORGET_AFTER_S + 3 * FORGET_S)
    high, end = world.rate(9), world.rate(10 + FORGET_AFTER_S + 3 * FORGET_S - 1)
    assert high > 40 * MBIT
    assert end == pytest.approx(BOUNDS.start_bps, rel=0.2)


def test_a_clock_that_was_set_is_no_queue() -> None:
    line = begin(10 * MBIT, 0.0)
    for tick in range(1, 100):
        now = tick * TICK_S
        jump = 3_000_000_000 if now > 5 else 0
        probes = {path(): (Probe(now - 0.05, CLOCKS_US + jump, 25_000),)}
        octets = round(10 * MBIT / 8 * now)
        line = follow(line, BOUNDS, octets, probes, now, is_down=False)
        assert line.full_since is None
    assert line.rate_bps > 10 * MBIT


def test_without_a_path_that_answers_the_rate_stays_what_it_is() -> None:
    line = begin(10 * MBIT, 0.0)
    for tick in range(100):
        octets = round(tick * MBIT / 8)
        line = follow(line, BOUNDS, octets, {}, tick * TICK_S, is_down=False)
    assert line.rate_bps == 10 * MBIT
    assert line.queue_us is None


def test_what_a_path_showed_minutes_ago_says_nothing_of_a_queue() -> None:
    """A hub looks at its paths by turns, and clocks drift: 20 ppm are 12 ms in ten minutes."""
    line, octets = begin(10 * MBIT, 0.0), 0
    for tick in range(1, 6200):
        now = tick * TICK_S
        octets += round(line.rate_bps / 2 / 8 * TICK_S)
        drift_us = round(20e-6 * now * 1e6)
        of = path(1) if tick < 50 or tick > 6100 else path(2 + tick // 50 % 100)
        probes = {of: (Probe(now - 0.05, CLOCKS_US + drift_us, 25_000),)}
        line = follow(line, BOUNDS, octets, probes, now, is_down=False)
        assert line.full_since is None
        assert len(line.paths) <= 5
    line = follow(line, BOUNDS, octets, {}, now + 60, is_down=False)
    assert line.paths == {}


def test_a_probe_after_a_pause_is_not_fresh_for_as_long_as_the_pause() -> None:
    line = begin(10 * MBIT, 0.0)
    for now in (0.1, 9.1):
        probes = {path(): (Probe(now - 0.05, CLOCKS_US, 25_000),)}
        line = follow(line, BOUNDS, 0, probes, now, is_down=False)
        assert line.queue_us == 0.0
    assert follow(line, BOUNDS, 0, {}, 10.1, is_down=False).queue_us == 0.0
    assert follow(line, BOUNDS, 0, {}, 12.1, is_down=False).queue_us is None


def test_a_line_that_does_not_carry_the_rate_that_is_given_is_told() -> None:
    given = Bounds(40_000_000, 40_000_000)
    world = World(lambda now: 8 * MBIT if now < 30 else 60 * MBIT, bounds=given, buffer_s=0.3)
    world.run(SLOWER_S - 1)
    assert not world.line.is_slower
    world = World(lambda now: 8 * MBIT if now < 30 else 60 * MBIT, bounds=given, buffer_s=0.3)
    world.run(25)
    assert world.line.is_slower
    assert world.line.rate_bps == 40 * MBIT
    assert world.line.capacity_bps == pytest.approx(8 * MBIT, rel=0.2)
    world = World(lambda now: 8 * MBIT if now < 30 else 60 * MBIT, bounds=given, buffer_s=0.3)
    world.run(50)
    assert not world.line.is_slower


def test_what_the_line_carries_is_measured() -> None:
    for is_down in (False, True):
        world = World(lambda _: 20 * MBIT, is_down=is_down)
        world.run(30)
        assert world.line.capacity_bps == pytest.approx(20 * MBIT, rel=0.1)
