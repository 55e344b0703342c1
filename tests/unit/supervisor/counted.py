"""How much is done between two turns of the loop: in numbers, which are the same on any machine."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import pytest

T = TypeVar("T")


class Turns:
    """Counts the calls of functions, by name."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *functions: tuple[object, str]) -> None:
        """`functions` are counted where they are called from: a module or class, and a name."""
        self.done: Counter[str] = Counter()
        self.most: Counter[str] = Counter()  # in one turn
        self._now: Counter[str] = Counter()
        for place, name in functions:
            monkeypatch.setattr(place, name, self._counted(name, getattr(place, name)))

    def _counted(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self._now[name] += 1
            return function(*arguments)

        return call

    async def run(self, work: Awaitable[T]) -> T:
        """Do some work, whose turns are counted."""
        self.done, self.most = Counter(), Counter()
        watching = asyncio.ensure_future(self._watch())
        result = await work
        await asyncio.sleep(0)
        watching.cancel()
        return result

    async def _watch(self) -> None:
        while True:
            self.done += self._now
            self.most |= self._now
            self._now.clear()
            await asyncio.sleep(0)
