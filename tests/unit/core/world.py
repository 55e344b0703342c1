"""A world in virtual time around `decide`: lines with impairments, real STAMP sessions, streams.

The sessions are `SessionSender` and `SessionReflector` themselves; what stands in for the rim is a
loop that behaves as `probing/paths.py` does: it drains before it judges, tells of late and overdue
answers, closes samples, sends bursts when asked to. Randomness is seeded, so a run repeats.

    branch                       the world                         hq
    uplink 1 "fibre" ---- line(1) ----+          +---- far(hq, 1) ---- uplink 1
                                      | internet |
    uplink 2 "dsl"   ---- line(2) ----+          +---- far(hq, 2) ---- uplink 2
"""

import heapq
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from appliance.config.intent import Intent, paths
from appliance.contract.ids import INTERNET, ClassName, PathId, Plane, SiteName, Slot
from appliance.core.actions import Action, MoveClass, SetProbeInterval, VerifyPath
from appliance.core.decide import decide, initial_state, next_deadline
from appliance.core.events import (
    AnswerLate,
    AnswerReturned,
    DeadlinePassed,
    Event,
    FarEndReported,
    IntentChanged,
    PathsSampled,
    ProbeOverdue,
    SteeringAdopted,
    TrafficSampled,
    UplinkChanged,
)
from appliance.core.state import State
from appliance.core.steering import Steering
from appliance.stamp.reflector import SessionReflector
from appliance.stamp.sender import SessionSender
from appliance.stamp.tlv import PathReport
from tests.unit.core.examples import facts

BURST = 3
SAMPLE_S = 0.1
SAMPLE_PROBES = 10
RETURNED = 5
MOVE_S = 0.001  # from a decision to packets on the other path
START = 1000.0


@dataclass
class Line:
    """Half a way: what an uplink does to packets. "out" is away from the branch."""

    delay_s: float = 0.005  # one way
    jitter_s: float = 0.0  # uniform, plus or minus
    loss_out: float = 0.0
    loss_in: float = 0.0
    cut_out: bool = False
    cut_in: bool = False
    stands_until: float = 0.0  # it keeps all packets until then, and loses none

    def cut(self) -> None:
        self.cut_out = self.cut_in = True

    def heal(self) -> None:
        self.cut_out = self.cut_in = False
        self.loss_out = self.loss_in = 0.0


@dataclass
class Session:
    path: PathId
    sender: SessionSender
    interval_s: float = 1.0
    due: float = START
    sample_due: float = START + SAMPLE_S
    is_late: bool = False
    is_failing: bool = False
    traffic: list[int] = field(default_factory=lambda: [0, 0])  # sent, lost


@dataclass
class Stream:
    """Voice-like packets of a class to a site."""

    class_name: ClassName
    site: SiteName
    rate: float
    sent: int = 0
    lost: list[float] = field(default_factory=list)


