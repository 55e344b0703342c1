"""A thousand sites' ends of WireGuard tunnels in one namespace, and what answers at them.

    hub --- internet --- far: 10.101.0.0/16 and 10.102.0.0/16, all of it local
                              bl<n> ... one WireGuard device per site and plane

A hub dials the same port of every site, and one namespace has each port once: packets that come in
are redirected to the port of the site's device, which conntrack undoes on the way back. The
devices have no addresses and no routes. Branchline's reflector in the kernel answers at them, as it
does at branches, and costs the shared core little; what it leaves alone is taken off all devices by
one packet socket, and answers are put back on the device that the packet came by.
"""

import mmap
import os
import resource
import select
import socket
import struct
import time
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from ipaddress import IPv4Interface, IPv6Address, IPv6Network

from nacl.bindings import crypto_scalarmult_base
from pyroute2 import WireGuard

from appliance.config.addressing import listen_port, mirrored, probe_address
from appliance.contract.ids import Plane, SiteId, Slot
from appliance.kernel import bpf
from appliance.kernel.reflector import KernelReflector, Settings
from appliance.stamp.reflector import ERROR_ESTIMATE_PTP, SessionReflector
from lab.topology import Lab
from tests.bench.planes import PORT_BASE

UPLINKS = 2
FIRST_ID = 100  # of the sites
DATA_PORT, STAMP_PORT = 9000, 862
_ETH_P_IPV6 = 0x86DD
_SO_RCVBUFFORCE = 33
_PORT0 = 20_000  # of the devices
_HEADERS = 48  # IPv6, UDP
_SENDER_OCTETS = 44  # of a test packet without TLVs
PROBE_S = 4.0  # between two probes of a far end on one plane
GATHER_S = 0.001  # answered together: a thousand boxes would not take turns on one core
_SENDER = struct.Struct(">IIIHH")  # sequence, seconds, nanoseconds, error estimate, SSID
_REFLECTOR = struct.Struct(">IIIHHIIIIIHxxB3x")
_OWN = struct.Struct(f">{_REFLECTOR.size // 2}H")  # the same in words
_UDP = struct.Struct(">HHHH")
_WORDS = struct.Struct(">16H")  # the two addresses
_PADDING = 0x8001  # unrecognised until answered, and Extra Padding: flags and type of a TLV
_PLANES = 250  # of one reflector in the kernel: a box has no more
_COUNT_S = 0.1  # how often what they answered is read
_ANSWERED, _PROBING, _STOP, _READY, _HEARD, _HEADER = range(6)


# What is left to the packet socket: all but plain probes and those with padding only.
_NOT_ANSWERED_IN_THE_KERNEL = [
    bpf.load_16(42),
    bpf.is_equal(STAMP_PORT, 0, 3),
    bpf.load_16(_HEADERS + _SENDER_OCTETS),  # beyond a plain probe: nobody hears that either
    bpf.is_equal(_PADDING, 0, 1),
    bpf.DROP,
    bpf.KEEP,
]


@dataclass(frozen=True, slots=True)
class FarSite:
    """One site as its hub knows it."""

    number: int  # 0, 1, ...
    private: bytes

    @property
    def site_id(self) -> SiteId:
        return SiteId(FIRST_ID + self.number)

    @property
    def name(self) -> str:
        return f"site-{self.site_id}"

    @property
    def public_key(self) -> str:
        return b64encode(crypto_scalarmult_base(self.private)).decode()

    @property
    def prefixes(self) -> tuple[str, str]:
        high, low = divmod(self.site_id, 256)
        return f"10.{16 + high}.{low}.0/24", f"2001:db8:a:{self.site_id:x}::/64"

    @property
    def host(self) -> str:
        """Somebody behind the site."""
        return f"2001:db8:a:{self.site_id:x}::1"

    def endpoint(self, uplink: int) -> str:
        high, low = divmod(self.site_id, 256)
        return f"10.{100 + uplink}.{high}.{low}"

    def planes(self) -> Iterator[tuple[int, Plane]]:
        """Each plane as the site sees it, with the number of its device."""
        for own in range(1, UPLINKS + 1):
            for hubs in range(1, UPLINKS + 1):
                number = self.number * UPLINKS**2 + (own - 1) * UPLINKS + hubs - 1
                yield number, Plane(Slot(own), Slot(hubs))


