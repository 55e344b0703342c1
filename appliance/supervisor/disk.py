"""Work with files, by a few threads of its own: a disk that hangs must not keep anything else.

A thread that waits for such a disk cannot be had back. So each purpose has threads of its own,
apart from those that serve the kernel, and whoever waits for one of them is told in time.
"""

import asyncio
import logging
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from appliance.api.problems import DiskHangsError
from appliance.threads import Threads

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

WAIT_S = 20.0  # less than any request may take that waits for a disk
THREADS = 2


class Disk:
    """Threads for one purpose."""

    def __init__(self, purpose: str, *, wait_s: float = WAIT_S) -> None:
        self._purpose = purpose
        self._wait_s = wait_s
        self._threads = Threads(purpose, THREADS)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Have a thread do it. Raises DiskHangsError when that takes too long.

        What was begun goes on, also when whoever asked for it does not wait for it any more.
        """
        doing = asyncio.wrap_future(self._threads.submit(work, *args, **kwargs))
        try:
            async with asyncio.timeout(self._wait_s) as limit:
                return await doing
        except TimeoutError:
            if limit.expired():
                message = f"the disk of the {self._purpose} does not answer"
                raise DiskHangsError(message) from None
            raise

    def finish(self, wait_s: float) -> None:
        """Let what was begun end, but wait no longer: what hangs then ends with the process."""
        if not self._threads.finish(wait_s):
            log.warning("a disk hangs, ending without it", extra={"disk": self._purpose})
