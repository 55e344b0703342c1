"""Classic BPF programs on sockets (bpf(4), linux/filter.h): what they drop wakes nobody."""

import ctypes
import socket
import struct
from collections.abc import Sequence

_SO_ATTACH_FILTER = 26
_INSTRUCTION = struct.Struct("=HBBI")  # code, jump if true, jump if false, operand
_LOAD_16, _LOAD_32, _IS_EQUAL, _RETURN = 0x28, 0x20, 0x15, 0x06
INTERFACE = 0xFFFFF000 + 8  # SKF_AD_OFF + SKF_AD_IFINDEX: the device that a packet came in by


def load_16(offset: int) -> bytes:
    """Read 16 bits, big-endian, from an offset of the packet."""
    return _INSTRUCTION.pack(_LOAD_16, 0, 0, offset)


def load_32(offset: int) -> bytes:
    """Read 32 bits, big-endian, from an offset of the packet, or a number such as INTERFACE."""
    return _INSTRUCTION.pack(_LOAD_32, 0, 0, offset)


def is_equal(value: int, then: int, otherwise: int) -> bytes:
    """Compare what was read; pass over so many instructions."""
    return _INSTRUCTION.pack(_IS_EQUAL, then, otherwise, value)


KEEP = _INSTRUCTION.pack(_RETURN, 0, 0, 0xFFFFFFFF)
DROP = _INSTRUCTION.pack(_RETURN, 0, 0, 0)


def attach(receiver: socket.socket, program: Sequence[bytes]) -> None:
    """Let a socket hear what the program keeps, in place of any program before. Raises OSError."""
    octets = ctypes.create_string_buffer(b"".join(program))
    # struct sock_fprog: how many, and where.
    where = struct.pack("HP", len(program), ctypes.addressof(octets))
    receiver.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, where)
