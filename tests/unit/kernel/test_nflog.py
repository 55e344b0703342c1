"""Messages of the kernel about packets that it logged (linux/netfilter/nfnetlink_log.h)."""

import errno
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.kernel import nflog
from appliance.kernel.netlink import attribute, elements, message, messages
from appliance.kernel.nflog import LoggedPacket, parse_logged

HEAD = struct.pack(">BBH", 0, 0, 177)
MAC = struct.pack(">H2x8s", 6, bytes.fromhex("02005e100001") + b"\0\0")
OCTETS = b"\x45" + bytes(19)


@pytest.mark.parametrize(
    ("parts", "found"),
    [
        (
            attribute(4, (1).to_bytes(4)) + attribute(8, MAC) + attribute(9, OCTETS),
            LoggedPacket(OCTETS, "lo", "02:00:5e:10:00:01"),
        ),
        (attribute(9, OCTETS), LoggedPacket(OCTETS, "", None)),
        (attribute(4, (0x7FFFFFFF).to_bytes(4)), LoggedPacket(b"", "", None)),
        (attribute(4, b"\xff" * 9), LoggedPacket(b"", "", None)),
        (attribute(8, struct.pack(">H2x8s", 8, bytes(8))), LoggedPacket(b"", "", None)),
        (attribute(8, MAC[:8]), LoggedPacket(b"", "", None)),
    ],
)
def test_what_is_told_of_a_packet(parts: bytes, found: LoggedPacket) -> None:
    assert parse_logged(HEAD + parts) == found


@given(st.binary(max_size=200))
def test_no_damage_breaks_the_reading(junk: bytes) -> None:
    parse_logged(HEAD + junk)
    parse_logged(junk)


def copy(octets: bytes) -> bytes:
    return message(4 << 8, 0, HEAD + attribute(9, octets))


class Told:
    """In place of a socket: datagrams, or errors."""

    def __init__(self, *told: bytes | OSError) -> None:
        self.left = list(told)

    def read_now(self) -> bytes:
        each = self.left.pop(0) if self.left else b""
        if isinstance(each, OSError):
            raise each
        return each


def read(told: Told) -> list[bytes]:
    return [each.octets for each in nflog._read(told)]  # type: ignore[arg-type]


def test_so_many_are_read_at_once_and_what_was_lost_is_passed() -> None:
    lost = OSError(errno.ENOBUFS, "")
    assert read(Told(copy(b"a"), lost, copy(b"b") + copy(b"c"), b"", copy(b"d"))) == [
        b"a",
        b"b",
        b"c",
    ]
    many = Told(*(copy(bytes([n])) for n in range(20)))
    assert len(read(many)) == 8
    assert len(many.left) == 12
    with pytest.raises(OSError, match="gone"):
        read(Told(OSError(errno.EBADF, "gone")))


def test_messages_of_another_kind_are_no_copies() -> None:
    assert read(Told(message(2, 0, HEAD + attribute(9, b"x")) + copy(b"a"))) == [b"a"]


def test_what_is_asked_of_the_kernel() -> None:
    """By linux/netfilter/nfnetlink_log.h: bind, copies of whole packets, each at once."""
    told = [payload for each in nflog._requests() for _, _, _, payload in messages(each)]
    assert [payload[:4] for payload in told] == [HEAD] * 3
    assert [list(elements(payload, 4)) for payload in told] == [
        [(1, b"\1")],
        [(2, b"\0\0\xff\xff\2\0")],
        [(5, b"\0\0\0\1")],
    ]
