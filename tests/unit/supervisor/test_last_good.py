"""What is kept as the last good configuration, and when systemd is told that the box is ready."""

import asyncio
import socket
from pathlib import Path

import pytest

from appliance.config.errors import ConfigError
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
