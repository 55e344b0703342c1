"""Keeps asking the targets of one uplink, and tells what their quorum says.

It decides when to ask again. It must never hang on an answer (see `targets.ask`), and it asks
nobody whom the configuration does not name: without targets there are no rounds and no verdict.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence

from appliance.config.addressing import uplink_mark
from appliance.config.intent import Target, Uplink
from appliance.core.events import UplinkFacts, UplinkProbed
from appliance.probing.quorum import Health, Outcome, count, evidence, judge
from appliance.probing.targets import ask

INTERVAL_S = 5.0
DOUBT_INTERVAL_S = 1.0  # until a change of the verdict is settled
# A round of three targets is about 650 octets on the wire: 28 MB a month at this pace.
METERED_INTERVAL_S = 60.0
METERED_DOUBT_INTERVAL_S = 5.0
SPREAD = 0.1  # of the interval, both ways, so that uplinks and boxes do not ask in step

# Targets, device, mark, how many answers are enough (None: all) -> one outcome per target, within a
# bounded time.
Ask = Callable[[Sequence[Target], str, int, int | None], Awaitable[Sequence[Outcome]]]


class UplinkHealth:
    """The rounds of one uplink. `jitter` yields numbers in 0..1."""

    def __init__(
        self,
        uplink: Uplink,
        emit: Callable[[UplinkProbed], None],
        jitter: Callable[[], float],
        ask: Ask = ask,
    ) -> None:
        self._uplink = uplink
        self._emit = emit
        self._jitter = jitter
        self._ask = ask
        self._facts = UplinkFacts(uplink.slot)
        self._health = Health()
        self._changed = asyncio.Event()
        self._is_urgent = False  # the next round
        self._is_hurried = False  # the round under way
        self._asking: asyncio.Future[Sequence[Outcome]] | None = None

    def use(self, uplink: Uplink) -> bool:
        """Go on for an uplink that is asked as before, with its verdict. False: it is not."""
        before, after = [(u.slot, u.device, u.targets, u.quorum) for u in (self._uplink, uplink)]
        if before == after:
            self._uplink = uplink
        return before == after

    def facts_changed(self, facts: UplinkFacts) -> None:
        """The uplink came, went or changed: ask at once. One that went takes its verdict along.

        A change that leaves it attached keeps the verdict, or a router that comes and goes every
        few seconds would keep a dead line from ever being condemned.
        """
        if facts == self._facts:
            return
        if not facts.is_attached:
            self._health = Health()
        self._facts = facts
        self._changed.set()

    def ask_now(self) -> None:
        """There is reason to doubt the uplink: wait neither for the next round nor for this one.

        One that waits for a target in vain would hold the answers of the others back.
        """
        self._is_urgent = True
        self._changed.set()
        if self._asking is not None and not self._is_hurried:
            self._asking.cancel()

    async def run(self) -> None:
        """Ask for ever; returns at once when there is nobody to ask."""
        while self._uplink.targets:
            self._changed.clear()
            if self._facts.is_attached:
                await self._round()
            # Without a timeout: an uplink that is away is waited for.
            pause = self._pause_s() if self._facts.is_attached else None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    async def _round(self) -> None:
        uplink, loop = self._uplink, asyncio.get_running_loop()
        start = loop.time()
        self._is_hurried, self._is_urgent = self._is_urgent, False
        enough = uplink.quorum if self._is_hurried else None
        mark = uplink_mark(uplink.slot)
        self._asking = asyncio.ensure_future(self._ask(uplink.targets, uplink.device, mark, enough))
        try:
            await asyncio.wait([self._asking])
        finally:
            self._asking.cancel()
        if self._asking.cancelled() or not self._facts.is_attached:
            return
        outcomes = self._asking.result()
        counted = count(outcomes, uplink.quorum)
        self._health = judge(self._health, counted.is_good)
        if self._health.is_healthy is not None:
            self._emit(
                UplinkProbed(
                    slot=uplink.slot,
                    answered=counted.answered,
                    asked=counted.asked,
                    is_healthy=self._health.is_healthy,
                    evidence=evidence(counted, self._health),
                    # The quickest of them alone would speak too well of the line.
                    delays_us=tuple(o.delay_us for o in outcomes if o.delay_us is not None)
                    if enough is None
                    else (),
                    took_s=loop.time() - start,
                )
            )

    def _pause_s(self) -> float:
        if self._uplink.metered:
            interval = METERED_DOUBT_INTERVAL_S if self._health.is_in_doubt else METERED_INTERVAL_S
        else:
            interval = DOUBT_INTERVAL_S if self._health.is_in_doubt else INTERVAL_S
        return interval * (1 + SPREAD * (2 * self._jitter() - 1))
