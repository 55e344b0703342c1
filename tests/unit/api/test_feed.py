"""The feed: who listens gets every change from then on, or is told that some are lost."""

import asyncio

import pytest

from appliance.api.feed import BACKLOG, Feed, Overrun, Told


async def test_everybody_gets_every_change_from_the_subscription_on() -> None:
    feed = Feed()
    feed.publish(Told(b"1"))
    early = feed.subscribe()
    feed.publish(Told(b"2"))
    late = feed.subscribe()
    feed.publish(Told(b"3", "status"))
    feed.close()
    assert [told async for told in early] == [(b"2", "change"), (b"3", "status")]
    assert [told async for told in late] == [(b"3", "status")]


async def test_who_lags_gets_what_was_queued_and_then_an_overrun() -> None:
    feed = Feed()
    slow, quick = feed.subscribe(), feed.subscribe()
    for at in range(BACKLOG + 1):
        feed.publish(Told(b"%d" % at))
        assert (await anext(quick)).data == b"%d" % at
    assert [int((await anext(slow)).data) for _ in range(BACKLOG)] == list(range(BACKLOG))
    with pytest.raises(Overrun):
        await anext(slow)
    assert feed.has_listeners
    quick.close()
    assert not feed.has_listeners


async def test_giving_up_waiting_loses_nothing() -> None:
    feed = Feed()
    subscription = feed.subscribe()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.001):
            await anext(subscription)
    feed.publish(Told(b"1"))
    assert await anext(subscription) == (b"1", "change")


async def test_closing_twice_does_no_harm() -> None:
    feed = Feed()
    subscription = feed.subscribe()
    subscription.close()
    subscription.end()
    feed.close()
    with pytest.raises(StopAsyncIteration):
        await anext(subscription)
