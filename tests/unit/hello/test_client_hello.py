"""Names in ClientHellos of Python's ssl, and in ones made by hand."""

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.hello.client_hello import NAMELESS, check_name, find_name
from tests.hellos import NAME, extension, hello, server_name, ssl_stream, vector

RECORD_HEADER = 5
GREASE = extension(0x1A1A, b"")  # RFC 8701
ECH = extension(0xFE0D, bytes(300))
PADDING = extension(21, bytes(500))
PLAIN = hello(GREASE + ECH + server_name(NAME.encode()) + PADDING)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_name_as_ssl_sends_it(version: ssl.TLSVersion) -> None:
    assert find_name(ssl_stream("WWW.Example.COM", maximum_version=version)[5:]) == NAME
    assert find_name(ssl_stream(None, maximum_version=version)[5:]) == NAMELESS


def test_the_name_is_told_once_its_extension_is_complete() -> None:
    end = PLAIN.index(NAME.encode()) + len(NAME)
    for size in range(len(PLAIN) + 1):
        assert find_name(PLAIN[:size]) == (NAME if size >= end else None)
    assert find_name(bytearray(PLAIN)) == NAME


def test_no_name_is_told_once_the_message_is_complete() -> None:
    for message in (hello(GREASE + ECH), hello(b""), hello(None)):
        assert find_name(message[:-1]) is None
        assert find_name(message) == NAMELESS
        assert find_name(message + b"more") == NAMELESS


def test_what_follows_the_message_is_not_its_own() -> None:
    cut = PLAIN[: PLAIN.index(NAME.encode())]
    short = cut[:1] + (len(cut) - 4).to_bytes(3) + cut[4:]
    assert find_name(short + NAME.encode() + PADDING) == NAMELESS


@pytest.mark.parametrize("kind", [0, 2, 11, 22, 255])
def test_another_message_is_refused_by_its_first_octet(kind: int) -> None:
    message = hello(server_name(NAME.encode()), kind)
    assert find_name(message) == find_name(message[:1]) == NAMELESS
    assert find_name(b"") is None


def test_a_session_id_is_passed() -> None:
    assert find_name(hello(server_name(NAME.encode()), session=bytes(32))) == NAME


def test_an_extension_that_passes_the_end_of_all_is_not_read() -> None:
    whole = hello(server_name(NAME.encode()))
    at = whole.index(server_name(NAME.encode())) - 2
    for less in (1, len(NAME), 23):
        length = int.from_bytes(whole[at : at + 2]) - less
        assert find_name(whole[:at] + length.to_bytes(2) + whole[at + 2 :]) == NAMELESS


def test_256_extensions_are_looked_at() -> None:
    assert find_name(hello(GREASE * 255 + server_name(b"a"))) == "a"
    assert find_name(hello(GREASE * 256 + server_name(b"a"))) == NAMELESS


def test_names_of_other_types_are_passed() -> None:
    other, host = b"\x07" + vector(b"other", 2), b"\0" + vector(b"host", 2)
    assert find_name(hello(extension(0, vector(other + host, 2)))) == "host"
    assert find_name(hello(extension(0, vector(other, 2)))) == NAMELESS
    first = extension(0, vector(host + b"\0" + vector(b"second", 2), 2))
    assert find_name(hello(first + server_name(b"third"))) == "host"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0",
        vector(b"", 2),
        vector(b"\0", 2),
        vector(b"\0\0\5host", 2),
        b"\0\x08\0" + vector(b"host", 2),
    ],
)
def test_a_malformed_server_name_is_none(content: bytes) -> None:
    assert find_name(hello(extension(0, content) + server_name(b"late"))) == NAMELESS


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (b"example.com", "example.com"),
        (b"EXAMPLE.Com.", "example.com"),
        (b"_dns.x-1.example", "_dns.x-1.example"),
        (b"localhost", "localhost"),
        (b"xn--bcher-kva.example", "xn--bcher-kva.example"),
        (b"1.2.3.4.example", "1.2.3.4.example"),
        (b"4chan", "4chan"),
        (b"a" * 63 + b".b", "a" * 63 + ".b"),
        ((b"a" * 62 + b".") * 4 + b"b", ("a" * 62 + ".") * 4 + "b"),  # 253 octets
        ((b"a" * 62 + b".") * 4 + b"b.", ("a" * 62 + ".") * 4 + "b"),
        ((b"a" * 62 + b".") * 4 + b"bc", NAMELESS),
        (b"a" * 64, NAMELESS),
        (b"", NAMELESS),
        (b".", NAMELESS),
        (b"a..b", NAMELESS),
        (b".a", NAMELESS),
        (b"a.b..", NAMELESS),
        (b"192.0.2.1", NAMELESS),
        (b"127.1", NAMELESS),
        (b"2130706433", NAMELESS),
        (b"2001:db8::1", NAMELESS),
        (b"[2001:db8::1]", NAMELESS),
        (b"example.com\n", NAMELESS),
        (b"example.com\0", NAMELESS),
        (b"b\xc3\xbccher.example", NAMELESS),
        (b"a b.example", NAMELESS),
        (b"*.example.com", NAMELESS),
    ],
)
def test_what_could_be_a_host(name: bytes, found: str) -> None:
    assert check_name(name) == found
    assert find_name(hello(server_name(name))) == found


@given(st.binary(max_size=300))
def test_a_checked_name_is_plain_and_stays_itself(octets: bytes) -> None:
    name = check_name(octets)
    assert name == NAMELESS or octets.decode("ascii").lower().removesuffix(".") == name
    assert check_name(name.encode()) == name


@given(st.binary(max_size=80), st.integers(0, 400))
def test_more_octets_change_no_verdict(noise: bytes, at: int) -> None:
    message = PLAIN[:at] + noise + PLAIN[at + len(noise) :]
    verdicts = [find_name(message[:size]) for size in range(len(message) + 1)]
    told = [verdict for verdict in verdicts if verdict is not None]
    assert set(verdicts[len(verdicts) - len(told) :]) <= {told[0] if told else None}
