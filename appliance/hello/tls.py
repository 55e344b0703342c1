"""What a client says first on a TCP connection, if that is TLS (RFC 8446 section 5.1)."""

from typing import Final

from appliance.hello.client_hello import NAMELESS, find_name
from appliance.hello.in_order import InOrder

_HEADER_SIZE = 5
_HANDSHAKE = 22
_MAJOR: Final = 3
_MINORS: Final = (1, 2, 3)  # TLS 1.0 to 1.2; newer ones say that they are one of these
_LONGEST = 1 << 14  # of a record's fragment
_HALF = 1 << 31


class TlsStream:
    """One direction of one connection, from the octet with sequence number `first` on."""

    __slots__ = ("_first", "_header", "_left", "_message", "_order")

    def __init__(self, first: int) -> None:
        self._first = first
        self._order = InOrder()
        self._header = bytearray()  # of a record, while it is incomplete
        self._left = 0  # octets of the record's fragment that are still to come
        self._message = bytearray()  # the fragments

    def add(self, sequence: int, payload: bytes) -> str | None:
        """Take a segment. The name, or NAMELESS when there will be none, or None: more is needed.

        Segments may come in any order and more than once.
        """
        # Of two numbers modulo 2^32 the one less than 2^31 ahead is the later (RFC 9293 3.4).
        offset = (sequence - self._first + _HALF) % (2 * _HALF) - _HALF
        fresh = self._order.add(offset, payload)
        if not fresh:
            return None
        is_over = not self._unwrap(fresh) or self._order.is_full
        name = find_name(self._message)
        return NAMELESS if name is None and is_over else name

    def _unwrap(self, octets: bytes) -> bool:
        """Collect the fragments of handshake records. False where anything else begins."""
        at = 0
        while at < len(octets):
            if self._left:
                fragment = octets[at : at + self._left]
                self._message += fragment
                self._left -= len(fragment)
                at += len(fragment)
                continue
            lacking = _HEADER_SIZE - len(self._header)
            self._header += octets[at : at + lacking]
            at += lacking
            if not _begins_record(self._header):
                return False
            if len(self._header) == _HEADER_SIZE:
                self._left = int.from_bytes(self._header[3:])
                self._header.clear()
                if not 0 < self._left <= _LONGEST:  # none is empty
                    return False
        return True


def _begins_record(header: bytearray) -> bool:
    """Can this be, as far as it goes, the header of a handshake record?"""
    return (
        header[0] == _HANDSHAKE
        and (len(header) < 2 or header[1] == _MAJOR)
        and (len(header) < 3 or header[2] in _MINORS)
    )
