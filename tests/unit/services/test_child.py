"""Programs that end, hang, talk too much, and outlive the supervisor that started them."""

import asyncio
import contextlib
import errno
import itertools
import json
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Protocol

import pytest

from appliance import clock
from appliance.kernel.process import boot_id, start_time
from appliance.services import child
from appliance.services.child import Lines, Program, Service, read_record


def program(script: str, identity: str = "1") -> Program:
    return Program("p", ("sh", "-c", script), identity)


async def until(condition: Callable[[], object], what: str) -> None:
    """Wait for a condition of the world; the test fails when it does not come."""
    end = clock.monotonic() + 10
    while not condition():
        assert clock.monotonic() < end, f"never came: {what}"
        await asyncio.sleep(0.005)


class Running(Protocol):
    """What goes on until it is cancelled."""

    async def run(self) -> None: ...


@contextlib.asynccontextmanager
async def running(service: Running) -> AsyncIterator[None]:
    task = asyncio.ensure_future(service.run())
    try:
        yield
        assert not task.done(), task.result()
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "LEAST_PAUSE_S", 0.02)
    monkeypatch.setattr(child, "MOST_PAUSE_S", 0.08)
    monkeypatch.setattr(child, "HANG_CHECK_S", 0.02)


def service(tmp_path: Path, script: str, identity: str = "1", **options: object) -> Service:
    return Service(program(script, identity), tmp_path, lambda: 1.0, **options)  # type: ignore[arg-type]


def pid_of(tmp_path: Path) -> int:
    record = read_record(tmp_path / "p.child")
    return record.pid if record else 0


@pytest.mark.usefixtures("quick")
async def test_what_ends_is_started_again_with_growing_pauses(tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    async with running(service(tmp_path, f"date +%s.%N >> {starts}")):
        await until(lambda: starts.exists() and len(starts.read_text().split()) >= 6, "6 starts")
    times = [float(word) for word in starts.read_text().split()]
    gaps = [after - before for before, after in itertools.pairwise(times)]
    assert all(gap >= pause for gap, pause in zip(gaps, (0.02, 0.04, 0.08, 0.08), strict=False))


async def test_a_program_that_is_not_there_is_tried_again(
    tmp_path: Path, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str | None] = []
    absent = Service(
        Program("p", ("no-such-program",), "1"), tmp_path, lambda: 0.0, tell=told.append
    )
    async with running(absent):
        tries = "program cannot be started"
        await until(lambda: caplog.text.count(tries) >= 3, "three tries")
    assert set(told) == {"no-such-program cannot be started: No such file or directory"}
    there = service(tmp_path, "exec sleep 100", tell=told.append)
    async with running(there):
        await until(lambda: told[-1] is None, "a start")
    await there.end()


async def test_a_run_directory_that_cannot_be_written_to_is_tried_again(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str | None] = []

    def refuse(*_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    ours = service(tmp_path, "exec sleep 100", tell=told.append)
    with monkeypatch.context() as read_only:
        read_only.setattr(os, "mkfifo", refuse)
        task = asyncio.ensure_future(ours.run())
        await until(lambda: len(told) > 2, "three tries")
    assert set(told) == {"sh cannot be started: Read-only file system"}
    await until(lambda: told[-1] is None and pid_of(tmp_path), "a start")
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await ours.end()


@pytest.mark.usefixtures("quick")
async def test_a_stopped_supervisor_leaves_the_program_and_the_next_adopts_it(
    tmp_path: Path,
) -> None:
    async with running(service(tmp_path, "exec sleep 100")):
        await until(lambda: pid_of(tmp_path), "a start")
    pid = pid_of(tmp_path)
    assert start_time(pid) is not None
    second = service(tmp_path, "exec sleep 100")
    async with running(second):
        await asyncio.sleep(0.1)
        assert pid_of(tmp_path) == pid
        # What was adopted is watched as if it were our own.
        os.kill(pid, signal.SIGKILL)
        await until(lambda: pid_of(tmp_path) != pid, "a new start")
    await second.end()
    assert not (tmp_path / "p.child").exists()


STARTS_AND_DIES = """
import asyncio, os, sys
from pathlib import Path
from appliance.services.child import Program, Service
async def main():
    script = "read line < {tmp}/go; echo after; exec sleep 100"
    service = Service(Program("p", ("sh", "-c", script), "1"), Path("{tmp}"), lambda: 0.5)
    task = asyncio.ensure_future(service.run())
    while not Path("{tmp}/p.child").exists():
        await asyncio.sleep(0.01)
    os.kill(os.getpid(), 9)
asyncio.run(main())
"""


async def test_a_killed_supervisor_leaves_a_program_that_can_still_talk(
    tmp_path: Path, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    os.mkfifo(tmp_path / "go")
    script = STARTS_AND_DIES.replace("{tmp}", str(tmp_path))
    first = await asyncio.create_subprocess_exec(sys.executable, "-c", script, cwd=Path.cwd())
    assert await first.wait() == -signal.SIGKILL
    pid = pid_of(tmp_path)
    # Nobody reads its output now; it must neither die of that nor wait.
    await asyncio.to_thread((tmp_path / "go").write_text, "\n")
    await until(lambda: cmdline(pid).startswith(b"sleep"), "the program's next step")
    script = f"read line < {tmp_path}/go; echo after; exec sleep 100"
    second = service(tmp_path, script)
    async with running(second):
        await until(lambda: "after" in said(caplog), "its words")
        assert pid_of(tmp_path) == pid
    await second.end()
    assert start_time(pid) is None


def cmdline(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def said(caplog: pytest.LogCaptureFixture) -> set[str]:
    return {r.line for r in caplog.records if r.message == "program said"}  # type: ignore[attr-defined]


@pytest.mark.usefixtures("quick")
async def test_one_that_was_started_otherwise_is_replaced(tmp_path: Path) -> None:
    async with running(service(tmp_path, "exec sleep 100", "old")):
        await until(lambda: pid_of(tmp_path), "a start")
    old = pid_of(tmp_path)
    new = service(tmp_path, "exec sleep 200", "new")
    async with running(new):
        await until(lambda: pid_of(tmp_path) not in (0, old), "the new one")
        assert start_time(old) is None
        await until(lambda: cmdline(pid_of(tmp_path)) == b"sleep\x00200\x00", "its program")
    await new.end()


@pytest.mark.usefixtures("quick")
async def test_a_stranger_with_the_recorded_id_is_left_alone(tmp_path: Path) -> None:
    stranger = await asyncio.create_subprocess_exec("sleep", "100")
    record = {"pid": stranger.pid, "birth": 1, "boot": boot_id(), "identity": "1"}
    (tmp_path / "p.child").write_text(json.dumps(record))
    ours = service(tmp_path, "exec sleep 100", "2")
    async with running(ours):
        await until(lambda: pid_of(tmp_path) != stranger.pid, "our own")
    await ours.end()
    assert stranger.returncode is None
    stranger.kill()
    await stranger.wait()


def test_a_record_of_another_boot_is_as_none(tmp_path: Path) -> None:
    """The same id and start time may be anybody's then."""
    fields = {"pid": os.getpid(), "birth": 1, "identity": "1"}
    file = tmp_path / "p.child"
    file.write_text(json.dumps(fields | {"boot": boot_id()}))
    assert read_record(file) is not None
    file.write_text(json.dumps(fields | {"boot": "another"}))
    assert read_record(file) is None


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"pid": "x", "birth": 1, "boot": "", "identity": 1}']
)
async def test_a_broken_record_is_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "p.child").write_text(text)
    ours = service(tmp_path, "exec sleep 100")
    async with running(ours):
        await until(lambda: pid_of(tmp_path), "a start")
    await ours.end()


@pytest.mark.usefixtures("quick")
async def test_one_that_hangs_is_killed_and_started_again(tmp_path: Path) -> None:
    hung: set[int] = set()
    ours = service(tmp_path, "trap '' TERM; exec sleep 100", is_hung=hung.__contains__)
    async with running(ours):
        await until(lambda: pid_of(tmp_path), "a start")
        first = pid_of(tmp_path)
        os.kill(first, signal.SIGSTOP)
        hung.add(first)
        await until(lambda: pid_of(tmp_path) not in (0, first), "another")
        assert start_time(first) is None
    await ours.end(signal.SIGKILL)


@pytest.mark.usefixtures("quick")
async def test_one_that_ignores_the_polite_signal_is_ended_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "END_S", 0.1)
    # An ignored signal stays ignored across exec.
    ours = service(tmp_path, f"trap '' TERM; touch {tmp_path}/ready; exec sleep 100")
    async with running(ours):
        await until((tmp_path / "ready").exists, "the trap")
    pid = pid_of(tmp_path)
    await ours.end()
    assert start_time(pid) is None
    assert names(tmp_path) == ["ready"]


