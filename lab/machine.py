"""A machine of the lab: a network namespace with a mount namespace of its own.

Programs started on a machine see its devices only (also in /sys) and have private directories
where daemons keep what belongs to one box. All other files are shared with the whole lab.
"""

import itertools
import os
import shutil
import signal
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from lab import syscalls, warm

NETNS = Path("/run/netns")
LOGS = Path("/run/lab/logs")
# Directories that a daemon of one box writes to and that two boxes in one guest must not share.
PRIVATE_DIRECTORIES = (
    "/etc/branchline",
    "/run/branchline",
    "/run/dhcpcd",
    "/var/lib/branchline",
    "/var/lib/dhcpcd",
)
_BPF = "/run/lab/bpf"  # the guest's one BPF file system, bound into each machine's own /sys


class CommandError(Exception):
    """A program ended with an error; the text holds the command and what it printed."""


class Daemon:
    """A program that runs until it is stopped. Its output is in `log`."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.process = process
        self.log = log

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    def cpu_s(self) -> float:
        """CPU seconds used so far by the program and by those of its children that have ended.

        In steps of 10 ms; not included is what the kernel does for it in soft interrupts.
        """
        return cpu_s(self.pid)

    def rss_mib(self) -> float:
        """Resident memory in MiB."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        self.process.kill()
        self.process.wait()

    def stop(self, timeout_s: float = 10) -> int:
        """SIGTERM, and SIGKILL after `timeout_s`. Returns the exit status."""
        self.process.terminate()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.process.returncode

    def output(self) -> str:
        return self.log.read_text(errors="replace")


class Machine:
    """Create through `Lab`, which also takes it down."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.daemons: list[Daemon] = []
        self._net_fd, self._mount_fd = _make_namespaces(name)
        self.ip("link set lo up")

    # -- configuring ---------------------------------------------------------------------------

    def ip(self, *commands: str) -> None:
        """Apply `ip` commands (without the word "ip") in order. Raises CommandError.

        Neighbours of one address family share a process; "-6 route ..." is IPv6.
        """
        for is_v6, group in itertools.groupby(commands, lambda text: text.startswith("-6 ")):
            family = ["-6"] if is_v6 else []
            texts = [text.removeprefix("-6 ") for text in group]
            _batch(["ip", *family, "-n", self.name, "-batch", "-"], texts)

    def tc(self, *commands: str) -> None:
        """Apply `tc` commands (without the word "tc") in one process. Raises CommandError."""
        _batch(["tc", "-n", self.name, "-batch", "-"], commands)

    def nft(self, rules: str) -> None:
        """Apply nft rules in one transaction. Raises CommandError."""
        self.run(["nft", "-f", "-"], stdin=rules)

    def sysctl(self, **values: object) -> None:
        """Set `net.*` keys; dots are written as "__": sysctl(net__ipv4__ip_forward=1)."""
        with self.entered():
            for key, value in values.items():
                Path("/proc/sys", *key.split("__")).write_text(f"{value}\n")

    # -- programs ------------------------------------------------------------------------------

    def run(
        self,
        argv: Sequence[str],
        *,
        stdin: str | None = None,
        check: bool = True,
        timeout_s: float = 600,
    ) -> str:
        """Run a program to its end and return its standard output. Raises CommandError."""
        done = subprocess.run(
            list(argv),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            preexec_fn=self._beginning(argv),
        )
        if check and done.returncode:
            message = f"{self.name}: {' '.join(argv)}: {done.stdout}{done.stderr}"
            raise CommandError(message.rstrip())
        return done.stdout

    def start(self, argv: Sequence[str], *, stdin: str | None = None) -> subprocess.Popen[str]:
        """Start a program whose output the caller collects with `communicate()`."""
        return subprocess.Popen(
            list(argv),
            stdin=subprocess.DEVNULL if stdin is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=self._beginning(argv),
        )

    def background(
        self,
        argv: Sequence[str],
        *,
        name: str | None = None,
        env: Mapping[str, str] | None = None,
        niceness: int = 0,
    ) -> Daemon:
        """Start a daemon; its log is kept and shown when the story fails."""
        name = name or Path(argv[0]).name
        LOGS.mkdir(parents=True, exist_ok=True)
        log = LOGS / f"{self.name}-{name}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                list(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                preexec_fn=self._beginning(argv, env, niceness),
            )
        daemon = Daemon(name, process, log)
        self.daemons.append(daemon)
        return daemon

    def fork(self, work: Callable[[], None]) -> int:
        """Run a Python function in a child on this machine; returns its process id."""
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            syscalls.die_with_parent(signal.SIGKILL)
            self.enter()
            work()
            status = 0
        except BaseException:  # noqa: BLE001 - the child must end here, whatever happened
            traceback.print_exc()
        finally:
            os._exit(status)

    def _beginning(
        self, argv: Sequence[str], env: Mapping[str, str] | None = None, niceness: int = 0
    ) -> Callable[[], None]:
        """What the child does before the program begins, or in place of loading it."""
        is_warm = warm.prepare(argv[0])

        def begin() -> None:
            self.enter()
            os.nice(niceness)
            if is_warm:
                os.environ.update(env or {})
                warm.become(argv)

        return begin

    # -- namespaces ----------------------------------------------------------------------------

    def enter(self) -> None:
        """Move this process here for good."""
        syscalls.setns(self._net_fd, syscalls.CLONE_NEWNET)
        syscalls.setns(self._mount_fd, syscalls.CLONE_NEWNS)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """The block's sockets and /proc/sys/net belong to this machine. Files do not change."""
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            syscalls.setns(self._net_fd, syscalls.CLONE_NEWNET)
            yield
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
            os.close(home)

    def processes(self) -> list[int]:
        """Ids of all processes on this machine, however they came here."""
        inode = os.fstat(self._net_fd).st_ino
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError):
                    if (entry / "ns/net").stat().st_ino == inode:
                        found.append(int(entry.name))
        return found

    def destroy(self) -> None:
        """Kill everything here and remove the namespaces with all their devices."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for daemon in self.daemons:
            daemon.process.wait()
        while self.processes():  # killed, but not yet gone
            time.sleep(0.001)
        syscalls.unmount(str(NETNS / self.name))
        (NETNS / self.name).unlink()
        os.close(self._net_fd)
        os.close(self._mount_fd)


def cpu_s(pid: int) -> float:
    """CPU seconds of a process and its ended children, by /proc/PID/stat."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11:15]) / os.sysconf("SC_CLK_TCK")