class FarEnds:
    """All far sites. `reflect` starts answering."""

    def __init__(self, lab: Lab, sites: int, overlay: str, hub_id: int, hub_key: str) -> None:
        self.sites = [
            FarSite(n, _clamped(sha256(f"far site {n}".encode()).digest())) for n in range(sites)
        ]
        self._overlay = overlay
        self._hub_id = SiteId(hub_id)
        self._machine = lab.machine("far")
        self._start_ns = lab.report.start_ns
        self._attach(lab)
        self._make_devices(hub_key)
        self._capacity = 1 << 18
        cells = memoryview(mmap.mmap(-1, (_HEADER + self._capacity) * 8)).cast("q")
        self._header, self._arrived_ns = cells[:_HEADER], cells[_HEADER:]
        self._pid = self._machine.fork(self._serve)
        while not self._header[_READY]:
            time.sleep(0.01)

    @property
    def answered(self) -> int:
        """Probes of the hub that the kernel has answered for them so far."""
        return self._header[_ANSWERED]

    @property
    def heard(self) -> int:
        """Answers of the hub to the far ends' own probes so far."""
        return self._header[_HEARD]

    def probe(self, *, is_on: bool) -> None:
        """Have every far end probe the hub too, every PROBE_S on each plane."""
        self._header[_PROBING] = is_on

    def arrived_ns(self, sequence: int) -> int:
        """When a data packet arrived (monotonic), 0 when it did not."""
        return self._arrived_ns[sequence]

    def cpu_s(self) -> float:
        """CPU seconds that their process has used."""
        with open(f"/proc/{self._pid}/schedstat", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[0]) / 1e9

    def stop(self) -> None:
        self._header[_STOP] = 1
        os.waitpid(self._pid, 0)

    # -- building ------------------------------------------------------------------------------

    def _attach(self, lab: Lab) -> None:
        near, far = IPv4Interface("10.100.0.1/30"), IPv4Interface("10.100.0.2/30")
        lab.internet.ip(
            "link add far type veth peer name up0 netns far",
            "link set far up",
            f"addr add {near} dev far",
            *(f"route add 10.{100 + u}.0.0/16 via {far.ip}" for u in range(1, UPLINKS + 1)),
        )
        self._machine.ip(
            "link set up0 up",
            f"addr add {far} dev up0",
            f"route add default via {near.ip}",
            *(f"route add local 10.{100 + u}.0.0/16 dev lo" for u in range(1, UPLINKS + 1)),
        )
        elements = ",\n".join(
            f"{site.endpoint(plane.local)} . {listen_port(PORT_BASE, plane)} : {_PORT0 + number}"
            for site in self.sites
            for number, plane in site.planes()
        )
        self._machine.nft(
            "table ip far {\nmap ports { type ipv4_addr . inet_service : inet_service\n"
            f"elements = {{ {elements} }}\n}}\n"
            "chain pre { type nat hook prerouting priority dstnat\n"
            "ip protocol udp redirect to : ip daddr . udp dport map @ports\n}\n}"
        )
        # After the table: it is what brings connection tracking into the kernel.
        self._machine.sysctl(net__netfilter__nf_conntrack_udp_timeout=180)

    def _make_devices(self, hub_key: str) -> None:
        numbers = [number for site in self.sites for number, _ in site.planes()]
        self._machine.ip(*(f"link add bl{n} type wireguard" for n in numbers))
        with self._machine.entered():
            wireguard = WireGuard()
        try:
            peer = {"public_key": hub_key, "allowed_ips": ["::/0", "0.0.0.0/0"]}
            for site in self.sites:
                private = b64encode(site.private).decode()
                for number, _ in site.planes():
                    wireguard.set(
                        f"bl{number}",
                        private_key=private,
                        listen_port=_PORT0 + number,
                        peer=peer,
                    )
        finally:
            wireguard.close()
        self._machine.ip(*(f"link set bl{n} up" for n in numbers))

    # -- answering -----------------------------------------------------------------------------

    def _serve(self) -> None:
        header = self._header
        # A thousand boxes have processors of their own: none of them waits for the hub's.
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ETH_P_IPV6))
        tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 64 << 20)
        reflectors = self._reflectors()
        bpf.attach(tap, _NOT_ANSWERED_IN_THE_KERNEL)
        tap.setblocking(False)
        outgoing = list(self._probes())
        poller = select.poll()
        poller.register(tap, select.POLLIN)
        header[_READY] = 1
        begun, sent = time.monotonic(), 0
        counted_at = 0.0
        while not header[_STOP]:
            if time.monotonic() >= counted_at:
                counted_at = time.monotonic() + _COUNT_S
                header[_ANSWERED] = sum(each.totals().reflected for each in reflectors)
            if poller.poll(2):
                self._drain(tap)
                time.sleep(GATHER_S)
            if not header[_PROBING]:
                begun, sent = time.monotonic(), 0
                continue
            due = int((time.monotonic() - begun) * len(outgoing) / PROBE_S)
            for n in range(sent, due):
                _send(tap, *outgoing[n % len(outgoing)])
            sent = due

    def _reflectors(self) -> list[KernelReflector]:
        """Reflectors in the kernel, at all devices."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 16, 1 << 16))
        overlay = IPv6Network(self._overlay)
        ends = [
            (socket.if_nametoindex(f"bl{number}"), probe_address(overlay, plane, site.site_id))
            for site in self.sites
            for number, plane in site.planes()
        ]
        settings = Settings(0, *SessionReflector().bounds, STAMP_PORT, ERROR_ESTIMATE_PTP)
        reflectors = [KernelReflector(settings) for _ in range(0, len(ends), _PLANES)]
        for n, reflector in enumerate(reflectors):
            own = ends[n * _PLANES : (n + 1) * _PLANES]
            reflector.follow({index: address.packed for index, address in own})
        return reflectors

    def _drain(self, tap: socket.socket) -> None:
        header, arrived_ns = self._header, self._arrived_ns
        for _ in range(256):
            try:
                packet, origin = tap.recvfrom(2048)
            except BlockingIOError:
                return
            if len(packet) < _HEADERS + 4 or packet[6] != socket.IPPROTO_UDP:
                continue
            source, port, _, _ = _UDP.unpack_from(packet, 40)
            if port == STAMP_PORT:
                _send(tap, origin[0], answer(packet))
            elif port == DATA_PORT:
                (sequence,) = struct.unpack_from(">I", packet, _HEADERS)
                if sequence < self._capacity and not arrived_ns[sequence]:
                    arrived_ns[sequence] = time.monotonic_ns()
            elif source == STAMP_PORT:
                header[_HEARD] += 1

    def _probes(self) -> Iterator[tuple[str, bytes]]:
        """A probe for each device. All it takes is made beforehand: the hub looks at no times."""
        overlay = IPv6Network(self._overlay)
        for site in self.sites:
            for number, plane in site.planes():
                source = probe_address(overlay, plane, site.site_id)
                target = probe_address(overlay, mirrored(plane), self._hub_id)
                payload = _SENDER.pack(1, 1, 1, 0x4001, plane.local * 16 + plane.remote) + bytes(28)
                yield f"bl{number}", _datagram(source, target, 40_000, STAMP_PORT, payload)


def answer(packet: bytes) -> bytes:
    """A stateless reflector's answer to a STAMP probe (RFC 8762 section 4.3) on IPv6."""
    sequence, seconds, fraction, estimate, ssid = _SENDER.unpack_from(packet, _HEADERS)
    now_s, now_ns = divmod(time.time_ns(), 1_000_000_000)
    own = _REFLECTOR.pack(
        *(sequence, now_s, now_ns, 0x4001, ssid, now_s, now_ns),
        *(sequence, seconds, fraction, estimate, packet[7]),
    )
    # Source and destination change places, which no sum notices: of a packet that may be long,
    # only what we write over does (RFC 1624).
    total = (~int.from_bytes(packet[46:48]) & 0xFFFF) + sum(_OWN.unpack(own))
    total += sum([~word & 0xFFFF for word in _OWN.unpack_from(packet, _HEADERS)])
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return b"".join(
        (
            *(packet[:8], packet[24:40], packet[8:24], packet[42:44], packet[40:42]),
            *(packet[44:46], (~total & 0xFFFF or 0xFFFF).to_bytes(2), own),
            packet[_HEADERS + _REFLECTOR.size :],
        )
    )