async def test_one_that_may_not_be_signalled_is_named_and_harms_nobody(
    tmp_path: Path,
    quick: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """dhcpcd changes its user: without CAP_KILL the kernel refuses us."""
    ours = service(tmp_path, "exec sleep 100", is_hung=lambda _pid: True)
    refused = "program cannot be ended"

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with monkeypatch.context() as without_rights:
        without_rights.setattr(signal, "pidfd_send_signal", refuse)
        async with running(ours):
            await until(lambda: refused in caplog.text, "the refusal")
            await asyncio.sleep(0.1)
        assert caplog.text.count(refused) == 1
        await ours.end()
        assert start_time(pid_of(tmp_path)) is not None
    await ours.end()
    assert pid_of(tmp_path) == 0


async def test_output_is_logged_by_lines(
    tmp_path: Path, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ours = service(tmp_path, "echo out; echo err >&2; exec sleep 100")
    async with running(ours):
        await until(lambda: {"out", "err"} <= said(caplog), "both lines")
    await ours.end()


def feed(caplog: pytest.LogCaptureFixture, *data: tuple[bytes, float]) -> list[str]:
    caplog.set_level(logging.INFO)
    lines = Lines("p")
    for octets, now in data:
        lines.feed(octets, now)
    return [r.line for r in caplog.records if r.message == "program said"]  # type: ignore[attr-defined]


def test_lines_are_joined_cut_and_made_printable(caplog: pytest.LogCaptureFixture) -> None:
    assert feed(
        caplog,
        (b"half", 0),
        (b" and half\n\n  \nesc \x1b[2J \xff\n", 0),
        (b"x" * 2000, 0),
        (b"\ntail", 0),
    ) == ["half and half", "esc ?[2J \ufffd", "x" * 500]


def test_a_chatterbox_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    told = feed(caplog, (b"word\n" * 1000, 0), (b"word\n" * 1000, 59), (b"later\n", 61))
    assert told == ["word"] * 50 + ["later"]
    assert "program says too much" in caplog.text
