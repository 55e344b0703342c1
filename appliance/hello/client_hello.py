"""The server name in a TLS ClientHello: RFC 8446 section 4.1.2, RFC 6066 section 3.

A name is what a stranger wrote. It is made sure that it could be a host's; that it is the one of
the host at the other end nobody can know from here. Of an encrypted ClientHello (RFC 9849) it is
the name that the client shows, and not the one that it means.
"""

import re
from typing import Final

from appliance.hello.cursor import Cursor, TruncatedError

NAMELESS: Final = ""  # in place of a name: there is none, and there will be none
_CLIENT_HELLO = 1
_HEADER_SIZE = 4  # type, length of the body
_VERSION_AND_RANDOM_SIZE = 2 + 32
_SERVER_NAME = 0  # the extension
_HOST_NAME = 0  # the type of a name in it
_MOST_EXTENSIONS = 256  # browsers send twenty; each has to be passed again when more has come
_LONGEST = 253
# An underscore is no letter of host names, but some have one. The last label of a name is not all
# digits: that would be an IPv4 address in one of its notations, and those are no names.
_NAME = re.compile(rb"(?:[a-z0-9_-]{1,63}\.)*(?![0-9]+$)[a-z0-9_-]{1,63}")


def find_name(message: bytes | bytearray) -> str | None:
    """The server name in the beginning of a handshake: lower case, without a dot at its end.

    None while more octets could tell it. NAMELESS when this is no ClientHello, or one without a
    name that could be a host's.
    """
    if message and message[0] != _CLIENT_HELLO:
        return NAMELESS
    if len(message) < _HEADER_SIZE:
        return None
    length = int.from_bytes(message[1:_HEADER_SIZE])
    body = message[_HEADER_SIZE : _HEADER_SIZE + length]
    try:
        return _read_body(Cursor(body))
    except TruncatedError:
        return NAMELESS if len(body) == length else None


def _read_body(cursor: Cursor) -> str:
    cursor.skip(_VERSION_AND_RANDOM_SIZE)
    cursor.skip(cursor.number(1))  # session id
    cursor.skip(cursor.number(2))  # cipher suites
    cursor.skip(cursor.number(1))  # compression methods
    end = cursor.number(2)
    end += cursor.at
    for _ in range(_MOST_EXTENSIONS):
        if cursor.at >= end:
            break
        kind, size = cursor.number(2), cursor.number(2)
        if cursor.at + size > end:
            break
        if kind == _SERVER_NAME:
            return _read_extension(cursor.take(size))
        cursor.skip(size)
    return NAMELESS


def _read_extension(extension: bytes) -> str:
    cursor = Cursor(extension)
    try:
        names = Cursor(cursor.take(cursor.number(2)))
        while True:
            kind, name = names.number(1), names.take(names.number(2))
            if kind == _HOST_NAME:
                return check_name(name)
    except TruncatedError:
        return NAMELESS


def check_name(name: bytes) -> str:
    """A host name as DNS writes it (RFC 1035 section 2.3), or NAMELESS."""
    name = name.lower().removesuffix(b".")
    return name.decode() if len(name) <= _LONGEST and _NAME.fullmatch(name) else NAMELESS