class World:
    """Runs a branch. Times are seconds of virtual time."""

    def __init__(self, intent: Intent, *, seed: int = 1, adopt: Steering | None = None) -> None:
        self.random = random.Random(seed)
        self.now = START
        self.lines = {u.slot: Line() for u in intent.uplinks}
        self.far = {(p.name, u.slot): Line() for p in intent.peers for u in p.uplinks}
        self.state: State = initial_state()
        self.log: list[tuple[float, Event, tuple[Action, ...]]] = []
        self.keep_log = True
        self.moves: list[tuple[float, MoveClass]] = []
        self.probes = 0
        self.streams: list[Stream] = []
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._tie = 0
        self._answered: dict[Slot, float] = {}
        self._reflector = SessionReflector(
            # Answers are made when probes are sent, some for later: it must never refuse one.
            session_rate=1000,
            session_burst=10**6,
            total_rate=1000,
            total_burst=10**7,
        )
        self.sessions: dict[PathId, Session] = {}
        self._routes: dict[tuple[ClassName, SiteName], PathId | None] = {}
        for number, path in enumerate(paths(intent), start=1):
            phase = self.random.random() * 0.02
            session = Session(path, SessionSender(number), due=START + phase)
            self.sessions[path] = session
            self._send_later(session)
        self.tell(IntentChanged(intent))
        if adopt is not None:
            self.tell(
                SteeringAdopted(
                    tuple((c, s, a) for (c, s), a in adopt.assignments.items()),
                    tuple(adopt.detours.items()),
                    adopt.gateway,
                )
            )
            for key, assignment in adopt.assignments.items():
                carriers = assignment.carriers
                if key[1] == INTERNET:
                    continue
                self._routes[key] = carriers[0].path if carriers else None
        for uplink in intent.uplinks:
            self.tell(UplinkChanged(facts(uplink.slot)))

    # -- for stories ---------------------------------------------------------------------------

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while True:
            deadline = next_deadline(self.state)
            at = self._heap[0][0] if self._heap else math.inf
            if deadline is not None and max(deadline, self.now) <= min(at, end):
                self.now = max(deadline, self.now)
                self.tell(DeadlinePassed())
                continue
            if at > end:
                break
            self.now = at
            heapq.heappop(self._heap)[2]()
        self.now = end

    def stream(self, class_name: ClassName, site: SiteName, rate: float) -> Stream:
        """Start a stream of real packets, by the routes that decisions make."""
        stream = Stream(class_name, site, rate)
        self.streams.append(stream)
        self._at(self.now + self.random.random() / rate, lambda: self._packet(stream))
        return stream

    def carrier(self, class_name: ClassName, site: SiteName) -> str | None:
        """The plane that carries a class now, as text."""
        held = self.state.sites[site].classes.get(class_name)
        if held is None or not held.assignment.carriers:
            return None
        return " ".join(str(c.path.plane) for c in held.assignment.carriers)

    def since(self, start: float, class_name: ClassName | None = None) -> list[MoveClass]:
        """The moves decided after `start`."""
        return [
            move
            for at, move in self.moves
            if at > start and (class_name is None or move.class_name == class_name)
        ]

    def first_move_after(self, start: float, class_name: ClassName) -> float:
        """Seconds from `start` to the first move of a class; infinite without one."""
        times = [at for at, m in self.moves if at > start and m.class_name == class_name]
        return min(times) - start if times else math.inf

    def tell(self, event: Event) -> tuple[Action, ...]:
        """Have an event decided, and carry out what comes of it."""
        self.state, actions = decide(self.state, event, self.now)
        if self.keep_log:
            self.log.append((self.now, event, actions))
        for action in actions:
            if isinstance(action, MoveClass) and action.site != INTERNET:
                self.moves.append((self.now, action))
                self._at(self.now + MOVE_S, lambda a=action: self._reroute(a))
            elif isinstance(action, VerifyPath):
                self._verify(action)
            elif isinstance(action, SetProbeInterval):
                session = self.sessions[action.path]
                session.interval_s = action.interval_s
                span = max(SAMPLE_S, SAMPLE_PROBES * action.interval_s)
                session.sample_due = min(session.sample_due, self.now + span)
                soon = self.now + action.interval_s
                if session.due > soon:
                    session.due = soon
                    self._send_later(session)
        return actions

    # -- packets -------------------------------------------------------------------------------

    def _at(self, at: float, what: Callable[[], None]) -> None:
        self._tie += 1
        heapq.heappush(self._heap, (at, self._tie, what))

    def _ends(self, path: PathId) -> tuple[Line, Line]:
        return self.lines[path.plane.local], self.far[path.site, path.plane.remote]

    def _passes(self, path: PathId, *, out: bool) -> float | None:
        """One-way delay of a packet, or None when it is lost."""
        delay = 0.0
        draw = self.random.random
        for line in self._ends(path):
            if line.cut_out if out else line.cut_in:
                return None
            loss = line.loss_out if out else line.loss_in
            if loss and draw() < loss:
                return None
            delay += line.delay_s
            delay += max(0.0, line.stands_until - self.now - delay)
            if line.jitter_s:
                delay += line.jitter_s * (2 * draw() - 1)
        return max(0.0001, delay)

    def _packet(self, stream: Stream) -> None:
        path = self._routes.get((stream.class_name, stream.site))
        stream.sent += 1
        is_lost = path is None or self._passes(path, out=True) is None
        if is_lost:
            stream.lost.append(self.now)
        if path is not None:
            counted = self.sessions[path].traffic
            counted[0] += 1
            counted[1] += is_lost
        self._at(self.now + 1 / stream.rate, lambda: self._packet(stream))

    def _reroute(self, move: MoveClass) -> None:
        carriers = move.after.carriers
        path = carriers[0].path if carriers else None
        self._routes[move.class_name, move.site] = path

    # -- probing, as probing/paths.py does it ----------------------------------------------------

    def _send_later(self, session: Session) -> None:
        due = session.due
        self._at(due, lambda: self._regular(session, due))

    def _regular(self, session: Session, due: float) -> None:
        if due != session.due:
            return  # superseded by another pace
        self._probe(session)
        if self.now >= session.sample_due:
            self._sample(session)
        session.due = self.now + session.interval_s
        self._send_later(session)

    def _probe(self, session: Session) -> None:
        self.probes += 1
        now_ns = round(self.now * 1e9)
        packet = session.sender.probe(now_ns)
        out = self._passes(session.path, out=True)
        if out is not None:
            there_ns = now_ns + round(out * 1e9)
            source = str(session.path).encode()
            answer = self._reflector.reflect(packet, source, there_ns, there_ns, 64)
            back = self._passes(session.path, out=False)
            if answer is not None and back is not None:
                at = self.now + out + back
                self._at(at, lambda: self._answer(session, answer))
        self._watch(session)

    def _answer(self, session: Session, packet: bytes) -> None:
        answer = session.sender.receive(packet, round(self.now * 1e9))
        slot = session.path.plane.local
        self._answered[slot] = max(self._answered.get(slot, 0.0), answer.sent_ns / 1e9)
        session.is_late = False
        if session.is_failing or answer.was_overdue:
            if not session.sender.unanswered and session.sender.answers_in_row >= RETURNED:
                session.is_failing = False
            age_s = self.now - answer.sent_ns / 1e9
            count = session.sender.answers_in_row
            self.tell(AnswerReturned(session.path, count, age_s, is_late=answer.was_overdue))

    def _watch(self, session: Session) -> None:
        late, overdue = session.sender.next_late_ns(), session.sender.next_deadline_ns()
        due = [ns for ns in (None if session.is_late else late, overdue) if ns is not None]
        if due:
            self._at(max(self.now, min(due) / 1e9 + 1e-6), lambda: self._judge(session))

    def _judge(self, session: Session) -> None:
        now_ns = round(self.now * 1e9)
        answered = self._answered.get(session.path.plane.local)
        age = self.now - answered if answered is not None else math.inf
        for _, sent_ns in session.sender.handle_timer(now_ns):
            session.is_failing = True
            self.tell(
                ProbeOverdue(session.path, (now_ns - sent_ns) / 1e9, session.sender.unanswered, age)
            )
        late_ns = session.sender.next_late_ns()
        if not session.is_late and late_ns is not None and now_ns >= late_ns:
            session.is_late = True
            self.tell(AnswerLate(session.path, 0.001))
        upcoming = session.sender.next_deadline_ns()
        if upcoming is not None and upcoming <= now_ns + 1_000_000_000:
            at = max(self.now + 1e-4, upcoming / 1e9 + 1e-6)
            if session.is_late:
                self._at(at, lambda: self._judge(session))

    def _sample(self, session: Session) -> None:
        session.sample_due = self.now + max(SAMPLE_S, SAMPLE_PROBES * session.interval_s)
        sample = session.sender.take_sample(round(self.now * 1e9))
        if sample is not None:
            self.tell(PathsSampled(((session.path, sample),)))
        sent, lost = session.traffic
        if sent:
            session.traffic = [0, 0]
            self.tell(TrafficSampled(session.path, sent, lost))

    def _verify(self, action: VerifyPath) -> None:
        session = self.sessions[action.path]
        session.sender.suspect()
        for _ in range(BURST):
            self._probe(session)
        if action.alternative is not None:
            out = self._passes(action.alternative, out=True)
            back = self._passes(action.alternative, out=False)
            due_ns = session.sender.due_there_ns(round(self.now * 1e9))
            if out is not None and back is not None and due_ns is not None:
                at = max(self.now + out, due_ns / 1e9 + 1e-3)
                self._at(at, lambda: self._report(session, back))

    def _report(self, session: Session, back: float) -> None:
        source, at_ns = str(session.path).encode(), round(self.now * 1e9)
        report = self._reflector.received(source, session.sender.ssid)
        if report is not None:
            self._at(self.now + back, lambda: self._tell_report(session, report, at_ns))

    def _tell_report(self, session: Session, report: PathReport, at_ns: int) -> None:
        due, arrived = session.sender.arrived(report, at_ns)
        if due:
            self.tell(FarEndReported(session.path, due, arrived))


def plane(text: str) -> Plane:
    local, remote = text.split("-")
    return Plane(Slot(int(local)), Slot(int(remote)))
