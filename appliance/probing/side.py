"""What is asked of a path's far end beside the measurement: sizes, real traffic, what arrived.

By a STAMP session of its own, whose loss says nothing of the path: what it sends may be too large,
or the far end too busy for questions, which answers plain probes all the same.
"""

from typing import NamedTuple

from appliance.contract.ids import PathId, Plane, Slot
from appliance.core.events import Event, PathMtuChanged, TrafficSampled
from appliance.stamp.packet import Octets
from appliance.stamp.pmtu import PathMtu, Phase
from appliance.stamp.sender import Answer, SessionSender
from appliance.stamp.tlv import (
    COUNT_MODULUS,
    Type,
    decode_direct_measurement,
    encode_direct_measurement,
    find,
    is_refused,
)

SIDE_SSID = 0x100  # added to a path's SSID for its side session
HEADERS = 48  # IPv6 and UDP: what a packet has beyond its STAMP part


def ssid_of(plane: Plane) -> int:
    """The SSID of a path's session: its plane, so that a far end can tell the paths apart."""
    return plane.local * 16 + plane.remote


def plane_of_ssid(ssid: int) -> Plane:
    """The plane, as the sender of the session sees it."""
    return Plane(Slot(ssid // 16 % 16), Slot(ssid % 16))


class _Compared(NamedTuple):
    """Real packets of a path as counted at both ends, and the largest shortfall so far."""

    sent: int
    received: int
    shortfall: int


class SideSession:
    """The questions of one path. Times are as of the prober; packets are for the caller to send."""

    def __init__(self, path: PathId, key: bytes | None, ceiling: int, now_ns: int) -> None:
        """`ceiling` is the MTU of the plane's device, in octets."""
        self.mtu = PathMtu(ceiling, now_ns)
        self.padded_sizes: dict[int, int] = {}  # by sequence number, of what awaits its answer
        self.compared: _Compared | None = None
        self._path = path
        self._session = SessionSender(ssid_of(path.plane) + SIDE_SSID, key=key)
        self._told_mtu: int | None = None

    @property
    def ssid(self) -> int:
        return self._session.ssid

    def ask(self, now_ns: int, tlvs: bytes) -> bytes:
        return self._session.probe(now_ns, tlvs=tlvs)

    def ask_size(self, now_ns: int) -> bytes | None:
        """The next padded probe, if it is time for one."""
        size = self.mtu.next_probe(now_ns)
        if size is None:
            return None
        self.padded_sizes[self._session.next_sequence] = size
        return self._session.probe(now_ns, pad_to=size - HEADERS)

    def ask_traffic(self, now_ns: int, sent: int | None) -> bytes | None:
        """Have real traffic compared, of which `sent` packets left, if any was not yet.

        None means that they cannot be compared with those of the time before. Packets stay in order
        within a path, so the far end's count when the question arrives is of what was sent before
        it (Direct Measurement, RFC 8972 section 4.5).
        """
        if sent is None:
            self.compared = None
        elif self.compared is None or sent % COUNT_MODULUS != self.compared.sent:
            return self.ask(now_ns, encode_direct_measurement(sent))
        return None

    def receive(self, octets: bytes, received_ns: int) -> tuple[Answer, list[Event]]:
        """An answer, and what it tells. Raises StampError."""
        answer = self._session.receive(octets, received_ns)
        told: list[Event] = []
        size = self.padded_sizes.pop(answer.sequence, None)
        if size is not None:
            self.mtu.answered(size, received_ns)
            told += self._tell_mtu()
        measurement = find(answer.tlvs, Type.DIRECT_MEASUREMENT)
        if measurement is not None:
            told += self._compare(measurement)
        elif is_refused(answer.tlvs, Type.DIRECT_MEASUREMENT):
            self.compared = None  # what is missing there is nobody's fault on the way
        return answer, told

    def next_deadline_ns(self) -> int | None:
        """When an answer to a padded probe will be overdue. None when none is awaited."""
        return self._session.next_deadline_ns() if self.padded_sizes else None

    def handle_timer(self, now_ns: int, stalled_ns: int, *, is_alive: bool) -> list[Event]:
        """Judge what is overdue. Only of a path that lives does it say anything of sizes."""
        told: list[Event] = []
        if self.padded_sizes:
            for sequence, _ in self._session.handle_timer(now_ns, stalled_ns):
                size = self.padded_sizes.pop(sequence, None)
                if size is not None and is_alive:
                    self.mtu.lost(size, now_ns)
                    told += self._tell_mtu()
        return told

    def _compare(self, value: Octets) -> list[Event]:
        """Count what of our real packets did not arrive since the comparison before.

        The far end reads its counter a moment after the probe arrived, so some packets that were
        sent later may be in it: what seems to be missing is never more than what is. The largest
        shortfall so far is therefore the best account of all losses, and only its growth is news.
        """
        counts = decode_direct_measurement(value)
        sent, received = counts.sent, counts.received
        shortfall = sent - received
        before = self.compared
        if before is None or sent < before.sent or received < before.received:
            self.compared = _Compared(sent, received, shortfall)  # a counter of one end is new
            return []
        lost = max(0, shortfall - before.shortfall)
        self.compared = _Compared(sent, received, before.shortfall + lost)
        count = sent - before.sent
        return [TrafficSampled(self._path, count, min(lost, count))] if count > 0 else []

    def _tell_mtu(self) -> list[Event]:
        """Tell a size when it is new, and the first one in any case: an adopted one may be old."""
        search = self.mtu
        is_guess = search.phase is Phase.SEARCHING and search.mtu == search.ceiling
        if search.mtu == self._told_mtu or (self._told_mtu is None and is_guess):
            return []
        self._told_mtu = search.mtu
        return [PathMtuChanged(self._path, search.mtu)]
