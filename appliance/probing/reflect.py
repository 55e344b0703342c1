"""The reflector's rim: answers probes on every plane at once (RFC 8762 section 4.3).

Where it can, the kernel answers the plain ones (docs/adr/0008-the-kernel-answers-probes.md). The
others come here, and so do all where it cannot. It is woken by packets, because the other end's
deadlines depend on the answer. What is answered, and how often, is the sans-IO
`SessionReflector`'s business.
"""

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import replace
from ipaddress import IPv6Address

from appliance import clock
from appliance.contract.ids import SiteId
from appliance.kernel.reflector import KernelReflector, Settings
from appliance.probing.sockets import CS6, Outgoing, ProbeSocket, address_of, port_of, split_pktinfo
from appliance.stamp.reflector import (
    ERROR_ESTIMATE_PTP,
    Counters,
    ReflectorCounters,
    SessionReflector,
    Source,
)
from appliance.stamp.tlv import PathReport

log = logging.getLogger(__name__)


def site_of(source: Source) -> SiteId:
    """The site of a probe's source, whatever the plane: the last group of its address."""
    return SiteId(int(address_of(source)) & 0xFFFF)


class Reflection:
    """One reflector for all planes, so that it can tell over one what arrived over another."""

    def __init__(
        self,
        *,
        epoch_ns: int,
        key: bytes | None = None,
        counters_of: Callable[[Source, int], Counters | None] | None = None,
        kernel: Callable[[Settings], KernelReflector] = KernelReflector,
    ) -> None:
        """`epoch_ns` turns monotonic nanoseconds into the session clock, fixed at start.

        `kernel` loads the reflector in the kernel, or raises OSError.
        """
        self._epoch_ns = epoch_ns
        self._loop = asyncio.get_running_loop()
        self._socket: ProbeSocket | None = None
        self._ends: frozenset[bytes] = frozenset()
        self._counters_of = counters_of
        self._load = kernel
        self._kernel: KernelReflector | None = None
        self._is_refused = False  # it is not asked again
        self._told = "", ""
        self._key = key
        self.reflector = self._reflector()

    def _reflector(self) -> SessionReflector:
        return SessionReflector(
            key=self._key,
            peer_of=site_of,
            counters_of=self._counters_of,
            counted_of=self._counted_of,
            dscp=CS6 >> 2,
        )

    def use_key(self, key: bytes | None) -> None:
        """Answer what is sealed with another key, or with none. All sessions begin anew."""
        self._leave_kernel()
        self._key = key
        counters, self.reflector = self.reflector.counters, self._reflector()
        self.reflector.counters = counters
        self._use_kernel()

    def serve(self, socket: ProbeSocket) -> None:
        """Answer on this socket from now on, and close the one before."""
        self.close()
        self._socket = socket
        socket.hear(self._ends)
        self._use_kernel()
        self._loop.add_reader(socket.fileno(), self._answer, socket)

    def follow(self, ends: Collection[bytes]) -> None:
        """Answer what comes in at these ends of planes (`sockets.pktinfo`) and nothing else."""
        self._ends = frozenset(ends)
        if self._socket is not None:
            self._socket.hear(self._ends)
        self._use_kernel()

    @property
    def port(self) -> int | None:
        """Where probes are answered."""
        return None if self._socket is None else self._socket.port

    @property
    def counters(self) -> ReflectorCounters:
        """What became of all that came in, here and in the kernel."""
        own = self.reflector.counters
        if self._kernel is None:
            return own
        there = self._kernel.totals()
        return replace(
            own,
            reflected=own.reflected + there.reflected,
            malformed=own.malformed + there.malformed,
            limited=own.limited + there.limited,
        )

    def close(self) -> None:
        """Answer nobody any more."""
        self._leave_kernel()
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    # -- the kernel's part ---------------------------------------------------------------------

    def _use_kernel(self) -> None:
        """Have the kernel answer at all ends, or nowhere when it cannot."""
        if self._socket is None or not (self._ends or self._kernel):
            return
        if self._key is not None:
            self._tell("the supervisor answers probes", "the kernel cannot check their seals")
            return
        if self._is_refused:
            return
        try:
            if self._kernel is None:
                port = self._socket.port
                settings = Settings(
                    self._epoch_ns, *self.reflector.bounds, port, ERROR_ESTIMATE_PTP
                )
                self._kernel = self._load(settings)
            self._kernel.follow({index: at for at, index in map(split_pktinfo, self._ends)})
            self._tell("the kernel answers probes")
        except OSError as error:
            self._is_refused = True
            self._leave_kernel()
            self._tell("the supervisor answers probes", str(error))

    def _tell(self, who: str, reason: str = "") -> None:
        """Log who answers, when it is somebody else than before."""
        if (who, reason) != self._told:
            self._told = who, reason
            log.info(who, extra={"reason": reason} if reason else {})

    def _leave_kernel(self) -> None:
        if self._kernel is not None:
            self.reflector.counters = self.counters
            self._kernel.close()
            self._kernel = None

    def _counted_of(self, source: Source, ssid: int) -> PathReport | None:
        """What the kernel counted in another session of this sender.

        A sender's SSID is its plane, and so is the subnet of the address that it sends from. It
        has one socket for all planes (docs/adr/0007-one-socket-for-all-planes.md).
        """
        if self._kernel is None:
            return None
        asks = int(address_of(source))
        sender = IPv6Address((asks >> 80 << 16 | ssid) << 64 | asks & 0xFFFF_FFFF_FFFF_FFFF)
        counted = self._kernel.counted(sender, port_of(source), ssid)
        return None if counted is None else PathReport(ssid, *counted)

    def _answer(self, socket: ProbeSocket) -> None:
        reflect, epoch_ns, ends = self.reflector.reflect, self._epoch_ns, self._ends
        answers: list[Outgoing] = []
        for octets, source, pktinfo, received_ns, hop_limit, traffic_class in socket.receive():
            if pktinfo not in ends:
                continue
            answer = reflect(
                octets,
                source,
                received_ns + epoch_ns,
                clock.monotonic_ns() + epoch_ns,
                hop_limit,
                traffic_class=traffic_class,
            )
            if answer is not None:
                answers.append((answer, source, pktinfo))
        if answers:
            socket.send(answers)
