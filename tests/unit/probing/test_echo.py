"""Echo requests and replies, against packets written out by hand."""

import struct

from hypothesis import given
from hypothesis import strategies as st

from appliance.probing.echo import checksum, encode_request, is_reply

TOKEN = b"12345678"
# Version and header length, TOS, length, id, fragment, TTL 64, protocol 1, checksum, addresses.
IP_HEADER = bytes.fromhex("45 00 0024 0000 0000 40 01 0000 c0000201 c0000202")


def test_the_checksum_is_that_of_rfc_1071() -> None:
    # The numerical example of RFC 1071 section 3: the sum is ddf2, the checksum its complement.
    assert checksum(bytes.fromhex("0001 f203 f4f5 f6f7")) == 0x220D
    assert checksum(b"\x01") == checksum(b"\x01\x00")


def test_an_icmp_request_is_whole() -> None:
    packet = encode_request(4, 0xBEEF, TOKEN)
    assert packet[:2] == b"\x08\x00"
    assert packet[4:] == b"\xbe\xef\x00\x01" + TOKEN
    # A receiver sums the packet with its checksum in place and gets zero.
    assert checksum(packet) == 0


def test_an_icmpv6_request_leaves_the_checksum_to_the_kernel() -> None:
    assert encode_request(6, 0xBEEF, TOKEN) == b"\x80\x00\x00\x00\xbe\xef\x00\x01" + TOKEN


def reply(kind: int, ident: int = 0xBEEF, token: bytes = TOKEN, code: int = 0) -> bytes:
    return struct.pack(">BBHHH", kind, code, 0, ident, 1) + token


def test_our_reply_is_known() -> None:
    assert is_reply(IP_HEADER + reply(0), 4, 0xBEEF, TOKEN)
    # Four octets of IP options make the header 24 octets long.
    assert is_reply(b"\x46" + IP_HEADER[1:] + bytes(4) + reply(0), 4, 0xBEEF, TOKEN)
    assert is_reply(reply(129), 6, 0xBEEF, TOKEN)


def test_what_is_not_our_reply_is_not() -> None:
    for packet in (
        b"",
        IP_HEADER,
        IP_HEADER + reply(0)[:7],
        b"\x4f" + IP_HEADER[1:] + reply(0),  # a header length beyond the packet
        b"\x40" + IP_HEADER[1:],
        IP_HEADER + reply(8),  # our own request, seen on lo
        IP_HEADER + reply(3),  # unreachable
        IP_HEADER + reply(0, ident=1),
        IP_HEADER + reply(0, token=b"87654321"),
        IP_HEADER + reply(0, code=1),
    ):
        assert not is_reply(packet, 4, 0xBEEF, TOKEN)
    assert not is_reply(reply(128), 6, 0xBEEF, TOKEN)
    assert not is_reply(reply(129)[:5], 6, 0xBEEF, TOKEN)


@given(st.binary(max_size=80), st.sampled_from((4, 6)))
def test_no_packet_without_our_token_is_our_reply(data: bytes, version: int) -> None:
    if TOKEN not in data:
        assert not is_reply(data, version, 0xBEEF, TOKEN)
