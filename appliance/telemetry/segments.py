"""Lines in a bounded set of files: the oldest file goes when the set is full.

A file is only ever appended to by the process that made it. After a crash, or an error in the
middle of a line, the next file is begun, so that at most the last line of a file is cut short;
reading leaves it out. Every function may block and raises OSError: call them from a thread.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from io import FileIO
from pathlib import Path

from appliance.core.codec import MOST_OCTETS

RECORDER_DIRECTORY = "recordings"  # in the state directory
_NAME = re.compile(r"(?P<stem>[a-z]+)-(?P<number>\d{8})\.jsonl")
_DIRECTORY_MODE = 0o750
_FILE_MODE = 0o640


class Segments:
    """The files `STEM-NUMBER.jsonl` of a directory, `total_octets` together at most."""

    def __init__(self, directory: Path, stem: str, *, total_octets: int, count: int = 4) -> None:
        self._directory = directory
        self._stem = stem
        self._total_octets = total_octets
        self._segment_octets = total_octets // count
        self._file: FileIO | None = None
        self._room = 0

    def append(self, lines: Sequence[bytes], head: Callable[[], Sequence[bytes]] = list) -> None:
        """Add whole lines, each with its line feed. A new file begins with the lines of `head`.

        One that somebody has removed is not written to any more: nobody could read it.
        """
        octets = b"".join(lines)
        if len(octets) > self._room or self._is_gone():
            self._begin(b"".join(head()), len(octets))
        self._write(octets)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def octets(self) -> int:
        """Size of all files."""
        return sum(path.stat().st_size for path in files(self._directory, self._stem))

    def _is_gone(self) -> bool:
        """Is there no file to go on with?"""
        return self._file is None or os.fstat(self._file.fileno()).st_nlink == 0

    def _begin(self, head: bytes, expected: int) -> None:
        self.close()
        self._directory.mkdir(_DIRECTORY_MODE, parents=True, exist_ok=True)
        kept = files(self._directory, self._stem)
        number = _number(kept[-1]) + 1 if kept else 1
        room = self._total_octets - max(self._segment_octets, len(head) + expected)
        sizes = [path.stat().st_size for path in kept]
        while kept and sum(sizes) > room:
            kept.pop(0).unlink()
            sizes.pop(0)
        path = self._directory / f"{self._stem}-{number:08}.jsonl"
        self._file = path.open("ab", buffering=0)
        path.chmod(_FILE_MODE)
        self._room = self._segment_octets
        self._write(head)

    def _write(self, octets: bytes) -> None:
        """Write all, or close the file: its last line may be cut short."""
        assert self._file is not None  # noqa: S101 - for mypy: `append` saw to it
        view = memoryview(octets)
        try:
            while view:
                view = view[self._file.write(view) :]
        except OSError:
            path = Path(self._file.name)
            self.close()
            if path.stat().st_size == 0:
                path.unlink()
            raise
        self._room -= len(octets)


def files(directory: Path, stem: str) -> list[Path]:
    """The segments there are, the oldest first. Empty when the directory does not exist."""
    if not directory.is_dir():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in directory.iterdir())
    return sorted(path for match, path in found if match and match["stem"] == stem)


def whole_lines(path: Path) -> Iterator[bytes]:
    """The lines of a segment without their line feeds. A last line that is cut short is left out.

    Of a line that is longer than any event, so much is given that its reader refuses it, and
    nothing after it: no file makes us read without end. A segment that was deleted meanwhile has no
    lines, and neither has what is no regular file, which might never end or never begin.
    """
    try:
        if not path.is_file():
            return
        with path.open("rb") as file:
            while line := file.readline(MOST_OCTETS + 1):
                if line.endswith(b"\n"):
                    yield line[:-1]
                elif len(line) > MOST_OCTETS:
                    yield line
                    return
    except FileNotFoundError:
        return


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    return int(match["number"]) if match else 0