def _datagram(
    source: IPv6Address, target: IPv6Address, port: int, to_port: int, payload: bytes
) -> bytes:
    size = 8 + len(payload)
    head = struct.pack(">IHBB", 6 << 28, size, socket.IPPROTO_UDP, 64)
    udp = _UDP.pack(port, to_port, size, 0)
    packet = bytearray(head + source.packed + target.packed + udp + payload)
    _seal(packet)
    return bytes(packet)


def _seal(packet: bytearray) -> None:
    """Fill in the UDP checksum (RFC 8200 section 8.1)."""
    packet[46] = packet[47] = 0
    size = len(packet) - 40
    body = packet[40:] + bytes(size & 1)
    total = sum(_WORDS.unpack_from(packet, 8)) + sum(struct.unpack(f">{len(body) // 2}H", body))
    total += size + socket.IPPROTO_UDP
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    struct.pack_into(">H", packet, 46, ~total & 0xFFFF or 0xFFFF)


def _send(tap: socket.socket, device: str, packet: bytes) -> None:
    try:
        tap.sendto(packet, (device, _ETH_P_IPV6))
    except OSError:
        return  # no room or no peer yet: it is a datagram


def _clamped(key: bytes) -> bytes:
    clamped = bytearray(key)
    clamped[0] &= 248
    clamped[31] = clamped[31] & 127 | 64
    return bytes(clamped)
