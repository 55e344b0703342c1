"""Commands that start by a fork: as after an exec, but for what Python would load again."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from lab import warm

PROGRAM = """#!/usr/bin/env python3
import gc, os, sys
from warmed import loaded
print(*sys.argv, sys.stdin.read(), loaded.WORD, file=sys.stdout)
status = dict(line.split(":") for line in open("/proc/self/status"))
print(gc.isenabled(), status["SigIgn"].strip(), len(os.listdir("/proc/self/fd")), file=sys.stderr)
{end}
"""


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A command and its package, which is loaded and then gone from the disk."""
    package = tmp_path / "warmed"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "loaded.py").write_text("WORD = 'warm'\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(warm, "_packages", {})
    monkeypatch.setattr(warm, "_loaded", set())
    warm.offer("command", "warmed")
    assert "warmed" not in sys.modules
    assert warm.prepare("command")
    (package / "loaded.py").unlink()
    yield "command"
    for name in ("warmed", "warmed.loaded"):
        del sys.modules[name]


def run(folder: Path, end: str) -> subprocess.CompletedProcess[str]:
    program = folder / "command"
    program.write_text(PROGRAM.format(end=end))
    program.chmod(0o755)
    argv = ["command", "a", "b"]
    with Path("/dev/null").open():  # a file of the parent's, which the command does not see
        return subprocess.run(
            argv,
            input="told",
            text=True,
            capture_output=True,
            check=False,
            preexec_fn=partial(warm.become, argv),
        )


@pytest.mark.parametrize(
    ("end", "status", "told"),
    [
        ("", 0, ""),
        ("sys.exit(3)", 3, ""),
        ("sys.exit()", 0, ""),
        ("sys.exit('trouble')", 1, "trouble\n"),
        ("raise ValueError('trouble')", 1, "ValueError: trouble\n"),
    ],
)
def test_it_runs_and_ends_as_after_an_exec(command, tmp_path, end, status, told):
    done = run(tmp_path, end)
    assert done.returncode == status
    assert done.stdout == f"{tmp_path}/command a b told warm\n"
    has_collector, ignored, files = done.stderr.split()[:3]
    assert has_collector == "True"
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        assert int(ignored, 16) & 1 << number - 1, number.name
    assert files == "4"  # three, and the folder that is listed
    assert done.stderr.endswith(told)


def test_what_is_loaded_can_be_had_but_not_by_who_wants_a_start(command):
    assert warm.prepare(command)
    assert not warm.prepare("another")
    try:
        warm.start_cold(True)
        assert not warm.prepare(command)
    finally:
        warm.start_cold(False)
