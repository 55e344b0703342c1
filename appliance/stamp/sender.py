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
from appliance.stamp.interval import FOLD, Interval
from appliance.stamp.packet import (
    PTP_FORMAT,
    SECOND,
    Authenticator,
    ErrorEstimate,
    base_size,
    encode_error_estimate,
    join_ntp,
    pack_sender,
    parse_reflector,
)
from appliance.stamp.sample import Sample
from appliance.stamp.tlv import PathReport, encode_padding, is_sealed, seal

MS: Final = 1_000_000
SUSPECT_FLOOR_NS: Final = MS
ERROR_ESTIMATE: Final = encode_error_estimate(ErrorEstimate(False, True, 100_000))
_LOW_32 = 0xFFFFFFFF
_HALF = 1 << 31
_new = tuple.__new__


class Answer(NamedTuple):
    """A probe that came back."""

    sequence: int
    sent_ns: int
    received_ns: int
    delay_ns: int  # two-way, without the time spent in the reflector
    was_overdue: bool  # it had been counted lost, and is not any more
    tlvs: bytes  # of the answer; empty when their integrity failed
    forward_ns: int | None  # the way forth, by two clocks that need not agree; None: absurd times


@dataclass(slots=True)
class SenderCounters:
    """What came in and was no good; each is also an error that `receive` raised, unless noted."""

    malformed: int = 0
    forged: int = 0
    foreign: int = 0  # another session's SSID
    duplicate: int = 0  # answered before, or given up long ago
    stale: int = 0  # so late that its probe stays lost
    never_sent: int = 0
    absurd: int = 0  # no error: the reflector's times were impossible and not used
    unsealed: int = 0  # no error: the TLVs' integrity failed and they were left out


