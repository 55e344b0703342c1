"""Whom flows say that they call, and the class that this puts them into.

Of a host that asks another name server, or asks in secret, nothing but an address is known when a
flow begins. The name is in the flow's first packets (TLS, QUIC), of which the kernel gives us
copies. The packets go on meanwhile; without a supervisor flows have the class of their address.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from contextlib import aclosing
from functools import partial

from appliance import clock
from appliance.config.addressing import CLASS_MARK_MASK, UPLINK_MARK_MASK, class_mark, uplink_mark
from appliance.config.flow import Flow
from appliance.config.intent import Intent, Protocol, TrafficClass, Uplink
from appliance.core.classify import Sites, classify, goes_to, may_join
from appliance.hello.quic import Ciphers, load
from appliance.hello.reader import HelloReader, Named
from appliance.kernel.conntrack import FlowKey
from appliance.kernel.kernel import Kernel, KernelError
from appliance.kernel.nflog import LoggedPacket
from appliance.plan.classify import is_named
from appliance.threads import Threads

RETRY_S = 10.0
# The copy may be here before its packet has left, and a flow is not known until then.
AGAIN_S = 0.005
MOST_REMEMBERED = 4096  # names of flows, for whoever asks by which rule one is in its class
_PROTOCOLS = {6: Protocol.TCP, 17: Protocol.UDP}

log = logging.getLogger(__name__)


class ServerNames:
    """`warn` takes why flows are not known by what they say, or None."""

    def __init__(self, kernel: Kernel, warn: Callable[[str | None], None]) -> None:
        self._kernel = kernel
        self._warn = warn
        self._reader = HelloReader(reads_quic=False)
        self._intent: Intent | None = None
        self._sites: Sites | None = None
        self._lans: dict[str, str] = {}  # names by device
        self._is_wanted = asyncio.Event()
        self._names: OrderedDict[FlowKey, str] = OrderedDict()

    def want(self, intent: Intent) -> None:
        """Classify by this from now on. Flows that are under way stay where they are."""
        self._intent = intent
        self._sites = Sites(intent)
        self._lans = {lan.device: lan.name for lan in intent.lans}
        if is_named(intent):
            self._is_wanted.set()
        elif self._is_wanted.is_set():
            self._is_wanted.clear()
            self._warn(None)

    def name_of(self, flow: FlowKey) -> str | None:
        """Whom a flow said that it calls, as far as this is remembered."""
        return self._names.get(flow)

    async def run(self) -> None:
        """While rules go by names, until cancelled."""
        await self._is_wanted.wait()
        # What it takes to read QUIC comes from a disk, which may hang: TLS does not wait for it.
        loading = asyncio.wrap_future(Threads("ciphers").submit(load))
        loading.add_done_callback(self._loaded)
        while True:
            await self._is_wanted.wait()
            try:
                async with aclosing(self._kernel.follow_logged()) as logged:
                    async for copies in logged:
                        self._warn(None)
                        for each in copies:
                            self._take(each)
            except KernelError as error:
                log.warning("server names are not read", extra={"error": str(error)})
                if self._is_wanted.is_set():
                    self._warn(error.detail or str(error))
                await asyncio.sleep(RETRY_S)

    def _loaded(self, loading: asyncio.Future[Ciphers]) -> None:
        if loading.cancelled():
            return
        if (error := loading.exception()) is not None:
            log.error("QUIC is not read", extra={"error": str(error)})
        self._reader.reads_quic = error is None

    def _take(self, copy: LoggedPacket) -> None:
        named = self._reader.read(copy.octets, clock.monotonic())
        if named is None or self._intent is None:
            return
        packet = named.packet
        flow = FlowKey(
            packet.protocol, packet.source, packet.source_port, packet.destination, packet.port
        )
        self._names[flow] = named.name
        self._names.move_to_end(flow)
        if len(self._names) > MOST_REMEMBERED:
            self._names.popitem(last=False)
        if (wanted := self._class_of(self._intent, copy, named)) is not None:
            self._put(flow, wanted)

    def _class_of(self, intent: Intent, copy: LoggedPacket, named: Named) -> TrafficClass | None:
        """The class that takes the flow by its name; None when its name does not matter.

        Names that its address was told for are left out: what the flow says itself is better.
        """
        packet, lan = named.packet, self._lans.get(copy.device)
        found = classify(
            intent,
            Flow(
                packet.source,
                packet.destination,
                _PROTOCOLS.get(packet.protocol),
                packet.port,
                packet.dscp,
                lan,
                copy.sender if lan is not None else None,
                named.name,
            ),
        )
        return found.traffic_class if found.match is not None and found.match.domains else None

    def _put(self, flow: FlowKey, wanted: TrafficClass, *, is_new: bool = True) -> None:
        """Put a flow into a class, if its way allows that."""
        intent = self._intent
        if intent is None or wanted not in intent.classes:
            return  # another configuration came while we waited
        try:
            told = self._kernel.mark_of(flow)
            if told is None:
                if is_new:
                    again = partial(self._put, flow, wanted, is_new=False)
                    asyncio.get_running_loop().call_later(AGAIN_S, again)
                return
            mark, is_offloaded = told
            # Packets of the fast path do not come by the mark: we were late, and the flow stays.
            if is_offloaded or mark & CLASS_MARK_MASK == class_mark(wanted.index):
                return
            pinned = next((u for u in intent.uplinks if _is_pinned(mark, u)), None)
            if may_join(intent, goes_to(intent, flow.destination, self._sites), pinned, wanted):
                self._kernel.mark_flow(flow, class_mark(wanted.index), CLASS_MARK_MASK)
        except KernelError as error:
            log.warning("a flow keeps its class", extra={"error": str(error)})


def _is_pinned(mark: int, uplink: Uplink) -> bool:
    return mark & UPLINK_MARK_MASK == uplink_mark(uplink.slot)
