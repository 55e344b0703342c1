"""Run `branchline` with a sampling profiler: `python3 -m tests.bench.profiled FILE ARGUMENTS...`.

Every millisecond of CPU time the Python stack is noted. SIGUSR1 clears what was noted so far,
SIGUSR2 writes it to FILE: the functions by the share of samples in which they were on top of the
stack (system calls count for their caller), and by the share in which they were anywhere on it.
"""

import signal
import sys
from collections import Counter
from pathlib import Path
from types import FrameType

from appliance.cli.main import main

PERIOD_S = 0.001
SHOWN = 60

_on_top: Counter[str] = Counter()
_anywhere: Counter[str] = Counter()
_lines: Counter[str] = Counter()


def _sample(_number: int, frame: FrameType | None) -> None:
    seen = set()
    top = True
    while frame is not None:
        code = frame.f_code
        name = f"{'/'.join(code.co_filename.split('/')[-2:])}:{code.co_qualname}"
        if top:
            _on_top[name] += 1
            _lines[f"{name}:{frame.f_lineno}"] += 1
            top = False
        seen.add(name)
        frame = frame.f_back
    for name in seen:
        _anywhere[name] += 1


def _clear(_number: int, _frame: FrameType | None) -> None:
    for counter in (_on_top, _anywhere, _lines):
        counter.clear()


def _write(path: Path) -> None:
    signal.setitimer(signal.ITIMER_PROF, 0)  # writing is not of interest
    total = max(1, _on_top.total())
    parts = [f"{total} samples of {PERIOD_S * 1e3:g} ms of CPU time"]
    for title, counter in (("on top", _on_top), ("lines", _lines), ("anywhere", _anywhere)):
        rows = [f"{100 * n / total:6.2f} %  {name}" for name, n in counter.most_common(SHOWN)]
        parts += [f"-- {title}", *rows]
    path.write_text("\n".join(parts) + "\n")
    signal.setitimer(signal.ITIMER_PROF, PERIOD_S, PERIOD_S)


if __name__ == "__main__":
    destination = Path(sys.argv.pop(1))
    signal.signal(signal.SIGPROF, _sample)
    signal.signal(signal.SIGUSR1, _clear)
    signal.signal(signal.SIGUSR2, lambda *_: _write(destination))
    signal.setitimer(signal.ITIMER_PROF, PERIOD_S, PERIOD_S)
    main()
