"""Work with files, by a few threads of its own: a disk that hangs must not keep anything else.

A thread that waits for such a disk cannot be had back. So there are few of them for each purpose,
apart from those that serve the kernel, and when all of them wait, whoever asks is told at once.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from typing import ParamSpec, TypeVar

from appliance.api.problems import DiskHangsError

P = ParamSpec("P")
T = TypeVar("T")

WAIT_S = 60.0  # more than a hub takes to read its configuration


class Disk:
    """Threads for one purpose."""

    def __init__(self, purpose: str, threads: int = 2) -> None:
        self._purpose = purpose
        self._pool = ThreadPoolExecutor(threads, purpose)
        self._free = BoundedSemaphore(threads)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Have a thread do it. Raises DiskHangsError, at once when all threads wait for the disk.

        What was begun goes on, also when whoever asked for it does not wait for it any more.
        """
        if not self._free.acquire(blocking=False):
            raise self._hangs()
        doing = self._pool.submit(work, *args, **kwargs)
        doing.add_done_callback(self._release)
        try:
            async with asyncio.timeout(WAIT_S) as limit:
                return await asyncio.wrap_future(doing)
        except TimeoutError:
            if limit.expired():
                raise self._hangs() from None
            raise

    def _release(self, _: Future[T]) -> None:
        """In the thread."""
        self._free.release()

    def _hangs(self) -> DiskHangsError:
        return DiskHangsError(f"the disk of the {self._purpose} does not answer")
