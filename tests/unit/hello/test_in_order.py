"""Pieces in any order give the stream, and never more is held than was promised."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.hello.in_order import LIMIT, MOST_HELD, InOrder

STREAM = bytes(range(256)) * (LIMIT // 256 + 2)


def piece(start: int, end: int) -> tuple[int, bytes]:
    return start, STREAM[start:end]


@given(st.data())
def test_any_order_with_repetitions_and_overlaps_gives_the_stream(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 40))
    cuts = sorted(data.draw(st.sets(st.integers(1, size))))
    edges = [0, *cuts, size]
    pieces = [piece(start, end) for start, end in pairwise(edges)]
    bounds = st.tuples(st.integers(0, size), st.integers(0, size))
    pieces += [piece(*pair) for pair in data.draw(st.lists(bounds, max_size=8))]
    order = InOrder()
    got = b"".join(order.add(*one) for one in data.draw(st.permutations(pieces)))
    assert got == STREAM[:size]
    assert order.next == size


def test_octets_before_the_beginning_are_cut_off() -> None:
    order = InOrder()
    assert order.add(-3, b"abcde") == b"de"
    assert order.add(-3, b"abc") == b""
    assert order.add(1, b"XYZ") == b"YZ"


def test_a_longer_piece_takes_the_place_of_a_shorter_one() -> None:
    order = InOrder()
    assert order.add(2, b"c") == b""
    assert order.add(2, b"cde") == b""
    assert order.add(2, b"c") == b""
    assert order.add(0, b"ab") == b"abcde"


def test_nothing_beyond_the_limit_is_handed_on() -> None:
    order = InOrder()
    assert order.add(LIMIT, b"x") == b""
    assert order.add(LIMIT - 2, b"xyz") == b""
    assert order.add(LIMIT + (1 << 40), b"x") == b""
    assert not order.is_full
    assert len(order.add(0, STREAM[: LIMIT - 2])) == LIMIT
    assert order.is_full
    assert order.add(LIMIT, b"x") == b""


def test_pieces_beyond_a_gap_are_few() -> None:
    order = InOrder()
    for at in range(MOST_HELD + 5):
        assert order.add(1 + 2 * at, b"x") == b""
    assert len(order._held) == MOST_HELD
    for at in range(MOST_HELD):
        assert order.add(2 * at, b"y") == b"yx"
    assert order.add(2 * MOST_HELD, b"y") == b"y"  # the next was not held


@pytest.mark.parametrize("size", [1400, 3000])
def test_pieces_beyond_a_gap_are_together_no_longer_than_the_stream(size: int) -> None:
    order = InOrder()
    for at in range(1, 60):
        order.add(at, bytes(size))  # each overlaps the others
        assert sum(map(len, order._held.values())) <= LIMIT
    assert len(order._held) == LIMIT // size