def prepare_guest() -> None:
    """Once per boot, before the first machine."""
    NETNS.mkdir(parents=True, exist_ok=True)
    LOGS.mkdir(parents=True, exist_ok=True)
    Path(_BPF).mkdir(parents=True, exist_ok=True)
    syscalls.mount("/sys/fs/bpf", _BPF, flags=syscalls.MS_BIND)
    for directory in PRIVATE_DIRECTORIES:
        Path(directory).mkdir(parents=True, exist_ok=True)


def forget_logs() -> None:
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)


def _make_namespaces(name: str) -> tuple[int, int]:
    """A child makes both namespaces and waits; we keep descriptors of them; the child goes."""
    ready_read, ready_write = os.pipe()
    done_read, done_write = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(done_write)
            syscalls.unshare(syscalls.CLONE_NEWNET | syscalls.CLONE_NEWNS)
            syscalls.mount("none", "/", flags=syscalls.MS_REC | syscalls.MS_PRIVATE)
            syscalls.mount("sys", "/sys", "sysfs")  # shows the devices of the new namespace
            syscalls.mount(_BPF, "/sys/fs/bpf", flags=syscalls.MS_BIND)
            for directory in PRIVATE_DIRECTORIES:
                syscalls.mount("tmpfs", directory, "tmpfs")
            os.write(ready_write, b"1")
            os.read(done_read, 1)
            status = 0
        finally:
            os._exit(status)
    os.close(ready_write)
    os.close(done_read)
    if os.read(ready_read, 1) != b"1":
        message = f"no namespaces for {name}"
        raise OSError(message)
    net_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    mount_fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
    handle = NETNS / name
    handle.touch()
    syscalls.mount(f"/proc/{pid}/ns/net", str(handle), flags=syscalls.MS_BIND)
    os.close(done_write)
    os.close(ready_read)
    os.waitpid(pid, 0)
    return net_fd, mount_fd


def _batch(argv: list[str], commands: Sequence[str]) -> None:
    text = "\n".join(commands) + "\n"
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        message = f"{' '.join(argv)}\n{text}{done.stdout}{done.stderr}"
        raise CommandError(message)
