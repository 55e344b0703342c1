import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lab import slots

HOLDER = """
import sys
from lab.slots import slot
with slot() as index:
    print(index, flush=True)
    sys.stdin.read()
"""


def _holder(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(directory), "PYTHONPATH": str(Path.cwd())},
    )


def test_a_guest_waits_for_a_slot_and_a_killed_owner_frees_his(tmp_path: Path) -> None:
    holders = [_holder(tmp_path) for _ in range(slots.available_slots())]
    taken = sorted(int(h.stdout.readline()) for h in holders if h.stdout)
    assert taken == list(range(slots.available_slots()))
    late = _holder(tmp_path)
    assert late.stderr is not None
    assert late.stdout is not None
    assert "waiting for a slot" in late.stderr.readline()
    holders[0].kill()
    begun = time.monotonic()
    assert int(late.stdout.readline()) in taken
    assert time.monotonic() - begun < 5
    for each in (*holders, late):
        each.communicate("")


def test_every_core_is_a_slot() -> None:
    assert slots.available_slots() == len(os.sched_getaffinity(0))


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[3])
