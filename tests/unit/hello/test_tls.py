"""The stream of a TCP connection as Python's ssl begins it, cut and mixed up."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.hello.client_hello import NAMELESS
from appliance.hello.in_order import LIMIT
from appliance.hello.tls import TlsStream
from tests.hellos import NAME, extension, hello, records, segments, server_name, ssl_stream

STREAM = ssl_stream()
NAME_END = STREAM.index(NAME.encode()) + len(NAME)
FIRST = 1000


def verdict(pieces: list[tuple[int, bytes]], first: int = FIRST) -> str | None:
    """The first that is not None, of all segments."""
    stream = TlsStream(first)
    found = (stream.add(*piece) for piece in pieces)
    return next((name for name in found if name is not None), None)


@pytest.mark.parametrize("first", [FIRST, (1 << 32) - 100, (1 << 31) - 100, 0])
def test_two_segments_cut_anywhere_in_either_order(first: int) -> None:
    for cut in range(1, len(STREAM)):
        one, two = segments(STREAM, [cut], first)
        assert verdict([one, two], first) == NAME
        assert verdict([two, one], first) == NAME
        assert verdict([one], first) == (NAME if cut >= NAME_END else None)
        assert verdict([two], first) is None


def test_segments_of_one_octet() -> None:
    pieces = segments(STREAM, range(1, len(STREAM)))
    stream = TlsStream(FIRST)
    told = [stream.add(*piece) for piece in pieces[:NAME_END]]
    assert told == [None] * (NAME_END - 1) + [NAME]


@given(st.data())
def test_segments_in_any_order_and_twice(data: st.DataObject) -> None:
    first = data.draw(st.sampled_from([0, FIRST, (1 << 32) - 100]))
    cuts = st.sets(st.integers(1, len(STREAM) - 1), max_size=6)
    pieces = segments(STREAM, sorted(data.draw(cuts)), first)
    pieces += data.draw(st.lists(st.sampled_from(segments(STREAM, [150, 300], first)), max_size=2))
    assert verdict(data.draw(st.permutations(pieces)), first) == NAME


def test_retransmissions_tell_nothing_new() -> None:
    one, two = segments(STREAM, [NAME_END - 3])
    stream = TlsStream(FIRST)
    assert [stream.add(*one), stream.add(*one), stream.add(FIRST - 1, b"\0")] == [None] * 3
    assert stream.add(FIRST, STREAM) == NAME  # both at once
    assert stream.add(*two) is None


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 100, 250])
def test_a_message_in_several_records(size: int) -> None:
    message = STREAM[5:]
    stream = records(message, size)
    assert verdict([(FIRST, stream)]) == NAME
    assert verdict(segments(stream, range(7, len(stream), 7))) == NAME


@pytest.mark.parametrize("version", [b"\3\1", b"\3\2", b"\3\3"])
def test_record_versions(version: bytes) -> None:
    assert verdict([(FIRST, records(STREAM[5:], version=version))]) == NAME


@pytest.mark.parametrize(
    "octets",
    [
        b"\x17\3\3\0\5hello",
        b"\x16\3\0" + STREAM[3:],
        b"\x16\3\4" + STREAM[3:],
        b"\x16\2\1" + STREAM[3:],
        b"\x16\3\1\0\0",
        b"\x16\3\1\x40\1\1",
        b"\x16\3\1\0\4\2\0\0\0",  # a ServerHello
        b"GET / HTTP/1.1",
        b"SSH-2.0-",
        records(STREAM[5:30]) + b"\x15\3\1\0\2\2\x28",  # an alert where the rest should be
    ],
    ids=range(10),  # some of their octets are chance
)
def test_anything_else_is_hopeless_as_soon_as_it_shows(octets: bytes) -> None:
    assert verdict([(FIRST, octets)]) == NAMELESS
    if octets[0] != 0x16:
        assert verdict([(FIRST, octets[:1])]) == NAMELESS
    elif octets[1:3] not in (b"\3\1", b"\3\3"):
        assert verdict([(FIRST, octets[:1])]) is None
        assert verdict([(FIRST, octets[:3])]) == NAMELESS


def test_a_header_is_refused_by_its_first_wrong_octet() -> None:
    for good, wrong in ((b"", b"\x15"), (b"\x16", b"\2"), (b"\x16\3", b"\0")):
        assert verdict([(FIRST, good)]) is None
        assert verdict([(FIRST, good + wrong)]) == NAMELESS


def test_what_follows_the_name_does_not_matter() -> None:
    stream = records(STREAM[5:NAME_END]) + b"no record"
    for cut in range(1, len(stream)):
        assert verdict(segments(stream, [cut])) == NAME


def test_a_fragment_may_have_16384_octets() -> None:
    assert verdict([(FIRST, b"\x16\3\1\x40\0" + STREAM[5:])]) == NAME


def test_a_hello_without_a_name() -> None:
    assert verdict([(FIRST, ssl_stream(None))]) == NAMELESS


def test_a_stream_is_given_up_after_16_kib() -> None:
    filler = extension(0xFE0D, bytes(LIMIT))
    stream = records(hello(filler + server_name(NAME.encode())), 1000)
    edges = [*range(0, len(stream), 1400), len(stream)]
    told = []
    collected = TlsStream(FIRST)
    for start, end in pairwise(edges):
        told.append((end, collected.add(FIRST + start, stream[start:end])))
    assert told[0] == (1400, None)
    assert [name for end, name in told if end < LIMIT] == [None] * (LIMIT // 1400)
    assert next(name for end, name in told if end >= LIMIT) == NAMELESS
    assert len(collected._message) <= LIMIT


def test_a_name_shortly_before_the_limit_is_found() -> None:
    for spare, found in ((0, NAME), (1, NAMELESS)):
        start = records(hello(server_name(NAME.encode())))
        lead = LIMIT - len(start) - 4 + spare  # of the filler's own header
        message = hello(extension(0xFE0D, bytes(lead)) + server_name(NAME.encode()))
        stream = b"\x16\3\1\x40\0" + message
        assert len(stream) == LIMIT + spare
        assert verdict([(FIRST, stream)]) == found


@given(st.binary(max_size=60), st.integers(-(1 << 31), 1 << 33))
def test_noise_raises_nothing(octets: bytes, sequence: int) -> None:
    stream = TlsStream(FIRST)
    stream.add(sequence, octets)
    stream.add(FIRST, octets)
    assert stream.add(FIRST, STREAM[:1]) in (None, NAMELESS)
