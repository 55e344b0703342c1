"""SIGTERM and SIGINT end the supervisor with status 0, also while a disk hangs."""

import contextlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.supervisor.living import write

ROOT = Path(__file__).parents[3]
PATIENCE_S = 20.0
MOST_S = 4.0  # docs/ERRORS.md, "Stop"
BUSY_S = 16.0  # and so much for a busy machine
RECORDING = "appliance.telemetry.segments.Segments.append"
KEEPING = "appliance.kernel.files.os.fsync"


@contextlib.contextmanager
def box(folder: Path, hanging: str) -> Iterator[subprocess.Popen[str]]:
    write(folder)
    argv = [sys.executable, "-m", "tests.unit.supervisor.hanging_box", str(folder), hanging]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, cwd=ROOT, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ends(process: subprocess.Popen[str], by: signal.Signals = signal.SIGTERM) -> str:
    """What it says on standard error until it has ended."""
    assert process.stdout is not None
    assert process.stdout.readline() == "hangs\n"
    process.send_signal(by)
    _, said = process.communicate(timeout=MOST_S + BUSY_S)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    return said


@contextlib.contextmanager
def asking(folder: Path, what: str) -> Iterator[socket.socket]:
    """Somebody asks the API, which there may not be yet."""
    until = time.monotonic() + PATIENCE_S
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE_S)
        while client.connect_ex(str(folder / "run/api.sock")):
            assert time.monotonic() < until
            time.sleep(0.05)
        client.sendall(f"GET /v1/{what} HTTP/1.1\r\nHost: box\r\n\r\n".encode())
        yield client


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_while_the_disk_of_the_recordings_hangs(tmp_path: Path, by: signal.Signals) -> None:
    with box(tmp_path, RECORDING) as process:
        assert "the disk hangs: what is not recorded yet is lost" in ends(process, by)


def test_it_ends_while_the_last_good_configuration_cannot_be_kept(tmp_path: Path) -> None:
    with box(tmp_path, KEEPING) as process:
        assert "a disk hangs, ending without it" in ends(process)
    assert not (tmp_path / "state/last-good.yaml").exists()


def test_it_ends_while_the_configuration_cannot_be_read(tmp_path: Path) -> None:
    with box(tmp_path, "appliance.supervisor.run.load") as process:
        with asking(tmp_path, "openapi.json") as client:
            assert b" 200 " in client.recv(4096)
        process.send_signal(signal.SIGHUP)
        ends(process)


def test_it_ends_while_somebody_waits_for_the_history(tmp_path: Path) -> None:
    hanging = "appliance.supervisor.source.read_history"
    with box(tmp_path, hanging) as process, asking(tmp_path, "history"):
        ends(process)
