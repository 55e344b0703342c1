"""Telling systemd how the service is: sd_notify(3) without its library.

Datagrams of VARIABLE=VALUE lines to the Unix socket in $NOTIFY_SOCKET. Started by hand there is
none, and nothing is sent. A watchdog message says that the event loop runs: it is sent by the loop.
"""

import asyncio
import os
import socket
from collections.abc import Mapping
from contextlib import suppress

from appliance.clock import monotonic_ns


class Notifier:
    """The channel to systemd. Sending never waits and never fails: the service goes on without."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._watchdog_s = _watchdog_s(environment)
        self._socket: socket.socket | None = None
        if self._address:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def ready(self, text: str) -> None:
        """The service is up, also after a reload. `text` is what `systemctl status` shows."""
        self._send(f"READY=1\nSTATUS={_one_line(text)}")

    def reloading(self) -> None:
        """The configuration is being read again; `ready` says when that is over."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_ns() // 1000}")

    def say(self, text: str) -> None:
        """Change what `systemctl status` shows."""
        self._send(f"STATUS={_one_line(text)}")

    def stopping(self) -> None:
        self._send("STOPPING=1")

    async def watchdog(self) -> None:
        """Send signs of life, twice in each interval that systemd allows, until cancelled.

        Returns at once when systemd does not watch.
        """
        while self._watchdog_s is not None:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self._watchdog_s / 2)

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, text: str) -> None:
        if self._socket is not None:
            with suppress(OSError):  # systemd restarts, or its queue is full: it will ask again
                self._socket.sendto(text.encode(), self._address)


def _address(path: str) -> str:
    """The socket's address: a leading "@" stands for the zero of an abstract one."""
    return "\0" + path[1:] if path.startswith("@") else path


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """How often systemd wants to hear of us; None when it does not, or means another process."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    text = environment.get("WATCHDOG_USEC", "")
    return int(text) / 1e6 if text.isascii() and text.isdigit() and int(text) > 0 else None


def _one_line(text: str) -> str:
    return text.replace("\n", " ")
