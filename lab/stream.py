"""A UDP stream between two machines with the fate of every single packet.

Source and sink are forked processes that share one memory area with the story: the time each
packet was sent and the time it first arrived (by the kernel's receive timestamp). The story reads
it at any moment; asking costs the guest nothing while the stream runs.
"""

import itertools
import math
import mmap
import os
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from lab import syscalls
from lab.machine import Machine, cpu_s

_SENT, _ERRORS, _RECEIVED, _DUPLICATES, _REORDERED, _STOP, _READY, _HEADER = range(8)
_SEQUENCE = struct.Struct("!I")
_IN_FLIGHT_S = 0.5  # a packet sent longer ago has arrived or is lost
_DRAIN_S = 0.02  # how often the sink empties its socket
_SO_TIMESTAMPNS = 35
_SO_RCVBUFFORCE = 33
_TIMESPEC = struct.Struct("qq")


@dataclass(frozen=True, slots=True)
class LostRange:
    """Packets `first` to `last` were all lost; they were sent from `start_s` to `end_s`."""

    first: int
    last: int
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class StreamResult:
    """The fate of the packets sent in a stretch of time. Times are virtual seconds of the story."""

    sent: int
    send_errors: int  # the kernel refused to send it; the packet counts as lost
    received: int
    lost: int
    duplicates: int
    reordered: int
    longest_gap_ms: float  # between two arrivals
    delay_ms: tuple[float, float, float]  # one-way: least, mean, most
    lost_ranges: tuple[LostRange, ...]

    def __str__(self) -> str:
        return (
            f"{self.received} of {self.sent} arrived, {self.lost} lost, {self.duplicates} twice, "
            f"{self.reordered} out of order, longest gap {self.longest_gap_ms:.1f} ms"
        )


