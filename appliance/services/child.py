"""Keeps one program running beside the supervisor: start, adopt, notice a hang, start again.

The program outlives the supervisor on purpose, however that ends: a DHCP client must go on renewing
its lease. The next supervisor finds it by a record in the run directory and adopts it when it was
started in the same way; so a restart of the supervisor is nothing that the program notices. Only
`end` ends it.

Its output goes through a FIFO that both ends hold open for reading and writing without blocking:
without a supervisor the program neither stalls on a full pipe nor dies of a broken one, and what
it said meanwhile, up to the size of a pipe, is read by the next supervisor.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from appliance import clock
from appliance.kernel.process import Child, adopt, boot_id, spawn

LEAST_PAUSE_S, MOST_PAUSE_S = 1.0, 60.0  # between an end and the next start, doubling
STEADY_S = 60.0  # running this long proves that it can
HANG_CHECK_S = 10.0
END_S = 10.0  # after a polite signal, before SIGKILL
LONGEST_LINE = 500
MOST_LINES = 50  # ... to the log, per STEADY_S

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Program:
    """What to run. `identity` stands for everything that makes a running one the right one."""

    name: str  # of its files in the run directory
    argv: tuple[str, ...]
    identity: str


@dataclass(frozen=True, slots=True)
class Record:
    """Who runs, as left for the next supervisor."""

    pid: int
    birth: int  # a process id alone may be another's by now
    boot: str  # the run directory may be on a disk
    identity: str


class Service:
    """One program that shall run. `jitter` yields numbers in 0..1; `is_hung` knows a sign of life.

    Cancelling `run` leaves the program alone.
    """

    def __init__(
        self,
        program: Program,
        directory: Path,
        jitter: Callable[[], float],
        is_hung: Callable[[int], bool] = lambda _pid: False,
        tell: Callable[[str | None], None] = lambda _trouble: None,
    ) -> None:
        """`tell` takes why the program cannot be started, and None when it could."""
        self._program = program
        self._record = directory / f"{program.name}.child"
        self._fifo = directory / f"{program.name}.out"
        self._jitter = jitter
        self._is_hung = is_hung
        self._tell = tell

    async def run(self) -> None:
        """Keep it running, for ever."""
        pause_s = LEAST_PAUSE_S
        output: int | None = None
        with ExitStack() as stack:
            while True:
                began = clock.monotonic()
                try:
                    if output is None:
                        output = stack.enter_context(self._output())
                    child = await self._adopted() or self._spawned(output)
                except OSError as error:
                    log.warning(
                        "program cannot be started",
                        extra={"program": self._program.name, "error": str(error)},
                    )
                    self._tell(f"{self._program.argv[0]} cannot be started: {error.strerror}")
                else:
                    self._tell(None)
                    await self._watch(child)
                if clock.monotonic() - began >= STEADY_S:
                    pause_s = LEAST_PAUSE_S
                # Half of the pause is fixed, half is drawn: many boxes must not retry in step.
                await asyncio.sleep(pause_s * (0.5 + 0.5 * self._jitter()))
                pause_s = min(2 * pause_s, MOST_PAUSE_S)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the program that runs, if one does, by this signal and at last by SIGKILL.

        Raises OSError when it has ended and its files cannot be removed.
        """
        await end(self._record, number)
        _forget(self._fifo)

    async def _adopted(self) -> Child | None:
        """The one that runs already, if it is the right one; a wrong one is ended."""
        record = read_record(self._record)
        child = adopt(record.pid, record.birth) if record else None
        if record is None or child is None:
            return None
        if record.identity != self._program.identity:
            child.close()
            await end(self._record, signal.SIGTERM)
            return None
        log.info("program adopted", extra={"program": self._program.name, "pid": record.pid})
        return child

    def _spawned(self, output: int) -> Child:
        child = spawn(self._program.argv, output)
        record = Record(child.pid, child.birth, boot_id(), self._program.identity)
        # Written after the start: between the two a kill of ours would leave a stranger behind,
        # which is why the program must refuse to run twice (dhcpcd does, by its own pid file).
        try:
            new = self._record.with_suffix(".new")
            new.write_text(json.dumps(asdict(record)))
            new.replace(self._record)
        except OSError:
            child.send(signal.SIGTERM)
            child.close()
            raise
        log.info(
            "program started",
            extra={"program": self._program.name, "pid": child.pid, "argv": self._program.argv},
        )
        return child

    async def _watch(self, child: Child) -> None:
        """Until it has ended, by itself or because it hangs."""
        may_end = True
        ended = asyncio.ensure_future(child.wait())
        try:
            while not ended.done():
                await asyncio.wait((ended,), timeout=HANG_CHECK_S)
                if not ended.done() and may_end and self._is_hung(child.pid):
                    log.warning(
                        "program hangs and is killed",
                        extra={"program": self._program.name, "pid": child.pid},
                    )
                    may_end = send(child, signal.SIGKILL, self._program.name)
                    if may_end:
                        await ended
            log.warning(
                "program ended",
                extra={"program": self._program.name, "pid": child.pid, "status": ended.result()},
            )
        finally:
            ended.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await ended
            child.close()

    @contextmanager
    def _output(self) -> Iterator[int]:
        """The descriptor to give to the program, while its lines are read into the log.

        Raises OSError.
        """
        with contextlib.suppress(FileExistsError):
            os.mkfifo(self._fifo, 0o600)
        # Two descriptions: a program may change the flags of its own.
        ours = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK)
        try:
            theirs = os.open(self._fifo, os.O_RDWR | os.O_NONBLOCK)
        except OSError:
            os.close(ours)
            raise
        loop = asyncio.get_running_loop()
        lines = Lines(self._program.name)

        def ready() -> None:
            with contextlib.suppress(BlockingIOError):
                lines.feed(os.read(ours, 4096), clock.monotonic())

        loop.add_reader(ours, ready)
        try:
            yield theirs
        finally:
            loop.remove_reader(ours)
            os.close(ours)
            os.close(theirs)


