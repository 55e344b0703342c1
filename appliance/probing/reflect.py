"""The reflector's rim: answers probes on every plane at once (RFC 8762 section 4.3).

It is woken by packets, because the other end's deadlines depend on the answer. What is answered,
and how often, is the sans-IO `SessionReflector`'s business.
"""

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from socket import socket

from appliance import clock
from appliance.contract.ids import Plane
from appliance.probing.sockets import CS6, receive, send
from appliance.stamp.reflector import Counters, SessionReflector, Source

BATCH = 32  # packets answered before anybody else gets a turn


def peer_of(address: str) -> str:
    """The site behind a probe address: its last group, whatever the plane (`config.addressing`)."""
    return address.rpartition(":")[2]


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
        self._sockets: dict[Plane, socket] = {}
        self.reflector = SessionReflector(
            key=key, peer_of=peer_of, counters_of=counters_of, dscp=CS6 >> 2
        )

    def serve(self, sockets: Mapping[Plane, socket]) -> None:
        """Answer on these sockets from now on; those given no more are closed."""
        for plane, sock in self._sockets.items():
            if sockets.get(plane) is not sock:
                self._loop.remove_reader(sock.fileno())
                sock.close()
        for plane, sock in sockets.items():
            if self._sockets.get(plane) is not sock:
                self._loop.add_reader(sock.fileno(), partial(self._answer, sock))
        self._sockets = dict(sockets)

    def close(self) -> None:
        """Answer nobody any more."""
        self.serve({})

    def _answer(self, sock: socket) -> None:
        reflect, epoch_ns = self.reflector.reflect, self._epoch_ns
        for _ in range(BATCH):
            packet = receive(sock)
            if packet is None:
                return
            now_ns = clock.monotonic_ns()
            answer = reflect(
                packet.octets,
                packet.source,
                packet.received_ns(now_ns, clock.wall_ns()) + epoch_ns,
                now_ns + epoch_ns,
                packet.hop_limit,
                traffic_class=packet.traffic_class,
            )
            if answer is not None:
                send(sock, answer, packet.source)
