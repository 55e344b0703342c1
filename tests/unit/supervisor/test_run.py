"""A supervisor's life on a kernel in memory: what ends it, and what must not."""

import asyncio
from pathlib import Path

import pytest

from appliance.kernel.fake import FakeKernel
from tests.unit.supervisor.living import life, running, write


class OwnError(Exception):
    """Nobody expects this one."""


def _fail() -> None:
    raise OwnError


@pytest.fixture
def kernel() -> FakeKernel:
    return FakeKernel(devices=("lo", "nowhere0"))


async def test_a_fault_in_a_callback_ends_the_supervisor(
    tmp_path: Path, kernel: FakeKernel, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be logged and forgotten, and what the callback did be done by nobody."""
    write(tmp_path)
    async with running(life(tmp_path, kernel)) as task:
        assert not task.done()
        held = dict(kernel.owned)
        asyncio.get_running_loop().call_soon(_fail)
        with pytest.raises(OwnError):
            async with asyncio.timeout(5):
                await asyncio.shield(task)
    assert OwnError.__name__ in caplog.text
    assert kernel.owned == held  # forwarding goes on


async def test_trouble_with_a_connection_of_the_api_does_not(
    tmp_path: Path, kernel: FakeKernel
) -> None:
    write(tmp_path)
    async with running(life(tmp_path, kernel)) as task:
        loop = asyncio.get_running_loop()
        loop.call_exception_handler({"message": "Fatal error on transport", "exception": OSError()})
        await asyncio.sleep(0)
        assert not task.cancelling()
        assert not task.done()
    task.result()
