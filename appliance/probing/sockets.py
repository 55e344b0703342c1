"""The UDP sockets through which paths are probed: one to send and one to reflect, per plane.

A socket is bound to its plane's device and to our own probe address on it, so a probe cannot leave
by another plane and the reflector is reachable inside the overlay only.
"""

import contextlib
import socket
import struct

# Linux values that the socket module does not name everywhere.
SO_TIMESTAMPNS = 35
IPV6_RECVHOPLIMIT = 51
IPV6_HOPLIMIT = 52
CS6 = 48 << 2  # traffic class octet: network control (RFC 4594 section 3.2), never starved

_TIMESPEC = struct.Struct("=qq")
_ANCILLARY = 96  # room for a timespec and a hop limit with their headers
_LARGEST = 2048  # no STAMP packet on a plane is larger than the plane's MTU

Received = tuple[bytes, int | None, int, tuple[str, int, int, int]]


def open_socket(device: str, address: str, port: int) -> socket.socket:
    """A non-blocking UDP socket on one plane. Raises OSError when the plane is not there (yet)."""
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, CS6)
        # The management plane, not the kernel, decides what fits: padded probes must not be cut up.
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DONTFRAG, 1)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def receive(sock: socket.socket) -> Received | None:
    """The next packet: (data, kernel receive time in wall-clock ns or None, hop limit, source).

    None when nothing waits. An error that an earlier send provoked (an ICMP unreachable) is read
    and forgotten here: the missing answer says the same.
    """
    try:
        data, ancillary, _flags, source = sock.recvmsg(_LARGEST, _ANCILLARY)
    except OSError:  # BlockingIOError is one
        return None
    stamp: int | None = None
    hops = 255
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(value)
            stamp = seconds * 1_000_000_000 + nanoseconds
        elif level == socket.IPPROTO_IPV6 and kind == IPV6_HOPLIMIT:
            hops = value[0]
    return data, stamp, hops, source


def send(sock: socket.socket, packet: bytes, destination: tuple[str, int]) -> bool:
    """Send one packet; False when the kernel refused it (no route, no buffer, down)."""
    with contextlib.suppress(OSError):
        sock.sendto(packet, destination)
        return True
    return False
