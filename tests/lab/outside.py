"""New connections to a host on the internet, again and again, and what became of each.

    python3 -m tests.lab.outside ADDRESS PORT    begins one every 50 ms, a line when it is decided:
                                                 start, end (monotonic seconds), errno

A story reads it by `Attempts`.
"""

import contextlib
import errno
import selectors
import socket
import sys
import time
from typing import NamedTuple

from lab.topology import Family, Host

EVERY_S = 0.05
PATIENCE_S = 10.0


class Attempt(NamedTuple):
    """A connection that was asked for. Times are of the guest's monotonic clock."""

    start_s: float
    end_s: float
    errno: int

    @property
    def took_s(self) -> float:
        return self.end_s - self.start_s


class Attempts:
    """Begins connections until it is stopped; `so_far` are those that are decided."""

    def __init__(self, client: Host, server: Host, port: int, family: Family = 4) -> None:
        door = ["python3", "-c", _DOOR, str(port)]
        self._door = server.background(door, name=f"door-{port}-{family}")
        argv = ["python3", "-m", "tests.lab.outside", server.address(family), str(port)]
        self._daemon = client.background(argv, name=f"attempts-{port}-{family}")

    def so_far(self) -> list[Attempt]:
        rows = [line.split() for line in self._daemon.output().splitlines()]
        return [Attempt(float(a), float(b), int(c)) for a, b, c in rows]

    def first_after(self, start_s: float) -> Attempt | None:
        """The first connection that was asked for after a moment and came to be."""
        made = [a for a in self.so_far() if a.start_s >= start_s and not a.errno]
        return min(made, key=lambda a: a.end_s, default=None)

    def stop(self) -> None:
        self._daemon.stop()
        self._door.stop()


_DOOR = """
import socket, sys
s = socket.create_server(("", int(sys.argv[1])), family=socket.AF_INET6, dualstack_ipv6=True,
                         backlog=1000)
while True:
    s.accept()[0].close()
"""


def _tell(start_s: float, code: int) -> None:
    print(f"{start_s:.6f} {time.monotonic():.6f} {code}", flush=True)


def main(address: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    waiting: dict[socket.socket, float] = {}
    due = time.monotonic()
    with selectors.DefaultSelector() as selector:
        while True:
            now = time.monotonic()
            if now >= due:
                due += EVERY_S
                sock = socket.socket(family, socket.SOCK_STREAM)
                sock.setblocking(False)
                code = sock.connect_ex((address, port))
                if code in (0, errno.EINPROGRESS):
                    waiting[sock] = now
                    selector.register(sock, selectors.EVENT_WRITE)
                else:
                    _tell(now, code)
                    sock.close()
            for key, _ in selector.select(max(0.0, due - time.monotonic())):
                assert isinstance(key.fileobj, socket.socket)
                _end(selector, waiting, key.fileobj)
            for sock, start in list(waiting.items()):
                if start < now - PATIENCE_S:
                    _end(selector, waiting, sock, errno.ETIMEDOUT)


def _end(
    selector: selectors.BaseSelector,
    waiting: dict[socket.socket, float],
    sock: socket.socket,
    code: int | None = None,
) -> None:
    if code is None:
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    _tell(waiting.pop(sock), code)
    selector.unregister(sock)
    sock.close()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main(sys.argv[1], int(sys.argv[2]))
