"""What the API may ask a running box (`StatusSource`), and what listeners are told of changes."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from appliance import __version__, clock
from appliance.api.feed import Feed, Subscription
from appliance.api.problems import UnknownName
from appliance.api.source import HistoryQuery, Part, Row
from appliance.config.intent import Intent
from appliance.contract.decision import Candidate, History, Move, Why
from appliance.contract.ids import ClassName, SiteName, Slot
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
from appliance.core.actions import Action, ClearWarning, DetourPlanes, MoveClass, RaiseWarning
from appliance.core.events import Event, LoopStalled, PathsSampled, UplinkProbed
from appliance.core.state import State
from appliance.core.steering import DEVICE_MTU
from appliance.core.why import explain
from appliance.plan.diff import diff
from appliance.plan.plan import Add
from appliance.plan.text import render_op
from appliance.supervisor import report
from appliance.supervisor.box import Box
from appliance.supervisor.report import Moment
from appliance.telemetry.budget import Budget
from appliance.telemetry.metrics import render_metrics
from appliance.telemetry.recorder import Recorder
from appliance.telemetry.recording import read_history

T = TypeVar("T")

FEED_S = 0.5  # how often listeners are told of changed numbers
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
        self._feed = Feed()
        self._started = clock.monotonic()
        self._since = Since()
        self._names: tuple[Intent, report.Names] | None = None
        self._evidence = Budget(EVIDENCE_PER_S)
        self._shown: Status | None = None
        self.config = config
        self.stage: Stage = "starting"
        box.engine.listeners.append(self._happened)
        box.warnings.listeners.append(self._warned)

    # -- what the API asks ---------------------------------------------------------------------

    def status(self) -> Status:
        now = self._now()
        box, state = self._box, self._box.engine.state
        engine, reconciler = box.engine, box.reconciler
        reflector = box.reflection.reflector.counters
        return Status(
            site=state.intent.site,
            site_id=state.intent.site_id,
            version=__version__,
            stage=self.stage,
            at=now.wall,
            uptime_s=now.monotonic - self._started,
            config=self.config,
            uplinks=self._uplinks(now),
            paths=tuple(report.paths(state, now, DEVICE_MTU)),
            classes=tuple(report.classes(state, now)),
            warnings=self._warnings(now),
            recorder=self._recorder.status,
            counters=Counters(
                moves=dict(engine.moves),
                ops=dict(Counter(engine.ops) + Counter(reconciler.ops)),
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
        match part:
            case "uplinks":
                return self._uplinks(now)
            case "paths":
                return report.paths(state, now, DEVICE_MTU)
            case "classes":
                return report.classes(state, now)
            case "warnings":
                return self._warnings(now)

    def _uplinks(self, now: Moment) -> tuple[UplinkStatus, ...]:
        since = {slot: at for slot, (_, at) in self._since.uplinks.items()}
        return report.uplinks(self._box.engine.state, since, self._since.probed, now)

    def why(self, class_name: ClassName, site: SiteName) -> Why:
        """The candidates of a class toward a site. Raises UnknownName."""
        state = self._box.engine.state
        entry = state.sites.get(site)
        if entry is None:
            raise UnknownName(_unknown("site", site, state.sites))
        if class_name not in {each.name for each in state.intent.classes}:
            known = [each.name for each in state.intent.classes]
            raise UnknownName(_unknown("class", class_name, known))
        now = self._now()
        held = entry.classes.get(class_name)
        explained = explain(state, class_name, site)
        return Why(
            class_name,
            site,
            report.carriers(self._names_of(state.intent), held.assignment) if held else (),
            explained.reason,
            held.cause.value if held and held.cause else None,
            now.unix(held.since) if held else None,
            explained.policy,
            self._candidates(state, class_name, site),
        )

    async def history(self, query: HistoryQuery) -> History:
        """Moves from the recorder, the newest last, also those that it has yet to write."""

        def is_wanted(move: Move) -> bool:
            return (
                query.class_name in (None, move.class_name)
                and query.site in (None, move.site)
                and (query.since is None or move.at >= query.since)
            )

        unwritten = self._recorder.unwritten
        return await asyncio.to_thread(
            read_history, self._directory, query.limit, is_wanted, unwritten
        )

    async def plan_text(self, *, dry_run: bool, candidate: Intent | None) -> tuple[str, ...]:
        """Commands of the whole plan, or of what is outstanding in the kernel."""
        plan = self._box.plan() if candidate is None else self._box.plan_of(candidate)
        if not dry_run:
            return tuple(render_op(Add(key, item)) for key, item in sorted(plan.items()))
        observed = await self._box.kernel.observe(plan.keys())
        return tuple(render_op(op) for op in diff(plan, observed))

    def subscribe(self) -> Subscription:
        return self._feed.subscribe()

    async def reload(self) -> Reloaded:
        """Read the configuration file again. Raises ConfigError, after which the old one holds."""
        return await self._reload()

    async def metrics(self) -> bytes:
        """Prometheus text. The rendering of a hub's rows takes a thread."""
        return await asyncio.to_thread(render_metrics, self.status())

    # -- telling -------------------------------------------------------------------------------

    def _warned(self) -> None:
        now = self._now()
        self._publish(Change(now.wall, warnings=self._warnings(now)))

    async def run(self) -> None:
        """Tell listeners of changed numbers, while there are any, until cancelled."""
        try:
            while True:
                await asyncio.sleep(FEED_S)
                if not self._feed.has_listeners:
                    self._shown = None
                    continue
                before, self._shown = self._shown, self.status()
                if before is not None:
                    after = self._shown
                    self._publish(
                        Change(
                            after.at,
                            _new(before.uplinks, after.uplinks),
                            _new(before.paths, after.paths),
                            _new(before.classes, after.classes),
                        )
                    )
        finally:
            self._feed.close()

    def _happened(
        self, now: float, event: Event, actions: tuple[Action, ...], state: State
    ) -> None:
        """Remember, record and publish what came of an event. The packets are safe already."""
        self._recorder.record_event(now, event)
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
        for action in actions:
            if isinstance(action, DetourPlanes):
                self._recorder.record_detour(action)
        is_warning = any(isinstance(a, RaiseWarning | ClearWarning) for a in actions)
        if (moves or is_warning) and self._feed.has_listeners:
            moment = self._now()
            told = self._warnings(moment) if is_warning else None
            self._publish(Change(moment.wall, moves=moves, warnings=told))

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
        self._recorder.record_move(action, move)
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

    def _warnings(self, now: Moment) -> tuple[WarningStatus, ...]:
        return (*report.warnings(self._box.engine.state, now), *self._box.warnings.standing)

    def _publish(self, change: Change) -> None:
        if self._feed.has_listeners:
            self._feed.publish(change)

    @staticmethod
    def _now() -> Moment:
        return Moment(clock.monotonic(), clock.wall_ns() / 1e9)


def _unknown(kind: str, name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"There is no {kind} {name!r}: the configuration has {', '.join(names[:10])}{more}."


def _is_move(action: Action) -> bool:
    return isinstance(action, MoveClass)


def _new(before: tuple[T, ...], after: tuple[T, ...]) -> tuple[T, ...]:
    """The rows that are not as they were."""
    known = set(before)
    return tuple(row for row in after if row not in known)
