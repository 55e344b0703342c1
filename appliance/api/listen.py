"""The Unix socket of the local API. There is no other way in: never TCP."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from aiohttp import web

from appliance.api.server import create_app
from appliance.api.source import StatusSource

SOCKET_MODE = 0o660  # the service's user and group
PATH_OCTETS = 107  # sun_path of unix(7), without the final zero
SHUTDOWN_S = 1.0  # of which aiohttp takes two: until it cancels a request, and then for its end
KEEPALIVE_S = 30.0


@asynccontextmanager
async def serve(source: StatusSource, path: Path) -> AsyncIterator[None]:
    """Answer on the socket at `path` while the context lasts.

    A socket that a killed supervisor left behind is replaced; that only one supervisor runs is
    for the caller to ensure. Raises OSError when the socket cannot be made.
    """
    listener, inode = _listen(path)
    runner = web.AppRunner(
        create_app(source),
        access_log=None,
        keepalive_timeout=KEEPALIVE_S,
        lingering_time=1.0,
        auto_decompress=False,  # a small body must not become a large one
        shutdown_timeout=SHUTDOWN_S,
    )
    try:
        await runner.setup()
        await web.SockSite(runner, listener).start()
        yield
    finally:
        await runner.cleanup()
        listener.close()
        _remove(path, inode)


def _listen(path: Path) -> tuple[socket.socket, int]:
    """A listening socket and its inode.

    It appears at its path only once its mode is right: at no moment is it too open.
    """
    unready = path.with_name(f".{os.getpid()}")
    if len(os.fsencode(unready)) > PATH_OCTETS or len(os.fsencode(path)) > PATH_OCTETS:
        msg = f"{path}: a socket's path has at most {PATH_OCTETS} octets; use a shorter directory"
        raise OSError(msg)
    with suppress(FileNotFoundError):
        unready.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listener.bind(str(unready))
        unready.chmod(SOCKET_MODE)
        listener.listen()
        inode = unready.stat().st_ino
        unready.rename(path)
    except OSError:
        listener.close()
        with suppress(FileNotFoundError):
            unready.unlink()
        raise
    return listener, inode


def _remove(path: Path, inode: int) -> None:
    """Remove our socket, but not that of a successor who is already there."""
    with suppress(FileNotFoundError):
        if path.stat().st_ino == inode:
            path.unlink()
