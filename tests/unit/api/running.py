"""The real server on a real Unix socket, in a thread of its own, and a client of it."""

import asyncio
import http.client
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance.api.listen import serve
from appliance.api.source import StatusSource


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Server:
    """A server that runs while the context lasts."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        self.path = path
        self._loop = loop

    def call(self, function: Callable[..., object], *arguments: object) -> None:
        """Call a function on the server's event loop."""
        self._loop.call_soon_threadsafe(function, *arguments)

    def connect(self) -> socket.socket:
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(10)
        client.connect(str(self.path))
        return client

    def ask(
        self,
        method: str,
        address: str,
        body: bytes | Iterator[bytes] | None = None,
        **headers: str,
    ) -> Answer:
        connection = http.client.HTTPConnection("localhost", timeout=30)
        connection.sock = self.connect()
        try:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, address, body, names)
            response = connection.getresponse()
            return Answer(response.status, dict(response.headers), response.read())
        finally:
            connection.close()

    def get(self, address: str) -> Answer:
        return self.ask("GET", address)


@contextmanager
def running(source: StatusSource, directory: Path) -> Iterator[Server]:
    """Serve `source` at DIRECTORY/api.sock."""
    path = directory / "api.sock"
    ready = threading.Event()
    done = asyncio.Event()
    loops: list[asyncio.AbstractEventLoop] = []

    async def live() -> None:
        async with serve(source, path):
            loops.append(asyncio.get_running_loop())
            ready.set()
            await done.wait()

    thread = threading.Thread(target=lambda: asyncio.run(live()), name="server")
    thread.start()
    try:
        assert ready.wait(10)
        yield Server(path, loops[0])
    finally:
        loops[0].call_soon_threadsafe(done.set)
        thread.join(10)
        assert not thread.is_alive()
