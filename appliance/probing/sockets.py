"""The UDP sockets through which paths are probed: one to send and one to reflect, for all planes.

Each packet names its plane itself: by IPV6_PKTINFO (RFC 3542 section 6.2) it leaves by the plane's
device with our probe address on it, and what comes in says the same of where it came in. So planes
come and go without a socket being opened, and one system call reads or sends what there is for all
of them (docs/adr/0007-one-socket-for-all-planes.md).
"""

import socket
from collections.abc import Collection, Container, Sequence
from ipaddress import IPv6Address
from struct import Struct
from typing import Final, NamedTuple, Self

from appliance import clock
from appliance.kernel import bpf
from appliance.probing.mmsg import Buffers

# Linux values that the socket module does not name everywhere.
SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50
IPV6_RECVHOPLIMIT = 51
IPV6_RECVTCLASS = 66
CS6 = 48 << 2  # traffic class octet: network control (RFC 4594 section 3.2), never starved

BATCH: Final = 16  # packets of one system call: the last leaves 0.2 ms after it was stamped
_LARGEST = 2048  # no STAMP packet on a plane is larger than the plane's MTU
_QUEUE = 4 << 20  # octets that may wait for us: a hub hears thousands of answers a second
_PLAUSIBLE_NS = 2_000_000_000  # a packet cannot have waited longer for us to read it
_STEP_NS = 5_000_000  # by which two clocks, read one after the other, differ when one was set

_ENDPOINT = Struct("=H2sI16sI")  # sockaddr_in6: family, port in network order, flow, address, scope
_HEADER = 16  # octets of a cmsghdr
_PKTINFO = Struct("@Nii16sI")  # a cmsghdr with an in6_pktinfo: address, index of the device
# The control messages that come with a packet, in the order in which Linux gives them: stamp,
# pktinfo with its header, hop limit, traffic class. Were it another, no pktinfo would be ours.
_CONTROL = Struct(f"@{_HEADER}x2q36s0P{_HEADER}xi0P{_HEADER}xi0P")


_new = tuple.__new__


class Packet(NamedTuple):
    """A packet as it came, with what the kernel says of it."""

    octets: bytes
    source: bytes  # an endpoint: whom to answer
    pktinfo: bytes  # our end of the plane it came by
    received_ns: int  # on the monotonic clock
    hop_limit: int
    traffic_class: int


# A packet to send: octets, destination (an endpoint), our end of the plane to send it by.
Outgoing = tuple[bytes, bytes, bytes]


def endpoint(address: IPv6Address, port: int) -> bytes:
    """A UDP endpoint as the kernel has it (sockaddr_in6)."""
    return _ENDPOINT.pack(socket.AF_INET6, port.to_bytes(2), 0, address.packed, 0)


def address_of(endpoint: bytes) -> IPv6Address:
    """The address of an endpoint."""
    return IPv6Address(endpoint[8:24])


def port_of(endpoint: bytes) -> int:
    """The UDP port of an endpoint."""
    return int.from_bytes(endpoint[2:4])


def pktinfo(address: IPv6Address, index: int) -> bytes:
    """Our end of a plane as a control message: our address there, and the index of its device."""
    return _PKTINFO.pack(_PKTINFO.size, socket.IPPROTO_IPV6, IPV6_PKTINFO, address.packed, index)


def split_pktinfo(end: bytes) -> tuple[bytes, int]:
    """The packed address and the device's index of an end of a plane."""
    _, _, _, packed, index = _PKTINFO.unpack(end)
    return packed, index


