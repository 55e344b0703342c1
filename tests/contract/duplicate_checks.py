"""What twice.bpf.c and once.bpf.c do to packets, on two devices that this process is the line of.

Devices without a link layer, as planes are, so that packets are those that WireGuard would give.
"""

import fcntl
import os
import socket
import stat
import struct
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Self

from appliance.config.addressing import class_mark
from appliance.kernel.duplicate import Duplication
from appliance.kernel.filters import BpfFilters
from appliance.kernel.netlink import Netlink
from appliance.plan.plan import Add, Change, Copy, Delete, Key, Kind, Once
from tests.contract.shell import RealWorld, shell

TUN = Path("/dev/net/tun")
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000
SO_MARK = 36
_SO_RCVBUFFORCE = 33
MANY = 300
ONE, TWO = "bl-1-1", "bl-2-2"
ONCE = Once("fd12:3456:789a::/48")
GENERAL, OF_A_SITE = Key(Kind.COPY, (ONE, 1, 0)), Key(Kind.COPY, (ONE, 1, 7))
VOICE, OTHER = class_mark(1), class_mark(2)
HOPS = {4: 8, 6: 7}  # where the hop limit is
NEAR = {4: "10.0.1.9", 6: "2001:db8:1::9"}
FAR = {4: "10.0.1.13", 6: "2001:db8:1::19"}
PORT = 9
QUIET_S = 0.02
PACKET = b"a packet"


class Planes:
    """Two planes, both in our hands, and who listens behind them."""

    def __init__(self) -> None:
        self.lines = {name: _tun(name) for name in (ONE, TWO)}
        self.duplication = Duplication(BpfFilters(Netlink(socket.NETLINK_ROUTE)))
        self._sink = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self._sink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 20)
        self._sink.bind(("::", PORT))
        self._sink.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._sink.close()
        self.duplication.close()
        for line in self.lines.values():
            os.close(line)  # and with it goes the device

    def do(self, *ops: Add | Change | Delete) -> None:
        for op in ops:
            self.duplication.apply(op)

    def wait(self, seconds: float) -> None:
        time.sleep(seconds)

    def come(self, *packets: tuple[str, bytes]) -> list[bytes]:
        """Packets come in by planes, in this order; what is delivered of them."""
        for name, packet in packets:
            os.write(self.lines[name], packet)
        self.wait(QUIET_S)
        got = []
        with suppress(BlockingIOError):
            while True:
                got.append(self._sink.recv(2048))
        return got

    def leave(self, to: str, mark: int, hops: int = 64) -> tuple[list[bytes], list[bytes]]:
        """A packet of ours leaves by the first plane; what goes out by each."""
        family = ip_address(to).version
        self.drain(ONE), self.drain(TWO)
        with socket.socket(
            socket.AF_INET if family == 4 else socket.AF_INET6, socket.SOCK_DGRAM
        ) as source:
            source.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
            if family == 4:
                source.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, hops)
            else:
                source.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, hops)
            source.sendto(PACKET, (to, PORT))
        time.sleep(QUIET_S)
        return self.drain(ONE), self.drain(TWO)

    def drain(self, name: str) -> list[bytes]:
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(os.read(self.lines[name], 2048))
        return [packet for packet in found if packet.endswith(PACKET)]


