"""Brings the kernel to the plan: compile, observe, diff, apply, observe again, verify.

Boot, a changed configuration, a new lease and drift are all the same here. It never decides what
the plan is. While it works, decisions go on: when steering changes between two of its steps the
rest of its operations are stale, and it starts over.
"""

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from itertools import groupby

from appliance.core.steering import Steering
from appliance.kernel.kernel import Kernel, KernelError, is_rate
from appliance.plan.diff import ops_for, unmet
from appliance.plan.plan import Key, Kind, Observed, Op, Plan, WireguardPeer
from appliance.plan.text import render_op
from appliance.turns import slices

log = logging.getLogger(__name__)

MOST_LOGGED = 200  # operations of one batch that are logged each
ATTEMPTS = 5  # after so many, a difference that remains is a failure
LOOKS = 50  # in all: what was stale before it was applied is no attempt
STEERED = frozenset({Kind.NEXTHOP, Kind.GROUP, Kind.ROUTE, Kind.BOND})  # what moves touch


def log_ops(ops: Sequence[Op]) -> None:
    """Log operations as commands, up to a bound: a hub's first plan has thousands."""
    for op in ops[:MOST_LOGGED]:
        log.info("applied", extra={"command": render_op(op)})
    if len(ops) > MOST_LOGGED:
        log.info("applied more", extra={"ops": len(ops) - MOST_LOGGED})


async def diff_in_turns(plan: Plan, observed: Observed, asked: Plan) -> tuple[Op, ...]:
    """As `diff`: a hub's thousands of objects are compared a slice each turn of the loop.

    In one piece they would take as long as a death of an uplink may go unnoticed.
    """
    looked_at = slices(unmet(plan, observed, asked))
    wanting = [key async for batch in looked_at for key in batch if key]
    return ops_for(plan, observed, wanting, asked)


class NotInForceError(Exception):
    """The kernel does not become what the plan says. `ops` is what remains, with the last error."""

    def __init__(self, ops: Sequence[Op], error: KernelError | None) -> None:
        self.ops = tuple(ops)
        self.error = error
        remaining = "; ".join(render_op(op) for op in self.ops[:5])
        more = f" and {len(self.ops) - 5} more" if len(self.ops) > 5 else ""
        why = f"({error})" if error else ""
        what = " ".join(x for x in (remaining + more, why) if x)
        super().__init__(f"the kernel does not hold the plan: {what}")


class Reconciler:
    """The one place that applies whole plans."""

    def __init__(
        self,
        kernel: Kernel,
        compile_now: Callable[[], Plan],
        steering_now: Callable[[], Steering],
        on_addressed: Callable[[], Awaitable[bool]],
        is_outdated: Callable[[Op], bool] = lambda _: False,
    ) -> None:
        """`compile_now` gives the plan for what is wanted and known at this moment.

        `on_addressed` is told that addresses were set or removed, of which there is no notice when
        we do it ourselves. It says whether the plan is another one now. `is_outdated` tells an
        operation whose plan has meanwhile become another one in just this, and been carried out.
        """
        self._kernel = kernel
        self._compile = compile_now
        self._steering = steering_now
        self._on_addressed = on_addressed
        self._is_outdated = is_outdated
        self._lock = asyncio.Lock()
        self.is_in_force = False
        self._asked: Plan = {}  # what the kernel was last asked for, or was found to be
        self._wanted = 0  # grows when another plan is wanted
        self.ops: Counter[str] = Counter()
        self.ops_failed = 0

    def has_asked(self, key: Key) -> bool:
        """Is an object in the plan that the kernel was asked for last?"""
        return key in self._asked

    def want_another(self) -> None:
        """Another plan is wanted: until it is in force, nothing is, whoever reconciles now."""
        self.is_in_force = False
        self._wanted += 1

    async def outstanding(self, plan: Plan) -> tuple[Op, ...]:
        """What would have to be done now for a plan. Applies nothing. Raises KernelError."""
        ops = await diff_in_turns(plan, await self._kernel.observe(plan.keys()), self._asked)
        return tuple(op for op in ops if not self._is_outdated(op))

    async def reconcile(self) -> int:
        """Bring the kernel to the plan and verify it. The number of operations that it took.

        Raises NotInForceError when a difference remains, or none can be seen.
        """
        async with self._lock:
            applied = 0
            ops: tuple[Op, ...] = ()
            error: KernelError | None = None
            failures = 0
            for _ in range(LOOKS):
                steering, wanted = self._steering(), self._wanted
                try:
                    plan = self._compile()
                    ops = await self.outstanding(plan)
                    # Until a plan is in force, moves are left to us: one that came while we looked
                    # is in neither this plan nor the kernel.
                    is_current = self.is_in_force or self._steering() is steering
                    if not ops and is_current and wanted == self._wanted:
                        self.is_in_force = True
                        self._asked = plan
                        return applied
                    if failures >= ATTEMPTS:
                        break
                    self._asked = _in_doubt(self._asked, ops)
                    count, is_stale = await self._apply(ops, steering)
                    applied += count
                    if not is_stale:
                        self._asked = plan
                        failures += 1
                    error = None
                except KernelError as failed:
                    self.ops_failed += 1
                    failures += 1
                    error = failed
                    log.warning("an operation failed", extra={"error": str(failed)})
            raise NotInForceError(ops, error)

    async def _apply(self, ops: tuple[Op, ...], steering: Steering) -> tuple[int, bool]:
        """Apply operations, as many as a move or a new address has not made stale. Were some?"""
        applied = 0
        for part, group in groupby(ops, _part):
            batch = tuple(group)
            if self._steering() is not steering:
                return applied, True
            if part is Kind.ROUTE:
                batch = tuple([op for op in batch if not self._is_outdated(op)])
                self._kernel.steer(batch)
            else:
                await self._kernel.apply(batch)
            applied += len(batch)
            for kind, each in groupby(batch, lambda op: op.key.kind):
                self.ops[kind.name.lower()] += sum(1 for _ in each)
            log_ops(batch)
            if part is Kind.ADDRESS and await self._on_addressed():
                return applied, True
        return applied, False


def _in_doubt(asked: Plan, ops: Sequence[Op]) -> Plan:
    """`asked`, without the endpoints that are about to be set: some may be and others not."""
    called = {
        op.key: replace(op.item, endpoint=None)
        for op in ops
        if isinstance(op.item, WireguardPeer) and op.item.endpoint is not None
    }
    return {**asked, **called} if called else asked


def _part(op: Op) -> Kind | None:
    """What is applied in one go: addresses, what others set as well, or what lies between."""
    if op.key.kind in STEERED or is_rate(op):
        return Kind.ROUTE
    return Kind.ADDRESS if op.key.kind is Kind.ADDRESS else None
