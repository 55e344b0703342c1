"""Many flows at once: each named once, and none remembered for longer than was promised."""

import sys
import tracemalloc
from ipaddress import IPv4Address, IPv6Address
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.hello.packet import Packet
from appliance.hello.reader import HelloReader, Named
from tests.hellos import (
    ACK,
    CLIENT,
    NAME,
    SERVER,
    SYN,
    crypto,
    datagrams,
    hello,
    initial,
    quic_client,
    segments,
    server_name,
    ssl_stream,
    tcp,
    udp,
)

STREAM = ssl_stream()
MIDDLE = 100  # of the stream, before the name
(DATAGRAM,) = datagrams(quic_client())
CLIENT_6, SERVER_6 = "2001:db8::1", "2001:db8:9::7"
PATIENCE_S = 10.0


def names(reader: HelloReader, packets: list[bytes], now: float = 0.0) -> list[str | None]:
    return [(named := reader.read(packet, now)) and named.name for packet in packets]


def handshake(port: int = 40000, sequence: int = 7, cut: int = MIDDLE) -> list[bytes]:
    """SYN, ACK, and the ClientHello in two segments."""
    parts = segments(STREAM, [cut], sequence + 1)
    opening = [tcp(sequence, b"", SYN, port), tcp(sequence + 1, b"", ACK, port)]
    return opening + [tcp(number, octets, port=port) for number, octets in parts]


def test_a_name_of_tls_and_the_packet_that_completed_it() -> None:
    reader = HelloReader()
    named = [reader.read(packet, 0.0) for packet in handshake()][-1]
    ends = (IPv4Address(CLIENT), IPv4Address(SERVER))
    assert named == Named(Packet(6, *ends, 40000, 443, 46, 8 + MIDDLE, STREAM[MIDDLE:]), NAME)


def test_a_name_of_quic() -> None:
    ends = (IPv6Address(CLIENT_6), IPv6Address(SERVER_6))
    packet = udp(DATAGRAM, source=CLIENT_6, destination=SERVER_6)
    named = HelloReader().read(packet, 0.0)
    assert named == Named(Packet(17, *ends, 40000, 443, 46, None, DATAGRAM), NAME)


def test_a_flow_is_named_once() -> None:
    packets = [*handshake(), udp(DATAGRAM)]
    reader = HelloReader()
    assert names(reader, packets) == [None] * 3 + [NAME] * 2
    assert names(reader, packets * 3) == [None] * 15


@pytest.mark.parametrize("begin", [0, 1])
def test_what_opens_a_connection_tells_where_its_stream_begins(begin: int) -> None:
    for sequence in (7, 0xFFFFFFFF):
        *opening, one, two = handshake(sequence=sequence)
        assert names(HelloReader(), [opening[begin], two, one]) == [None, None, NAME]
    opening, data = tcp(7, STREAM[:MIDDLE], SYN), tcp(8 + MIDDLE, STREAM[MIDDLE:])
    assert names(HelloReader(), [opening, data]) == [None, NAME]  # RFC 7413


def test_flows_do_not_mix() -> None:
    ports = range(40000, 40050)
    flows = [(6, port, handshake(port, sequence=port << 10)) for port in ports]
    flows += [(17, port, [udp(DATAGRAM, port)]) for port in ports]
    turns = [flow for flow in flows for _ in flow[2]]
    Random(1).shuffle(turns)  # each flow's own packets stay in order
    reader = HelloReader()
    found = []
    for protocol, port, packets in turns:
        named = reader.read(packets.pop(0), 0.0)
        assert (named is not None) == (not packets)
        if named:
            found.append((named.packet.protocol, named.packet.source_port, named.name))
            assert found[-1] == (protocol, port, NAME)
    assert len(found) == len(flows)


