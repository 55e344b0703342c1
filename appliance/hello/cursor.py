"""Numbers and strings of octets, one after the other, as TLS and QUIC write them."""


class TruncatedError(Exception):
    """The octets end before what was asked for. It never leaves this package."""


class Cursor:
    """Reads on from `at`. What would pass the end raises TruncatedError."""

    __slots__ = ("_octets", "at")

    def __init__(self, octets: bytes | bytearray, at: int = 0) -> None:
        self._octets = octets
        self.at = at

    def skip(self, size: int) -> None:
        if self.at + size > len(self._octets):
            raise TruncatedError
        self.at += size

    def take(self, size: int) -> bytes:
        start = self.at
        self.skip(size)
        return bytes(self._octets[start : self.at])

    def number(self, size: int) -> int:
        """An unsigned integer of `size` octets, most significant first."""
        return int.from_bytes(self.take(size))

    def varint(self) -> int:
        """An integer of 1, 2, 4 or 8 octets, as its two highest bits tell (RFC 9000 section 16)."""
        first = self.number(1)
        more = (1 << (first >> 6)) - 1
        return (first & 0x3F) << 8 * more | self.number(more)

    def skip_any(self, octets: bytes) -> None:
        """Pass all that are one of these, however many, at once."""
        self.at = len(self._octets) - len(self._octets[self.at :].lstrip(octets))
