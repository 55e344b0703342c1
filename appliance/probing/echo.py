"""ICMP and ICMPv6 echo: the request and the recognition of its reply (RFC 792, RFC 4443)."""

import struct

ECHO = struct.Struct(">BBHHH")  # type, code, checksum, identifier, sequence number
REQUEST_V4, REPLY_V4 = 8, 0
REQUEST_V6, REPLY_V6 = 128, 129
LEAST_V4_HEADER = 20


def encode_request(version: int, ident: int, token: bytes) -> bytes:
    """An echo request with `token` as its data. The kernel fills in the checksum of ICMPv6 only."""
    if version == 6:
        return ECHO.pack(REQUEST_V6, 0, 0, ident, 1) + token
    bare = ECHO.pack(REQUEST_V4, 0, 0, ident, 1) + token
    return ECHO.pack(REQUEST_V4, 0, checksum(bare), ident, 1) + token


def is_reply(data: bytes, version: int, ident: int, token: bytes) -> bool:
    """Is this packet, as a raw socket delivers it, the reply to our request?

    A raw IPv4 socket delivers the IP header too, an IPv6 one does not.
    """
    if version == 4:
        if len(data) < LEAST_V4_HEADER:
            return False
        data = data[max((data[0] & 0xF) * 4, LEAST_V4_HEADER) :]
    if len(data) < ECHO.size:
        return False
    kind, code, _, got_ident, sequence = ECHO.unpack_from(data)
    expected = REPLY_V6 if version == 6 else REPLY_V4
    if (kind, code, got_ident, sequence) != (expected, 0, ident, 1):
        return False
    return data[ECHO.size :] == token


def checksum(data: bytes) -> int:
    """The internet checksum (RFC 1071) of `data`, whose own checksum field is zero."""
    if len(data) % 2:
        data += b"\0"
    total: int = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
