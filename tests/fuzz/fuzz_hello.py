"""First packets of flows, from strangers: a name that could be a host's or none, and no error."""

from itertools import accumulate

from appliance.hello.client_hello import check_name, find_name
from appliance.hello.in_order import LIMIT
from appliance.hello.packet import parse
from appliance.hello.quic import QuicInitials
from appliance.hello.reader import HelloReader
from appliance.hello.tls import TlsStream
from tests.fuzz.harness import Target
from tests.hellos import (
    HANDSHAKE,
    NAME,
    VERSION_2,
    crypto,
    extension,
    hello,
    initial,
    ip,
    long_header,
    records,
    server_name,
    tcp,
    udp,
    varint,
)

FIRST = (1 << 32) - 50
DCID = b"01234567"
# All is made by hand here: what ssl and aioquic make is another each time, and a run must repeat.
MESSAGE = hello(
    extension(0x1A1A, b"") + server_name(NAME.encode()) + extension(0xFE0D, bytes(40)),
    session=bytes(32),
)
FRAMES = (
    *(crypto(0, MESSAGE), crypto(60, MESSAGE[60:]) + b"\1\0\0" + crypto(0, MESSAGE[:60])),
    b"\2" + varint(70) + varint(9) + varint(2) + varint(1) * 5 + crypto(0, MESSAGE),
    b"\3" + varint(70) + varint(9) + varint(0) + varint(1) + varint(300) * 3 + crypto(0, MESSAGE),
)


def check(name: str | None) -> None:
    if name and check_name(name.encode()) != name:
        raise AssertionError


def fuzz_packet(octets: bytes) -> None:
    """A packet as it comes, and then twice a whole flow of each kind: named not more than once."""
    reader = HelloReader(most_flows=2)
    for packet in (octets, octets[: len(octets) // 2], octets):
        reader.read(packet, 0.0)
    payload = found.payload if (found := parse(octets)) else octets
    for whole in (tcp(FIRST, records(MESSAGE)), udp(initial(crypto(0, MESSAGE), DCID))):
        reader = HelloReader(most_flows=2)
        packets = (tcp(FIRST, payload), udp(payload), whole, whole)
        named = [named for packet in packets if (named := reader.read(packet, 0.0))]
        for one in named:
            check(one.name)
        if len({one.packet.protocol for one in named}) != len(named):
            raise AssertionError
        if len(reader._flows) > 2:
            raise AssertionError


def fuzz_stream(octets: bytes) -> None:
    """The same verdict however a stream is cut, and in either order of two segments."""
    sizes = (len(octets), 1, 7, max(1, len(octets) // 2))
    verdicts = set()
    for size in sizes:
        parts = [octets[at : at + size] for at in range(0, len(octets), size or 1)]
        starts = [FIRST, *accumulate(map(len, parts), initial=FIRST)]
        pieces = list(zip(starts[1:], parts, strict=False))
        for order in (pieces, pieces[::-1]) if len(pieces) == 2 else (pieces,):
            stream = TlsStream(FIRST)
            told = (stream.add(start % (1 << 32), part) for start, part in order)
            verdicts.add(next((name for name in told if name is not None), None))
            if len(stream._message) > LIMIT:
                raise AssertionError
    if len(verdicts) != 1:
        raise AssertionError
    check(verdicts.pop())


def fuzz_message(octets: bytes) -> None:
    name = find_name(octets)
    check(name)
    if name is not None and find_name(octets + b"more") != name:
        raise AssertionError


def fuzz_datagram(octets: bytes) -> None:
    flow = QuicInitials()
    for datagram in (octets, octets[10:], octets):
        check(flow.add(datagram))


def fuzz_frames(octets: bytes) -> None:
    """What only somebody who seals it himself can say. The halves come in either order."""
    one, two = octets[: len(octets) // 2], octets[len(octets) // 2 :]
    for parts in ((octets,), (one, two), (two, one)):
        flow = QuicInitials()
        for number, part in enumerate(parts):
            name = flow.add(initial(part[:1400], DCID, number))
            check(name)
        if len(flow._message) > LIMIT:
            raise AssertionError
        if name is None and flow._order.is_full:
            raise AssertionError


def _packets() -> tuple[bytes, ...]:
    six = {"source": "2001:db8::1", "destination": "2001:db8:9::7"}
    stream, datagram = records(MESSAGE), initial(crypto(0, MESSAGE), DCID)
    inner = udp(datagram, **six)[40:]
    options = bytes((60, 0)) + bytes(6) + bytes((17, 1)) + bytes(14)
    return (
        *(tcp(FIRST, stream), tcp(FIRST, stream, **six), tcp(FIRST, b"", 2)),
        *(udp(datagram), udp(datagram, **six), ip(0, options + inner, **six)),
    )


def _datagrams() -> tuple[bytes, ...]:
    first, second = (initial(crypto(at, MESSAGE[at : at + 60]), DCID, at) for at in (0, 60))
    other = long_header(HANDSHAKE, DCID, varint(30) + bytes(30))
    newer = initial(crypto(0, MESSAGE), DCID, version=VERSION_2, token=bytes(20))
    return (initial(crypto(0, MESSAGE), DCID), first + other + second, newer)


TARGETS = (
    Target("hello-packet", fuzz_packet, _packets()),
    Target("hello-stream", fuzz_stream, (records(MESSAGE), records(MESSAGE, 20))),
    Target("hello-message", fuzz_message, (MESSAGE, hello(b""), hello(None))),
    Target("hello-datagram", fuzz_datagram, _datagrams()),
    Target("hello-frames", fuzz_frames, FRAMES),
)
