"""Joins decisions to their effects: an event goes in, `decide` answers, actions are carried out.

It holds no rule of its own. A move reaches the kernel before anything else happens, synchronously:
everything slower (logs, the recorder, the API's listeners) comes after the packets are safe.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable
from typing import Protocol

from appliance import clock
from appliance.contract.ids import INTERNET, PathId, Slot
from appliance.core.actions import (
    Action,
    AskTargets,
    ClearWarning,
    DetourPlanes,
    EndFlows,
    MoveClass,
    RaiseWarning,
    SetProbeInterval,
    Severity,
    UseGateway,
    VerifyPath,
)
from appliance.core.decide import decide, next_deadline
from appliance.core.events import DeadlinePassed, Event, IntentChanged, SteeringAdopted
from appliance.core.state import State, steering, working
from appliance.core.steering import Steering
from appliance.kernel.kernel import KernelError
from appliance.plan.breakout import NO_EXITS, Exits
from appliance.plan.plan import Op
from appliance.plan.steer import Steerer
from appliance.supervisor.reconciler import log_ops
from appliance.telemetry.budget import Budget

log = logging.getLogger(__name__)

LOGGED_PER_S = 200.0  # moves and warnings; of a hub's thousands at once, the first

LEVELS = {
    Severity.INFO: logging.INFO,
    Severity.WARNING: logging.WARNING,
    Severity.CRITICAL: logging.ERROR,
}


class Prober(Protocol):
    """The part of the prober that decisions reach."""

    def verify(self, path: PathId, alternative: PathId | None) -> None: ...
    def set_interval(self, path: PathId, interval_s: float) -> None: ...


Steer = Callable[[tuple[Op, ...]], None]
Listener = Callable[[float, Event, tuple[Action, ...], State], None]


class Engine:
    """Owns the state. Everything that happens comes in through `handle`."""

    def __init__(
        self,
        state: State,
        *,
        prober: Prober,
        steer: Steer,
        end_flows: Callable[[EndFlows], None],
        ask_targets: Callable[[Slot], None],
        exits: Callable[[State], Exits],
        is_in_force: Callable[[], bool],
        on_drift: Callable[[], None],
    ) -> None:
        """`steer` applies operations at once or raises KernelError, after which `on_drift` is told.

        `exits` are the ways to the internet that the kernel has. `on_drift` is told as well when
        a move wants something of the kernel that `steer` does not do.

        Until the plan `is_in_force` for the first time there is nothing to move: the reconciler
        takes the steering from here.
        """
        self.state = state
        self.steering = Steering()
        self.listeners: list[Listener] = []
        self.moves: Counter[str] = Counter()
        self.ops: Counter[str] = Counter()
        self.ops_failed = 0
        self.events = 0
        self._prober = prober
        self._steer = steer
        self._end_flows = end_flows
        self._ask_targets = ask_targets
        self._exits = exits
        self._is_in_force = is_in_force
        self._on_drift = on_drift
        self._steerer: Steerer | None = None
        self._logged = Budget(LOGGED_PER_S)
        self._quiet_until = 0.0  # the log leaves out what comes before
        self._queue: deque[Event] = deque()
        self._is_busy = False
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def handle(self, event: Event) -> None:
        """Decide about an event and carry out what was decided, before returning.

        An event that carrying out an action brings about is handled after the present one.
        """
        self._queue.append(event)
        if self._is_busy:
            return
        self._is_busy = True
        try:
            while self._queue:
                self._step(self._queue.popleft())
        finally:
            self._is_busy = False
        self._arm()

    def close(self) -> None:
        """Decide nothing more. The kernel stays as it is."""
        if self._timer is not None:
            self._timer.cancel()

    def _step(self, event: Event) -> None:
        now = clock.monotonic()
        self.events += 1
        was = self.state
        self.state, actions = decide(was, event, now)
        if isinstance(event, IntentChanged):
            self._steerer = Steerer(event.intent)
        if isinstance(event, IntentChanged | SteeringAdopted):
            self.steering = steering(self.state)
        has_ways = _has_other_ways(was, self.state)
        if has_ways or any(isinstance(a, MoveClass | DetourPlanes | UseGateway) for a in actions):
            self._move(actions, was, has_ways=has_ways)
        for action in actions:
            self._carry_out(action, now)
        for listener in self.listeners:
            listener(now, event, actions, self.state)

    def _move(self, actions: tuple[Action, ...], was: State, *, has_ways: bool) -> None:
        before = self.steering
        moved = {(a.class_name, a.site): a.after for a in actions if isinstance(a, MoveClass)}
        self.steering = Steering(
            {**before.assignments, **moved},
            dict(self.state.detours),
            self.state.internet.gateway,
            working(self.state),
        )
        if self._steerer is None or not self._is_in_force():
            return
        if any(after.second for after in moved.values()) or any(
            held.second for where in moved if (held := before.assignments.get(where))
        ):
            self._on_drift()  # where copies go is the reconciler's: nothing is lost until then
        exits = left = NO_EXITS
        if has_ways or any(site == INTERNET for _, site in moved):
            exits, left = self._exits(self.state), self._exits(was)
        ops = self._steerer.ops(before, self.steering, moved, exits, left)
        if not ops:
            return
        try:
            self._steer(ops)
        except KernelError as error:
            self.ops_failed += 1
            log.warning("steering failed, resynchronising", extra={"error": str(error)})
            self._on_drift()
            return
        for op in ops:
            self.ops[op.key.kind.name.lower()] += 1
        log_ops(ops)

    def _carry_out(self, action: Action, now: float) -> None:
        match action:
            case MoveClass(cause=cause, reason=reason):
                self.moves[cause.value] += 1
                self._log(now, logging.INFO, "moved", cause=cause.value, reason=reason)
            case DetourPlanes():
                log.info("detour", extra={"reason": action.reason})
            case UseGateway():
                log.info("gateway", extra={"reason": action.reason})
                self._on_drift()  # whose packets a tunnel takes is in the plan
            case EndFlows():
                log.info("flows end", extra={"reason": action.reason})
                self._end_flows(action)
            case AskTargets(uplink):
                self._ask_targets(uplink)
            case VerifyPath(path, alternative):
                self._prober.verify(path, alternative)
            case SetProbeInterval(path, interval_s):
                self._prober.set_interval(path, interval_s)
            case RaiseWarning(code, subject, severity, text):
                self._log(now, LEVELS[severity], text, code=code, subject=subject)
            case ClearWarning(code, subject):
                self._log(now, logging.INFO, "cleared", code=code, subject=subject)

    def _log(self, now: float, level: int, text: str, **extra: str) -> None:
        """Log what may come in thousands. The recorder and the API keep and tell all of it."""
        if now < self._quiet_until:
            return
        if self._logged.take(now, 1):
            log.log(level, text, extra=extra)
        else:
            self._quiet_until = now + 1.0
            log.warning("more than the log takes", extra={"see": "branchline history, status"})

    def _arm(self) -> None:
        """Wake up when something is due. Too early does no harm, and is set right then.

        A timer that is due is never put off: a hub's next event is always there before it, and
        what is pending would wait for as long as probes are answered.
        """
        at = next_deadline(self.state)
        if at is None or (self._timer is not None and self._timer.when() <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._deadline)

    def _deadline(self) -> None:
        self._timer = None
        self.handle(DeadlinePassed())


def _has_other_ways(was: State, now: State) -> bool:
    """Is anything else that ways to the internet depend on, beside the classes that take them?"""
    if was.uplinks is now.uplinks and was.internet is now.internet:
        return False
    facts, before = ([u.facts for u in state.uplinks.values()] for state in (now, was))
    return facts != before or working(now) != working(was)
