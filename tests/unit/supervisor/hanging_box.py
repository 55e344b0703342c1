"""Runs a box on a kernel in memory whose disk hangs: `hanging_box FOLDER FUNCTION`.

FUNCTION hangs for ever where a thread calls it, and says so on standard output. What is done at the
start, before there are any threads, is done.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from pkgutil import resolve_name
from threading import current_thread, main_thread
from typing import Any

from appliance.supervisor import run as module
from appliance.telemetry import log, recorder
from tests.unit.supervisor.living import StubbornKernel


class NoLock:
    """Other boxes of the tests run in the same network namespace."""

    def close(self) -> None: ...


def hanging(fifo: Path, function: Callable[..., Any]) -> Callable[..., Any]:
    def instead(*args: Any, **kwargs: Any) -> Any:
        if current_thread() is main_thread():
            return function(*args, **kwargs)
        print("hangs", flush=True)
        return fifo.read_bytes()  # nobody ever writes to it

    return instead


def main(folder: Path, name: str) -> int:
    fifo = folder / "fifo"
    os.mkfifo(fifo)
    place, _, attribute = name.rpartition(".")
    holder = resolve_name(place)
    setattr(holder, attribute, hanging(fifo, getattr(holder, attribute)))
    for what, instead in (
        ("SupervisorLock", NoLock),
        ("is_proven", lambda: True),
        ("LinuxKernel", lambda _keys: StubbornKernel()),
    ):
        setattr(module, what, instead)
    recorder.FLUSH_S = 0.05
    log.set_up()
    return module.run(folder / "a.yaml", folder / "state", folder / "run")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
