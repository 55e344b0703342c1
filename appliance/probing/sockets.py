"""The UDP sockets through which paths are probed: one to send and one to reflect, per plane.

A socket is bound to its plane's device and to our own probe address on it, so a probe cannot leave
by another plane and the reflector is reachable inside the overlay only.
"""

import contextlib
import socket
import struct
from typing import NamedTuple

# Linux values that the socket module does not name everywhere.
SO_TIMESTAMPNS = 35
IPV6_RECVHOPLIMIT = 51
IPV6_HOPLIMIT = 52
CS6 = 48 << 2  # traffic class octet: network control (RFC 4594 section 3.2), never starved

IPV6_RECVTCLASS = 66
_TIMESPEC = struct.Struct("=qq")
_INT = struct.Struct("=i")
_ANCILLARY = 128  # room for a timespec, a hop limit and a traffic class with their headers
_LARGEST = 2048  # no STAMP packet on a plane is larger than the plane's MTU
_PLAUSIBLE_NS = 2_000_000_000  # a packet cannot have waited longer for us to read it

Source = tuple[str, int, int, int]


class Packet(NamedTuple):
    """A packet as it came, with what the kernel says of it."""

    octets: bytes
    source: Source
    stamp_ns: int | None  # on the wall clock, which may jump
    hop_limit: int
    traffic_class: int

    def received_ns(self, now_ns: int, wall_ns: int) -> int:
        """When the kernel received it, on the monotonic clock; both clocks are read by the caller.

        The stamp is on the wall clock, so its age is what counts: an age that cannot be, because
        the wall clock was set meanwhile, is taken as none.
        """
        if self.stamp_ns is None:
            return now_ns
        age_ns = wall_ns - self.stamp_ns
        return now_ns - age_ns if 0 <= age_ns <= _PLAUSIBLE_NS else now_ns


def open_socket(
    device: str, address: str, port: int, *, wants_headers: bool = False
) -> socket.socket:
    """A non-blocking UDP socket on one plane, `port` 0 for any.

    With `wants_headers` each packet comes with hop limit and traffic class. Raises OSError when
    the plane is not there (yet).
    """
    sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        if wants_headers:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RECVTCLASS, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, CS6)
        # Padded probes find out what fits: they must not be cut up on the way.
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DONTFRAG, 1)
        sock.bind((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def receive(sock: socket.socket) -> Packet | None:
    """The next packet, or None when nothing waits.

    An error that an earlier send provoked (an ICMP unreachable) is read and forgotten here: the
    missing answer says the same.
    """
    try:
        octets, ancillary, _flags, source = sock.recvmsg(_LARGEST, _ANCILLARY)
    except OSError:  # BlockingIOError is one
        return None
    stamp_ns: int | None = None
    hop_limit, traffic_class = 255, 0
    for level, kind, value in ancillary:
        if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
            seconds, nanoseconds = _TIMESPEC.unpack(value)
            stamp_ns = seconds * 1_000_000_000 + nanoseconds
        elif kind == IPV6_HOPLIMIT:
            (hop_limit,) = _INT.unpack(value)
        elif kind == socket.IPV6_TCLASS:
            (traffic_class,) = _INT.unpack(value)
    return Packet(octets, source, stamp_ns, hop_limit, traffic_class)


def send(sock: socket.socket, packet: bytes, destination: tuple[str, int] | Source) -> bool:
    """Send one packet; False when the kernel refused it (no route, no buffer, down)."""
    with contextlib.suppress(OSError):
        sock.sendto(packet, destination)
        return True
    return False
