"""Numbers as RFC 9000 appendix A.1 shows them, and ends that are not passed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.hello.cursor import Cursor, TruncatedError
from tests.hellos import varint


@pytest.mark.parametrize(
    ("octets", "value"),
    [
        ("c2197c5eff14e88c", 151_288_809_941_952_652),
        ("9d7f3e7d", 494_878_333),
        ("7bbd", 15_293),
        ("25", 37),
        ("4025", 37),
    ],
)
def test_varints_of_the_rfc(octets: str, value: int) -> None:
    cursor = Cursor(bytes.fromhex(octets) + b"\xff")
    assert cursor.varint() == value
    assert cursor.at == len(octets) // 2


@given(st.integers(0, (1 << 62) - 1))
def test_varints_come_back_and_are_missed_when_cut(value: int) -> None:
    octets = varint(value)
    assert Cursor(octets).varint() == value
    with pytest.raises(TruncatedError):
        Cursor(octets[:-1]).varint()


def test_reading_stops_at_the_end() -> None:
    cursor = Cursor(b"\1\2\3\4\5", at=1)
    assert cursor.number(2) == 0x0203
    cursor.skip(1)
    for read in (cursor.skip, cursor.take, cursor.number):
        with pytest.raises(TruncatedError):
            read(2)
    assert cursor.take(1) == b"\5"
    assert cursor.take(0) == b""


def test_octets_are_passed_up_to_what_is_another() -> None:
    cursor = Cursor(b"\0\1\2\1\1\0\3\0\0")
    for value in (2, 3):
        cursor.skip_any(b"\0\1")
        assert cursor.number(1) == value
    cursor.skip_any(b"\1")
    assert cursor.number(1) == 0
    cursor.skip_any(b"\0\1")
    cursor.skip_any(b"\0\1")
    assert cursor.at == 9
