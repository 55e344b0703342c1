"""Many datagrams in one system call: recvmmsg(2) and sendmmsg(2), and the memory they work on.

Python's socket module reads and sends one packet a call. These structures are the C library's,
their layout that of the machine it runs on; they are filled once, and a call touches what differs.
"""

import ctypes
import socket
from collections.abc import Sequence
from struct import Struct

_MMSGHDR = Struct("@PIPNPNi0PI0P")  # endpoint, segment, control: address and size; flags; octets
_OCTETS = 7  # the last of them
_IOVEC = Struct("@PN")

_INT, _POINTER = ctypes.c_int, ctypes.c_void_p
_libc = ctypes.PyDLL(None)  # its calls keep the GIL, which costs less: none of them waits
_libc.recvmmsg.argtypes = [_INT, _POINTER, ctypes.c_uint, _INT, _POINTER]
_libc.sendmmsg.argtypes = [_INT, _POINTER, ctypes.c_uint, _INT]


class Buffers:
    """Room for a batch of datagrams, at fixed places: octets, endpoint and control messages."""

    def __init__(self, count: int, octets: int, endpoint: int, control: int) -> None:
        """`count` datagrams, and what each has room for, in octets."""
        self.room = octets, endpoint, control
        self.octets = bytearray(count * octets)
        self.endpoints = bytearray(count * endpoint)
        self.control = bytearray(count * control)
        self._segments = bytearray(count * _IOVEC.size)
        self._headers = bytearray(count * _MMSGHDR.size)
        octets_at, endpoints_at, control_at, segments_at, self._headers_at = map(
            _address,
            (self.octets, self.endpoints, self.control, self._segments, self._headers),
        )
        for i in range(count):
            _IOVEC.pack_into(self._segments, i * _IOVEC.size, octets_at + i * octets, octets)
            _MMSGHDR.pack_into(
                self._headers,
                i * _MMSGHDR.size,
                *(endpoints_at + i * endpoint, endpoint),
                *(segments_at + i * _IOVEC.size, 1),
                *(control_at + i * control, control),
                *(0, 0),
            )
        # To begin anew with: the kernel writes the sizes that it found over those that we offer.
        self._blank = bytes(self._headers)
        self._count = count
        self._octets_at = octets_at

    def receive(self, fileno: int) -> list[int]:
        """Read the datagrams that wait, as many as fit: how many octets each has."""
        self._headers[:] = self._blank
        count = _libc.recvmmsg(fileno, self._headers_at, self._count, socket.MSG_DONTWAIT, None)
        if count <= 0:
            return []
        read = _MMSGHDR.iter_unpack(memoryview(self._headers)[: count * _MMSGHDR.size])
        return [header[_OCTETS] for header in read]

    def send(self, fileno: int, sizes: Sequence[int]) -> int:
        """Send the first datagrams, of these sizes; how many the kernel took, of all in turn."""
        octets = self.room[0]
        for i, size in enumerate(sizes):
            _IOVEC.pack_into(self._segments, i * _IOVEC.size, self._octets_at + i * octets, size)
        done = taken = 0
        while done < len(sizes):
            at = self._headers_at + done * _MMSGHDR.size
            count = _libc.sendmmsg(fileno, at, len(sizes) - done, socket.MSG_DONTWAIT)
            taken += max(count, 0)
            done += max(count, 1)  # it stops at one that it refuses, which is passed over
        return taken


def _address(buffer: bytearray) -> int:
    """Where it is. It must not be resized from now on, and is kept as long as this object."""
    return ctypes.addressof((ctypes.c_char * len(buffer)).from_buffer(buffer))
