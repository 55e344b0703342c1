"""What is kept as the last good configuration, and when systemd is told that the box is ready."""

import asyncio
import os
import socket
import stat
import time
from pathlib import Path
from threading import Event

import pytest

from appliance.config.errors import ConfigError
from appliance.supervisor.disk import Disk
from tests.unit.supervisor.living import StubbornKernel, codes, life, running, until, write


async def test_what_is_in_force_is_kept_and_not_what_the_file_has_become(tmp_path: Path) -> None:
    config = write(tmp_path)
    text = config.read_text()
    lived = life(tmp_path, StubbornKernel())
    config.write_text("this: is broken")
    async with running(lived):
        last_good = tmp_path / "state/last-good.yaml"
        await until(last_good.exists)
        assert last_good.read_text() == text
        assert last_good.stat().st_mode & 0o777 == 0o600
        with pytest.raises(ConfigError):
            await lived.reload()
        assert last_good.read_text() == text


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_writes_that_a_disk_holds_up_end_with_the_newest_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: tuple[int, int]
) -> None:
    """In whatever order, and the file is a whole one at any time."""
    last_good = tmp_path / "state/last-good.yaml"
    may_end, sync = (Event(), Event()), os.fsync
    waiting = list(may_end)

    def slowly(file: int) -> None:
        if waiting and stat.S_ISREG(os.fstat(file).st_mode):  # no folder
            assert waiting.pop(0).wait(20)
        sync(file)

    def drafts() -> int:
        return len(list(last_good.parent.glob(".*.new")))

    texts = [write(tmp_path).read_text()]
    lived = life(tmp_path, StubbornKernel())
    async with running(lived):
        await until(last_good.exists)
        monkeypatch.setattr(lived, "_state_disk", Disk("state", wait_s=0.5))
        monkeypatch.setattr("appliance.kernel.files.os.fsync", slowly)
        for prefix in ("192.0.2.128/25", "192.0.2.64/26"):
            texts.append(write(tmp_path, prefix).read_text())
            await lived.reload()
            assert "last-good" in codes(lived)
        assert last_good.read_text() == texts[0]
        for have, place in zip((1, 0), order, strict=True):
            may_end[place].set()
            await until(lambda: drafts() == have)  # noqa: B023
            is_newest = may_end[1].is_set()
            assert last_good.read_text() == (texts[2] if is_newest else texts[0])
        await until(lambda: "last-good" not in codes(lived))


async def test_a_write_that_is_under_way_is_ended_before_the_supervisor_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, sync = Event(), os.fsync

    def slowly(file: int) -> None:
        begun.set()
        time.sleep(0.2)
        sync(file)

    monkeypatch.setattr("appliance.supervisor.run.END_S", 20.0)
    monkeypatch.setattr("appliance.kernel.files.os.fsync", slowly)
    config = write(tmp_path)
    async with running(life(tmp_path, StubbornKernel())):
        await until(begun.is_set)
    assert (tmp_path / "state/last-good.yaml").read_text() == config.read_text()


async def test_a_reload_does_not_say_ready_for_a_box_that_never_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path)
    kernel = StubbornKernel()
    kernel.refused = ("",)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        lived = life(tmp_path, kernel)
        task = asyncio.create_task(lived.run())
        await until(lambda: lived._group is not None)
        with pytest.raises(ConfigError):
            await lived.reload()
        lived._stop.set()
        await task
        told = b""
        while b"STOPPING=1" not in told:
            told += systemd.recv(4096)
    assert b"RELOADING=1" in told
    assert b"READY=1" not in told


async def test_a_corrected_configuration_is_announced_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.supervisor.box.RETRY_FIRST_S", 1000.0)
    write(tmp_path)
    kernel = StubbornKernel()
    kernel.refused = ("",)
    lived = life(tmp_path, kernel)
    task = asyncio.create_task(lived.run())
    await until(lambda: "plan-not-in-force" in codes(lived))
    kernel.refused = ()
    await lived.reload()
    await until(lambda: lived._source.stage == "running")
    assert "plan-not-in-force" not in codes(lived)
    lived._stop.set()
    await task