class Lines:
    """Turns a program's output into log lines: whole ones, short ones, printable ones, not many."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = b""
        self._period_began = float("-inf")
        self._logged = 0

    def feed(self, data: bytes, now: float) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LONGEST_LINE:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            if line.strip():
                self._log(line, now)

    def _log(self, line: bytes, now: float) -> None:
        if now - self._period_began >= STEADY_S:
            self._period_began, self._logged = now, 0
        self._logged += 1
        if self._logged > MOST_LINES:
            return
        # A server's words are in some of these lines: nothing in them may steer a terminal.
        text = line[:LONGEST_LINE].decode("utf-8", "replace")
        shown = "".join(c if c.isprintable() else "?" for c in text)
        log.info("program said", extra={"program": self._name, "line": shown})
        if self._logged == MOST_LINES:
            log.warning("program says too much", extra={"program": self._name})


async def end(record_file: Path, number: signal.Signals) -> None:
    """End the program of a record, if it runs, and forget the record. Raises OSError."""
    record = read_record(record_file)
    child = adopt(record.pid, record.birth) if record else None
    if child is not None:
        try:
            if not send(child, number, record_file.stem):
                return
            async with asyncio.timeout(END_S):
                await child.wait()
        except TimeoutError:
            send(child, signal.SIGKILL, record_file.stem)
            await child.wait()
        finally:
            child.close()
    _forget(record_file)


def send(child: Child, number: signal.Signals, name: str) -> bool:
    """Send a signal; False when we may not: a program that changes its user asks for CAP_KILL."""
    try:
        child.send(number)
    except PermissionError as error:
        log.error("program cannot be ended", extra={"program": name, "error": str(error)})
        return False
    return True


def _forget(file: Path) -> None:
    file.unlink(missing_ok=True)


def read_record(record_file: Path) -> Record | None:
    """The record of a program of this boot, or None when there is none that makes sense."""
    try:
        fields = json.loads(record_file.read_text())
        pid, birth = int(fields["pid"]), int(fields["birth"])
        record = Record(pid, birth, str(fields["boot"]), str(fields["identity"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if record.boot == boot_id() else None