@pytest.mark.parametrize(
    "first",
    [
        tcp(8, b"GET / HTTP/1.1\r\n"),
        tcp(8, STREAM[MIDDLE:]),
        udp(b"\x40" + bytes(50)),
        udp(DATAGRAM[:1] + b"\xff" + DATAGRAM[2:]),
    ],
)
def test_a_hopeless_flow_stays_so_for_as_long(first: bytes) -> None:
    reader = HelloReader(patience_s=PATIENCE_S)
    again = [tcp(8, STREAM), udp(DATAGRAM)]
    chosen = [packet for packet in again if packet[9] == first[9]]
    assert names(reader, [first, *chosen], now=5.0) == [None, None]
    assert names(reader, chosen, now=14.9) == [None]
    assert names(reader, chosen, now=15.0) == [NAME]


def test_a_named_flow_is_remembered_from_its_end_on() -> None:
    *first, last = handshake()
    reader = HelloReader(patience_s=PATIENCE_S)
    names(reader, first, now=0.0)
    assert names(reader, [last], now=9.0) == [NAME]
    assert names(reader, [tcp(8, STREAM)], now=18.9) == [None]
    assert names(reader, [tcp(8, STREAM)], now=19.0) == [NAME]


def test_an_unfinished_flow_is_forgotten() -> None:
    *first, last = handshake()
    for now, found in ((9.9, NAME), (10.0, None)):
        reader = HelloReader(patience_s=PATIENCE_S)
        names(reader, first, now=0.0)
        assert names(reader, [last], now=now) == [found]


def test_the_oldest_goes_first() -> None:
    flows = [handshake(port) for port in range(40000, 40004)]
    reader = HelloReader(most_flows=3)
    for flow in flows:
        names(reader, flow[:-1])
    assert len(reader._flows) == 3
    assert names(reader, [flow[-1] for flow in flows[1:]]) == [NAME] * 3
    assert names(reader, [flows[0][-1]]) == [None]  # taken for the beginning of a flow
    assert len(reader._flows) == 3
    reader = HelloReader(most_flows=2)
    names(reader, flows[0][:-1] + flows[1])  # the second is finished, and the younger one
    names(reader, flows[2][:1])
    assert names(reader, [flows[1][-1], flows[0][-1]]) == [None, None]


def test_room_for_one_flow_and_for_none() -> None:
    assert names(HelloReader(most_flows=1), handshake()) == [None] * 3 + [NAME]
    with pytest.raises(ValueError, match="room for 0 flows"):
        HelloReader(most_flows=0)


def test_memory_has_a_bound() -> None:
    """A stranger's worst: long streams with a gap, names that never come."""
    reader = HelloReader(most_flows=64)
    filler = b"\x16\3\1\x40\0" + hello(bytes(1 << 14), session=bytes(32))
    filler = filler[:5] + b"\1\0\xff\xff" + filler[9:]
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for port in range(256):
        for at in range(0, 15 << 10, 1400):
            reader.read(tcp(at, filler[at : at + 1400], port=port), 0.0)
        for at in range(50):
            reader.read(tcp((16 << 10) - 250 + at, bytes(250 - at), port=port), 0.0)
        for number in range(20):
            frames = crypto(1 + number, bytes(900)) + crypto(9000 + number, bytes(200))
            reader.read(udp(initial(frames, number=number), port=port), 0.0)
        if port == 80:
            break
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(reader._flows) == 64
    assert after - before < 64 * (34 << 10)


def test_a_finished_flow_is_small() -> None:
    reader = HelloReader()
    names(reader, handshake())
    (flow,) = reader._flows.values()
    assert flow.stream is None
    assert sys.getsizeof(flow) < 100


@given(st.lists(st.binary(max_size=100)), st.floats())
def test_noise_raises_nothing(noise: list[bytes], now: float) -> None:
    reader = HelloReader(most_flows=2)
    for octets in noise:
        for packet in (octets, tcp(7, octets), udp(octets), b"\x45" + octets, b"\x60" + octets):
            reader.read(packet, now)
    assert len(reader._flows) <= 2


def test_a_name_that_is_no_host_is_none() -> None:
    for name in (b"192.0.2.1", b"a b"):
        frames = crypto(0, hello(server_name(name)))
        assert names(HelloReader(), [udp(initial(frames))]) == [None]
