"""Tells when a file is renamed into a directory: inotify(7), which Python has no module for."""

import asyncio
import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_IN_MOVED_TO = 0x80
_LARGEST = 65536


@contextmanager
def watching(directory: Path, changed: Callable[[], None]) -> Iterator[None]:
    """Call `changed` in the running loop after renames into `directory`, until the block ends.

    Many renames may be told as one. Names are not told, so that a queue that ran over says no less
    than one that did not: look at everything. Raises OSError.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    try:
        path = os.fsencode(directory)
        if libc.inotify_add_watch(descriptor, path, ctypes.c_uint32(_IN_MOVED_TO)) < 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), str(directory))

        def ready() -> None:
            os.read(descriptor, _LARGEST)
            changed()

        loop = asyncio.get_running_loop()
        loop.add_reader(descriptor, ready)
        try:
            yield
        finally:
            loop.remove_reader(descriptor)
    finally:
        os.close(descriptor)
