"""Changes of the status, handed to everybody who listens; nobody who is slow holds up the rest."""

import asyncio
from collections.abc import AsyncIterator

BACKLOG = 256  # changes that a listener may lag behind: all rows of a hub, told by slices


class Overrun(Exception):  # noqa: N818 - an event for the listener, who starts afresh
    """The listener fell behind: changes are lost, and it must read the whole status again."""


class Subscription(AsyncIterator[bytes]):
    """One listener's queue of changes in JSON, from the moment of `Feed.subscribe` on.

    Ends when the feed closes.
    """

    def __init__(self, feed: "Feed") -> None:
        self._feed = feed
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()  # None: the end
        self._is_overrun = False

    async def __anext__(self) -> bytes:
        """The next change. Raises Overrun when some were lost. Cancelling loses nothing."""
        change = await self._queue.get()
        if change is not None:
            return change
        if self._is_overrun:
            raise Overrun
        raise StopAsyncIteration

    def offer(self, change: bytes) -> None:
        """Queue a change. Called by the feed."""
        if self._queue.qsize() < BACKLOG:
            self._queue.put_nowait(change)
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

    def publish(self, change: bytes) -> None:
        """Hand on a Change in JSON, which is made once for all who listen."""
        for listener in tuple(self._listeners):
            listener.offer(change)

    def close(self) -> None:
        """End every subscription."""
        for listener in tuple(self._listeners):
            listener.end()

    def drop(self, subscription: Subscription) -> None:
        self._listeners.discard(subscription)
