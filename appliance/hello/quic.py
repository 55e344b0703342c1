"""What a client says first in QUIC: its Initial packets, versions 1 and 2.

RFC 9000 section 17.2 has the packets, RFC 9001 section 5 their protection, RFC 9369 section 3 what
is different in version 2. The keys follow from what every packet shows: they keep out packets that
are damaged or of another flow, and nobody who wants to be read.
"""

import hmac
from collections.abc import Callable, Iterator
from functools import cache, lru_cache
from typing import Any, Final, NamedTuple

from appliance.hello.client_hello import NAMELESS, find_name
from appliance.hello.cursor import Cursor, TruncatedError
from appliance.hello.in_order import InOrder

MOST_PACKETS: Final = 32  # of a flow, then it is given up
MOST_IN_DATAGRAM: Final = 4  # packets; more are padding of somebody who wants us to be busy
MOST_FRAMES: Final = 64  # of a packet, without padding
MOST_RANGES: Final = 32  # of an acknowledgement
_LONG_AND_FIXED = 0xC0
_LONGEST_ID = 20
_INITIAL, _RETRY = 0, 3  # types, as version 1 numbers them
_SAMPLE_OFFSET, _SAMPLE_SIZE = 4, 16  # from the packet number on, as if that had four octets
_PADDING_OR_PING = b"\x00\x01"  # frames of one octet; most of a datagram can be padding
_ACK, _ACK_ECN, _CRYPTO = 0x02, 0x03, 0x06


class Version(NamedTuple):
    """What differs between the versions."""

    salt: bytes
    label: bytes  # before the name of a key
    shift: int  # of the packet types' numbers


VERSIONS: Final = {
    1: Version(bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), b"quic ", 0),
    0x6B3343CF: Version(bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), b"quicv2 ", 1),
}


class Header(NamedTuple):
    """The part of a long header that is not protected, of anything but a Retry."""

    is_initial: bool
    version: int
    destination_id: bytes
    number: int  # offset of the packet number, from the start of the packet
    size: int  # octets of the whole packet


def parse_header(datagram: bytes, start: int = 0) -> Header | None:
    """Read a long header. None when it is something else, of an unknown version, or cut."""
    cursor = Cursor(datagram, start)
    try:
        first = cursor.number(1)
        number = cursor.number(4)
        version = VERSIONS.get(number)
        if first & _LONG_AND_FIXED != _LONG_AND_FIXED or version is None:
            return None
        kind = (first >> 4) - version.shift & 3
        destination_id = cursor.take(cursor.number(1))
        source_id = cursor.take(cursor.number(1))
        if kind == _RETRY or max(len(destination_id), len(source_id)) > _LONGEST_ID:
            return None
        if kind == _INITIAL:
            cursor.skip(cursor.varint())  # token
        size = cursor.varint()
    except TruncatedError:
        return None
    offset = cursor.at - start
    return Header(kind == _INITIAL, number, destination_id, offset, offset + size)


def derive_keys(version: int, destination_id: bytes) -> tuple[bytes, bytes, bytes]:
    """A client's key, IV and header protection key (RFC 9001 sections 5.1 and 5.2)."""
    salt, label, _ = VERSIONS[version]
    initial = hmac.digest(salt, destination_id, "sha256")  # HKDF-Extract
    client = _expand(initial, b"client in", 32)
    return (
        _expand(client, label + b"key", 16),
        _expand(client, label + b"iv", 12),
        _expand(client, label + b"hp", 16),
    )


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    """HKDF-Expand-Label (RFC 8446 section 7.1), of at most one block of SHA-256."""
    label = b"tls13 " + label
    info = size.to_bytes(2) + len(label).to_bytes(1) + label + b"\0"  # and no context
    return hmac.digest(secret, info + b"\1", "sha256")[:size]


class Ciphers(NamedTuple):
    """What is needed of a library of 8 MB, which not every box needs."""

    gcm: Callable[[bytes], Any]
    blocks: Callable[[bytes], Any]  # single ones, as RFC 9001 section 5.4.3 wants it
    forged: type[Exception]