class SessionSender:
    """One STAMP session."""

    # Cheap to read for whoever watches many sessions:
    next_sequence: int
    unanswered: int  # overdue probes sent after the latest-sent one that was answered
    answers_in_row: int  # since a probe was last overdue
    forward_ns: int | None  # the way forth of the latest answer, as in `Answer`; None: not known

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
        "_is_seasoned",
        "_k",
        "_longest_ns",
        "_lost",
        "_overdue",
        "_reflector_next",
        "_smoothed_ns",
        "_timeout_ns",
        "answers_in_row",
        "counters",
        "forward_ns",
        "next_sequence",
        "ssid",
        "unanswered",
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

        That is never later than `longest_timeout_ns`, after which a probe is lost for good; before
        the first answer it is `initial_timeout_ns`. `ssid` is 1..65535, and one of its own for each
        path to a far end.
        `capacity` bounds the probes awaited, and as many again that are overdue.
        """
        if not 0 < ssid < 1 << 16 or min(floor_ns, k, initial_timeout_ns, capacity) < 1:
            msg = f"no such session: ssid {ssid}, floor {floor_ns} ns, k {k}, capacity {capacity}"
            raise ValueError(msg)
        self.ssid = ssid
        self.counters = SenderCounters()
        self.next_sequence = first_sequence
        self.unanswered = 0
        self.answers_in_row = 0
        self.forward_ns = None
        self._authenticator = None if key is None else Authenticator(key)
        self._base_size = base_size(self._authenticator)
        self._floor_ns = floor_ns
        self._k = k
        self._longest_ns = longest_timeout_ns
        self._capacity = capacity
        self._timeout_ns = initial_timeout_ns
        self._smoothed_ns = -1  # not known yet
        self._is_seasoned = False  # it is, by more than the first answer
        self._deviation_ns = 0
        # (sequence number, send time) by the number on the wire, oldest first. The sequence
        # number itself goes on past 2^32.
        self._awaited: dict[int, tuple[int, int]] = {}
        self._overdue: dict[int, tuple[int, int]] = {}
        self._grace_ns = 0  # by how much the deadlines moved of probes before `_grace_until`
        self._grace_until = 0
        self._highest_answered = first_sequence - 1
        self._highest_overdue = first_sequence - 1
        self._lost = 0  # overdue and not answered since
        self._reflector_next = 0  # its next number if nothing is lost
        self._forward_lost = 0  # probes up to `_highest_answered` that the reflector never saw
        self._interval = Interval()

    # -- probes ------------------------------------------------------------------------------

    def probe(self, now_ns: int, *, tlvs: bytes = b"", pad_to: int | None = None) -> bytes:
        """The next probe, to be sent at once. `pad_to` is the size of the UDP payload wanted.

        Raises ValueError, without having used a number, when padding cannot make that size.
        """
        sequence = self.next_sequence
        wire = sequence & _LOW_32
        seconds = now_ns // SECOND
        packet = pack_sender(
            (wire, seconds & _LOW_32, now_ns - seconds * SECOND, ERROR_ESTIMATE, self.ssid),
            self._authenticator,
        )
        if tlvs:
            packet += tlvs if self._authenticator is None else seal(wire, tlvs, self._authenticator)
        if pad_to is not None and pad_to != len(packet):
            packet += encode_padding(pad_to - len(packet))
        self.next_sequence = sequence + 1
        if len(self._awaited) >= self._capacity:  # nobody calls handle_timer
            self._give_up(next(iter(self._awaited)))
        self._awaited[wire] = (sequence, now_ns)
        return packet

    # -- answers -----------------------------------------------------------------------------

    def receive(self, packet: bytes, received_ns: int) -> Answer:
        """Match an answer to its probe. Raises StampError for what is none, and changes nothing."""
        # Thousands of packets a second pass here: locals and plain arithmetic, few calls.
        try:
            fields = parse_reflector(packet, self._authenticator)
        except StampError as error:
            self._count(error)
            raise
        reflected, t3_s, t3_f, estimate, ssid, t2_s, t2_f, wire, t1_s, t1_f, _, _ = fields
        if ssid != self.ssid:
            self.counters.foreign += 1
            msg = f"SSID {ssid} in session {self.ssid}"
            raise UnexpectedAnswer(msg)
        was_overdue = False
        probe = self._awaited.get(wire)
        if probe is None:
            probe = self._overdue.get(wire)
            if probe is None:
                raise self._unexpected(wire)
            was_overdue = True
        sequence, sent_ns = probe
        if t1_s * SECOND + t1_f != sent_ns:
            self.counters.forged += 1
            msg = f"the answer to {wire} does not repeat our timestamp"
            raise ForgedPacket(msg)
        if received_ns - sent_ns > self._longest_ns:
            # Tmax of RFC 7680 section 2.2. WireGuard keeps what it is given while nobody answers
            # its handshakes: delivered minutes later, it says nothing of the path's delay.
            self.counters.stale += 1
            msg = f"the answer to {wire} came after {(received_ns - sent_ns) // MS} ms"
            raise UnexpectedAnswer(msg)
        tlvs = b""
        if len(packet) > self._base_size:
            tlvs = self._check_tlvs(packet[self._base_size :], reflected)

        # The two-way delay, (T4 - T1) - (T3 - T2), and how long the way forth took: T2 - T1.
        delay_ns = received_ns - sent_ns
        if estimate & PTP_FORMAT:
            forward_ns = t2_s * SECOND + t2_f - sent_ns
            dwell_ns = (t3_s - t2_s) * SECOND + t3_f - t2_f
        else:
            t2 = join_ntp(t2_s, t2_f)
            forward_ns, dwell_ns = t2 - sent_ns, join_ntp(t3_s, t3_f) - t2
        interval = self._interval
        if 0 <= dwell_ns <= delay_ns:
            delay_ns -= dwell_ns
            forward: int | None = forward_ns
            self.forward_ns = forward_ns
        else:
            # A receive time of ours that went back with the wall clock, or times of the reflector
            # that no clock gives: what is known is how long it took in all.
            self.counters.absurd += 1
            if delay_ns < 0:
                delay_ns = 0
            forward = None
        interval.pending.append((delay_ns, forward))
        if len(interval.pending) >= FOLD:
            interval.fold()

        # Smoothed delay and deviation with the gains of RFC 6298 section 2. The first answer of all
        # has waited for a handshake, as none will again: with the second they begin anew.
        smoothed_ns = self._smoothed_ns
        if not self._is_seasoned:
            self._is_seasoned = smoothed_ns >= 0
            smoothed_ns = delay_ns
            deviation_ns = delay_ns >> 1
        else:
            error_ns = delay_ns - smoothed_ns
            smoothed_ns += error_ns >> 3
            deviation_ns = self._deviation_ns
            deviation_ns += ((error_ns if error_ns > 0 else -error_ns) - deviation_ns) >> 2
        self._smoothed_ns = smoothed_ns
        self._deviation_ns = deviation_ns
        margin_ns = self._k * deviation_ns
        timeout_ns = smoothed_ns + (margin_ns if margin_ns > self._floor_ns else self._floor_ns)
        self._timeout_ns = timeout_ns if timeout_ns < self._longest_ns else self._longest_ns

        if was_overdue:
            del self._overdue[wire]
            self._lost -= 1
            interval.take_back(sequence)
            self._follow(sequence, reflected)
        else:
            del self._awaited[wire]
            if sequence == self._highest_answered + 1 and reflected == self._reflector_next:
                # Nothing was lost since the last answer, so nothing is overdue after it either.
                self._highest_answered = sequence
                self._reflector_next = reflected + 1
            else:
                self._follow(sequence, reflected)
        self.answers_in_row += 1
        # What Answer(...) does, without the Python frame of a named tuple's constructor.
        return _new(Answer, (sequence, sent_ns, received_ns, delay_ns, was_overdue, tlvs, forward))

    def _count(self, error: StampError) -> None:
        if isinstance(error, ForgedPacket):
            self.counters.forged += 1
        else:
            self.counters.malformed += 1

    def _unexpected(self, wire: int) -> UnexpectedAnswer:
        behind = (self.next_sequence - wire) & _LOW_32
        if 0 < behind <= min(self.next_sequence, _HALF):
            self.counters.duplicate += 1
            return UnexpectedAnswer(f"probe {wire} was answered before, or given up")
        self.counters.never_sent += 1
        return UnexpectedAnswer(f"probe {wire} was never sent")

    def _check_tlvs(self, tlvs: bytes, reflected: int) -> bytes:
        """What of the TLVs can be believed: the packet itself has been checked already."""
        if self._authenticator is None:
            return tlvs
        try:
            if is_sealed(reflected, tlvs, self._authenticator):
                return tlvs
        except MalformedPacket:
            pass
        self.counters.unsealed += 1
        return b""

    def _follow(self, sequence: int, reflected: int) -> None:
        """Keep account of which probes the reflector never saw, by its own numbers.

        Between two answers, the reflector's numbers advance by what it received, ours by what we
        sent. A stateless reflector repeats our numbers: then all loss counts as backward.
        """
        ahead = sequence - self._highest_answered
        arrived = (reflected + 1 - self._reflector_next) & _LOW_32
        if arrived <= _HALF:
            self._reflector_next = (reflected + 1) & _LOW_32
        elif ahead > 0:  # the reflector started anew
            arrived = reflected + 1
            self._reflector_next = reflected + 1
        else:  # a straggler that its successors overtook on the way back
            arrived = 0
        if ahead > 0:
            self._highest_answered = sequence
            self._forward_lost += ahead
            if self.unanswered:
                self.unanswered = max(0, self._highest_overdue - sequence)
        # More arrived than were sent when the network duplicates, or the session is older there.
        self._forward_lost = max(0, self._forward_lost - arrived)

    # -- deadlines ---------------------------------------------------------------------------

    @property
    def is_awaiting(self) -> bool:
        """Is there a probe without an answer or a verdict?"""
        return bool(self._awaited)

    def next_deadline_ns(self) -> int | None:
        """When to call `handle_timer`; None while no answer is awaited."""
        for sequence, sent_ns in self._awaited.values():
            return sent_ns + self._timeout_ns + self._grace(sequence)
        return None

    def next_late_ns(self) -> int | None:
        """From when on an answer is later than usual, though not overdue: a burst will tell.

        None while no answer is awaited or no delay known.
        """
        if self._smoothed_ns < 0:
            return None
        # Twice the deviation would be exceeded by one answer in nine, of a normal distribution.
        for sequence, sent_ns in self._awaited.values():
            return sent_ns + self._smoothed_ns + self.margin_ns + self._grace(sequence)
        return None

    def suspect(self) -> None:
        """Give the answers that are awaited less time, until one comes: somebody is in a hurry.

        Only the floor of the margin sinks. What the path's own deviation asks for stays.
        """
        if self._smoothed_ns >= 0:
            self._timeout_ns = min(self._timeout_ns, self._smoothed_ns + self.margin_ns)

    def handle_timer(self, now_ns: int, shift_ns: int = 0) -> tuple[tuple[int, int], ...]:
        """Give up the probes whose deadline has passed: (sequence number, send time) of each.

        `shift_ns` is by how much the caller itself was late: the deadlines of all awaited probes
        move by it first.
        """
        if shift_ns > 0:
            self._shift(shift_ns)
        overdue = []
        for probe in self._awaited.values():
            sequence, sent_ns = probe
            if sent_ns + self._timeout_ns + self._grace(sequence) > now_ns:
                break
            overdue.append(probe)
        for sequence, _ in overdue:
            self._give_up(sequence & _LOW_32)
        return tuple(overdue)

    def _shift(self, shift_ns: int) -> None:
        """Move the deadlines of the probes that are awaited now, and of no later ones."""
        for oldest, _ in self._awaited.values():
            if oldest >= self._grace_until:
                self._grace_ns = 0
            self._grace_ns = min(self._grace_ns + shift_ns, self._longest_ns)
            self._grace_until = self.next_sequence
            return

    def _grace(self, sequence: int) -> int:
        return self._grace_ns if sequence < self._grace_until else 0

    def _give_up(self, wire: int) -> None:
        sequence, _ = self._overdue[wire] = self._awaited.pop(wire)
        if len(self._overdue) > self._capacity:
            del self._overdue[next(iter(self._overdue))]
        self._highest_overdue = sequence
        self._lost += 1
        self._interval.lost += 1
        self.answers_in_row = 0
        if sequence > self._highest_answered:
            self.unanswered += 1

    # -- results -----------------------------------------------------------------------------

    def take_sample(self, now_ns: int) -> Sample | None:
        """Close the interval: what was resolved in it, or None when nothing was."""
        # Only what lies before an answered probe is known to be lost in one direction.
        settled = self._lost - max(0, self._highest_overdue - self._highest_answered)
        forward = min(self._forward_lost, settled)
        sample = self._interval.close(now_ns, forward, settled - forward)
        self._interval.overdue_from = self._highest_overdue + 1
        return sample

    def due_there_ns(self, sent_ns: int) -> int | None:
        """When a probe that is sent then has arrived, if at all, by the far end's clock.

        None while it is not known how long the way forth takes.
        """
        return None if self.forward_ns is None else sent_ns + self.forward_ns + self.margin_ns

    @property
    def margin_ns(self) -> int:
        """How much later than usual a packet comes at most, as a rule."""
        return max(SUSPECT_FLOOR_NS, self._k * self._deviation_ns)

    def arrived(self, report: PathReport, at_ns: int) -> tuple[int, int]:
        """What a report that came another way, of the far end's time `at_ns`, says of the silence.

        How many probes since the latest that was answered should have been there by then, and how
        many of those were: none when the way forth is cut, all when only the way back is.
        """
        due, newest_due = 0, self._highest_answered
        for sequence, sent_ns in (*self._overdue.values(), *self._awaited.values()):
            if sequence > self._highest_answered:
                due_ns = self.due_there_ns(sent_ns)
                if due_ns is not None and due_ns <= at_ns:
                    due, newest_due = due + 1, max(newest_due, sequence)
        newest = self.next_sequence - 1
        highest = newest - ((newest - report.highest) & _LOW_32)
        if highest <= self._highest_answered:
            return due, 0
        arrived = (report.received - self._reflector_next) & _LOW_32
        if arrived >= _HALF:  # the reflector started anew
            arrived = report.received
        early = max(0, highest - newest_due)  # were there sooner than they had to be
        return due, min(due, max(0, arrived - early))
