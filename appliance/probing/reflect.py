"""The reflector's rim: answers probes on every plane at once (RFC 8762 section 4.3).

It is woken by packets, because the other end's deadlines depend on the answer. What is answered,
and how often, is the sans-IO `SessionReflector`'s business.
"""

import asyncio
from collections.abc import Callable, Collection

from appliance import clock
from appliance.contract.ids import SiteId
from appliance.probing.sockets import CS6, Outgoing, ProbeSocket, address_of
from appliance.stamp.reflector import Counters, SessionReflector, Source


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
    ) -> None:
        """`epoch_ns` turns monotonic nanoseconds into the session clock, fixed at start."""
        self._epoch_ns = epoch_ns
        self._loop = asyncio.get_running_loop()
        self._socket: ProbeSocket | None = None
        self._ends: frozenset[bytes] = frozenset()
        self._counters_of = counters_of
        self.reflector = self._reflector(key)

    def _reflector(self, key: bytes | None) -> SessionReflector:
        return SessionReflector(
            key=key, peer_of=site_of, counters_of=self._counters_of, dscp=CS6 >> 2
        )

    def use_key(self, key: bytes | None) -> None:
        """Answer what is sealed with another key, or with none. All sessions begin anew."""
        counters, self.reflector = self.reflector.counters, self._reflector(key)
        self.reflector.counters = counters

    def serve(self, socket: ProbeSocket) -> None:
        """Answer on this socket from now on, and close the one before."""
        self.close()
        self._socket = socket
        socket.hear(self._ends)
        self._loop.add_reader(socket.fileno(), self._answer, socket)

    def follow(self, ends: Collection[bytes]) -> None:
        """Answer what comes in at these ends of planes (`sockets.pktinfo`) and nothing else."""
        self._ends = frozenset(ends)
        if self._socket is not None:
            self._socket.hear(self._ends)

    @property
    def port(self) -> int | None:
        """Where probes are answered."""
        return None if self._socket is None else self._socket.port

    def close(self) -> None:
        """Answer nobody any more."""
        if self._socket is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

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
