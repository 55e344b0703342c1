"""At most one guest per CPU core on a machine: a guest that shares its core measures nothing
wrong (time inside is virtual) but makes everybody wait. Slots are locked files, so that a
crashed owner gives its slot back by itself.
"""

import fcntl
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


def available_slots() -> int:
    """CPU cores that this process may use."""
    return max(1, len(os.sched_getaffinity(0)))


@contextmanager
def slot() -> Iterator[int]:
    """Hold one slot for the duration of the block; waits, and says so, while none is free."""
    directory = Path(tempfile.gettempdir()) / f"branchline-lab-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    announced = False
    while True:
        for index in range(available_slots()):
            locked = _try_lock(directory / f"slot-{index}")
            if locked is not None:
                with locked:
                    yield index
                return
        if not announced:
            print(
                f"lab: {available_slots()} guests run already on this machine, waiting for a slot",
                file=sys.stderr,
                flush=True,
            )
            announced = True
        time.sleep(0.5)


def _try_lock(path: Path) -> IO[str] | None:
    handle = path.open("a")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return None
    return handle