@cache
def load() -> Ciphers:
    """Load the library, from a disk that may hang: before the first packet, and in a thread.

    Raises ImportError and OSError.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers import Cipher
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    from cryptography.hazmat.primitives.ciphers.algorithms import AES
    from cryptography.hazmat.primitives.ciphers.modes import ECB

    return Ciphers(
        AESGCM,
        lambda key: Cipher(AES(key), ECB()).encryptor(),  # noqa: S305
        InvalidTag,
    )


class Protection:
    """Takes off the protection of a client's Initials."""

    __slots__ = ("_decrypt", "_forged", "_iv", "_mask")

    def __init__(self, version: int, destination_id: bytes) -> None:
        ciphers = load()
        key, iv, header_key = derive_keys(version, destination_id)
        self._iv = int.from_bytes(iv)
        self._decrypt = ciphers.gcm(key).decrypt
        self._mask = ciphers.blocks(header_key).update
        self._forged = ciphers.forged

    def remove(self, packet: bytes, offset: int) -> bytes | None:
        """The frames of one whole packet, whose number is at `offset`.

        None when its tag does not fit, or it is too short to have one.
        """
        start = offset + _SAMPLE_OFFSET
        sample = packet[start : start + _SAMPLE_SIZE]
        if len(sample) < _SAMPLE_SIZE:
            return None
        mask = self._mask(sample)
        first = packet[0] ^ mask[0] & 0x0F
        size = (first & 3) + 1
        end = offset + size
        # The number is taken as it stands. It is cut only when more packets were sent than that
        # leaves room for (RFC 9000 section 17.1), and the first Initials are few.
        number = int.from_bytes(packet[offset:end]) ^ int.from_bytes(mask[1 : 1 + size])
        header = bytes((first,)) + packet[1:offset] + number.to_bytes(size)
        try:
            frames: bytes = self._decrypt((self._iv ^ number).to_bytes(12), packet[end:], header)
        except self._forged:
            return None
        return frames


# The Initials of one client come close together, and those of a hundred clients seldom do.
_protection = lru_cache(maxsize=64)(Protection)


class QuicInitials:
    """The Initials from one port to another: of one connection, as far as anybody can tell."""

    __slots__ = ("_destination_id", "_message", "_order", "_packets")

    def __init__(self) -> None:
        self._destination_id: bytes | None = None  # what the keys follow from
        self._order = InOrder()
        self._message = bytearray()
        self._packets = 0

    def add(self, datagram: bytes) -> str | None:
        """Take a datagram. The name, or NAMELESS when there will be none, or None: more is needed.

        The first one must begin with an Initial. Of the packets in it those are passed over that
        do not prove genuine, are of another kind, or longer than what was copied of them: their
        tag, and with it all that they say, cannot be verified.
        """
        start = 0
        together: bytes | None = None  # one datagram is for one connection (RFC 9000 section 12.2)
        for _ in range(MOST_IN_DATAGRAM):
            if start >= len(datagram):
                break
            self._packets += 1
            header = parse_header(datagram, start)
            if header is None or self._packets > MOST_PACKETS:
                break
            if together not in (None, header.destination_id):
                break
            together = header.destination_id
            if self._destination_id is None:
                if not header.is_initial:
                    return NAMELESS
                self._destination_id = header.destination_id
            if header.is_initial:
                packet = datagram[start : start + header.size]
                if len(packet) == header.size:
                    for offset, octets in iterate_crypto(self._frames(packet, header)):
                        self._message += self._order.add(offset, octets)
            start += header.size
        name = find_name(self._message)
        is_hopeless = (
            self._destination_id is None or self._packets >= MOST_PACKETS or self._order.is_full
        )
        return NAMELESS if name is None and is_hopeless else name

    def _frames(self, packet: bytes, header: Header) -> bytes:
        # A Retry makes a client start anew, with keys that follow from the server's choice, and to
        # say the same again (RFC 9000 section 17.2.5.2). Later the destination changes once more,
        # and the keys do not (section 7.2): so the last ones that did it are tried first.
        for destination_id in dict.fromkeys((self._destination_id or b"", header.destination_id)):
            frames = _protection(header.version, destination_id).remove(packet, header.number)
            if frames is not None:
                self._destination_id = destination_id
                return frames
        return b""


def iterate_crypto(frames: bytes) -> Iterator[tuple[int, bytes]]:
    """(offset, octets) of the CRYPTO frames, up to what no client has in an Initial.

    RFC 9000 sections 12.4 and 19.
    """
    cursor = Cursor(frames)
    try:
        for _ in range(MOST_FRAMES):
            cursor.skip_any(_PADDING_OR_PING)
            kind = cursor.number(1)
            if kind == _CRYPTO:
                yield cursor.varint(), cursor.take(cursor.varint())
            elif kind in (_ACK, _ACK_ECN):
                _skip_ack(cursor, has_counts=kind == _ACK_ECN)
            else:
                return
    except TruncatedError:
        return


def _skip_ack(cursor: Cursor, *, has_counts: bool) -> None:
    cursor.varint()  # largest acknowledged
    cursor.varint()  # delay
    ranges = cursor.varint()
    if ranges > MOST_RANGES:
        raise TruncatedError
    for _ in range(1 + 2 * ranges + 3 * has_counts):
        cursor.varint()
