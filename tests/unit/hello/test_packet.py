"""Packets as scapy builds them, and as they come cut."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_RR
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
)
from scapy.packet import Packet as ScapyPacket

from appliance.hello.packet import Packet, locate, parse

FOUR = {"src": "192.0.2.1", "dst": "198.51.100.7"}
SIX = {"src": "2001:db8::1", "dst": "2001:db8:9::7"}
PORTS = {"sport": 40000, "dport": 443}
SEGMENT = TCP(**PORTS, seq=0xFFFFFFFF, flags="PA") / b"hello"
DATAGRAM = UDP(**PORTS) / b"hello"
V4 = (IPv4Address(FOUR["src"]), IPv4Address(FOUR["dst"]))
V6 = (IPv6Address(SIX["src"]), IPv6Address(SIX["dst"]))


def octets_of(packet: ScapyPacket) -> bytes:
    return bytes(packet)


def nested(count: int) -> ScapyPacket:
    packet = IPv6(**SIX)
    for _ in range(count):
        packet /= IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 12)])
    return packet / DATAGRAM


@pytest.mark.parametrize(
    "packet",
    [
        IP(**FOUR, tos=0xB9) / SEGMENT,
        IP(**FOUR, tos=0xB9, options=[IPOption_RR(routers=["0.0.0.0"] * 9)]) / SEGMENT,
        IP(**FOUR, tos=0xB9, flags="MF") / SEGMENT,  # the first fragment has the ports
    ],
    ids=["plain", "options", "first-fragment"],
)
def test_tcp_in_ipv4(packet: ScapyPacket) -> None:
    assert parse(octets_of(packet)) == Packet(6, *V4, 40000, 443, 46, 0xFFFFFFFF, b"hello")


@pytest.mark.parametrize(
    "packet",
    [
        IPv6(**SIX, tc=0xB9) / DATAGRAM,
        IPv6(**SIX, tc=0xB9) / IPv6ExtHdrHopByHop() / IPv6ExtHdrRouting() / DATAGRAM,
        IPv6(**SIX, tc=0xB9)
        / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 20)])
        / IPv6ExtHdrDestOpt()
        / DATAGRAM,
    ],
    ids=["plain", "hop-by-hop-and-routing", "destination"],
)
def test_udp_in_ipv6(packet: ScapyPacket) -> None:
    assert parse(octets_of(packet)) == Packet(17, *V6, 40000, 443, 46, None, b"hello")


def test_options_of_tcp_are_no_payload() -> None:
    segment = TCP(**PORTS, seq=7, options=[("Timestamp", (1, 2)), ("NOP", None), ("NOP", None)])
    found = parse(octets_of(IPv6(**SIX) / segment / b"hello"))
    assert found == Packet(6, *V6, 40000, 443, 0, 7 + 1 * (segment.flags == "S"), b"hello")


def test_a_syn_takes_a_sequence_number() -> None:
    for sequence, flags, first in ((7, "S", 8), (0xFFFFFFFF, "SA", 0), (7, "A", 7), (7, "F", 7)):
        packet = parse(octets_of(IP(**FOUR) / TCP(**PORTS, seq=sequence, flags=flags)))
        assert packet is not None
        assert packet.sequence == first
        assert packet.payload == b""


def test_eight_extension_headers_are_passed_and_no_more() -> None:
    assert parse(octets_of(nested(8))) == Packet(17, *V6, 40000, 443, 0, None, b"hello")
    assert parse(octets_of(nested(9))) is None


@pytest.mark.parametrize(
    "packet",
    [
        IP(**FOUR) / ICMP() / b"hello, of more than eight octets",
        IP(**FOUR, frag=1) / SEGMENT,
        IP(**FOUR, frag=0x1000) / SEGMENT,
        IP(**FOUR, ihl=4) / SEGMENT,
        IP(**FOUR, len=39) / SEGMENT,
        IP(**FOUR, version=5) / SEGMENT,
        IP(**FOUR) / TCP(**PORTS, dataofs=4) / b"hello",
        IP(**FOUR) / TCP(**PORTS, dataofs=7) / b"hello",
        IPv6(**SIX) / IPv6ExtHdrFragment() / SEGMENT,
        IPv6(**SIX, nh=50) / SEGMENT,
        IPv6(**SIX, plen=7) / DATAGRAM,
    ],
    ids=str,
)
def test_what_is_nothing_to_read(packet: ScapyPacket) -> None:
    assert parse(octets_of(packet)) is None


@pytest.mark.parametrize(
    ("packet", "headers"),
    [
        (IP(**FOUR) / SEGMENT, 40),
        (IP(**FOUR, options=[IPOption_RR(routers=["0.0.0.0"] * 9)]) / DATAGRAM, 68),
        (IPv6(**SIX) / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / SEGMENT, 76),
        (IPv6(**SIX) / DATAGRAM, 48),
    ],
)
def test_a_packet_may_be_cut_behind_its_headers(packet: ScapyPacket, headers: int) -> None:
    octets = octets_of(packet)
    assert len(octets) == headers + 5
    for end in range(len(octets) + 1):
        found = parse(octets[:end])
        assert (found and found.payload) == (b"hello"[: end - headers] if end >= headers else None)
    padded = parse(octets + b"padding of Ethernet")
    assert padded is not None
    assert padded.payload == b"hello"


def test_a_flow_is_told_by_protocol_addresses_and_ports() -> None:
    packets = [
        IP(**FOUR) / SEGMENT,
        IP(**FOUR) / DATAGRAM,
        IP(src="192.0.2.2", dst=FOUR["dst"]) / SEGMENT,
        IP(src=FOUR["src"], dst="198.51.100.8") / SEGMENT,
        IP(**FOUR) / TCP(sport=40001, dport=443),
        IP(**FOUR) / TCP(sport=40000, dport=444),
        IP(src=FOUR["dst"], dst=FOUR["src"]) / SEGMENT,
        IPv6(**SIX) / SEGMENT,
        IPv6(**SIX) / DATAGRAM,
        IPv6(src=SIX["src"], dst="2001:db8:9::8") / SEGMENT,
    ]
    flows = [location.flow for packet in packets if (location := locate(octets_of(packet)))]
    assert len(set(flows)) == len(packets)
    again = locate(
        octets_of(IP(**FOUR, tos=4, options=[IPOption_RR(routers=["0.0.0.0"])]) / TCP(**PORTS))
    )
    assert again is not None
    assert again.flow == flows[0]
