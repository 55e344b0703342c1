"""The asking end of STAMP: one session measures one path (RFC 8762 section 4.2).

It numbers the probes, matches the answers, says when an answer is overdue, and counts. Nothing
here is a verdict about the path: an answer that comes after its deadline takes its loss back.

All times are integer nanoseconds on the session clock: monotonic, plus an offset to 1970 that is
fixed when the process starts. The caller drains its sockets before it calls `handle_timer`, so
that an answer that waited in the kernel while we did not run is never called overdue.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from appliance.stamp.errors import ForgedPacket, MalformedPacket, StampError, UnexpectedAnswer
from appliance.stamp.interval import Interval
from appliance.stamp.packet import (
    Authenticator,
    ErrorEstimate,
    base_size,
    decode_timestamp,
    encode_error_estimate,
    encode_ptp,
    pack_sender,
    parse_reflector,
)
from appliance.stamp.tlv import PathReport, encode_padding, is_sealed, seal
from appliance.stamp.window import Sample

MS: Final = 1_000_000
ERROR_ESTIMATE: Final = encode_error_estimate(ErrorEstimate(False, True, 100_000))
_LOW_32 = 0xFFFFFFFF
_HALF = 1 << 31


class Answer(NamedTuple):
    """A probe that came back."""

    sequence: int
    sent_ns: int
    received_ns: int
    delay_ns: int  # two-way, without the time spent in the reflector
    was_overdue: bool  # it had been counted lost, and is not any more
    tlvs: bytes  # of the answer; empty when their integrity failed


@dataclass(slots=True)
class SenderCounters:
    """What came in and was no good; each is also an error that `receive` raised, unless noted."""

    malformed: int = 0
    forged: int = 0
    foreign: int = 0  # another session's SSID
    duplicate: int = 0  # answered before, or given up long ago
    never_sent: int = 0
    absurd: int = 0  # no error: the reflector's times were impossible and not used
    unsealed: int = 0  # no error: the TLVs' integrity failed and they were left out


class SessionSender:
    """One STAMP session."""

    # Cheap to read for whoever watches many sessions:
    next_sequence: int
    last_answered_sent_ns: int | None  # send time of the latest-sent probe that was answered
    unanswered: int  # overdue probes sent after that one
    unanswered_since_ns: int | None  # send time of the first of them
    answers_in_row: int  # since a probe was last overdue

    __slots__ = (
        "_authenticator",
        "_awaited",
        "_base_size",
        "_capacity",
        "_deviation_ns",
        "_floor_ns",
        "_forward_lost",
        "_grace_ns",
        "_grace_until",
        "_highest_answered",
        "_highest_overdue",
        "_interval",
        "_k",
        "_longest_ns",
        "_lost",
        "_overdue",
        "_reflector_sequence",
        "_smoothed_ns",
        "_timeout_ns",
        "answers_in_row",
        "counters",
        "last_answered_sent_ns",
        "next_sequence",
        "ssid",
        "unanswered",
        "unanswered_since_ns",
    )

    def __init__(
        self,
        ssid: int,
        *,
        key: bytes | None = None,
        floor_ns: int = 4 * MS,
        k: int = 4,
        initial_timeout_ns: int = 500 * MS,
        longest_timeout_ns: int = 3_000 * MS,
        capacity: int = 256,
        first_sequence: int = 0,
    ) -> None:
        """An answer is overdue `max(floor_ns, k * deviation)` after the smoothed delay.

        That is never later than `longest_timeout_ns`; before the first answer it is
        `initial_timeout_ns`. `ssid` is 1..65535, and one of its own for each path to a far end.
        `capacity` bounds the probes awaited, and as many again that are overdue.
        """
        if not 0 < ssid < 1 << 16 or min(floor_ns, k, initial_timeout_ns, capacity) < 1:
            msg = f"no such session: ssid {ssid}, floor {floor_ns} ns, k {k}, capacity {capacity}"
            raise ValueError(msg)
        self.ssid = ssid
        self.counters = SenderCounters()
        self.next_sequence = first_sequence
        self.last_answered_sent_ns = None
        self.unanswered = 0
        self.unanswered_since_ns = None
        self.answers_in_row = 0
        self._authenticator = None if key is None else Authenticator(key)
        self._base_size = base_size(self._authenticator)
        self._floor_ns = floor_ns
        self._k = k
        self._longest_ns = longest_timeout_ns
        self._capacity = capacity
        self._timeout_ns = initial_timeout_ns
        self._smoothed_ns: int | None = None
        self._deviation_ns = 0
        # Send times by sequence number, oldest first. Numbers here go on past 2^32.
        self._awaited: dict[int, int] = {}
        self._overdue: dict[int, int] = {}
        self._grace_ns = 0  # by how much the deadlines moved of probes before `_grace_until`
        self._grace_until = 0
        self._highest_answered = first_sequence - 1
        self._highest_overdue = first_sequence - 1
        self._lost = 0  # overdue and not answered since
        self._reflector_sequence: int | None = None
        self._forward_lost = 0  # probes up to `_highest_answered` that the reflector never saw
        self._interval = Interval()

    # -- probes ------------------------------------------------------------------------------

    def probe(self, now_ns: int, *, tlvs: bytes = b"", pad_to: int | None = None) -> bytes:
        """The next probe, to be sent at once. `pad_to` is the size of the UDP payload wanted.

        Raises ValueError, without having used a number, when padding cannot make that size.
        """
        sequence = self.next_sequence
        wire = sequence & _LOW_32
        packet = pack_sender(
            wire, encode_ptp(now_ns), ERROR_ESTIMATE, self.ssid, self._authenticator
        )
        if tlvs:
            packet += tlvs if self._authenticator is None else seal(wire, tlvs, self._authenticator)
        if pad_to is not None and pad_to != len(packet):
            packet += encode_padding(pad_to - len(packet))
        self.next_sequence = sequence + 1
        if len(self._awaited) >= self._capacity:  # nobody calls handle_timer
            self._give_up(next(iter(self._awaited)))
        self._awaited[sequence] = now_ns
        return packet

    # -- answers -----------------------------------------------------------------------------

    def receive(self, packet: bytes, received_ns: int) -> Answer:
        """Match an answer to its probe. Raises StampError for what is none, and changes nothing."""
        try:
            answer = parse_reflector(packet, self._authenticator)
        except StampError as error:
            self._count(error)
            raise
        if answer.ssid != self.ssid:
            self.counters.foreign += 1
            msg = f"SSID {answer.ssid} in session {self.ssid}"
            raise UnexpectedAnswer(msg)

        newest = self.next_sequence - 1
        sequence = newest - ((newest - answer.sender_sequence) & _LOW_32)
        sent_ns = self._awaited.get(sequence)
        was_overdue = sent_ns is None
        if sent_ns is None:
            sent_ns = self._overdue.get(sequence)
            if sent_ns is None:
                raise self._unexpected(sequence, answer.sender_sequence)
        if answer.sender_timestamp != encode_ptp(sent_ns):
            self.counters.forged += 1
            msg = f"the answer to {sequence} does not repeat our timestamp"
            raise ForgedPacket(msg)
        tlvs = b""
        if len(packet) > self._base_size:
            tlvs = self._check_tlvs(packet[self._base_size :], answer.sequence)

        if was_overdue:
            del self._overdue[sequence]
            self._lost -= 1
        else:
            del self._awaited[sequence]
        delay_ns = self._measure(
            sent_ns,
            decode_timestamp(answer.receive_timestamp, answer.error_estimate),
            decode_timestamp(answer.timestamp, answer.error_estimate),
            received_ns,
        )
        self._interval.count_answer(sequence, was_overdue)
        self._smooth(delay_ns)
        self._follow(sequence, answer.sequence, sent_ns)
        self.answers_in_row += 1
        return Answer(sequence, sent_ns, received_ns, delay_ns, was_overdue, tlvs)

    def _count(self, error: StampError) -> None:
        if isinstance(error, ForgedPacket):
            self.counters.forged += 1
        else:
            self.counters.malformed += 1

    def _unexpected(self, sequence: int, wire: int) -> UnexpectedAnswer:
        if sequence >= 0 and self.next_sequence - sequence < _HALF:
            self.counters.duplicate += 1
            return UnexpectedAnswer(f"probe {wire} was answered before, or given up")
        self.counters.never_sent += 1
        return UnexpectedAnswer(f"probe {wire} was never sent")

    def _check_tlvs(self, tlvs: bytes, sequence: int) -> bytes:
        """What of the TLVs can be believed: the packet itself has been checked already."""
        if self._authenticator is None:
            return tlvs
        try:
            if is_sealed(sequence, tlvs, self._authenticator):
                return tlvs
        except MalformedPacket:
            pass
        self.counters.unsealed += 1
        return b""

    def _measure(self, t1: int, t2: int, t3: int, t4: int) -> int:
        """The two-way delay, and the one-way delays into the interval."""
        whole = t4 - t1
        dwell = t3 - t2
        if 0 <= dwell <= whole:
            self._interval.count_delay(whole - dwell, t2 - t1, t4 - t3)
            return whole - dwell
        # A receive timestamp of ours that went back with the wall clock, or a reflector's times
        # that no clock gives: what is known is how long it took in all.
        self.counters.absurd += 1
        whole = max(0, whole)
        self._interval.count_two_way(whole)
        return whole

    def _smooth(self, delay_ns: int) -> None:
        """Smoothed delay and deviation with the gains of RFC 6298 section 2."""
        if self._smoothed_ns is None:
            self._smoothed_ns = delay_ns
            self._deviation_ns = delay_ns // 2
        else:
            error_ns = delay_ns - self._smoothed_ns
            self._smoothed_ns += error_ns >> 3
            self._deviation_ns += (abs(error_ns) - self._deviation_ns) >> 2
        margin_ns = self._k * self._deviation_ns
        if margin_ns < self._floor_ns:
            margin_ns = self._floor_ns
        self._timeout_ns = min(self._smoothed_ns + margin_ns, self._longest_ns)

    def _follow(self, sequence: int, reflected: int, sent_ns: int) -> None:
        """Keep account of which probes the reflector never saw, by its own numbers.

        Between two answers, the reflector's numbers advance by what it received, ours by what we
        sent. A stateless reflector repeats our numbers: then all loss counts as backward.
        """
        previous = self._reflector_sequence
        if previous is None:
            # Numbers above ours: the session is older there than here. Start from what is.
            advance = reflected + 1 if reflected <= sequence else sequence - self._highest_answered
            self._reflector_sequence = reflected
        else:
            advance = (reflected - previous) & _LOW_32
            if advance >= _HALF:  # a straggler, or the reflector started anew
                advance = reflected + 1 if sequence > self._highest_answered else 0
            if advance:
                self._reflector_sequence = reflected
        ahead = sequence - self._highest_answered
        if ahead > 0:
            self._highest_answered = sequence
            self.last_answered_sent_ns = sent_ns
            self._forward_lost += ahead
            if self.unanswered:
                self.unanswered = max(0, self._highest_overdue - sequence)
                self.unanswered_since_ns = (
                    self._overdue.get(sequence + 1, sent_ns) if self.unanswered else None
                )
        self._forward_lost = max(0, self._forward_lost - advance)

    # -- deadlines ---------------------------------------------------------------------------

    def next_deadline_ns(self) -> int | None:
        """When to call `handle_timer`; None while no answer is awaited."""
        for sequence, sent_ns in self._awaited.items():
            return sent_ns + self._timeout_ns + self._grace(sequence)
        return None

    def next_late_ns(self) -> int | None:
        """When `is_late` will become true; None while no answer is awaited or known delay."""
        if self._smoothed_ns is None:
            return None
        margin_ns = max(MS, 2 * self._deviation_ns)
        for sequence, sent_ns in self._awaited.items():
            return sent_ns + self._smoothed_ns + margin_ns + self._grace(sequence)
        return None

    def is_late(self, now_ns: int) -> bool:
        """Is an answer later than usual, though not overdue yet? A burst of probes will tell."""
        late_ns = self.next_late_ns()
        return late_ns is not None and now_ns >= late_ns

    def handle_timer(self, now_ns: int, shift_ns: int = 0) -> tuple[tuple[int, int], ...]:
        """Give up the probes whose deadline has passed: (sequence number, send time) of each.

        `shift_ns` is by how much the caller itself was late: the deadlines of all awaited probes
        move by it first.
        """
        if shift_ns > 0 and self._awaited:
            if next(iter(self._awaited)) >= self._grace_until:
                self._grace_ns = 0
            self._grace_ns = min(self._grace_ns + shift_ns, self._longest_ns)
            self._grace_until = self.next_sequence
        overdue = []
        for sequence, sent_ns in self._awaited.items():
            if sent_ns + self._timeout_ns + self._grace(sequence) > now_ns:
                break
            overdue.append((sequence, sent_ns))
        for sequence, _ in overdue:
            self._give_up(sequence)
        return tuple(overdue)

    def _grace(self, sequence: int) -> int:
        return self._grace_ns if sequence < self._grace_until else 0

    def _give_up(self, sequence: int) -> None:
        sent_ns = self._awaited.pop(sequence)
        if len(self._overdue) >= self._capacity:
            del self._overdue[next(iter(self._overdue))]
        self._overdue[sequence] = sent_ns
        self._highest_overdue = sequence
        self._lost += 1
        self._interval.count_overdue(sequence)
        self.answers_in_row = 0
        if sequence > self._highest_answered:
            self.unanswered += 1
            if self.unanswered_since_ns is None:
                self.unanswered_since_ns = sent_ns

    # -- results -----------------------------------------------------------------------------

    def take_sample(self, now_ns: int) -> Sample | None:
        """Close the interval: what was resolved in it, or None when nothing was."""
        # Only what lies before an answered probe is known to be lost in one direction.
        settled = self._lost - max(0, self._highest_overdue - self._highest_answered)
        forward = min(self._forward_lost, settled)
        return self._interval.close(now_ns, forward, settled - forward)

    def arrived(self, report: PathReport) -> int:
        """How many of the `unanswered` probes arrived there, by a report that came another way.

        0 means that the way forth is cut; as many as are unanswered, that only the way back is.
        """
        newest = self.next_sequence - 1
        highest = newest - ((newest - report.highest) & _LOW_32)
        if highest <= self._highest_answered:
            return 0
        seen = -1 if self._reflector_sequence is None else self._reflector_sequence
        arrived = (report.received - 1 - seen) & _LOW_32
        if arrived >= _HALF:  # the reflector started anew
            arrived = report.received
        in_flight = max(0, highest - self._highest_overdue)  # no verdict on these yet
        return min(self.unanswered, max(0, arrived - in_flight))
