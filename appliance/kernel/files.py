"""Writing files that must survive the plug being pulled."""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from secrets import token_hex
from threading import Lock

_writing: set[Path] = set()  # drafts that somebody is at
_renaming = Lock()


def write_whole(path: Path, content: bytes, is_wanted: Callable[[], bool] = lambda: True) -> None:
    """Readable by us alone from the first moment, and there completely or not at all.

    A disk that hangs may keep one thread while another writes the same file: each has a draft of
    its own, and what is not wanted any more once its draft is on disk takes nothing's place.
    Raises OSError.
    """
    draft = path.with_name(f".{path.name}.{token_hex(4)}.new")
    _writing.add(draft)
    try:
        _remove_left_over(path)
        _write(draft, content)
        with _renaming:  # what is wanted next is renamed after us
            if is_wanted():
                draft.rename(path)
        _sync(path.parent)  # the name, too
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        _writing.discard(draft)


def _remove_left_over(path: Path) -> None:
    """Remove drafts that a crash has left."""
    for other in path.parent.iterdir():
        is_draft = other.name.startswith(f".{path.name}.") and other.suffix == ".new"
        if is_draft and other not in _writing:
            other.unlink(missing_ok=True)


def _write(draft: Path, content: bytes) -> None:
    file = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)


def _sync(folder: Path) -> None:
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(file)
    finally:
        os.close(file)
