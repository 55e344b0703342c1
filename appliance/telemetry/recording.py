"""Reading what the recorder wrote, also after a crash and while it is being written.

Nothing that stands in the files is trusted: what cannot be read is left out and counted.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.contract.codec import decode
from appliance.contract.decision import History, Move
from appliance.telemetry.segments import files, whole_lines

_LINE_OCTETS = 1 << 20  # of the line about a file; an event's own bound is the core's matter


class NotARecording(ValueError):  # noqa: N818 - says what the file is
    """A file or directory without recorded events."""


@dataclass(slots=True)
class Recording:
    """The recorded events of one run of a supervisor, the oldest first."""

    segments: tuple[Path, ...]
    gaps: int = 0  # events left out so far by `lines`, because the disk or a hub's load said so

    def lines(self) -> Iterator[bytes]:
        """Every event as the core's codec reads it. The first file's preamble comes first."""
        for index, path in enumerate(self.segments):
            lines = whole_lines(path)
            about = _about(next(lines, b""))
            if about is None:
                continue
            for number, line in enumerate(lines):
                if number < about["preamble"] and index > 0:
                    continue  # the file before led up to here
                if line.startswith(b'{"gap"'):
                    self.gaps += 1
                else:
                    yield line


def open_recording(path: Path) -> Recording:
    """The last run that the directory of a recorder holds, or one file. Raises NotARecording."""
    if path.exists() and not (path.is_dir() or path.is_file()):
        msg = f"{path} is no regular file"
        raise NotARecording(msg)
    segments = files(path, "events") if path.is_dir() else [path]
    runs = [(segment, _about(next(whole_lines(segment), b""))) for segment in segments]
    known = [(segment, about["run"]) for segment, about in runs if about is not None]
    if not known:
        msg = f"{path} holds no recorded events"
        raise NotARecording(msg)
    return Recording(tuple(segment for segment, run in known if run == known[-1][1]))


def read_history(
    directory: Path,
    limit: int,
    is_wanted: Callable[[Move], bool] = lambda _: True,
    unwritten: Sequence[Move] = (),
) -> History:
    """The newest `limit` wanted moves of all runs, the newest last. Reads files: use a thread.

    `unwritten` are moves newer than what the files held when they were taken; they may have been
    written since.
    """
    known = set(unwritten)
    wanted = [move for move in unwritten if is_wanted(move)]
    newest = wanted[-limit:]
    is_complete = len(newest) == len(wanted)
    for segment in reversed(files(directory, "moves") if is_complete else []):
        room = limit - len(newest)
        found: deque[Move] = deque(maxlen=room + 1)
        found.extend(move for move in _moves(segment) if is_wanted(move) and move not in known)
        if len(found) > room:
            found.popleft()
            is_complete = False
        newest[:0] = found
        if not is_complete:
            break
    return History(tuple(newest), is_complete)


def _moves(segment: Path) -> Iterator[Move]:
    for line in whole_lines(segment):
        try:
            yield decode(Move, line)
        except ValueError:  # another version's, or a damaged disk's
            continue


def _about(line: bytes) -> dict[str, int] | None:
    """What the first line of a file of events says of it; None when that is not such a line."""
    try:
        about = json.loads(line) if len(line) <= _LINE_OCTETS else None
    except (ValueError, RecursionError):
        return None
    if not isinstance(about, dict):
        return None
    run, preamble = about.get("run"), about.get("preamble")
    if isinstance(run, str) and isinstance(preamble, int) and preamble >= 0:
        return about
    return None
