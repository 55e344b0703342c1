"""How a story speaks to the outside: one JSON object per line on the guest's second serial port.

Events, all with `event` and `t` (virtual seconds since the story began):
`story_begin` story · `say` text · `check` ok, text · `record` name, value, unit, params ·
`log` name, text (the end of a daemon's log) · `story_end` story, ok, error, virtual_s ·
`end` (the runner is done).
"""

import json
import time
from collections.abc import Mapping
from typing import IO


class Report:
    """Writes events. The clock starts anew with every story."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.start_ns = time.monotonic_ns()
        self.failures: list[str] = []

    def now(self) -> float:
        """Virtual seconds since the story began."""
        return (time.monotonic_ns() - self.start_ns) / 1e9

    def emit(self, event: str, **fields: object) -> None:
        line = {"event": event, "t": round(self.now(), 6), **fields}
        self._stream.write(json.dumps(line, default=str) + "\n")
        self._stream.flush()

    def begin(self, story: str) -> None:
        self.start_ns = time.monotonic_ns()
        self.failures = []
        self.emit("story_begin", story=story)

    def say(self, text: str) -> None:
        for line in text.splitlines() or [""]:
            self.emit("say", text=line)

    def check(self, ok: bool, text: str) -> None:
        if not ok:
            self.failures.append(text)
        self.emit("check", ok=ok, text=text)

    def record(self, name: str, value: float, unit: str, params: Mapping[str, object]) -> None:
        self.emit("record", name=name, value=value, unit=unit, params=dict(params))

    def end(self, story: str, error: str | None) -> None:
        ok = error is None and not self.failures
        self.emit("story_end", story=story, ok=ok, error=error, virtual_s=round(self.now(), 3))
