"""Threads for what may hang, as a disk does: the process ends without them.

Those of `concurrent.futures` and of `asyncio.to_thread` are waited for when the process ends, for
as long as they hang.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial
from threading import Lock, Thread
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class Threads:
    """A few threads for one purpose, begun when there is work and gone when there is none."""

    def __init__(self, name: str, most: int = 1) -> None:
        """What comes while all of them are busy waits, and is begun in the order that it came."""
        self._name = name
        self._most = most
        self._lock = Lock()
        self._count = 0
        self._waiting: deque[Callable[[], None]] = deque()
        self._unfinished: set[Future[Any]] = set()

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        with self._lock:
            self._waiting.append(partial(_do, future, partial(work, *args, **kwargs)))
            if self._count == self._most:
                return future
            self._count += 1
        try:
            Thread(target=self._run, name=self._name, daemon=True).start()
        except RuntimeError:  # the system gives no more: it is done in turn, if anybody is there
            with self._lock:
                self._count -= 1
        return future

    def finish(self, wait_s: float) -> bool:
        """Wait for all that was submitted, but no longer. Is all of it done?"""
        return not wait(tuple(self._unfinished), wait_s).not_done

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._count -= 1
                    return
                work = self._waiting.popleft()
            work()


def _do(future: Future[T], work: Callable[[], T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        outcome = work()
    except BaseException as error:  # noqa: BLE001 - it is for whoever waits
        future.set_exception(error)
    else:
        future.set_result(outcome)
