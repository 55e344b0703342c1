"""sd_notify against a real datagram socket."""

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from appliance.supervisor.notify import Notifier
from tests.unit import virtual_time


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[socket.socket]:
    """The receiving end at tmp_path/notify."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "notify"))
        receiver.settimeout(5)
        yield receiver


def _heard(receiver: socket.socket) -> str:
    return receiver.recv(4096).decode()


def test_the_life_of_a_service(systemd: socket.socket) -> None:
    with closing(Notifier({"NOTIFY_SOCKET": systemd.getsockname()})) as notifier:
        notifier.ready("8 of 8 paths up\nall well")
        assert _heard(systemd) == "READY=1\nSTATUS=8 of 8 paths up all well"
        notifier.say("7 of 8 paths up")
        assert _heard(systemd) == "STATUS=7 of 8 paths up"
        notifier.reloading()
        reloading, monotonic = _heard(systemd).split("\n")
        assert reloading == "RELOADING=1"
        assert int(monotonic.removeprefix("MONOTONIC_USEC=")) > 0
        notifier.stopping()
        assert _heard(systemd) == "STOPPING=1"


def test_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind("")  # the kernel chooses an abstract address
        receiver.settimeout(5)
        address = "@" + receiver.getsockname()[1:].decode()
        with closing(Notifier({"NOTIFY_SOCKET": address})) as notifier:
            notifier.stopping()
            assert _heard(receiver) == "STOPPING=1"


@pytest.mark.parametrize("pid", [None, str(os.getpid())], ids=["for anybody", "for us"])
def test_signs_of_life_come_twice_an_interval(systemd: socket.socket, pid: str | None) -> None:
    environment = {"NOTIFY_SOCKET": systemd.getsockname(), "WATCHDOG_USEC": "1000000"}
    if pid is not None:
        environment["WATCHDOG_PID"] = pid

    async def live(notifier: Notifier) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(2.2):
                await notifier.watchdog()

    with closing(Notifier(environment)) as notifier:
        virtual_time.run(live(notifier))
    assert [_heard(systemd) for _ in range(5)] == ["WATCHDOG=1"] * 5  # at 0, 0.5, ... 2.0 s
    systemd.setblocking(False)
    with pytest.raises(BlockingIOError):
        systemd.recv(1)


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "0"},
        {"WATCHDOG_USEC": "x"},
        {"WATCHDOG_USEC": "9", "WATCHDOG_PID": "1"},
    ],
)
async def test_nobody_watches(environment: dict[str, str], systemd: socket.socket) -> None:
    environment |= {"NOTIFY_SOCKET": systemd.getsockname()}
    with closing(Notifier(environment)) as notifier:
        async with asyncio.timeout(5):
            await notifier.watchdog()
    systemd.setblocking(False)
    with pytest.raises(BlockingIOError):
        systemd.recv(1)


def test_without_systemd_nothing_happens() -> None:
    with closing(Notifier({})) as notifier:
        notifier.ready("up")
        notifier.stopping()


def test_a_systemd_that_went_away_does_no_harm(tmp_path: Path) -> None:
    with closing(Notifier({"NOTIFY_SOCKET": str(tmp_path / "gone")})) as notifier:
        notifier.ready("up")


def test_a_systemd_that_does_not_read_does_not_hold_us_up(systemd: socket.socket) -> None:
    with closing(Notifier({"NOTIFY_SOCKET": systemd.getsockname()})) as notifier:
        for _ in range(10_000):
            notifier.say("x" * 1000)
    assert _heard(systemd).startswith("STATUS=")
