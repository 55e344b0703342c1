"""Long work in short turns of the event loop, which sends probes and decides in between.

A thread would be no better: what is in C keeps the interpreter to itself until it is done, and what
is in Python makes the loop wait for it at every system call.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import fields
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from appliance.contract.codec import encode

if TYPE_CHECKING:
    from _typeshed import DataclassInstance, SupportsRichComparison

T = TypeVar("T")
S = TypeVar("S", bound="SupportsRichComparison")

TURN = 64  # rows made or told before anybody else gets a turn


async def slices(items: Iterable[T]) -> AsyncIterator[tuple[T, ...]]:
    """The items, at most `TURN` at a time and never two times in one turn of the loop.

    Items of a generator are made as they are taken. What they are made from must not change.
    """
    rest = iter(items)
    while batch := tuple(islice(rest, TURN)):
        yield batch
        await asyncio.sleep(0)


async def collected(items: Iterable[T]) -> tuple[T, ...]:
    """All the items, a slice each turn."""
    return tuple([item async for batch in slices(items) for item in batch])


async def in_order(items: Iterable[S]) -> Iterator[S]:
    """The items sorted: a slice each turn, and then they are merged as they are taken."""
    return heapq.merge(*[sorted(batch) async for batch in slices(items)])


async def encode_rows(rows: Iterable[object | None]) -> AsyncIterator[bytes]:
    """JSON of an array of wire values, in pieces, a slice each turn. None is not told.

    Megabytes in one piece would be copied several times on their way out, in one turn.
    """
    before = b"["
    async for batch in slices(rows):
        texts = [encode(row) for row in batch if row is not None]
        if texts:
            yield before + b",".join(texts)
            before = b","
    yield b"[]" if before == b"[" else b"]"


async def encode_in_turns(value: "DataclassInstance") -> AsyncIterator[bytes]:
    """JSON of a wire value whose tuples may be long: as `encode`, but in pieces."""
    mark = b"{"
    for field in fields(value):
        part = getattr(value, field.name)
        yield b'%s"%s":' % (mark, field.name.encode())
        if isinstance(part, tuple):
            async for piece in encode_rows(part):
                yield piece
        else:
            yield encode(part)
        mark = b","
    yield b"}"
