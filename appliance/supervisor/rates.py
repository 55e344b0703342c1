"""Keeps the rates of lines that vary: feeds `core.autorate` and sets what it says.

It holds no rule. Ten times a second, and before samples are judged, it reads what each shaper has
let through and what the probes over its uplink met, and changes the rate of a shaper by one
message. Lines whose rate is given are followed as well, so that it is seen when they do not carry
it.
"""

import asyncio
import heapq
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Protocol

from appliance import clock
from appliance.config.addressing import shaper_device
from appliance.config.intent import Intent, Uplink
from appliance.contract.ids import PathId, Plane, Slot
from appliance.core.autorate import Bounds, Line, Probe, begin, follow
from appliance.core.events import Event, LineFilled
from appliance.kernel.kernel import Kernel, KernelError, QueueCounters, is_rate
from appliance.plan.plan import Change, Key, Op, Shaper
from appliance.plan.shape import DIRECTIONS, Rates
from appliance.plan.text import render_op
from appliance.probing.paths import Traced
from appliance.supervisor.warnings import Warnings

log = logging.getLogger(__name__)

TICK_S = 0.1
LOOK_S = 0.04  # a look that is no longer ago is not repeated
IDLE_S = 1.0  # while no line is shaped
CHOOSE_S = 5.0  # how often it is looked which paths to follow
FOLLOWED = 8  # paths over an uplink: enough to tell its own line from what lies behind
LOOKED_AT = 64  # paths among which they are chosen, of a hub's thousands
WORTH = 0.02  # a smaller change is not worth a message
LOGGED = 1.25  # so many times up or down is worth a line of the log

Direction = tuple[Slot, str]


class Prober(Protocol):
    """The part of the prober that is needed here."""

    def trace(self, paths: frozenset[PathId]) -> None: ...
    def take_traces(self) -> dict[PathId, tuple[Traced, ...]]: ...
    def pace(self, path: PathId) -> float: ...


@dataclass(slots=True)
class _Followed:
    """One direction of an uplink."""

    uplink: Uplink
    direction: str
    bounds: Bounds
    line: Line
    told_bps: float  # in the log
    is_told: bool = False  # that the line is slower than its rate
    overhead: int = 0
    octets: int = 0  # that have passed since it is followed
    seen: QueueCounters | None = None

    def count(self, now: QueueCounters) -> int:
        """Octets so far, as the line counts them. What we drop of the received has passed it."""
        before, self.seen = self.seen, now
        if before is None or now.octets < before.octets or now.packets < before.packets:
            return self.octets  # the shaper is a new one
        packets = now.packets - before.packets
        octets = now.octets - before.octets + packets * self.overhead
        if self.direction == "down":
            dropped = max(0, now.dropped - before.dropped)
            each = octets / packets if packets else 0
            octets += round(dropped * each) + now.waiting - before.waiting
        self.octets += max(0, octets)
        return self.octets


