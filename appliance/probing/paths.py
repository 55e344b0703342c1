"""Measures every path by STAMP and tells `decide` what it found. It judges no path itself.

One timer and one socket serve all paths. The timer sends what is due, and when an answer should
have come it reads those that the kernel has stamped and queued, and only then looks at deadlines.
Answers wake nobody, so paths at one pace and of one delay cost two wake-ups a tick and not one for
each packet (docs/adr/0003-one-prober-timer.md, 0007-one-socket-for-all-planes.md).

Times are integer nanoseconds on the session clock: monotonic, plus an offset fixed at start.
"""

import asyncio
import heapq
import math
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from appliance import clock
from appliance.contract.ids import PathId, Slot
from appliance.core.events import (
    AnswerLate,
    AnswerReturned,
    Event,
    FarEndReported,
    LoopStalled,
    PathsSampled,
    ProbeOverdue,
)
from appliance.probing.side import SIDE_SSID, SideSession, plane_of_ssid, ssid_of
from appliance.probing.sockets import BATCH, Outgoing, ProbeSocket
from appliance.stamp.errors import StampError
from appliance.stamp.packet import Octets
from appliance.stamp.sample import Sample
from appliance.stamp.sender import Answer, SessionSender
from appliance.stamp.tlv import Type, decode_path_report, encode_path_report, find

MS = 1_000_000
SLACK_NS = MS  # what is due this soon is done now: one wake-up instead of two
EARLY_NS = MS // 2  # the event loop rounds up to milliseconds: half of it before, half after
STALL_NS = 20 * MS  # a timer this late means that we did not run, not that the paths are bad
BURST = 3  # probes of a verification
SAMPLE_PROBES = 10  # probes in a measurement interval ...
SAMPLE_LEAST_NS = 100 * MS  # ... that is at least this long: a fast pace means that there is doubt
RETURNED = 5  # answers in a row after which a path is not failing any more
FIRST_SAMPLE_NS = 200 * MS  # what a path is like is told so soon after its first probe
TRAFFIC_NS = 200 * MS  # how often real traffic is compared on a path, ...
TRAFFIC_PROBES = 20  # ... and with which probe at the latest, so that a doubt is soon settled
TICK_NS = 10 * MS
SPREAD_NS = 100 * MS  # paces this slow are spread over their interval in ticks
GOLDEN = 0.6180339887  # spreads any number of paths evenly
MOST_BATCHES = 16  # read at a time before others get a turn
PATIENCE_NS = 200 * MS  # how long a verdict waits for all to be read, whatever is sent to us
COURTESY_NS = 300 * MS  # the second one's first probe comes so much later: a handshake is quicker
SECOND = 0.5  # and its slow paces are so much of an interval behind the first one's
OPEN_GAP_NS = 5 * MS  # between the first probes of new paths: each takes a WireGuard handshake
OPEN_MOST = 32  # first probes that may await their answer at once: more would only make us wait
CONFIRM_PROBES = 5  # the MTU is confirmed with every fifth probe at most: at slow paces it costs
IDLE_NS = 1_000 * MS  # when there is nothing to wait for
TRACED = 64  # probes of a path that wait to be taken

Emit = Callable[[Event], None]
CountSent = Callable[[PathId], int | None]


def _ssid_at(key: bytes | None) -> int:
    """Where in an answer its SSID is."""
    return 14 if key is None else 26


@dataclass(frozen=True, slots=True)
class Measured:
    """A path to measure: from where to where its probes go, and whether ours come second.

    WireGuard's handshake fails when both ends begin it at once, and each end begins with the first
    probe that goes out later than 5 s after its last attempt. Two clocks that agree would make
    both ends fail together for ever, so one of them always probes later than the other.
    """

    pktinfo: bytes  # our end of its plane
    destination: bytes  # the endpoint of the far reflector
    mtu: int  # of the plane's device
    line: str  # the uplink's device: what was found out is of this one
    is_second: bool = False


