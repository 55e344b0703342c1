"""Renames into a directory are noticed, and nothing keeps being watched afterwards."""

import asyncio
from pathlib import Path

import pytest

from appliance.services.watch import watching


async def test_renames_are_told_and_half_written_files_are_not(tmp_path: Path) -> None:
    told = asyncio.Event()
    with watching(tmp_path, told.set):
        (tmp_path / "a.new").write_text("half")
        await asyncio.sleep(0.05)
        assert not told.is_set()
        for _ in range(3):
            (tmp_path / "a.new").write_text("whole")
            (tmp_path / "a.new").replace(tmp_path / "a")
            await asyncio.wait_for(told.wait(), 5)
            told.clear()
    (tmp_path / "a").replace(tmp_path / "b")
    await asyncio.sleep(0.05)
    assert not told.is_set()


async def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(FileNotFoundError, match="absent"),
        watching(tmp_path / "absent", lambda: None),
    ):
        pass
