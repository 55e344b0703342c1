"""Changes of the status, handed to everybody who listens; nobody who is slow holds up the rest."""

import asyncio
from collections.abc import AsyncIterator
from typing import Literal, NamedTuple

BACKLOG = 256  # changes that a listener may lag behind: all rows of a hub, told by slices


class Overrun(Exception):  # noqa: N818 - an event for the listener, who starts afresh
    """The listener fell behind: changes are lost, and it must read the whole status again."""


class Told(NamedTuple):
    """An event for the listeners: a Change, or a whole Status in place of all that was told."""

    data: bytes  # JSON
    event: Literal["change", "status"] = "change"


class Subscription(AsyncIterator[Told]):
    """One listener's queue of what is told, from the moment of `Feed.subscribe` on.

    Ends when the feed closes.
    """

    def __init__(self, feed: "Feed") -> None:
        self._feed = feed
        self._queue: asyncio.Queue[Told | None] = asyncio.Queue()  # None: the end
        self._is_overrun = False

    async def __anext__(self) -> Told:
        """The next event. Raises Overrun when some were lost. Cancelling loses nothing."""
        told = await self._queue.get()
        if told is not None:
            return told
        if self._is_overrun:
            raise Overrun
        raise StopAsyncIteration

    def offer(self, told: Told) -> None:
        """Queue an event. Called by the feed."""
        if self._queue.qsize() < BACKLOG:
            self._queue.put_nowait(told)
        else:
            self._is_overrun = True
            self.end()

    def end(self) -> None:
        """Take no more changes; the listener gets what is queued, and then the end."""
        self.close()
        self._queue.put_nowait(None)

    def close(self) -> None:
        """Take no more changes. The listener calls this when it leaves."""
        self._feed.drop(self)


class Feed:
    """Where the supervisor publishes and the API listens. Bounded in memory and never waits."""

    def __init__(self) -> None:
        self._listeners: set[Subscription] = set()

    @property
    def has_listeners(self) -> bool:
        """False: nobody would see a change, so that there is no need to build it."""
        return bool(self._listeners)

    def subscribe(self) -> Subscription:
        subscription = Subscription(self)
        self._listeners.add(subscription)
        return subscription

    def publish(self, told: Told) -> None:
        """Hand on an event, which is made once for all who listen."""
        for listener in tuple(self._listeners):
            listener.offer(told)

    def close(self) -> None:
        """End every subscription."""
        for listener in tuple(self._listeners):
            listener.end()

    def drop(self, subscription: Subscription) -> None:
        self._listeners.discard(subscription)
