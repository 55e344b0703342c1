"""A file is there completely or not at all, whatever the disk does."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest

from appliance.kernel.files import write_whole

ROOM = 1000
# No file of this process may be larger: like a disk that is full after so many octets.
WRITER = f"""
import resource, signal, sys
from pathlib import Path
from appliance.kernel.files import write_whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({ROOM}, {ROOM}))
write_whole(Path(sys.argv[1]), b"b" * int(sys.argv[2]))
"""


def test_a_file_that_does_not_fit_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "last-good.yaml"

    def write(octets: int) -> "subprocess.CompletedProcess[str]":
        command = [sys.executable, "-c", WRITER, str(path), str(octets)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    path.write_bytes(b"a" * ROOM)
    assert "File too large" in write(5 * ROOM).stderr
    assert path.read_bytes() == b"a" * ROOM
    assert list(tmp_path.iterdir()) == [path]
    assert write(ROOM).returncode == 0
    assert path.read_bytes() == b"b" * ROOM
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> tuple[Event, Event]:
    """The disk takes its time for the first file: it has begun, and it may end."""
    begun, may_end, sync = Event(), Event(), os.fsync

    def slowly(file: int) -> None:
        if not begun.is_set():
            begun.set()
            assert may_end.wait(20)
        sync(file)

    monkeypatch.setattr("appliance.kernel.files.os.fsync", slowly)
    return begun, may_end


@pytest.mark.parametrize("is_wanted", [True, False])
def test_whoever_comes_while_another_write_hangs_has_a_draft_of_its_own(
    tmp_path: Path, hanging: tuple[Event, Event], is_wanted: bool
) -> None:
    path, (begun, may_end) = tmp_path / "last-good.yaml", hanging
    with ThreadPoolExecutor(1) as thread:
        older = thread.submit(write_whole, path, b"older", lambda: is_wanted)
        assert begun.wait(20)
        write_whole(path, b"newer")
        assert path.read_bytes() == b"newer"
        may_end.set()
        older.result(20)
    assert path.read_bytes() == (b"older" if is_wanted else b"newer")
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_crash_has_left_goes_with_the_next_write(tmp_path: Path) -> None:
    path, others = tmp_path / "last-good.yaml", tmp_path / ".wireguard.key.0123abcd.new"
    for name in (".last-good.yaml.new", ".last-good.yaml.0123abcd.new", others.name):
        (tmp_path / name).touch()
    write_whole(path, b"a")
    assert sorted(tmp_path.iterdir()) == [others, path]
