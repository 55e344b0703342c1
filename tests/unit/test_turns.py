"""Long work leaves the loop to others after every slice."""

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import pytest

from appliance.contract.codec import encode
from appliance.contract.status import Change, Status
from appliance.turns import TURN, collected, encode_in_turns, encode_rows, in_order, slices
from tests.unit.api.scripted import MOVE, STATUS


@pytest.mark.parametrize("number", [0, 1, TURN, TURN + 1, 10 * TURN - 1])
async def test_others_get_a_turn_after_each_slice_and_nothing_is_lost(number: int) -> None:
    made = 0
    most = 0

    def items() -> Iterator[int]:
        nonlocal made
        for item in range(number):
            made += 1
            yield item

    async def others() -> None:
        nonlocal made, most
        while True:
            most, made = max(most, made), 0
            await asyncio.sleep(0)

    watching = asyncio.ensure_future(others())
    assert await collected(items()) == tuple(range(number))
    await asyncio.sleep(0)
    assert most == min(number, TURN)
    assert [len(batch) async for batch in slices(items())][:1] == [most] * bool(number)
    watching.cancel()


@dataclass
class _Compared:
    """Counts how often one is compared with another, which is what sorting takes."""

    number: int
    count: ClassVar[int] = 0

    def __lt__(self, other: "_Compared") -> bool:
        _Compared.count += 1
        return self.number < other.number


@pytest.mark.parametrize("number", [0, 1, TURN, TURN + 1, 100 * TURN - 1])
async def test_sorting_leaves_the_loop_to_others_too(number: int) -> None:
    most = 0

    async def others() -> None:
        nonlocal most
        while True:
            most, _Compared.count = max(most, _Compared.count), 0
            await asyncio.sleep(0)

    watching = asyncio.ensure_future(others())
    items = [_Compared(n * 7919 % number) for n in range(number)]  # a prime: each comes once
    found = await collected(await in_order(items))
    await asyncio.sleep(0)
    watching.cancel()
    assert [item.number for item in found] == list(range(number))
    assert most <= TURN * 2 * (1 + max(number, 1).bit_length())


@pytest.mark.parametrize(
    "value", [STATUS, Change(1.0, moves=(MOVE,) * 130), Change(2.0, warnings=())]
)
async def test_what_is_encoded_in_turns_is_what_is_encoded_at_once(value: Status | Change) -> None:
    text = b"".join([piece async for piece in encode_in_turns(value)])
    assert json.loads(text) == json.loads(encode(value))


@pytest.mark.parametrize(
    "told", [set(), {0}, {TURN - 1, TURN}, {3 * TURN}, set(range(3 * TURN + 1))]
)
async def test_an_array_is_one_whichever_rows_are_told(told: set[int]) -> None:
    rows = (number if number in told else None for number in range(3 * TURN + 1))
    pieces = [piece async for piece in encode_rows(rows)]
    assert json.loads(b"".join(pieces)) == sorted(told)
