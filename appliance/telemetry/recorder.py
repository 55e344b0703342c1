"""What happened and what was decided, on disk and bounded, so that it can be decided again.

Two sets of files: `events-*.jsonl` holds the core's events for `branchline replay`, `moves-*.jsonl`
the moves with their evidence, which last much longer. Nothing here is on the way of a packet or of
a decision: events are kept as they are and encoded by a thread once a second. A disk that is full
or read-only costs the recording and raises a warning; writing is tried again by itself.

Each file of events begins with one line about itself and with a preamble: the events that bring a
core to where it was. The preamble matters only when the file before is gone.

    {"run": "f3a1", "wall": 1763829000.1, "now": 5020.5, "preamble": 7}
"""

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from appliance.clock import wall_ns
from appliance.contract.codec import encode
from appliance.contract.decision import Move
from appliance.contract.status import RecorderStatus
from appliance.core.events import Event, PathsSampled
from appliance.core.replay import recall
from appliance.core.state import State
from appliance.telemetry.budget import Budget
from appliance.telemetry.segments import Segments
from appliance.threads import Threads

log = logging.getLogger(__name__)

EVENTS_OCTETS = 32 << 20
MOVES_OCTETS = 8 << 20
FLUSH_S = 1.0
RETRY_FIRST_S = 2.0
RETRY_LAST_S = 60.0
END_S = 1.0  # how long the end waits for the disk
WAITING_AT_MOST = 10_000  # entries in memory while the disk is slow
SAMPLES_PER_S = 200.0  # more than that, on a hub, would wear out the disk and show minutes only

EncodeEvent = Callable[[float, Event], bytes]  # one line, without its line feed


class Recorder:
    """Keeps events and moves. `record_*` cost next to nothing; `run` writes until cancelled."""

    def __init__(
        self,
        directory: Path,
        run: str,
        encode_event: EncodeEvent,
        on_trouble: Callable[[str | None], None],
    ) -> None:
        """`run` names this run of the supervisor: monotonic times of two runs do not compare.

        `on_trouble` is called on the event loop with what is wrong, and with None when it is over.
        """
        self._directory = directory
        self._run = run
        self._encode_event = encode_event
        self._on_trouble = on_trouble
        self._events = Segments(directory, "events", total_octets=EVENTS_OCTETS)
        self._moves = Segments(directory, "moves", total_octets=MOVES_OCTETS)
        self._waiting_events: list[tuple[float, Event]] = []
        self._waiting_moves: list[Move] = []
        self._writing_moves: list[Move] = []
        self._state: State | None = None  # of the core, after the last event
        self._state_taken: State | None = None  # and before the events that wait
        self._samples = Budget(SAMPLES_PER_S)
        self._gap = 0  # events left out since the last one kept
        self._dropped = 0
        self._octets = 0
        self._thread = Threads("recorder")
        self._is_writing = False
        self._trouble: str | None = None

    @property
    def status(self) -> RecorderStatus:
        return RecorderStatus(self._octets, self._dropped, self._trouble)

    @property
    def is_waiting(self) -> bool:
        """Is something not written yet?"""
        return bool(self._waiting_events or self._waiting_moves or self._is_writing)

    @property
    def unwritten(self) -> tuple[Move, ...]:
        """The moves that are not on disk yet, or are just being written, the newest last."""
        return (*self._writing_moves, *self._waiting_moves)

    def record_event(self, now: float, event: Event, state: State) -> None:
        """Keep an event, to be written within about FLUSH_S. It must not be changed any more.

        `state` is that of the core after it.
        """
        self._state = state
        if type(event) is PathsSampled and not self._samples.take(now, len(event.samples)):
            self._gap += 1
            return
        if len(self._waiting_events) >= WAITING_AT_MOST:
            self._gap += 1
            self._dropped += 1
        else:
            self._waiting_events.append((now, event))

    def record_move(self, move: Move) -> None:
        """Keep what `history` tells of a move."""
        if len(self._waiting_moves) >= WAITING_AT_MOST:
            self._dropped += 1
        else:
            self._waiting_moves.append(move)

    async def run(self) -> None:
        """Write once a second until cancelled; then write what waits, unless the disk hangs."""
        retry_s = RETRY_FIRST_S
        try:
            while True:
                await asyncio.sleep(FLUSH_S if self._trouble is None else retry_s)
                self._is_writing = True
                writing = asyncio.wrap_future(self._thread.submit(self._write, *self._take()))
                written = await asyncio.shield(writing)  # it is written whoever is cancelled
                self._is_writing = False
                self._writing_moves = []
                is_well = written.trouble is None
                retry_s = RETRY_FIRST_S if is_well else min(2 * retry_s, RETRY_LAST_S)
                self._note(written)
        finally:
            ending = self._thread.submit(self._end, *self._take())  # behind the last write
            if self._thread.finish(END_S):
                ending.result()
            else:
                log.warning("the disk hangs: what is not recorded yet is lost")

    def _take(self) -> tuple[list[tuple[float, Event]], int, list[Move], State | None]:
        events, moves = self._waiting_events, self._waiting_moves
        self._writing_moves = moves
        self._waiting_events, self._waiting_moves = [], []
        gap = self._gap if events else 0  # it is written behind the next events
        self._gap -= gap
        state, self._state_taken = self._state_taken, self._state
        return events, gap, moves, state

    def _write(
        self,
        events: list[tuple[float, Event]],
        gap: int,
        moves: list[Move],
        state: State | None,
    ) -> "_Written":
        """In the thread."""
        dropped = len(events) + len(moves)
        try:
            if moves:
                self._moves.append([encode(move) + b"\n" for move in moves])
                dropped -= len(moves)
            if events:
                lines = [self._encode_event(now, event) + b"\n" for now, event in events]
                if gap:
                    lines.append(b'{"gap": %d}\n' % gap)
                self._events.append(lines, lambda: self._head(events[0][0], state))
                dropped -= len(events)
            return _Written(None, dropped, self._events.octets + self._moves.octets)
        except OSError as error:
            return _Written(f"{self._directory}: {error.strerror}", dropped, None)

    def _end(
        self,
        events: list[tuple[float, Event]],
        gap: int,
        moves: list[Move],
        state: State | None,
    ) -> None:
        """In the thread, too: a disk may hang as well when a file is closed."""
        self._write(events, gap, moves, state)
        self._events.close()
        self._moves.close()

    def _head(self, now: float, state: State | None) -> list[bytes]:
        preamble = recall(state) if state is not None else []
        about = {"run": self._run, "wall": wall_ns() / 1e9, "now": now, "preamble": len(preamble)}
        lines = [self._encode_event(now, event) + b"\n" for event in preamble]
        return [json.dumps(about).encode() + b"\n", *lines]

    def _note(self, written: "_Written") -> None:
        self._dropped += written.dropped
        self._gap += written.dropped
        if written.octets is not None:
            self._octets = written.octets
        if written.trouble != self._trouble:
            self._trouble = written.trouble
            self._on_trouble(written.trouble)


class _Written(NamedTuple):
    """What came of a write."""

    trouble: str | None  # what is wrong with the disk
    dropped: int
    octets: int | None  # on disk, when it was looked at
