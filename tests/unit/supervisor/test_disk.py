"""A disk that hangs keeps its own threads and nobody else's."""

import asyncio
from collections.abc import Iterator
from threading import Event

import pytest

from appliance.api.problems import DiskHangsError
from appliance.supervisor import disk as module
from appliance.supervisor.disk import Disk

MORE_THAN_ANY_POOL_HAS = 40


@pytest.fixture
def answers() -> Iterator[Event]:
    """Set when the disk answers again."""
    event = Event()
    yield event
    event.set()


async def test_what_a_thread_brings_out_or_raises_is_given(answers: Event) -> None:
    answers.set()
    disk = Disk("tests", 1)
    assert await disk.run(int, "7") == 7
    with pytest.raises(FileNotFoundError):
        await disk.run(open, "/nowhere")
    with pytest.raises(TimeoutError):
        await disk.run(_time_out)
    assert await disk.run(answers.wait)


def _time_out() -> None:
    raise TimeoutError


async def test_when_all_threads_hang_it_is_told_at_once_until_one_is_free(answers: Event) -> None:
    disk = Disk("tests", 2)
    for _ in range(2):
        waiting = asyncio.ensure_future(disk.run(answers.wait))
        await asyncio.sleep(0)
        waiting.cancel()  # as when a request takes too long: the thread goes on to wait
    for _ in range(MORE_THAN_ANY_POOL_HAS):
        with pytest.raises(DiskHangsError, match="the disk of the tests does not answer"):
            await disk.run(int)
    assert await asyncio.to_thread(int) == 0  # the kernel is served
    answers.set()
    async with asyncio.timeout(20):
        while disk._free._value < 2:  # noqa: ASYNC110 - a thread tells nobody that it ends
            await asyncio.sleep(0)
        assert await disk.run(int) == 0


async def test_nobody_waits_for_ever(answers: Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAIT_S", 0.0)
    with pytest.raises(DiskHangsError):
        await Disk("tests", 1).run(answers.wait)
