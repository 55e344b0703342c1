"""Server-sent events (HTML Living Standard, section 9.2): the status, then every change of it.

A change tells rows that are new or different. When rows may have gone, the whole status is told.
"""

import asyncio

from aiohttp import web

from appliance.api.feed import Overrun, Subscription
from appliance.api.problems import ApiError, Kind
from appliance.api.routes import EVENT_STREAM
from appliance.api.source import StatusSource
from appliance.turns import encode_in_turns

STREAMS: web.AppKey[set[Subscription]] = web.AppKey("streams", set)
STREAMS_AT_MOST = 16
KEEPALIVE_S = 15.0  # a comment line shows both ends that the other is there
WRITE_TIMEOUT_S = 15.0  # a listener that does not read this long is gone


async def stream_events(source: StatusSource, request: web.Request) -> web.StreamResponse:
    """Answer with events until the client leaves, falls behind or the server stops."""
    streams = request.app[STREAMS]
    if len(streams) >= STREAMS_AT_MOST:
        raise ApiError(Kind.TOO_MANY_STREAMS, f"{STREAMS_AT_MOST} are open.")
    changes = source.subscribe()  # before the status is read: no change falls in between
    streams.add(changes)
    try:
        response = web.StreamResponse(headers={"Cache-Control": "no-store"})
        response.content_type = EVENT_STREAM
        await response.prepare(request)
        try:
            await _send(response, b"event: status\ndata: ")
            async for piece in encode_in_turns(await source.status()):
                await _send(response, piece)
            await _send(response, b"\n\n")
            await _follow(changes, response)
        except (TimeoutError, ConnectionError):  # the client reads no more, or is gone
            if request.transport is not None:
                request.transport.abort()
        return response
    finally:
        streams.discard(changes)
        changes.close()


async def _follow(changes: Subscription, response: web.StreamResponse) -> None:
    while True:
        try:
            async with asyncio.timeout(KEEPALIVE_S):
                told = await anext(changes)
        except TimeoutError:
            await _send(response, b": still here\n\n")
        except Overrun:
            await _send(response, _event("overrun", b"{}"))
            return
        except StopAsyncIteration:
            return
        else:
            await _send(response, _event(told.event, told.data))


async def _send(response: web.StreamResponse, octets: bytes) -> None:
    async with asyncio.timeout(WRITE_TIMEOUT_S):
        await response.write(octets)


def _event(name: str, data: bytes) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), data)  # our JSON has no line breaks


async def end_streams(app: web.Application) -> None:
    """Let every stream end, so that the server can stop."""
    streams = app[STREAMS]
    for changes in tuple(streams):
        changes.end()
