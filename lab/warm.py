"""Start commands of the product by a fork of this process, which has loaded the product already.

Three quarters of the instructions of a supervisor's start are Python loading the same modules, and
every story starts several. What runs is the command itself, with arguments, files, signals and
namespaces of its own, as after an exec. Benchmarks and stories that are about a start begin cold.
"""

import gc
import importlib
import os
import pkgutil
import runpy
import shutil
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

_packages: dict[str, str] = {}  # of the commands that may start so
_loaded: set[str] = set()  # commands
_cold = False


def offer(command: str, package: str) -> None:
    """Let this command start by a fork. Its package is loaded before the first start."""
    _packages[command] = package


def start_cold(is_cold: bool) -> None:
    """Have all commands load what they need, or no longer."""
    global _cold
    _cold = is_cold


def prepare(command: str) -> bool:
    """Can this command be had by `become`? All modules of its package are loaded, if so."""
    if _cold or command not in _packages:
        return False
    if command not in _loaded:
        package = importlib.import_module(_packages[command])
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(found.name)
        _loaded.add(command)
    return True


def become(argv: Sequence[str]) -> None:
    """Be this command and end with it: for a child that has just been forked by `subprocess`."""
    status = 1
    try:
        gc.freeze()  # else what the parent left behind would one day close files of the command
        gc.enable()  # `subprocess` has it off
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_IGN)  # as Python has them from its start
        sys.stdin, sys.stdout = os.fdopen(0), os.fdopen(1, "w")
        sys.stderr = os.fdopen(2, "w", buffering=1, errors="backslashreplace")
        sys.argv = list(argv)
        runpy.run_path(str(shutil.which(argv[0])), run_name="__main__")
        status = 0
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - the child must end here, whatever happened
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError):
                stream.flush()
        os._exit(status)
