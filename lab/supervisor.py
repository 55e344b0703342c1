"""Run the product on a site as its operator would: start, ask, kill, start again."""

import json
import signal
import socket
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lab.machine import CommandError, Daemon, Machine

# Shared by all machines of the guest, so every site has its own. Apart, as on a box: the state may
# lie on a disk of the story's choice.
STATE, RUN = Path("/run/lab/state"), Path("/run/lab/run")
CONFIG_NAME = "branchline.yaml"
SOCKET_NAME = "api.sock"
NICENESS = -5  # as systemd/branchline.service gives


class Supervisor:
    """`branchline run` on one site. Create through `Site.supervise`; it runs from then on.

    `directory` holds the configuration, its secrets and the supervisor's state, `run_directory` its
    socket and leases. Both outlive kills and restarts.
    """

    def __init__(self, machine: Machine, config: Mapping[str, object] | str) -> None:
        self._machine = machine
        self.directory = STATE / machine.name
        self.directory.mkdir(parents=True, exist_ok=True)
        self.config_file = self.directory / CONFIG_NAME
        self.run_directory = RUN / machine.name
        self.run_directory.mkdir(parents=True, exist_ok=True)
        self.socket = self.run_directory / SOCKET_NAME
        self.daemon: Daemon | None = None
        folders = ("--state-dir", str(self.directory), "--run-dir", str(self.run_directory))
        self._branchline = ("branchline", *folders)
        self.write_config(config)

    def write_config(self, config: Mapping[str, object] | str) -> None:
        """YAML text, or a mapping (written as JSON, which is YAML). Takes effect at a start."""
        text = config if isinstance(config, str) else json.dumps(config, indent=2, default=str)
        self.config_file.write_text(text)

    def start(self, wait_s: float | None = 30) -> None:
        """Start it; with `wait_s`, return when its API answers. Raises CommandError."""
        if self.daemon is not None and self.daemon.is_running:
            message = f"{self._machine.name}: the supervisor runs already"
            raise RuntimeError(message)
        argv = [*self._branchline, "run", "--config", str(self.config_file)]
        self.daemon = self._machine.background(argv, niceness=NICENESS)
        if wait_s is not None:
            self.wait_ready(wait_s)

    def wait_ready(self, timeout_s: float) -> None:
        """Until the API answers. Raises CommandError when it ends or does not answer in time."""
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            if self.daemon is None or not self.daemon.is_running:
                break
            try:
                self.status()
            except (OSError, CommandError):
                time.sleep(0.05)
            else:
                return
        log = self.daemon.output() if self.daemon else "never started"
        message = f"{self._machine.name}: the supervisor does not answer:\n{log[-4000:]}"
        raise CommandError(message)

    def kill(self) -> None:
        """SIGKILL. Whatever it started lives on."""
        self._running().kill()

    def stop(self) -> int:
        """SIGTERM; returns the exit status."""
        return self._running().stop()

    def pause(self) -> None:
        """SIGSTOP: it exists and does nothing, until `resume`."""
        self._running().send(signal.SIGSTOP)

    def resume(self) -> None:
        self._running().send(signal.SIGCONT)

    @property
    def is_running(self) -> bool:
        return self._running().is_running

    def log(self) -> str:
        """What it has logged, earlier runs included."""
        return self._running().output()

    def restart(self, wait_s: float | None = 30) -> None:
        """SIGTERM and start."""
        self.stop()
        self.start(wait_s)

    def status(self) -> Any:
        """GET /v1/status."""
        return self.get("/v1/status")

    def get(self, path: str) -> Any:
        """GET from the unix socket; the decoded JSON. Raises CommandError on an HTTP error."""
        code, body = unix_get(self.socket, path)
        if code != 200:
            message = f"{self._machine.name}: GET {path}: {code} {body[:1000]!r}"
            raise CommandError(message)
        return json.loads(body)

    def command(self, *words: str) -> str:
        """Run `branchline WORDS...` against this supervisor, as a person on the box would."""
        return self._machine.run([*self._branchline, *words])

    def cpu_ratio(self, action: Callable[[], None]) -> float:
        """Share of the 1-GIPS core that the supervisor used while `action` ran."""
        daemon = self._running()
        cpu, start = daemon.cpu_s(), time.monotonic()
        action()
        return (daemon.cpu_s() - cpu) / (time.monotonic() - start)

    def _running(self) -> Daemon:
        if self.daemon is None:
            message = f"{self._machine.name}: the supervisor was never started"
            raise RuntimeError(message)
        return self.daemon


def unix_get(path: Path, target: str, timeout_s: float = 10) -> tuple[int, bytes]:
    """A minimal HTTP/1.0 GET: status code and body."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        connection.connect(str(path))
        connection.sendall(f"GET {target} HTTP/1.0\r\nHost: lab\r\n\r\n".encode())
        received = b""
        while chunk := connection.recv(65536):
            received += chunk
    head, _, body = received.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body
