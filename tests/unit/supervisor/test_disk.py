"""A disk that hangs keeps its own threads and nobody else's."""

import asyncio
from collections.abc import Iterator
from threading import Event

import pytest

from appliance.api.problems import DiskHangsError
from appliance.supervisor.disk import THREADS, Disk

MORE_THAN_ANY_POOL_HAS = 40


@pytest.fixture
def answers() -> Iterator[Event]:
    """Set when the disk answers again."""
    event = Event()
    yield event
    event.set()


async def test_what_a_thread_brings_out_or_raises_is_given(answers: Event) -> None:
    answers.set()
    disk = Disk("tests")
    assert await disk.run(int, "7") == 7
    with pytest.raises(FileNotFoundError):
        await disk.run(open, "/nowhere")
    with pytest.raises(TimeoutError):
        await disk.run(_time_out)
    assert await disk.run(answers.wait)


def _time_out() -> None:
    raise TimeoutError


async def test_who_comes_while_all_threads_are_busy_waits_for_one(answers: Event) -> None:
    disk = Disk("tests")
    asked = [asyncio.ensure_future(disk.run(answers.wait)) for _ in range(2 * THREADS)]
    await asyncio.sleep(0)
    answers.set()
    assert await asyncio.gather(*asked) == [True] * len(asked)


async def test_nobody_waits_for_ever_for_a_disk_that_hangs(answers: Event) -> None:
    disk = Disk("tests", wait_s=0.0)
    for _ in range(MORE_THAN_ANY_POOL_HAS):
        with pytest.raises(DiskHangsError, match="the disk of the tests does not answer"):
            await disk.run(answers.wait)
    assert await asyncio.to_thread(int) == 0  # the kernel is served
    answers.set()
    patient = Disk("tests")
    assert await patient.run(int) == 0
