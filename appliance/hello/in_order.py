"""Octets of a stream that come in pieces, in any order and some of them twice."""

from typing import Final

LIMIT: Final = 1 << 14  # octets of a stream, from its beginning; a ClientHello has a tenth of it
MOST_HELD: Final = 64  # pieces beyond a gap; Chrome cuts a ClientHello into a dozen on purpose


class InOrder:
    """Hands on the first 16 KiB of a stream in order; holds at most as much beyond a gap.

    Of octets that come twice the first ones count. A piece for which there is no room is dropped,
    as if the network had lost it.
    """

    __slots__ = ("_held", "next")

    def __init__(self) -> None:
        self.next = 0  # so many octets have been handed on
        self._held: dict[int, bytes] = {}  # by offset

    @property
    def is_full(self) -> bool:
        return self.next >= LIMIT

    def add(self, offset: int, octets: bytes) -> bytes:
        """What this piece makes known beyond what has been handed on. An offset may be negative."""
        octets = octets[: max(0, LIMIT - offset)]
        if len(octets) <= len(self._held.get(offset, b"")):
            return b""
        if offset > self.next and not self._has_room(len(octets)):
            return b""
        self._held[offset] = octets
        fresh = bytearray()
        while self._held and (first := min(self._held)) <= self.next:
            piece = self._held.pop(first)[self.next - first :]
            fresh += piece
            self.next += len(piece)
        return bytes(fresh)

    def _has_room(self, size: int) -> bool:
        held = self._held.values()
        return len(held) < MOST_HELD and sum(map(len, held)) + size <= LIMIT - self.next