class Stream:
    """Create through `Lab.stream`; it runs from then on."""

    def __init__(
        self,
        source: Machine,
        sink: Machine,
        address: str,
        *,
        start_ns: int,
        pps: float,
        size: int,
        dscp: int,
        port: int,
        source_port: int,
        capacity_s: float,
    ) -> None:
        if size < _SEQUENCE.size:
            message = (
                f"a packet carries its {_SEQUENCE.size}-octet number, so size {size} is too small"
            )
            raise ValueError(message)
        self._start_ns = start_ns
        self._capacity = int(pps * capacity_s)
        self._interval_ns = round(1e9 / pps)
        self._size = size
        self._dscp = dscp
        self._address = address
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._ports = (source_port, port)
        memory = mmap.mmap(-1, (_HEADER + 2 * self._capacity) * 8)
        cells = memoryview(memory).cast("q")
        self._header = cells[:_HEADER]
        self._sent_ns = cells[_HEADER : _HEADER + self._capacity]
        self._arrived_ns = cells[_HEADER + self._capacity :]
        self._sink_pid = sink.fork(self._receive_all)
        _wait_for(lambda: bool(self._header[_READY]))
        self._source_pid = source.fork(self._send_all)

    # -- what the story asks -------------------------------------------------------------------

    @property
    def sent(self) -> int:
        """Packets sent so far."""
        return self._header[_SENT]

    @property
    def received(self) -> int:
        """Different packets that arrived so far, as of the sink's last look (every 20 ms)."""
        return self._header[_RECEIVED]

    def lost(self, since_s: float = 0.0, until_s: float | None = None) -> int:
        """Packets sent in that stretch of the story that have not arrived.

        Without `until_s`: those sent until half a second ago, as later ones may be on their way,
        or all of them once the stream has stopped. A longer delay needs an earlier `until_s`.
        """
        return self.result(since_s, until_s).lost

    def result(self, since_s: float = 0.0, until_s: float | None = None) -> StreamResult:
        """The fate of the packets sent in that stretch. Duplicates, order: the whole stream's."""
        if until_s is None:
            until_s = math.inf if self._header[_STOP] else self._now_s() - _IN_FLIGHT_S
        first, end = self._sequence_at(since_s), self._sequence_at(until_s)
        sent = self._sent_ns[first:end].tolist()
        arrived = self._arrived_ns[first:end].tolist()
        delays = [a - s for s, a in zip(sent, arrived, strict=True) if a]
        arrivals = sorted(a for a in arrived if a)
        gaps = [later - earlier for earlier, later in itertools.pairwise(arrivals)]
        return StreamResult(
            sent=len(sent),
            send_errors=self._header[_ERRORS],
            received=len(delays),
            lost=len(sent) - len(delays),
            duplicates=self._header[_DUPLICATES],
            reordered=self._header[_REORDERED],
            longest_gap_ms=max(gaps, default=0) / 1e6,
            delay_ms=(
                min(delays, default=0) / 1e6,
                sum(delays) / max(1, len(delays)) / 1e6,
                max(delays, default=0) / 1e6,
            ),
            lost_ranges=tuple(self._lost_ranges(first, end)),
        )

    def delays_ms(self, since_s: float = 0.0) -> list[float]:
        """One-way delays of the packets sent since then that arrived, in order of sending."""
        first, end = self._sequence_at(since_s), self.sent
        pairs = zip(self._sent_ns[first:end], self._arrived_ns[first:end], strict=True)
        return [(a - s) / 1e6 for s, a in pairs if a]

    def cpu_s(self) -> float:
        """CPU seconds that source and sink themselves have used so far: the cost of measuring."""
        return cpu_s(self._source_pid) + cpu_s(self._sink_pid)

    def sent_s(self) -> list[float]:
        """The moments of the story at which each packet was sent."""
        return [self._time_s(sequence) for sequence in range(self.sent)]

    def stop(self, drain_s: float = 0.5) -> StreamResult:
        """Stop sending, wait `drain_s` for packets in flight, and return the whole result."""
        self._header[_STOP] = 1
        os.waitpid(self._source_pid, 0)
        time.sleep(drain_s + 2 * _DRAIN_S)
        self._header[_STOP] = 2
        os.waitpid(self._sink_pid, 0)
        return self.result()

    # -- inside --------------------------------------------------------------------------------

    def _sequence_at(self, at_s: float) -> int:
        """Number of the first packet sent at or after that time."""
        low, high = 0, self.sent
        if math.isinf(at_s):
            return high
        wanted = self._start_ns + int(at_s * 1e9)
        while low < high:
            middle = (low + high) // 2
            if self._sent_ns[middle] < wanted:
                low = middle + 1
            else:
                high = middle
        return low

    def _lost_ranges(self, first: int, end: int) -> list[LostRange]:
        ranges = []
        start = None
        for sequence in range(first, end + 1):
            is_lost = sequence < end and not self._arrived_ns[sequence]
            if is_lost and start is None:
                start = sequence
            elif not is_lost and start is not None:
                ranges.append(
                    LostRange(start, sequence - 1, self._time_s(start), self._time_s(sequence - 1))
                )
                start = None
        return ranges

    def _now_s(self) -> float:
        return (time.monotonic_ns() - self._start_ns) / 1e9

    def _time_s(self, sequence: int) -> float:
        return round((self._sent_ns[sequence] - self._start_ns) / 1e9, 6)

    def _open(self) -> socket.socket:
        opened = socket.socket(self._family, socket.SOCK_DGRAM)
        if self._family == socket.AF_INET6:
            opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, self._dscp << 2)
        else:
            opened.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, self._dscp << 2)
        return opened

    def _send_all(self) -> None:
        # A LAN host is a machine of its own: its sender does not queue behind the edges' programs.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
        syscalls.exact_timers()
        sender = self._open()
        sender.bind(("", self._ports[0]))
        sender.connect((self._address, self._ports[1]))
        header, sent_ns, interval = self._header, self._sent_ns, self._interval_ns
        packet = bytearray(self._size)
        now, pack, send = time.monotonic_ns, _SEQUENCE.pack_into, sender.send
        due = now()
        sequence = 0
        while not header[_STOP] and sequence < self._capacity:
            wait = due - now()
            if wait > 0:
                time.sleep(wait / 1e9)
            pack(packet, 0, sequence)
            sent_ns[sequence] = now()
            try:
                send(packet)
            except OSError:
                # An earlier packet's ICMP error is reported instead of sending: say it again.
                try:
                    send(packet)
                except OSError:
                    header[_ERRORS] += 1
            sequence += 1
            header[_SENT] = sequence
            due += interval

    def _receive_all(self) -> None:
        receiver = self._open()
        receiver.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 << 20)
        receiver.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        receiver.bind(("", self._ports[1]))
        receiver.setblocking(False)
        self._header[_READY] = 1
        highest = -1
        while True:
            last_look = self._header[_STOP] == 2
            # kernel timestamps are of the wall clock, which a story may set
            offset = time.time_ns() - time.monotonic_ns()
            highest = self._drain(receiver, highest, offset)
            if last_look:
                return
            time.sleep(_DRAIN_S)

    def _drain(self, receiver: socket.socket, highest: int, offset: int) -> int:
        header, arrived_ns = self._header, self._arrived_ns
        while True:
            try:
                packet, ancillary, _, _ = receiver.recvmsg(_SEQUENCE.size, 64)
            except BlockingIOError:
                return highest
            (sequence,) = _SEQUENCE.unpack(packet)
            if sequence >= self._capacity:
                continue  # somebody else's packet
            if arrived_ns[sequence]:
                header[_DUPLICATES] += 1
                continue
            seconds, nanoseconds = _TIMESPEC.unpack(ancillary[0][2])
            arrived_ns[sequence] = seconds * 1_000_000_000 + nanoseconds - offset
            header[_RECEIVED] += 1
            if sequence < highest:
                header[_REORDERED] += 1
            else:
                highest = sequence


def _wait_for(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            message = "the stream's sink did not start; the console shows why"
            raise RuntimeError(message)
        time.sleep(0.001)
