"""What the API may ask a running box (`StatusSource`), and what listeners are told of changes."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path

from appliance import __version__, clock
from appliance.api.classified import classified
from appliance.api.feed import Feed, Subscription, Told
from appliance.api.problems import UnknownName
from appliance.api.source import FlowQuery, HistoryQuery, Part, Row
from appliance.config.flow import Flow
from appliance.config.intent import Address, Intent, learned_domains
from appliance.contract.codec import encode
from appliance.contract.decision import (
    Candidate,
    CarrierStatus,
    Classified,
    Flows,
    History,
    Move,
    Why,
)
from appliance.contract.ids import INTERNET, ClassName, SiteName, Slot
from appliance.contract.status import (
    Change,
    ConfigStatus,
    Counters,
    Health,
    Reloaded,
    Stage,
    Status,
    UplinkStatus,
    WarningStatus,
)
from appliance.core.actions import Action, ClearWarning, MoveClass, RaiseWarning
from appliance.core.classify import Sites
from appliance.core.decide import initial_state
from appliance.core.events import Event, LoopStalled, PathsSampled, UplinkProbed
from appliance.core.state import State, entry_of
from appliance.core.steering import DEVICE_MTU
from appliance.core.why import explain
from appliance.plan.plan import Add
from appliance.plan.text import render_op
from appliance.supervisor import flows, report
from appliance.supervisor.box import Box
from appliance.supervisor.disk import Disk
from appliance.supervisor.report import Moment
from appliance.telemetry.budget import Budget
from appliance.telemetry.metrics import render_metrics
from appliance.telemetry.recorder import Recorder
from appliance.telemetry.recording import read_history
from appliance.turns import collected, encode_in_turns, in_order, slices

FEED_S = 0.5  # how often listeners are told of changed numbers, at most
REST = 4.0  # times as long as the telling of a hub's rows took, nothing is told
EVIDENCE_PER_S = 64.0  # moves; of a thousand at once, a few show what there was to choose from


@dataclass(slots=True)
class Since:
    """What only its reporting needs to remember."""

    uplinks: dict[Slot, tuple[str, float]] = field(default_factory=dict)  # state, since
    probed: dict[Slot, float] = field(default_factory=dict)
    stalls: int = 0
    stall_max_s: float = 0.0


class Source:
    """Implements `appliance.api.source.StatusSource` for one box."""

    def __init__(
        self,
        box: Box,
        recorder: Recorder,
        directory: Path,
        config: ConfigStatus,
        reload: Callable[[], Awaitable[Reloaded]],
    ) -> None:
        """`directory` is the recorder's. `reload` reads the configuration file again."""
        self._box = box
        self._recorder = recorder
        self._directory = directory
        self._reload = reload
        self._disk = Disk("recordings")
        self._feed = Feed()
        self._started = clock.monotonic()
        self._since = Since()
        self._names: tuple[Intent, report.Names] | None = None
        self._evidence = Budget(EVIDENCE_PER_S)
        self._is_warned = asyncio.Event()
        self.config = config
        self.stage: Stage = "starting"
        box.engine.listeners.append(self._happened)
        box.warnings.listeners.append(self._is_warned.set)

    # -- what the API asks ---------------------------------------------------------------------

    async def status(self) -> Status:
        """Everything as of now. A hub's rows are thousands: a slice of them each turn."""
        now, state = self._now(), self._box.engine.state
        names, warnings, brief = self._names_of(state.intent), self._warnings(now), self._brief(now)
        return replace(
            brief,
            paths=await collected(report.paths(state, names, now, DEVICE_MTU)),
            classes=await collected(report.classes(state, names, now)),
            warnings=await collected(warnings),
        )

    def _brief(self, now: Moment) -> Status:
        """The status without what there is of each site."""
        box, state = self._box, self._box.engine.state
        engine, reconciler = box.engine, box.reconciler
        reflector = box.reflection.counters
        return Status(
            site=state.intent.site,
            site_id=state.intent.site_id,
            version=__version__,
            stage=self.stage,
            at=now.wall,
            uptime_s=now.monotonic - self._started,
            config=self.config,
            uplinks=self._uplinks(now),
            paths=(),
            classes=(),
            recorder=self._recorder.status,
            counters=Counters(
                moves=dict(engine.moves),
                ops=dict(Counter(engine.ops) + reconciler.ops + box.rates.ops),
                ops_failed=engine.ops_failed + reconciler.ops_failed,
                events=engine.events,
                probes_sent=box.prober.sent,
                probes_answered=box.prober.answered,
                probes_reflected=reflector.reflected,
                probes_refused={
                    "malformed": reflector.malformed,
                    "forged": reflector.forged,
                    "limited": reflector.limited,
                },
                loop_late_max_s=self._since.stall_max_s,
                loop_stalls=self._since.stalls,
            ),
        )

    def health(self) -> Health:
        return Health(self.stage, self._now().monotonic - self._started)

    def rows(self, part: Part) -> Iterable[Row]:
        """The rows of one part of the status as of now, even if they are taken later."""
        now, state = self._now(), self._box.engine.state
        names = self._names_of(state.intent)
        match part:
            case "uplinks":
                return self._uplinks(now)
            case "paths":
                return report.paths(state, names, now, DEVICE_MTU)
            case "classes":
                return report.classes(state, names, now)
            case "warnings":
                return self._warnings(now)

    def _uplinks(self, now: Moment) -> tuple[UplinkStatus, ...]:
        since = {slot: at for slot, (_, at) in self._since.uplinks.items()}
        lines = self._box.rates.lines
        return report.uplinks(self._box.engine.state, since, self._since.probed, now, lines)

    def look_up(self, class_name: ClassName | None, site: SiteName | None) -> None:
        """Raises UnknownName for a class or a site that the configuration does not have."""
        state = self._box.engine.state
        if site is not None and entry_of(state, site) is None:
            raise UnknownName(_unknown("site", site, [*state.sites, INTERNET]))
        names = [each.name for each in state.intent.classes]
        if class_name is not None and class_name not in names:
            raise UnknownName(_unknown("class", class_name, names))

    def why(self, class_name: ClassName, site: SiteName) -> Why:
        """The candidates of a class toward a site. Raises UnknownName."""
        self.look_up(class_name, site)
        state, now = self._box.engine.state, self._now()
        entry = entry_of(state, site)
        held = entry.classes.get(class_name) if entry is not None else None
        explained, names = explain(state, class_name, site), self._names_of(state.intent)
        return Why(
            class_name,
            site,
            report.carriers(names, held.assignment) if held else (),
            explained.reason,
            held.cause.value if held and held.cause else None,
            now.unix(held.since) if held else None,
            explained.policy,
            self._candidates(state, class_name, site),
            report.second(names, held.assignment) if held else None,
        )

    async def classify(self, flow: Flow) -> Classified:
        """The class of a flow that would begin now, and its carriers.

        Raises UnknownName, KernelError.
        """
        learned = (await self._learned()).get(flow.destination, frozenset())
        flow = replace(flow, learned=learned)
        told = classified(self._box.engine.state.intent, flow)
        if told.site is None:
            return told
        carriers = self._carriers(ClassName(told.class_name), SiteName(told.site))
        return replace(told, carriers=carriers)

    async def _learned(self) -> Mapping[Address, frozenset[str]]:
        """What the name server told of addresses, where anybody asks it. Raises KernelError."""
        if not learned_domains(self._box.engine.state.intent):
            return {}
        return await self._box.kernel.read_learned()

    def _carriers(self, class_name: ClassName, site: SiteName) -> tuple[CarrierStatus, ...]:
        """What carries a class to a site now; none also where the core knows neither."""
        state = self._box.engine.state
        entry = entry_of(state, site)
        held = entry.classes.get(class_name) if entry is not None else None
        names = self._names_of(state.intent)
        return report.carriers(names, held.assignment) if held is not None else ()

    async def flows(self, query: FlowQuery) -> Flows:
        """Live flows with their rates, which takes a second. Raises KernelError."""
        intent, kernel = self._box.engine.state.intent, self._box.kernel
        before, _ = await kernel.read_flows(flows.MOST_LOOKED_AT)
        start = clock.monotonic()
        await asyncio.sleep(flows.INTERVAL_S)
        after, is_complete = await kernel.read_flows(flows.MOST_LOOKED_AT)
        seconds = clock.monotonic() - start
        found = await asyncio.to_thread(
            flows.rated, intent, before, after, seconds, query.class_name
        )
        rows, sites = found[: query.limit], await asyncio.to_thread(Sites, intent)
        learned = await self._learned()
        shown = await collected(
            flows.status_of(
                intent,
                sites,
                row,
                self._carriers,
                learned.get(row.flow.destination, frozenset()),
                self._box.server_names.name_of(row.flow.key),
            )
            for row in rows
        )
        return Flows(shown, len(found), is_complete)

    async def history(self, query: HistoryQuery) -> History:
        """Moves from the recorder, the newest last, also those that it has yet to write.

        Raises DiskHangsError.
        """

        def is_wanted(move: Move) -> bool:
            return (
                query.class_name in (None, move.class_name)
                and query.site in (None, move.site)
                and (query.since is None or move.at >= query.since)
            )

        unwritten = self._recorder.unwritten
        return await self._disk.run(
            read_history, self._directory, query.limit, is_wanted, unwritten
        )

    async def plan_text(self, *, dry_run: bool, candidate: Intent | None) -> tuple[str, ...]:
        """Commands of the whole plan, or of what is outstanding in the kernel, made in turns."""
        plan = self._box.plan() if candidate is None else await self._box.plan_of(candidate)
        if not dry_run:
            keys = await in_order(plan)
            return await collected(render_op(Add(key, plan[key])) for key in keys)
        ops = await self._box.reconciler.outstanding(plan)
        return await collected(render_op(op) for op in ops)

    def subscribe(self) -> Subscription:
        return self._feed.subscribe()

    async def reload(self) -> Reloaded:
        """Read the configuration file again. Raises ConfigError, after which the old one holds."""
        return await self._reload()

    async def metrics(self) -> AsyncIterator[bytes]:
        return render_metrics(await self.status())

    # -- telling -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Tell listeners of changes, while there are any, until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._tell_rows(), name="feed rows")
                tasks.create_task(self._tell_warnings(), name="feed warnings")
        finally:
            self._feed.close()

    async def _tell_rows(self) -> None:
        """Tell of changed rows, a slice each turn, and rest the longer the longer that took.

        Who begins to listen between two rounds is told of all that came after the first of them:
        nothing falls between the status and the changes. Another configuration, or stage of life,
        has all told anew: changes have no way to say what there is no more.
        """
        before, uplinks, rest = initial_state(), frozenset[object](), FEED_S
        ground = self._ground()
        while True:
            await asyncio.sleep(rest)
            rest, state = FEED_S, self._box.engine.state
            ground, ground_was = self._ground(), ground
            if self._feed.has_listeners:
                now = self._now()
                uplinks = self._tell_uplinks(uplinks, now)
                if ground == ground_was:
                    await self._tell_sites(before, state, now)
                else:
                    await self._tell_all()
                rest = max(FEED_S, REST * (clock.monotonic() - now.monotonic))
            before = state

    def _ground(self) -> tuple[Stage, ConfigStatus, Intent]:
        return self.stage, self.config, self._box.engine.state.intent

    async def _tell_all(self) -> None:
        pieces = [piece async for piece in encode_in_turns(await self.status())]
        self._feed.publish(Told(b"".join(pieces), "status"))
        self._is_warned.set()  # newer ones may have been told meanwhile

    def _tell_uplinks(self, told: frozenset[object], now: Moment) -> frozenset[object]:
        """Tell of the uplinks that are not as `told`, apart from ages. Returns how they are."""
        rows: dict[object, UplinkStatus] = {}
        for row in self._uplinks(now):
            slot = Slot(row.slot)
            since, probed = self._since.uplinks.get(slot), self._since.probed.get(slot)
            rates = tuple([shaper.rate_bps for shaper in row.shapers])
            rows[replace(row, since=0.0, age_s=None, shapers=()), since, probed, rates] = row
        self._publish(
            Change(now.wall, tuple([row for key, row in rows.items() if key not in told]))
        )
        return frozenset(rows)

    async def _tell_sites(self, before: State, state: State, now: Moment) -> None:
        names = self._names_of(state.intent)
        paths = report.changed_paths(before, state, names, now, DEVICE_MTU)
        async for batch in slices(paths):
            self._publish(Change(now.wall, paths=tuple([row for row in batch if row])))
        classes = report.changed_classes(before, state, names, now)
        async for each in slices(classes):
            self._publish(Change(now.wall, classes=tuple([row for row in each if row])))

    async def _tell_warnings(self) -> None:
        """Tell all warnings after any was raised or cleared; of many at once, once."""
        while True:
            await self._is_warned.wait()
            self._is_warned.clear()
            if self._feed.has_listeners:
                now = self._now()
                change = Change(now.wall, warnings=await collected(self._warnings(now)))
                pieces = [piece async for piece in encode_in_turns(change)]
                self._feed.publish(Told(b"".join(pieces)))
                await asyncio.sleep(FEED_S)

    def _happened(
        self, now: float, event: Event, actions: tuple[Action, ...], state: State
    ) -> None:
        """Remember, record and publish what came of an event. The packets are safe already."""
        self._recorder.record_event(now, event, state)
        match event:
            case UplinkProbed():
                self._since.probed[event.slot] = now
            case LoopStalled():
                self._since.stalls += 1
                self._since.stall_max_s = max(self._since.stall_max_s, event.late_s)
            case _:
                pass
        if type(event) is PathsSampled and not actions:
            return  # nearly all of them
        for slot, uplink in state.uplinks.items():
            word = report.uplink_word(uplink)
            if self._since.uplinks.get(slot, ("", 0.0))[0] != word:
                self._since.uplinks[slot] = (word, now)
        moves = tuple(self._record(now, action, state) for action in actions if _is_move(action))
        if any(isinstance(a, RaiseWarning | ClearWarning) for a in actions):
            self._is_warned.set()
        if moves:
            self._publish(Change(self._now().wall, moves=moves))

    def _record(self, now: float, action: Action, state: State) -> Move:
        """Tell of a move. Its candidates are dear: when very many move at once, some go without.

        Each keeps the sentence that decided; `why` asks the state, not what was recorded.
        """
        assert isinstance(action, MoveClass)  # noqa: S101 - by `_is_move`
        is_told = self._evidence.take(now, 1)
        names = self._names_of(state.intent)
        move = Move(
            self._now().wall,
            action.class_name,
            action.site,
            report.carriers(names, action.before),
            report.carriers(names, action.after),
            action.cause.value,
            action.is_voluntary,
            action.reason,
            self._candidates(state, action.class_name, action.site) if is_told else (),
        )
        self._recorder.record_move(move)
        return move

    def _candidates(
        self, state: State, class_name: ClassName, site: SiteName
    ) -> tuple[Candidate, ...]:
        names = self._names_of(state.intent)
        return tuple(
            report.candidate(each, names) for each in explain(state, class_name, site).candidates
        )

    def _names_of(self, intent: Intent) -> report.Names:
        """Made once for an intent: a hub has a thousand peers, and as many moves at once."""
        if self._names is None or self._names[0] is not intent:
            self._names = intent, report.Names(intent)
        return self._names[1]

    def _warnings(self, now: Moment) -> Iterable[WarningStatus]:
        return chain(report.warnings(self._box.engine.state, now), self._box.warnings.standing)

    def _publish(self, change: Change) -> None:
        """Tell of a few rows or moves, if there are any and anybody listens."""
        is_news = change.uplinks or change.paths or change.classes or change.moves
        if is_news and self._feed.has_listeners:
            self._feed.publish(Told(encode(change)))

    @staticmethod
    def _now() -> Moment:
        return Moment(clock.monotonic(), clock.wall_ns() / 1e9)


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"There is no {kind} {name!r}: the configuration has {', '.join(names[:10])}{more}."


def _is_move(action: Action) -> bool:
    return isinstance(action, MoveClass)