class ProbeSocket:
    """A non-blocking UDP socket that reads and sends many packets at a time."""

    def __init__(self, port: int = 0) -> None:
        """`port` 0 takes any that is free. Raises OSError."""
        self._socket = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            self._set_options()
            self._socket.bind(("::", port))
        except OSError:
            self._socket.close()
            raise
        self._incoming = Buffers(BATCH, _LARGEST, _ENDPOINT.size, _CONTROL.size)
        self._outgoing = Buffers(BATCH, _LARGEST, _ENDPOINT.size, _PKTINFO.size)
        self._wall_at_ns = clock.wall_ns() - clock.monotonic_ns()  # 0 of one clock on the other
        self._was_set = False  # the wall clock was, after what waits had been stamped

    @classmethod
    def outside(cls, ports: Container[int]) -> Self:
        """A socket at any free port but these. Raises OSError."""
        rejected: list[Self] = []  # kept for so long, or we would be given them again
        try:
            while (found := cls()).port in ports:
                rejected.append(found)
        finally:
            for each in rejected:
                each.close()
        return found

    def _set_options(self) -> None:
        own = self._socket
        own.setblocking(False)
        try:
            own.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, _QUEUE)
        except PermissionError:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _QUEUE)
        own.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        for option in (IPV6_RECVPKTINFO, IPV6_RECVHOPLIMIT, IPV6_RECVTCLASS):
            own.setsockopt(socket.IPPROTO_IPV6, option, 1)
        own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, CS6)
        # Padded probes find out what fits: they must not be cut up on the way.
        own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DONTFRAG, 1)

    @property
    def port(self) -> int:
        number: int = self._socket.getsockname()[1]
        return number

    def fileno(self) -> int:
        return self._socket.fileno()

    def close(self) -> None:
        self._socket.close()

    def hear(self, ends: Collection[bytes]) -> None:
        """Hear what comes in by the planes of these ends and nothing else.

        The kernel drops the rest, so that a flood from a LAN costs us nothing.
        """
        program = [bpf.load_32(bpf.INTERFACE)]
        for index in sorted({_PKTINFO.unpack(end)[4] for end in ends}):
            program += [bpf.is_equal(index, 0, 1), bpf.KEEP]
        bpf.attach(self._socket, [*program, bpf.DROP])

    def receive(self) -> list[Packet]:
        """At most BATCH packets that wait; fewer mean that there are no more.

        The kernel's stamps are on the wall clock, so it is their age that counts. When that clock
        was set meanwhile, nothing that waits has an age: an answer would else have come before it
        was asked for, and be the fastest that there ever was. Both clocks are slewed alike.
        """
        buffers = self._incoming
        found = buffers.receive(self._socket.fileno())
        if not found:
            return []
        now_ns, wall_ns = clock.monotonic_ns(), clock.wall_ns()
        if not -_STEP_NS < wall_ns - now_ns - self._wall_at_ns < _STEP_NS:
            self._wall_at_ns, self._was_set = wall_ns - now_ns, True
        oldest_ns = -1 if self._was_set else _PLAUSIBLE_NS
        octets, endpoints, control = buffers.octets, buffers.endpoints, buffers.control
        octets_room, endpoint_room, control_room = buffers.room
        packets = []
        octets_at = endpoint_at = control_at = 0
        for size in found:
            fields = _CONTROL.unpack_from(control, control_at)
            seconds, nanoseconds, info, hop_limit, traffic_class = fields
            age_ns = wall_ns - seconds * 1_000_000_000 - nanoseconds
            packet = (
                bytes(octets[octets_at : octets_at + size]),
                bytes(endpoints[endpoint_at : endpoint_at + endpoint_room]),
                info,
                now_ns - age_ns if 0 <= age_ns <= oldest_ns else now_ns,
                hop_limit,
                traffic_class,
            )
            # What Packet(...) does, without the Python frame of a named tuple's constructor.
            packets.append(_new(Packet, packet))
            octets_at += octets_room
            endpoint_at += endpoint_room
            control_at += control_room
        if len(packets) < BATCH:
            self._was_set = False  # the next ones are stamped by the clock of now
        return packets

    def send(self, packets: Sequence[Outgoing]) -> int:
        """Send these packets in order; how many the kernel took.

        It refuses those that do not fit their plane, or whose plane is gone. The others leave.
        """
        buffers, taken = self._outgoing, 0
        for start in range(0, len(packets), BATCH):
            sizes = []
            octets_at = endpoint_at = control_at = 0
            for octets, destination, info in packets[start : start + BATCH]:
                size = len(octets)
                sizes.append(size)
                buffers.octets[octets_at : octets_at + size] = octets
                buffers.endpoints[endpoint_at : endpoint_at + _ENDPOINT.size] = destination
                buffers.control[control_at : control_at + _PKTINFO.size] = info
                octets_at += _LARGEST
                endpoint_at += _ENDPOINT.size
                control_at += _PKTINFO.size
            taken += buffers.send(self._socket.fileno(), sizes)
        return taken