class LineRates:
    """The lines of one box. `rates` are part of the plan."""

    def __init__(
        self,
        kernel: Kernel,
        prober: Prober,
        *,
        shapers: Callable[[Rates], Mapping[Key, Shaper]],
        is_in_force: Callable[[], bool],
        on_drift: Callable[[], None],
        emit: Callable[[Event], None],
        warnings: Warnings,
    ) -> None:
        """`shapers` renders the shapers at these rates, which are set when the plan `is_in_force`.

        `on_drift` is told of one that could not be set, and `emit` of lines that fill up.
        """
        self._kernel = kernel
        self._prober = prober
        self._shapers = shapers
        self._is_in_force = is_in_force
        self._on_drift = on_drift
        self._emit = emit
        self._warnings = warnings
        self._followed: dict[Direction, _Followed] = {}
        self._paths: dict[Slot, tuple[PathId, ...]] = {}
        self._intent: Intent | None = None
        self._adopted: Rates = {}
        self._full: frozenset[Slot] = frozenset()
        self._looked_at = 0.0
        self._choose_at = 0.0
        self._first = 0  # of the sites, to be looked at next
        self.rates: dict[Direction, int] = {}
        self.ops: Counter[str] = Counter()

    def adopt(self, rates: Rates) -> None:
        """Begin with the rates that the kernel has. To be called before `configure`."""
        self._adopted = rates

    def configure(self, intent: Intent) -> None:
        """Follow the lines of this intent. What is known of one that stays the same is kept."""
        before, self._followed, now = self._followed, {}, clock.monotonic()
        for uplink in intent.uplinks:
            if uplink.shaping is None:
                continue
            for direction in DIRECTIONS:
                key = uplink.slot, direction
                old = before.get(key)
                if old is not None and old.uplink.device != uplink.device:
                    old = None
                bounds = Bounds(*uplink.shaping.bounds(direction))
                self._followed[key] = self._begun(uplink, direction, bounds, old, now)
        self._adopted = {}
        for gone in before.values():  # by the names and rates of before
            self._tell(gone, None)
        self.rates = {
            key: round(each.line.rate_bps)
            for key, each in self._followed.items()
            if each.bounds.is_learned
        }
        self._intent, self._choose_at = intent, 0.0
        self._tell_full()

    def _begun(
        self, uplink: Uplink, direction: str, bounds: Bounds, old: _Followed | None, now: float
    ) -> _Followed:
        adopted = self._adopted.get((uplink.slot, direction), bounds.start_bps)
        line = begin(adopted, now) if old is None else old.line
        line = line._replace(rate_bps=bounds.clamp(line.rate_bps))
        made = _Followed(uplink, direction, bounds, line, line.rate_bps)
        if old is not None:
            made.octets, made.seen, made.overhead = old.octets, old.seen, old.overhead
        return made

    @property
    def lines(self) -> Mapping[Direction, Line]:
        """What is known of each direction that is shaped."""
        return {key: each.line for key, each in self._followed.items()}

    def is_outdated(self, op: Op) -> bool:
        """Is this of a rate that was learned before the one that the kernel was told meanwhile?"""
        return is_rate(op) and self._shapers(self.rates).get(op.key, op.item) != op.item

    async def run(self) -> None:
        """Follow the lines until cancelled."""
        while True:
            await asyncio.sleep(TICK_S if self._followed else IDLE_S)
            self.tick(clock.monotonic())

    def look(self, now: float) -> None:
        """Look now, if that was not done a moment ago: somebody is about to judge by delays."""
        if now - self._looked_at >= LOOK_S:
            self.tick(now)

    def tick(self, now: float) -> None:
        """Look at all lines, and set the rates that are other ones now."""
        if self._intent is None or not self._followed or not self._is_in_force():
            return
        self._looked_at = now
        if now >= self._choose_at:
            self._choose_at = now + CHOOSE_S
            self._choose(self._intent)
        traces = self._prober.take_traces()
        changed: dict[Direction, int] = {}
        for (slot, direction), each in self._followed.items():
            counters = self._kernel.read_queue(shaper_device(slot, direction))
            if counters is None:
                continue  # it is being put back
            probes = {p: _probes(traces[p], direction) for p in self._paths[slot] if p in traces}
            octets, is_down = each.count(counters), direction == "down"
            each.line = follow(each.line, each.bounds, octets, probes, now, is_down=is_down)
            if each.bounds.is_learned and self._is_worth_it(slot, each):
                changed[slot, direction] = round(each.line.rate_bps)
            if each.line.is_slower != each.is_told:
                each.is_told = each.line.is_slower
                self._tell(each, _trouble(each) if each.is_told else None)
        if changed:
            self._set(changed)
        self._tell_full()

    def _tell_full(self) -> None:
        """Tell of the uplinks whose line has begun to hold a queue of our own, or does no more."""
        full = frozenset(slot for (slot, _), f in self._followed.items() if f.line.is_filled)
        changed, self._full = full ^ self._full, full
        for slot in sorted(changed):
            self._emit(LineFilled(slot, slot in full))

    def _tell(self, each: _Followed, text: str | None) -> None:
        """Warn of a line that does not carry what was given, until it does."""
        subject = f"{each.uplink.name} {each.direction}"
        self._warnings.warn("line-slower", subject, "warning", text)

    def _is_worth_it(self, slot: Slot, each: _Followed) -> bool:
        """Is a rate worth a message?"""
        rate_bps, before = round(each.line.rate_bps), self.rates[slot, each.direction]
        is_at_end = rate_bps in (each.bounds.least_bps, each.bounds.most_bps)
        return abs(rate_bps - before) >= (1 if is_at_end else WORTH * before)

    def _set(self, changed: Mapping[Direction, int]) -> None:
        before = self._shapers(self.rates)
        self.rates = {**self.rates, **changed}
        ops = tuple(
            Change(key, before[key], item)
            for key, item in self._shapers(self.rates).items()
            if key in before and before[key] != item
        )
        try:
            self._kernel.steer(ops)
        except KernelError as error:
            log.warning("a rate could not be set, resynchronising", extra={"error": str(error)})
            self._on_drift()
            return
        self.ops["rate"] += len(ops)
        self._log(ops)

    def _log(self, ops: tuple[Op, ...]) -> None:
        """Not each of ten changes a second, but what a person would call one."""
        by_device = {shaper_device(*key): each for key, each in self._followed.items()}
        for op in ops:
            each = by_device[str(op.key.ident[0])]
            ratio = each.line.rate_bps / each.told_bps
            if not 1 / LOGGED < ratio < LOGGED:
                each.told_bps = each.line.rate_bps
                log.info("applied", extra={"command": render_op(op)})

    def _choose(self, intent: Intent) -> None:
        """Choose the paths to follow, the fastest probed ones, and look how large packets are."""
        for key, item in self._shapers(self.rates).items():
            for place, each in self._followed.items():
                if key.ident[0] == shaper_device(*place):
                    each.overhead = item.overhead
        self._paths = {}
        for slot in {slot for slot, _ in self._followed}:
            over = _over(intent, slot, self._first)
            self._paths[slot] = tuple(heapq.nsmallest(FOLLOWED, over, key=self._prober.pace))
        # Of paths that are equally fast the first are followed: each site comes first in time.
        self._first = (self._first + 1) % max(1, len(intent.peers))
        self._prober.trace(frozenset(chain.from_iterable(self._paths.values())))


def _over(intent: Intent, slot: Slot, first: int) -> list[PathId]:
    """Some of the paths over an uplink, those to one site first."""
    paths: list[PathId] = []
    for peer in chain(intent.peers[first:], intent.peers[:first]):
        paths += [PathId(peer.name, Plane(slot, far.slot)) for far in peer.uplinks]
        if len(paths) >= LOOKED_AT:
            break
    return paths


def _probes(traced: Iterable[Traced], direction: str) -> tuple[Probe, ...]:
    """The probes as one direction sees them."""
    if direction == "up":
        return tuple([Probe(t.sent, t.forward_us, t.delay_us) for t in traced])
    return tuple([Probe(t.sent, t.delay_us - t.forward_us, t.delay_us) for t in traced])


def _trouble(each: _Followed) -> str:
    """What is wrong with a rate that is given: the line does not carry it."""
    carries, said = mbit(each.line.capacity_bps or 0.0), mbit(each.bounds.most_bps)
    return (
        f"{each.uplink.name} carries about {carries} {each.direction} and not {said}, as `shaping` "
        "says: packets wait in the line, where a call does not pass by them"
    )


def mbit(bps: float) -> str:
    return f"{bps / 1e6:.3g} Mbit/s"
