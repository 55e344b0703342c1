"""Which flow asks for which server: the names in copies of the first packets of flows."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from appliance.hello.client_hello import NAMELESS
from appliance.hello.packet import Packet, locate, parse
from appliance.hello.quic import QuicInitials
from appliance.hello.tls import TlsStream

MOST_FLOWS: Final = 1024
PATIENCE_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Named:
    """A flow's server name, with the packet that completed it."""

    packet: Packet
    name: str  # lower case, without a dot at its end


class _Flow:
    __slots__ = ("expires", "stream")

    def __init__(self, expires: float, stream: TlsStream | QuicInitials) -> None:
        self.expires = expires
        self.stream: TlsStream | QuicInitials | None = stream  # None: there is no more to learn


class HelloReader:
    """Reads packets of many flows, each way of a connection a flow of its own.

    It keeps `most_flows` flows, the finished ones among them, each for `patience_s` seconds from
    its beginning or its end; when there are more, the oldest goes. A flow of which something is
    missing holds some 32 KiB at most, a finished one a few hundred octets.
    """

    def __init__(
        self,
        most_flows: int = MOST_FLOWS,
        patience_s: float = PATIENCE_S,
        *,
        reads_quic: bool = True,
    ) -> None:
        """QUIC is read with what `quic.load` loads. ValueError: there is no room for a flow."""
        if most_flows < 1:
            msg = f"room for {most_flows} flows"
            raise ValueError(msg)
        self._most_flows = most_flows
        self._patience_s = patience_s
        self.reads_quic = reads_quic
        self._flows: OrderedDict[bytes, _Flow] = OrderedDict()  # the first to expire comes first

    def read(self, packet: bytes, now: float) -> Named | None:
        """Take a copy of a packet, its IP header first; `now` in seconds of a steady clock.

        The name, once for each flow, as soon as it is known. It raises nothing.
        """
        location = locate(packet)
        if location is None:
            return None
        self._forget(now)
        flow = self._flows.get(location.flow)
        if flow is not None and flow.stream is None:
            return None
        found = parse(packet, location)
        if found is None or not (self.reads_quic or found.sequence is not None):
            return None
        if flow is None:
            flow = self._begin(location.flow, found, now)
        name = _read_on(flow, found)
        if name is None:
            return None
        flow.stream = None
        flow.expires = now + self._patience_s
        self._flows.move_to_end(location.flow)
        return None if name == NAMELESS else Named(found, name)

    def _forget(self, now: float) -> None:
        while self._flows and self._flows[next(iter(self._flows))].expires <= now:
            self._flows.popitem(last=False)

    def _begin(self, key: bytes, first: Packet, now: float) -> _Flow:
        """Remember a flow. A TCP stream begins where its first packet says, be it only a SYN."""
        if len(self._flows) >= self._most_flows:
            self._flows.popitem(last=False)
        stream = QuicInitials() if first.sequence is None else TlsStream(first.sequence)
        self._flows[key] = flow = _Flow(now + self._patience_s, stream)
        return flow


def _read_on(flow: _Flow, packet: Packet) -> str | None:
    if isinstance(flow.stream, TlsStream):
        return flow.stream.add(packet.sequence or 0, packet.payload)
    if isinstance(flow.stream, QuicInitials):
        return flow.stream.add(packet.payload)
    return NAMELESS
