"""The answering end of STAMP: a stateful Session-Reflector (RFC 8762 section 4.3, RFC 8972).

It answers each packet at once with its own sequence number, so that the sender can tell loss on
the way forth from loss on the way back, and remembers per session what arrived. It decides who is
answered how often, and nothing else; it never sends by itself, and an answer is never longer than
what was asked with.

One instance serves all planes of a box, so that a Path Report can speak of sessions that came in
over another plane. Where the kernel answers plain probes (kernel/reflector.bpf.c), it is asked what
it has counted. Sender and reflector must not share a UDP port: both directions look alike, and two
reflectors would answer each other for ever.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, NamedTuple

from appliance.stamp.errors import ForgedPacket, MalformedPacket
from appliance.stamp.packet import (
    AUTHENTICATED_SIZE,
    BASE_SIZE,
    PTP_FORMAT,
    SECOND,
    Authenticator,
    ErrorEstimate,
    encode_error_estimate,
    pack_reflector,
    parse_sender,
    split_ntp,
)
from appliance.stamp.tlv import (
    CLASS_OF_SERVICE,
    DIRECT_MEASUREMENT,
    MALFORMED,
    PATH_REPORT,
    UNRECOGNIZED,
    PathReport,
    Type,
    reflect_tlvs,
)

Source = bytes  # address and port of a sender, in the form that the caller has them
Counters = tuple[int, int]  # packets of real traffic from and to the sender of a session

ERROR_ESTIMATE_PTP: Final = encode_error_estimate(ErrorEstimate(False, True, 100_000))
ERROR_ESTIMATE_NTP: Final = ERROR_ESTIMATE_PTP & ~PTP_FORMAT

_LOW_32 = 0xFFFFFFFF
_HALF = 1 << 31
_RESTART = 1024  # a sequence number this far back is no straggler but a sender that started anew


@dataclass(slots=True)
class ReflectorCounters:
    """What became of the packets that came in."""

    reflected: int = 0
    malformed: int = 0
    forged: int = 0
    limited: int = 0  # over the rate of the session or of the reflector
    unsealed: int = 0  # answered, but with TLVs whose integrity failed
    evicted: int = 0  # sessions forgotten to make room


class Bounds(NamedTuple):
    """Token buckets by the time at which they would be full (GCRA), in nanoseconds."""

    gap_ns: int  # between packets of one session at its full rate
    slack_ns: int  # how far ahead of that rate a burst may run
    total_gap_ns: int  # the same for all sessions together
    total_slack_ns: int


class _Session:
    """What is remembered of one sender."""

    __slots__ = ("full_ns", "highest", "newest_s", "peer", "sequence", "source", "ssid")

    def __init__(self, source: Source, ssid: int, peer: Hashable) -> None:
        self.source = source
        self.ssid = ssid
        self.peer = peer
        self.sequence = 0  # of the next answer: how many were given
        self.highest = 0
        self.newest_s = 0  # seconds of the timestamp that came with `highest`
        self.full_ns = 0  # when the token bucket will be full again


class SessionReflector:
    """Answers STAMP test packets of any number of senders, within bounds."""

    def __init__(
        self,
        *,
        key: bytes | None = None,
        max_sessions: int = 16384,
        session_rate: int = 500,
        session_burst: int = 250,
        total_rate: int = 20_000,
        total_burst: int = 5_000,
        peer_of: Callable[[Source], Hashable] | None = None,
        counters_of: Callable[[Source, int], Counters | None] | None = None,
        counted_of: Callable[[Source, int], PathReport | None] | None = None,
        dscp: int = 0,
    ) -> None:
        """Rates are packets a second, bursts packets; the oldest of too many sessions is dropped.

        With a `key` only authenticated packets are answered, without one only unauthenticated
        ones. `peer_of` tells from a source who the sender is: sessions of one peer over
        different planes are told apart by SSID and reported to each other. `counters_of` gives
        (received from, sent to) the sender of a session, by source and SSID, for the Direct
        Measurement TLV. `counted_of` tells what was counted elsewhere of a session of the one who
        asks, or None, for the Path Report TLV. `dscp` is what every answer will be sent with, by
        the caller: the only wish that the Class of Service TLV is granted.
        """
        if min(max_sessions, session_rate, session_burst, total_rate, total_burst) < 1:
            msg = "bounds of a reflector are at least 1"
            raise ValueError(msg)
        self.counters = ReflectorCounters()
        self._authenticator = None if key is None else Authenticator(key)
        self._base_size = BASE_SIZE if key is None else AUTHENTICATED_SIZE
        self._max_sessions = max_sessions
        gap_ns, total_gap_ns = SECOND // session_rate, SECOND // total_rate
        self.bounds = Bounds(
            gap_ns, gap_ns * (session_burst - 1), total_gap_ns, total_gap_ns * (total_burst - 1)
        )
        self._total_full_ns = 0
        self._peer_of = peer_of
        self._counters_of = counters_of
        self._counted_of = counted_of
        self._dscp = dscp
        self._sessions: OrderedDict[tuple[Source, int], _Session] = OrderedDict()
        self._by_peer: dict[tuple[Hashable, int], _Session] = {}

    def __len__(self) -> int:
        """How many sessions are remembered."""
        return len(self._sessions)

    def reflect(
        self,
        packet: bytes,
        source: Source,
        received_ns: int,
        now_ns: int,
        ttl: int,
        *,
        traffic_class: int = 0,
    ) -> bytes | None:
        """The answer to send back to `source`, or None when the packet deserves none.

        `received_ns` and `now_ns` are on the session clock; `ttl` and `traffic_class` (DSCP and
        ECN) are from the packet's IP header. Never raises on what `packet` holds.
        """
        # Thousands of packets a second pass here: locals and plain arithmetic, few calls.
        authenticator = self._authenticator
        try:
            sequence, sent_s, sent_fraction, error_estimate, ssid = parse_sender(
                packet, authenticator
            )
        except MalformedPacket:
            self.counters.malformed += 1
            return None
        except ForgedPacket:
            self.counters.forged += 1
            return None

        if self._total_full_ns - now_ns > self.bounds.total_slack_ns:
            self.counters.limited += 1
            return None
        key = (source, ssid)
        session = self._sessions.get(key)
        if session is None:
            session = self._open(source, ssid)
        else:
            self._sessions.move_to_end(key)
        if self._is_over_rate(session, now_ns):
            self.counters.limited += 1
            return None
        own = self._count(session, sequence, sent_s)
        self.counters.reflected += 1

        if error_estimate & PTP_FORMAT:
            now_s, received_s = now_ns // SECOND, received_ns // SECOND
            now_fraction, received_fraction = (
                now_ns - now_s * SECOND,
                received_ns - received_s * SECOND,
            )
            estimate = ERROR_ESTIMATE_PTP
        else:  # who writes NTP may read nothing else (RFC 8762 section 4.6)
            now_s, now_fraction = split_ntp(now_ns)
            received_s, received_fraction = split_ntp(received_ns)
            estimate = ERROR_ESTIMATE_NTP
        stamped = (own, now_s, now_fraction, estimate, ssid, received_s, received_fraction)
        probe = (sequence, sent_s, sent_fraction, error_estimate, ttl)
        answer = pack_reflector(stamped + probe, authenticator)
        size = len(packet)
        if size == self._base_size:
            return answer
        if size < self._base_size:
            return answer[:size]
        tlvs, is_sealed = reflect_tlvs(
            packet[self._base_size :],
            (sequence, own),
            authenticator,
            lambda kind, value: self._fill(kind, value, session, traffic_class),
        )
        if not is_sealed:
            self.counters.unsealed += 1
        return answer + tlvs

    def _is_over_rate(self, session: _Session, now_ns: int) -> bool:
        """Take a token of the session and one of all, unless the session has none."""
        gap_ns, slack_ns, total_gap_ns, _ = self.bounds
        full_ns = session.full_ns
        if full_ns < now_ns:
            full_ns = now_ns
        elif full_ns - now_ns > slack_ns:
            return True
        session.full_ns = full_ns + gap_ns
        self._total_full_ns = max(self._total_full_ns, now_ns) + total_gap_ns
        return False

    @staticmethod
    def _count(session: _Session, sequence: int, sent_s: int) -> int:
        """Note a packet of a session, and give the number of its answer."""
        own = session.sequence
        behind = (session.highest - sequence) & _LOW_32
        if behind >= _HALF or not own:
            session.highest = sequence
            session.newest_s = sent_s
        elif sent_s > session.newest_s and (sequence == 0 or behind >= _RESTART):
            # Only with a newer timestamp: a replayed packet must not reset the session.
            own = 0
            session.highest = sequence
            session.newest_s = sent_s
        session.sequence = (own + 1) & _LOW_32
        return own

    def received(self, peer: Hashable, ssid: int) -> PathReport | None:
        """What arrived in the session of this peer with this SSID; None when there is none."""
        session = self._by_peer.get((peer, ssid))
        return None if session is None else PathReport(ssid, session.sequence, session.highest)

    def _open(self, source: Source, ssid: int) -> _Session:
        if len(self._sessions) >= self._max_sessions:
            _, oldest = self._sessions.popitem(last=False)
            if self._by_peer.get((oldest.peer, oldest.ssid)) is oldest:
                del self._by_peer[oldest.peer, oldest.ssid]
            self.counters.evicted += 1
        peer = source if self._peer_of is None else self._peer_of(source)
        session = _Session(source, ssid, peer)
        self._sessions[source, ssid] = session
        self._by_peer[peer, ssid] = session
        return session

    def _fill(self, kind: int, value: memoryview, session: _Session, traffic_class: int) -> int:
        """Fill in the value of a TLV; the flags to answer with."""
        if kind == Type.EXTRA_PADDING:
            return 0
        if kind == Type.CLASS_OF_SERVICE:
            return self._fill_class_of_service(value, traffic_class)
        if kind == Type.DIRECT_MEASUREMENT:
            return self._fill_direct_measurement(value, session)
        if kind == Type.PATH_REPORT:
            return self._fill_path_report(value, session)
        return UNRECOGNIZED

    def _fill_class_of_service(self, value: memoryview, traffic_class: int) -> int:
        """DSCP2 and ECN as they arrived; RP by our policy (RFC 8972 section 4.4).

        The policy permits one DSCP, that of the socket: answers that queue under other marks than
        the probes would spoil the one measurement that a path has. For any other wish RP is 1, so
        that the sender does not read the answer's mark as what became of DSCP1. The RFC then wants
        the answer to carry the DSCP that the probe arrived with. For our own probes that is the
        same one, and nobody changes it inside a tunnel; a stranger's probe with another mark is
        answered with ours all the same.
        """
        if len(value) != CLASS_OF_SERVICE.size:
            return MALFORMED
        wanted = CLASS_OF_SERVICE.unpack(value)[0] >> 10
        refused = wanted != self._dscp
        bits = wanted << 10 | (traffic_class & 0xFC) << 2 | (traffic_class & 3) << 2 | refused
        CLASS_OF_SERVICE.pack_into(value, 0, bits, 0)
        return 0

    def _fill_direct_measurement(self, value: memoryview, session: _Session) -> int:
        if len(value) != DIRECT_MEASUREMENT.size:
            return MALFORMED
        if self._counters_of is None:
            return UNRECOGNIZED
        counters = self._counters_of(session.source, session.ssid)
        if counters is None:
            return UNRECOGNIZED
        sent = DIRECT_MEASUREMENT.unpack(value)[0]
        received, reflected = counters
        DIRECT_MEASUREMENT.pack_into(value, 0, sent, received & _LOW_32, reflected & _LOW_32)
        return 0

    def _fill_path_report(self, value: memoryview, session: _Session) -> int:
        if len(value) % PATH_REPORT.size:
            return MALFORMED
        for at in range(0, len(value), PATH_REPORT.size):
            ssid = PATH_REPORT.unpack_from(value, at)[0]
            report = None
            if self._counted_of is not None:
                report = self._counted_of(session.source, ssid)
            report = report or self.received(session.peer, ssid) or PathReport(ssid)
            PATH_REPORT.pack_into(value, at, *report)
        return 0
