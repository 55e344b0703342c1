"""The only user of child programs. It runs what it is told and decides nothing.

Every argv is a list and no shell is involved. What a program may print and how long it may take is
bounded, so that no program can hold the supervisor or fill its memory.
"""

import asyncio
import contextlib
import os
import select
import signal
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

TIMEOUT_S = 10.0
LIMIT_BYTES = 16 << 20
_CHUNK = 65536
# What a child must not ignore: Python ignores the first two, nohup and a shell's `&` the others.
_INHERITED = (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProcessError(Exception):
    """A program could not be started, took too long or printed too much."""


@dataclass(frozen=True, slots=True)
class Completed:
    """A program that ended. `status` is its exit status, or minus the signal that ended it."""

    status: int
    stdout: bytes
    stderr: bytes


async def run(
    argv: Sequence[str],
    *,
    input: bytes | None = None,  # noqa: A002 - the word of the subprocess module
    timeout_s: float = TIMEOUT_S,
    limit_bytes: int = LIMIT_BYTES,
) -> Completed:
    """Run a program to its end. A status other than 0 is for the caller to judge.

    Raises ProcessError; the program is dead by then.
    """
    try:
        process = await asyncio.create_subprocess_exec(
            *argv,
            stdin=DEVNULL if input is None else PIPE,
            stdout=PIPE,
            stderr=PIPE,
            env=_environment(),
        )
    except OSError as error:
        message = f"{argv[0]}: {os.strerror(error.errno or 0)}"
        raise ProcessError(message) from error
    try:
        async with asyncio.timeout(timeout_s):
            stdout, stderr, _ = await asyncio.gather(
                _read(process, process.stdout, limit_bytes),
                _read(process, process.stderr, limit_bytes),
                _write(process, input),
            )
            status = await process.wait()
    except TimeoutError:
        message = f"{argv[0]}: not finished after {timeout_s:g} s"
        raise ProcessError(message) from None
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if max(len(stdout), len(stderr)) > limit_bytes:
        message = f"{argv[0]}: printed more than {limit_bytes} octets"
        raise ProcessError(message)
    return Completed(status, stdout, stderr)


class Child:
    """A program that runs beside the supervisor and outlives it, whatever ends the supervisor.

    Made by `spawn`, or by `adopt` of one that an earlier supervisor started. It is in a session of
    its own, so no signal from a terminal reaches it.
    """

    def __init__(self, pid: int, pidfd: int) -> None:
        self.pid = pid
        self.birth = _birth(pid, pidfd)  # tells it from every other process of this boot
        self._pidfd = pidfd

    async def wait(self) -> int | None:
        """Wait for its end: the exit status, or minus the signal, or None if it was not our own."""
        loop = asyncio.get_running_loop()
        ended = loop.create_future()

        def end() -> None:
            if not ended.done():
                ended.set_result(None)

        loop.add_reader(self._pidfd, end)
        try:
            await ended
        finally:
            loop.remove_reader(self._pidfd)
        return self._reap()

    def _reap(self) -> int | None:
        try:
            _, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            return None
        return os.waitstatus_to_exitcode(status)

    def send(self, number: signal.Signals) -> None:
        """Send a signal; one that has ended is left in peace, and so is whoever has its id now.

        Raises PermissionError for one that runs as another user, unless we have CAP_KILL.
        """
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, number)

    def close(self) -> None:
        """Forget it without ending it."""
        os.close(self._pidfd)


def spawn(argv: Sequence[str], output: int) -> Child:
    """Start a program that outlives us, with standard output and error going to `output`.

    Raises OSError when it cannot be started.
    """
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output, 1),
        (os.POSIX_SPAWN_DUP2, output, 2),
    ]
    pid = os.posix_spawnp(
        argv[0],
        list(argv),
        _environment(),
        file_actions=actions,
        setsid=True,
        setsigmask=(),
        setsigdef=_INHERITED,
    )
    return Child(pid, os.pidfd_open(pid))


def adopt(pid: int, birth: int) -> Child | None:
    """The process with this id if it is the one of that birth (`Child.birth`), else None."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return None
    # The id is held by the descriptor now: compared before, it could be another's by now.
    child = Child(pid, pidfd)
    if child.birth != birth or not _is_running(pidfd):
        child.close()
        return None
    return child


def start_time(pid: int) -> int | None:
    """When a living process started, in clock ticks since boot, or None: field 22 of proc(5)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the name, which may contain anything, also ")".
    state, *fields = text.rpartition(")")[2].split()
    return None if state == "Z" else int(fields[18])


def _birth(pid: int, pidfd: int) -> int:
    """The inode of a pidfd, which since Linux 6.9 is a process's own and never another's.

    Before, all anonymous descriptors share one, and the start time has to do. /proc may hide that
    of a process that changed its user (ProtectProc= of systemd); the inode cannot be hidden.
    """
    anonymous = os.eventfd(0, os.EFD_CLOEXEC)
    try:
        if os.fstat(pidfd).st_dev != os.fstat(anonymous).st_dev:
            return os.fstat(pidfd).st_ino
    finally:
        os.close(anonymous)
    return start_time(pid) or 0


def _is_running(pidfd: int) -> bool:
    """A pidfd becomes readable when its process ends, waited for or not."""
    return not select.select((pidfd,), (), (), 0)[0]


def boot_id() -> str:
    """Which boot this is: process ids and start times of another one mean nothing in it."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


async def _read(process: Process, stream: asyncio.StreamReader | None, limit: int) -> bytes:
    """All that comes, or somewhat more than the limit, in which case the program is ended."""
    read = bytearray()
    while stream is not None and (chunk := await stream.read(_CHUNK)):
        read += chunk
        if len(read) > limit:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            break
    return bytes(read)


async def _write(process: Process, data: bytes | None) -> None:
    if data is None or process.stdin is None:
        return
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it read what it wanted
        process.stdin.write(data)
        await process.stdin.drain()
    process.stdin.close()


def _environment() -> dict[str, str]:
    """No surprises from whoever started us: a path, and messages in English."""
    return {"PATH": os.environ.get("PATH", _DEFAULT_PATH), "LC_ALL": "C"}
