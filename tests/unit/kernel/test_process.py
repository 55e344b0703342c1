"""Programs are real here: what they print, how they end, and that nothing of them is unbounded."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from appliance import clock
from appliance.kernel.process import Completed, ProcessError, adopt, run, spawn, start_time


def is_alive(pid: int) -> bool:
    return start_time(pid) is not None


def signals(pid: int, which: str) -> int:
    """Mask of the classic signals 1..31 that a process ignores (SigIgn) or blocks (SigBlk)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{which}:")[1].split()[0], 16) & 0x7FFFFFFF


async def test_a_program_gets_its_input_and_its_output_comes_back() -> None:
    done = await run(["sh", "-c", "cat; echo trouble >&2; exit 3"], input=b"table inet x\n")
    assert done == Completed(3, b"table inet x\n", b"trouble\n")


async def test_large_input_and_output_do_not_block_each_other() -> None:
    data = os.urandom(1 << 20)
    assert (await run(["cat"], input=data)).stdout == data
    assert (await run(["true"], input=data)).status == 0


async def test_a_program_ended_by_a_signal_says_so() -> None:
    assert (await run(["sh", "-c", "kill -9 $$"])).status == -signal.SIGKILL


async def test_programs_do_not_see_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "1")
    assert set((await run(["env"])).stdout.decode().split()) == {
        f"PATH={os.environ['PATH']}",
        "LC_ALL=C",
    }


async def test_a_missing_program_is_named() -> None:
    with pytest.raises(ProcessError, match="no-such-program: No such file"):
        await run(["no-such-program"])


async def test_a_program_that_does_not_end_is_ended(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    started = clock.monotonic()
    with pytest.raises(ProcessError, match=r"sh: not finished after 0\.2 s"):
        await run(["sh", "-c", f"echo $$ > {pid_file}; exec sleep 100"], timeout_s=0.2)
    assert clock.monotonic() - started < 5
    assert not is_alive(int(pid_file.read_text()))


async def test_a_program_that_prints_without_end_is_ended() -> None:
    with pytest.raises(ProcessError, match="yes: printed more than 100000 octets"):
        await run(["yes"], limit_bytes=100_000)


async def test_a_cancelled_run_leaves_no_program_behind(tmp_path: Path) -> None:
    fifo = tmp_path / "ready"
    os.mkfifo(fifo)
    task = asyncio.ensure_future(run(["sh", "-c", f"echo $$ > {fifo}; exec sleep 100"]))
    pid = int(await asyncio.to_thread(fifo.read_text))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not is_alive(pid)


async def test_a_child_is_waited_for_and_its_output_goes_where_it_should(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as output:
        child = spawn(["sh", "-c", "echo one; echo two >&2; exit 7"], output.fileno())
    assert await child.wait() == 7
    assert (tmp_path / "out").read_text() == "one\ntwo\n"
    child.send(signal.SIGTERM)  # nobody is there any more
    child.close()


async def test_a_child_has_its_own_session_and_the_usual_signals(tmp_path: Path) -> None:
    with (tmp_path / "out").open("wb") as output:
        child = spawn(["sleep", "100"], output.fileno())
    try:
        assert os.getsid(child.pid) == child.pid
        assert signals(child.pid, "SigIgn") == signals(child.pid, "SigBlk") == 0
    finally:
        child.send(signal.SIGTERM)
        assert await child.wait() == -signal.SIGTERM
        child.close()


def test_a_program_that_is_not_there_cannot_be_spawned() -> None:
    with pytest.raises(FileNotFoundError):
        spawn(["no-such-program"], 1)


STARTS_AND_DIES = """
import os, sys
from appliance.kernel.process import spawn
child = spawn(["sleep", "100"], os.open(os.devnull, os.O_WRONLY))
print(child.pid, child.birth, flush=True)
os.kill(os.getpid(), 9)
"""


async def test_a_child_outlives_a_killed_parent_and_is_adopted() -> None:
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", STARTS_AND_DIES, stdout=asyncio.subprocess.PIPE, cwd=Path.cwd()
    )
    output, _ = await parent.communicate()
    assert parent.returncode == -signal.SIGKILL
    pid, birth = map(int, output.split())
    assert is_alive(pid)
    assert adopt(pid, birth + 1) is None  # the id is another process's now
    child = adopt(pid, birth)
    assert child is not None
    child.send(signal.SIGKILL)
    assert await child.wait() is None
    child.close()
    assert adopt(pid, birth) is None


async def test_a_birth_is_one_processs_own_whether_the_kernel_has_pidfs_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    first, second = children = [spawn(["sleep", "100"], null) for _ in range(2)]
    os.close(null)
    assert first.birth != second.birth
    # As on a kernel before 6.9, where all anonymous descriptors are of one device.
    monkeypatch.setattr(os, "eventfd", lambda *_: os.pidfd_open(os.getpid()))
    old_style = adopt(first.pid, start_time(first.pid) or -1)
    assert old_style is not None
    old_style.close()
    monkeypatch.undo()
    for child in children:
        child.send(signal.SIGKILL)
        await child.wait()
        assert adopt(child.pid, child.birth) is None
        child.close()


def test_the_start_time_is_that_of_the_process_and_of_living_ones_only() -> None:
    assert start_time(os.getpid()) == start_time(os.getpid())
    assert start_time(1) != start_time(os.getpid())
    assert start_time(2**22 + 1) is None
    pid = os.posix_spawnp("true", ["true"], {})
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # ended, and a zombie until waited for
    assert start_time(pid) is None
    os.waitpid(pid, 0)
