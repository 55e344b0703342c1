"""Many long-lived TCP sessions between two machines, each with its own survival check.

A server process echoes; a client process holds the sessions and has each of them say something
every `interval_s`. A session has failed when it was reset or closed; it survives an event when
something it said after the event came back.
"""

import mmap
import os
import selectors
import socket
import time
from dataclasses import dataclass

from lab.machine import Machine

_READY, _OPEN, _STOP, _HEADER = range(4)
_MESSAGE = b"branchline session 0123456789012"


@dataclass(frozen=True, slots=True)
class SessionsResult:
    opened: int
    survived: int
    failed: tuple[str, ...]  # one line per session that is gone or silent
    longest_stall_ms: float  # the longest time between two answers of any session

    def __str__(self) -> str:
        return (
            f"{self.survived} of {self.opened} sessions alive, "
            f"longest stall {self.longest_stall_ms:.0f} ms"
        )


class TcpSessions:
    """Create through `Lab.tcp_sessions`; all sessions are open when the call returns."""

    def __init__(
        self,
        client: Machine,
        server: Machine,
        address: str,
        *,
        count: int,
        interval_s: float,
        port: int,
        timeout_s: float,
    ) -> None:
        self._count = count
        self._interval_s = interval_s
        self._address = address
        self._port = port
        self._family = socket.AF_INET6 if ":" in address else socket.AF_INET
        cells = memoryview(mmap.mmap(-1, (_HEADER + 3 * count) * 8)).cast("q")
        self._header = cells[:_HEADER]
        # per session: start of the last message that was answered; longest stall; errno when gone
        self._answered_ns = cells[_HEADER : _HEADER + count]
        self._stall_ns = cells[_HEADER + count : _HEADER + 2 * count]
        self._errno = cells[_HEADER + 2 * count :]
        end = time.monotonic() + timeout_s
        self._server_pid = server.fork(self._echo)
        while not self._header[_READY] and time.monotonic() < end:
            time.sleep(0.001)
        self._client_pid = client.fork(self._talk)
        while self._header[_OPEN] < count:
            if time.monotonic() > end:
                message = f"{self._header[_OPEN]} of {count} sessions opened in {timeout_s} s"
                raise RuntimeError(message)
            time.sleep(0.01)

    def check(self, timeout_s: float = 60) -> SessionsResult:
        """Wait until every session has had something said from now on answered, or is gone."""
        asked_ns = time.monotonic_ns()
        end = time.monotonic() + timeout_s
        while time.monotonic() < end:
            waiting = [
                n
                for n in range(self._count)
                if not self._errno[n] and self._answered_ns[n] < asked_ns
            ]
            if not waiting:
                break
            time.sleep(0.05)
        failed = []
        for n in range(self._count):
            if self._errno[n]:
                failed.append(f"session {n}: {os.strerror(self._errno[n])}")
            elif self._answered_ns[n] < asked_ns:
                failed.append(f"session {n}: silent for {timeout_s} s")
        return SessionsResult(
            opened=self._count,
            survived=self._count - len(failed),
            failed=tuple(failed),
            longest_stall_ms=max(self._stall_ns, default=0) / 1e6,
        )

    def stop(self) -> None:
        self._header[_STOP] = 1
        os.waitpid(self._client_pid, 0)
        os.waitpid(self._server_pid, 0)

    # -- inside --------------------------------------------------------------------------------

    def _echo(self) -> None:
        listener = socket.socket(self._family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("", self._port))
        listener.listen(self._count)
        listener.setblocking(False)
        with selectors.DefaultSelector() as selector:
            selector.register(listener, selectors.EVENT_READ)
            self._header[_READY] = 1
            while not self._header[_STOP]:
                for key, _ in selector.select(0.2):
                    if key.fileobj is listener:
                        connection, _ = listener.accept()
                        selector.register(connection, selectors.EVENT_READ)
                        continue
                    assert isinstance(key.fileobj, socket.socket)
                    try:
                        content = key.fileobj.recv(4096)
                        key.fileobj.sendall(content)
                    except OSError:
                        content = b""
                    if not content:
                        selector.unregister(key.fileobj)
                        key.fileobj.close()

    def _talk(self) -> None:
        sessions = []
        for _ in range(self._count):
            sessions.append(socket.create_connection((self._address, self._port)))
            self._header[_OPEN] += 1
        said_ns = [0] * self._count  # 0: the last message was answered
        missing = [0] * self._count  # octets of the answer still to come
        due_s = [time.monotonic() + self._interval_s * n / self._count for n in range(self._count)]
        with selectors.DefaultSelector() as selector:
            for n, session in enumerate(sessions):
                session.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                selector.register(session, selectors.EVENT_READ, n)
            while not self._header[_STOP]:
                now = time.monotonic()
                for n in range(self._count):
                    if due_s[n] <= now and not said_ns[n] and not self._errno[n]:
                        due_s[n] = now + self._interval_s
                        said_ns[n] = time.monotonic_ns()
                        missing[n] = len(_MESSAGE)
                        try:
                            sessions[n].sendall(_MESSAGE)
                        except OSError as error:
                            self._errno[n] = error.errno or -1
                wake = min((d for n, d in enumerate(due_s) if not said_ns[n]), default=now + 0.2)
                for key, _ in selector.select(min(0.2, max(0.0, wake - time.monotonic()))):
                    n = key.data
                    try:
                        content = sessions[n].recv(4096)
                    except OSError as error:
                        self._errno[n] = error.errno or -1
                        content = b""
                    if not content:
                        self._errno[n] = self._errno[n] or 104  # closed by the far end
                        selector.unregister(sessions[n])
                        continue
                    missing[n] -= len(content)
                    if missing[n] <= 0:
                        self._stall_ns[n] = max(self._stall_ns[n], time.monotonic_ns() - said_ns[n])
                        self._answered_ns[n] = said_ns[n]
                        said_ns[n] = 0