def _tun(name: str) -> int:
    if not TUN.exists():
        TUN.parent.mkdir(exist_ok=True)
        os.mknod(TUN, stat.S_IFCHR | 0o600, os.makedev(10, 200))
    line = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(line, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    number = name[3]
    shell(
        f"ip link set lo up; ip link set {name} up; ip address add 10.0.{number}.1/24 dev {name}; "
        f"ip address add 2001:db8:{number}::1/64 dev {name} nodad; tc qdisc add dev {name} clsact; "
        f"sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.{name}.rp_filter=0"
    )
    return line


def packet(family: int, hops: int, body: bytes, traffic_class: int = 0) -> bytes:
    """UDP from a far host to the first plane's address. IPv4 without a number of its own."""
    size = 8 + len(body)
    ends = [ip_address("192.0.2.7"), ip_address("10.0.1.1")]
    if family == 6:
        ends = [ip_address("2001:db8:f::7"), ip_address("2001:db8:1::1")]
    source, to = (end.packed for end in ends)
    datagram = struct.pack(">HHHH", 7, PORT, size, 0) + body
    if family == 4:
        head = struct.pack(
            ">BBHHHBBH", 0x45, traffic_class, 20 + size, 0, 0x4000, hops, socket.IPPROTO_UDP, 0
        )
        total = checksum(head + source + to)
        return head[:10] + total.to_bytes(2) + source + to + datagram
    total = checksum(source + to + struct.pack(">II", size, socket.IPPROTO_UDP) + datagram)
    head = struct.pack(">IHBB", 6 << 28 | traffic_class << 20, size, socket.IPPROTO_UDP, hops)
    return head + source + to + datagram[:6] + (total or 0xFFFF).to_bytes(2) + body


def checksum(octets: bytes) -> int:
    octets += bytes(len(octets) % 2)
    total = sum(struct.unpack(f">{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def let_in_once() -> Planes:
    planes = Planes()
    planes.do(*(Add(Key(Kind.ONCE, (name,)), ONCE) for name in (ONE, TWO)))
    return planes


async def check_the_first_of_a_packet_and_its_copy_is_let_in(_: RealWorld) -> None:
    with let_in_once() as planes:
        for family in HOPS:
            for number, body in enumerate((b"short", bytes(range(256)) * 4)):
                first, copy = (ONE, packet(family, 60, body)), (TWO, packet(family, 59, body))
                order = [first, copy] if number else [copy, first]
                assert planes.come(*order) == [body], family
            assert planes.come((ONE, packet(family, 60, b"lost"))) == [b"lost"]
            assert planes.come((TWO, packet(family, 59, b"both"))) == [b"both"]
            marked = packet(family, 59, b"ECN", 0xBB)  # congestion experienced on one line
            assert planes.come((ONE, packet(family, 60, b"ECN", 0xBA)), (TWO, marked)) == [b"ECN"]


async def check_a_copy_that_began_before_its_packet_was_noted_is_none_too_late(
    _: RealWorld,
) -> None:
    """Two processors: what was noted is younger than the time that the other one has read."""
    with let_in_once() as planes:
        assert planes.duplication._once is not None
        maps = planes.duplication._once[1].maps
        first = packet(4, 60, b"early")
        assert planes.come((ONE, first)) == [b"early"]
        key = _likeness(first, maps["settings_of"].get(bytes(4)) or b"")
        state = struct.unpack("=Q", maps["seen"].get(key) or b"")[0]
        maps["seen"].set(key, struct.pack("=Q", state + (500 << 32)))  # half a second from now
        assert planes.come((TWO, packet(4, 59, b"early"))) == []


def _likeness(packet4: bytes, settings: bytes) -> bytes:
    """The key under which an IPv4 packet is known: `mixed` of once.bpf.c."""
    octets = bytearray(packet4[:96].ljust(96, b"\0"))
    octets[1] &= 0xFC
    octets[8] = octets[10] = octets[11] = 0
    value = int.from_bytes(settings[:8], sys.byteorder)
    for word in (len(packet4), *struct.unpack("=12Q", octets)):
        value = (value ^ word) * 0x9E3779B97F4A7C15 % 2**64
        value ^= value >> 29
    return struct.pack("=Q", value)


async def check_equal_packets_are_let_in_as_often_as_they_were_sent(_: RealWorld) -> None:
    with let_in_once() as planes:
        for family in HOPS:
            first, copy = (ONE, packet(family, 60, b"same")), (TWO, packet(family, 59, b"same"))
            for order in (
                [first, copy] * 5,
                [first] * MANY + [copy] * MANY,
                [copy] * 3 + [first] * 3,
            ):
                assert len(planes.come(*order)) == len(order) / 2, order[:2]


async def check_what_was_not_copied_is_never_dropped(_: RealWorld) -> None:
    with let_in_once() as planes:
        for family in HOPS:
            same = packet(family, 60, b"moves")
            assert len(planes.come(*[(ONE, same)] * 5, *[(TWO, same)] * 5)) == 10
            far = packet(family, 50, b"moves")  # another sender of the same
            assert len(planes.come((TWO, far), (ONE, far))) == 2
            planes.come((ONE, packet(family, 60, b"late")))
            planes.wait(1.3)
            assert planes.come((TWO, packet(family, 59, b"late"))) == [b"late"]


async def check_a_class_leaves_twice_and_nothing_leaves_more_often(_: RealWorld) -> None:
    with Planes() as planes:
        planes.do(Add(GENERAL, Copy(TWO, "all")))
        for family, at in HOPS.items():
            ((first,), (copy,)) = planes.leave(NEAR[family], VOICE)
            assert (first[at], copy[at]) == (64, 63)
            if family == 4:
                assert checksum(first[:20]) == checksum(copy[:20]) == 0
            assert _but_hops(first, family) == _but_hops(copy, family)
            for mark, hops, twice in (
                (OTHER, 64, 0),
                (VOICE | 0x01000000, 64, 0),  # a copy itself
                (VOICE | 0x00ABCDEF, 64, 1),  # others' bits
                (VOICE, 2, 0),
                (VOICE, 3, 1),
            ):
                counted = [*map(len, planes.leave(NEAR[family], mark, hops))]
                assert counted == [1, twice], (
                    mark,
                    hops,
                )
        planes.do(Add(Key(Kind.COPY, (TWO, 1, 0)), Copy(ONE, "all")))  # as for a moment in a move
        assert [*map(len, planes.leave(NEAR[4], VOICE))] == [1, 1]


def _but_hops(octets: bytes, family: int) -> bytes:
    at = HOPS[family]
    return octets[:at] + octets[at + 1 : 10] + octets[12 if family == 4 else 10 :]


async def check_a_site_is_excepted_by_its_prefixes(_: RealWorld) -> None:
    with Planes() as planes:
        prefixes = ("10.0.1.8/30", "2001:db8:1::8/125")
        planes.do(Add(GENERAL, Copy(TWO, "all")), Add(OF_A_SITE, Copy(None, "d", prefixes)))
        assert _copied(planes, (*NEAR.values(), *FAR.values())) == [0, 0, 1, 1]
        planes.do(Change(OF_A_SITE, Copy(None, "d"), Copy(TWO, "d", prefixes[:1])))
        planes.do(Delete(GENERAL, Copy(TWO, "all")))
        assert _copied(planes, (*NEAR.values(), *FAR.values())) == [1, 0, 0, 0]


def _copied(planes: Planes, destinations: Iterable[str]) -> list[int]:
    return [len(planes.leave(to, VOICE)[1]) for to in destinations]


CHECKS: dict[str, Callable[[RealWorld], Awaitable[None]]] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}