class Traced(NamedTuple):
    """What one probe met: times in seconds on the monotonic clock, delays in microseconds."""

    sent: float
    delay_us: int  # two-way
    forward_us: int  # by two clocks that need not agree, as is the rest of `delay_us`


@dataclass(slots=True, eq=False)
class _Path:
    """One STAMP session, its pace, and what is asked beside it."""

    path: PathId
    destination: bytes
    pktinfo: bytes
    line: str
    session: SessionSender
    side: SideSession
    interval_ns: int
    first_ns: int  # no probe before
    due_ns: int
    sample_due_ns: int
    traffic_due_ns: int
    phase: float  # 0..1, its place among the paths of a slow pace
    watch_ns: int | None = None  # its entry among the deadlines; an entry of another time is stale
    has_answered: bool = False
    is_late: bool = False  # AnswerLate was told since the last answer
    is_failing: bool = False  # a probe was overdue, and few were answered since
    trace: deque[Traced] | None = None  # what its probes met, for somebody who wants each


class PathProber:
    """All STAMP sessions that this box sends. `emit` takes the events.

    Nothing here raises on what comes from the network.
    """

    def __init__(
        self,
        emit: Emit,
        *,
        socket: ProbeSocket,
        epoch_ns: int,
        key: bytes | None = None,
        count_sent: CountSent | None = None,
    ) -> None:
        """`count_sent` gives the real packets that left by a path, for Direct Measurement.

        None means that they cannot be compared with those of the time before.

        The socket is the prober's from now on.
        """
        self._emit = emit
        self._socket = socket
        self._epoch_ns = epoch_ns
        self._key = key
        self._ssid_at = _ssid_at(key)
        self._count_sent = count_sent
        self._loop = asyncio.get_running_loop()
        self._paths: dict[PathId, _Path] = {}
        self._by_answer: dict[tuple[bytes, int], _Path] = {}  # far endpoint and SSID
        self._outgoing: list[Outgoing] = []
        self._intervals: dict[PathId, int] = {}
        self._failing: set[PathId] = set()  # when they were measured last
        self._traced: frozenset[PathId] = frozenset()
        self._opening: set[_Path] = set()  # their first probe awaits its answer
        self._unopened: deque[_Path] = deque()  # it was due, and waits until there are fewer
        self._sends: list[tuple[int, int, _Path, bool]] = []  # due, tie, path, keeps the pace
        self._deadlines: list[tuple[int, int, _Path]] = []
        self._tie = 0
        self._timer: asyncio.TimerHandle | None = None
        self._armed_ns = 0
        self._behind_ns = 0  # since when deadlines wait for packets to be read; 0: they do not
        self._stalled_ns = 0  # by how much we did not, of deadlines that are still to be judged
        self._samples: list[tuple[PathId, Sample]] = []
        self._uplink_answered_ns: dict[Slot, int] = {}  # send time of the latest answered probe
        self.sent = 0
        self.answered = 0

    # -- what the supervisor asks for ----------------------------------------------------------

    def measure(self, paths: Mapping[PathId, Measured]) -> None:
        """Measure these paths. Sessions of paths that stay as they are go on."""
        before, self._paths = self._paths, {}
        self._by_answer = {}
        self._failing |= {path for path, entry in before.items() if entry.is_failing}
        open_at = self._now()
        for path, wanted in paths.items():
            entry = before.pop(path, None)
            if entry is None or (entry.destination, entry.pktinfo, entry.line) != (
                wanted.destination,
                wanted.pktinfo,
                wanted.line,
            ):
                entry = self._open(path, wanted, open_at)
                open_at += OPEN_GAP_NS
            self._paths[path] = entry
            for session in (entry.session, entry.side):
                self._by_answer[entry.destination, session.ssid] = entry
        self._failing -= self._paths.keys()
        self._socket.hear({entry.pktinfo for entry in self._paths.values()})
        self._sends = [item for item in self._sends if self._paths.get(item[2].path) is item[2]]
        self._deadlines = [x for x in self._deadlines if self._paths.get(x[2].path) is x[2]]
        self._unopened = deque(x for x in self._unopened if self._paths.get(x.path) is x)
        self._opening = {x for x in self._opening if self._paths.get(x.path) is x}
        heapq.heapify(self._sends)
        heapq.heapify(self._deadlines)
        self._open_more(open_at)
        self._arm()

    def use_key(self, key: bytes | None) -> None:
        """Seal probes with another key, or none. All sessions end, to be opened by `measure`."""
        self._key = key
        self._ssid_at = _ssid_at(key)
        self.measure({})

    def set_interval(self, path: PathId, interval_s: float) -> None:
        """Probe a path at this pace from now on; a shorter pace takes effect at once."""
        self._intervals[path] = round(interval_s * 1e9)  # it may be opened later only
        entry = self._paths.get(path)
        if entry is None:
            return
        now = self._now()
        entry.interval_ns = self._intervals[path]
        sample_ns = max(SAMPLE_LEAST_NS, SAMPLE_PROBES * entry.interval_ns)
        entry.sample_due_ns = min(entry.sample_due_ns, now + sample_ns)
        traffic_ns = TRAFFIC_PROBES * entry.interval_ns
        entry.traffic_due_ns = min(entry.traffic_due_ns, now + traffic_ns)
        soon = max(self._next_due(entry, now), entry.first_ns)
        if entry.due_ns > soon:
            self._schedule(entry, soon)
            self._arm()

    def verify(self, path: PathId, alternative: PathId | None) -> None:
        """Send a burst on the path now, and ask over the alternative what arrives of its probes."""
        entry = self._paths.get(path)
        if entry is None:
            return
        entry.session.suspect()
        for _ in range(BURST):  # what holds up one of them holds up all: see liveness.MOMENT_S
            self._probe(entry)
        self._watch(entry)  # the deadlines have come nearer
        other = self._paths.get(alternative) if alternative is not None else None
        if other is not None and other.path.site == path.site:
            self._probe(other)
            self._question(entry, other)
        self._flush()
        self._arm()

    def _question(self, entry: _Path, other: _Path) -> None:
        """Ask over the other path what arrived: not before all that was sent should be there."""
        now = self._now()
        due_ns, forward_ns = entry.session.due_there_ns(now), other.session.forward_ns
        if due_ns is None or forward_ns is None:
            return  # nobody could tell what the answer says
        wait_ns = due_ns - now - forward_ns + other.session.margin_ns
        self._loop.call_later(max(0, wait_ns) / 1e9, self._ask, entry, other)

    def _ask(self, entry: _Path, other: _Path) -> None:
        if self._paths.get(entry.path) is entry and self._paths.get(other.path) is other:
            question = encode_path_report([entry.session.ssid])
            self._side(other, other.side.ask(self._now(), question))
            self._flush()

    def trace(self, paths: frozenset[PathId]) -> None:
        """Keep each answered probe of these paths, and of no others, until it is taken."""
        if paths == self._traced:
            return
        self._traced = paths
        for path, entry in self._paths.items():
            if path not in paths:
                entry.trace = None
            elif entry.trace is None:
                entry.trace = deque(maxlen=TRACED)

    def take_traces(self) -> dict[PathId, tuple[Traced, ...]]:
        """The probes of the traced paths that were answered since the call before, if any."""
        if self._traced:
            self._drain()  # what has arrived is not left waiting for the timer
        found = {}
        for path in self._traced:
            entry = self._paths.get(path)
            if entry is not None and entry.trace:
                found[path] = tuple(entry.trace)
                entry.trace.clear()
        return found

    def pace(self, path: PathId) -> float:
        """Seconds between two probes of a path, as last asked for."""
        return self._intervals.get(path, IDLE_NS) / 1e9

    def close(self) -> None:
        """Stop, and close the socket."""
        self.measure({})
        self._socket.close()
        if self._timer is not None:
            self._timer.cancel()

    # -- the timer -----------------------------------------------------------------------------

    def _now(self) -> int:
        return clock.monotonic_ns() + self._epoch_ns

    def _wake(self) -> None:
        self._timer = None  # it is spent: if nothing turns out to be due, it must be armed again
        now = self._now()
        late_ns = now - (self._behind_ns or self._armed_ns)  # while behind, we did run
        self._behind_ns = 0
        if late_ns >= STALL_NS:
            self._stalled_ns += late_ns
            self._emit(LoopStalled(late_ns / 1e9))
        self._send_due(now)
        self._check_deadlines(now + EARLY_NS)
        self._open_more(now)
        if not self._behind_ns:
            self._stalled_ns = 0
        if self._samples:
            samples, self._samples = tuple(self._samples), []
            self._emit(PathsSampled(samples))
        self._arm()

    def _arm(self) -> None:
        due = [queue[0][0] for queue in (self._sends, self._deadlines) if queue]
        at = min(due) if due else self._now() + IDLE_NS
        if self._timer is not None:
            if self._armed_ns == at:
                return
            self._timer.cancel()
        self._armed_ns = at
        self._timer = self._loop.call_at((at - EARLY_NS - self._epoch_ns) / 1e9, self._wake)

    # -- sending -------------------------------------------------------------------------------

    def _open(self, path: PathId, wanted: Measured, now: int) -> _Path:
        first_ns = now + (COURTESY_NS if wanted.is_second else 0)
        entry = _Path(
            path,
            wanted.destination,
            wanted.pktinfo,
            wanted.line,
            SessionSender(ssid_of(path.plane), key=self._key),
            SideSession(path, self._key, wanted.mtu, first_ns),
            self._intervals.get(path, IDLE_NS),
            first_ns=first_ns,
            due_ns=first_ns,
            sample_due_ns=first_ns + FIRST_SAMPLE_NS,
            traffic_due_ns=now + TRAFFIC_NS,
            phase=(len(self._paths) * GOLDEN + (SECOND if wanted.is_second else 0)) % 1,
            is_failing=path in self._failing,  # who was told waits to hear of its return
            trace=deque(maxlen=TRACED) if path in self._traced else None,
        )
        self._push(first_ns, entry, keeps_pace=True)
        return entry

    @staticmethod
    def _next_due(entry: _Path, now: int) -> int:
        """When to probe next: fast paces together, to save wake-ups, slow ones spread."""
        interval_ns = entry.interval_ns
        offset_ns = 0
        if interval_ns >= SPREAD_NS:
            offset_ns = int(entry.phase * interval_ns) // TICK_NS * TICK_NS
        return now - (now - offset_ns) % interval_ns + interval_ns

    def _open_more(self, now: int) -> None:
        """Let paths that waited for it be opened, as many as there is room for."""
        while self._unopened and len(self._opening) < OPEN_MOST:
            entry = self._unopened.popleft()
            if not entry.session.next_sequence:  # else it was probed as an alternative meanwhile
                self._opening.add(entry)
            self._schedule(entry, now)

    def _push(self, due_ns: int, entry: _Path, *, keeps_pace: bool) -> None:
        self._tie += 1
        heapq.heappush(self._sends, (due_ns, self._tie, entry, keeps_pace))

    def _schedule(self, entry: _Path, due_ns: int) -> None:
        """Set the time of the next regular probe; an older entry for it is passed over."""
        entry.due_ns = due_ns
        self._push(due_ns, entry, keeps_pace=True)

    def _send_due(self, now: int) -> None:
        sends = self._sends
        while sends and sends[0][0] <= now + SLACK_NS:
            due_ns, _, entry, keeps_pace = heapq.heappop(sends)
            if not keeps_pace:
                self._probe(entry)
                self._search_mtu(entry, now)
                continue
            if due_ns != entry.due_ns or self._paths.get(entry.path) is not entry:
                continue  # superseded by another pace
            if not (entry.session.next_sequence or self._may_open(entry)):
                continue
            self._probe(entry)
            if now >= entry.traffic_due_ns:
                self._compare(entry, now)
            self._search_mtu(entry, now)
            if now >= entry.sample_due_ns:
                self._close_sample(entry, now)
            self._schedule(entry, self._next_due(entry, now + SLACK_NS))
        self._flush()

    def _may_open(self, entry: _Path) -> bool:
        """May its first probe be sent now? Else it will be as soon as there is room."""
        if entry not in self._opening:
            if len(self._opening) >= OPEN_MOST:
                self._unopened.append(entry)
                return False
            self._opening.add(entry)
        return True

    def _probe(self, entry: _Path) -> None:
        # A clock of its own for each: what is sent one after the other in a tick would otherwise
        # seem to take longer and longer.
        probe = entry.session.probe(self._now())
        self._outgoing.append((probe, entry.destination, entry.pktinfo))
        self.sent += 1
        if entry.watch_ns is None:
            self._watch(entry)

    def _flush(self) -> None:
        """Send what has been made. What the kernel refuses is missed like any other probe."""
        self._socket.send(self._outgoing)
        self._outgoing.clear()

    def _side(self, entry: _Path, packet: bytes | None) -> None:
        """Send a question, beside the measurement."""
        if packet is not None:
            self._outgoing.append((packet, entry.destination, entry.pktinfo))

    def _compare(self, entry: _Path, now: int) -> None:
        """Have real traffic compared on a path that has any which was not compared yet."""
        if self._count_sent is None or entry.interval_ns > TRAFFIC_NS:
            return  # a hub's thousands of slow paths: reading counters would cost too much
        entry.traffic_due_ns = now + min(TRAFFIC_NS, TRAFFIC_PROBES * entry.interval_ns)
        self._side(entry, entry.side.ask_traffic(self._now(), self._count_sent(entry.path)))

    def _search_mtu(self, entry: _Path, now: int) -> None:
        search = entry.side.mtu
        if entry.is_failing or now < search.next_deadline_ns():
            return  # a path that does not answer small probes says nothing about sizes
        if not (search.is_confirmed and entry.session.next_sequence % CONFIRM_PROBES):
            self._side(entry, entry.side.ask_size(now))

    def _close_sample(self, entry: _Path, now: int) -> None:
        sample = entry.session.take_sample(now)
        if sample is None:
            return  # nothing is known yet: with the next probe it may be
        entry.sample_due_ns = now + max(SAMPLE_LEAST_NS, SAMPLE_PROBES * entry.interval_ns)
        self._samples.append((entry.path, sample))

    # -- receiving -----------------------------------------------------------------------------

    def _drain(self) -> bool:
        """Read the answers that wait. False when there may be more."""
        for _ in range(MOST_BATCHES):
            packets = self._socket.receive()
            for octets, source, pktinfo, received_ns, _, _ in packets:
                ssid = int.from_bytes(octets[self._ssid_at : self._ssid_at + 2])
                entry = self._by_answer.get((source, ssid))
                if entry is not None and entry.pktinfo == pktinfo:
                    self._receive(entry, ssid, octets, received_ns + self._epoch_ns)
            if len(packets) < BATCH:
                return True
        return False

    def _receive(self, entry: _Path, ssid: int, octets: bytes, received: int) -> None:
        try:
            if ssid >= SIDE_SSID:
                self._receive_side(entry, octets, received)
                return
            answer = entry.session.receive(octets, received)
        except StampError:
            return  # counted by the session
        self.answered += 1
        slot = entry.path.plane.local
        if answer.sent_ns > self._uplink_answered_ns.get(slot, 0):
            self._uplink_answered_ns[slot] = answer.sent_ns
        if not entry.has_answered:
            entry.has_answered = True
            self._opening.discard(entry)
            self._watch(entry)  # the deadline so far was that of an unknown delay
            self._close_sample(entry, self._now())  # somebody may wait for it
        entry.is_late = False
        if entry.trace is not None and answer.forward_ns is not None:
            sent = (answer.sent_ns - self._epoch_ns) / 1e9
            entry.trace.append(Traced(sent, answer.delay_ns // 1000, answer.forward_ns // 1000))
        if entry.is_failing or answer.was_overdue:
            self._returned(entry, answer)

    def _returned(self, entry: _Path, answer: Answer) -> None:
        session = entry.session
        if not session.unanswered and session.answers_in_row >= RETURNED:
            entry.is_failing = False
            entry.sample_due_ns = 0  # what it is like now is told with the next probe
        age_s = (self._now() - answer.sent_ns) / 1e9
        self._emit(
            AnswerReturned(entry.path, session.answers_in_row, age_s, is_late=answer.was_overdue)
        )

    def _receive_side(self, entry: _Path, octets: bytes, received: int) -> None:
        answer, told = entry.side.receive(octets, received)
        for event in told:
            self._emit(event)
        report = find(answer.tlvs, Type.PATH_REPORT)
        if report is not None and answer.forward_ns is not None:
            self._read_report(entry, report, answer.sent_ns + answer.forward_ns)

    def _read_report(self, entry: _Path, value: Octets, at_ns: int) -> None:
        for report in decode_path_report(value):
            plane = plane_of_ssid(report.ssid)
            other = self._paths.get(PathId(entry.path.site, plane))
            if other is None:
                continue
            due, arrived = other.session.arrived(report, at_ns)
            if due:
                self._emit(FarEndReported(other.path, due, arrived))

    # -- deadlines -----------------------------------------------------------------------------

    def _watch(self, entry: _Path) -> None:
        """Keep one entry among the deadlines for a path that awaits an answer."""
        deadline = None if entry.is_late else entry.session.next_late_ns()
        if deadline is None:
            deadline = entry.session.next_deadline_ns()
        padded = entry.side.next_deadline_ns()
        if padded is not None and (deadline is None or padded < deadline):
            deadline = padded
        if deadline is not None:
            deadline += -deadline % MS  # on a grid: one wake-up for paths of one delay
            self._tie += 1
            heapq.heappush(self._deadlines, (deadline, self._tie, entry))
        entry.watch_ns = deadline

    def _check_deadlines(self, now: int) -> None:
        deadlines = self._deadlines
        has_drained = False
        while deadlines and deadlines[0][0] <= now:
            at, _, entry = heapq.heappop(deadlines)
            if at != entry.watch_ns or self._paths.get(entry.path) is not entry:
                continue
            if not has_drained:
                has_drained = self._drain()
                if not has_drained and now - at < PATIENCE_NS:
                    heapq.heappush(deadlines, (at, -1, entry))  # judged when all has been read
                    self._behind_ns = self._now()
                    return
                has_drained = True
            if not (entry.session.is_awaiting or entry.side.padded_sizes):
                entry.watch_ns = None  # all is well: of a slow pace, that is nearly always so
                continue
            self._judge(entry, now, self._stalled_ns)
            self._watch(entry)

    def _judge(self, entry: _Path, now: int, stalled_ns: int) -> None:
        """Tell of answers that are late or overdue. Everything that waited has been read."""
        session = entry.session
        answered_ns = self._uplink_answered_ns.get(entry.path.plane.local)
        for _, sent_ns in session.handle_timer(now, stalled_ns):
            entry.is_failing = True
            self._opening.discard(entry)
            self._emit(
                ProbeOverdue(
                    entry.path,
                    (now - sent_ns) / 1e9,
                    session.unanswered,
                    (now - answered_ns) / 1e9 if answered_ns else math.inf,
                )
            )
        self._judge_sizes(entry, now, stalled_ns)
        if not entry.is_late:
            late_ns = session.next_late_ns()
            if late_ns is not None and now >= late_ns:
                entry.is_late = True
                self._emit(AnswerLate(entry.path, (now - late_ns) / 1e9))

    def _judge_sizes(self, entry: _Path, now: int, stalled_ns: int) -> None:
        side = entry.side
        awaited = len(side.padded_sizes)
        for event in side.handle_timer(now, stalled_ns, is_alive=not entry.is_failing):
            self._emit(event)
        if len(side.padded_sizes) < awaited and not entry.is_failing:
            # What is in doubt is not left to the path's own pace.
            self._push(side.mtu.next_deadline_ns(), entry, keeps_pace=False)
