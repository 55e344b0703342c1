"""Initials of the RFCs' appendices and of aioquic, whole and mixed up."""

import subprocess
import sys
from itertools import pairwise, permutations

import pytest
from aioquic.buffer import Buffer
from aioquic.quic.packet import (
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from hypothesis import given
from hypothesis import strategies as st

from appliance.hello.client_hello import NAMELESS
from appliance.hello.in_order import LIMIT
from appliance.hello.quic import (
    MOST_FRAMES,
    MOST_IN_DATAGRAM,
    MOST_PACKETS,
    MOST_RANGES,
    Protection,
    QuicInitials,
    derive_keys,
    iterate_crypto,
    parse_header,
)
from tests.hellos import (
    HANDSHAKE,
    INITIAL,
    NAME,
    RETRY,
    SERVER,
    VERSION_1,
    VERSION_2,
    ZERO_RTT,
    crypto,
    datagrams,
    extension,
    hello,
    initial,
    long_header,
    quic_client,
    seal,
    server_name,
    varint,
)

# RFC 9001 appendix A and RFC 9369 appendix A: the same connection ID and ClientHello in both.
RFC_DCID = bytes.fromhex("8394c8f03e515708")
RFC_CRYPTO = bytes.fromhex(
    "060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868"
    "04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578"
    "616d706c652e636f6dff01000100000a00080006001d00170018001000070005"
    "04616c706e000500050100000000003300260024001d00209370b2c9caa47fba"
    "baf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400"
    "0d0010000e0403050306030203080408050806002d00020101001c0002400100"
    "3900320408ffffffffffffffff05048000ffff07048000ffff08011001048000"
    "75300901100f088394c8f03e51570806048000ffff"
)
RFC_KEYS = {
    VERSION_1: (
        "1f369613dd76d5467730efcbe3b1a22d",
        "fa044b2f42a3fd3b46fb255c",
        "9f50449e04a0e810283a1e9933adedd2",
    ),
    VERSION_2: (
        "8b1a0bc121284290a29e0971b5cd045d",
        "91f73e2351d8fa91660e909f",
        "45b95e15235d6f45a6b19cbcb0294ba9",
    ),
}
# Of each protected packet: the header, the sample that follows it, and the tag at the end.
RFC_EDGES = {
    VERSION_1: (
        "c000000001088394c8f03e5157080000449e7b9aec34",
        "d1b1c98dd7689fb8ec11d242b123dc9b",
        "e221af44860018ab0856972e194cd934",
    ),
    VERSION_2: (
        "d76b3343cf088394c8f03e5157080000449ea0c95e82",
        "ffe67b6abcdb4298b485dd04de806071",
        "a18b2faa745b6fe189cf772a9f84cbfc",
    ),
}
VERSIONS = (VERSION_1, VERSION_2)
HELLO = hello(extension(0x1A1A, b"\0") + extension(0xFE0D, bytes(300)) + server_name(NAME.encode()))
DCID = b"01234567"


def rfc_packet(version: int) -> bytes:
    return initial(RFC_CRYPTO.ljust(1162, b"\0"), RFC_DCID, 2, version)


def told(received: list[bytes]) -> list[str | None]:
    """What each datagram of one flow tells."""
    flow = QuicInitials()
    return [flow.add(datagram) for datagram in received]


@pytest.mark.parametrize("version", VERSIONS)
def test_keys_of_the_rfc(version: int) -> None:
    assert tuple(key.hex() for key in derive_keys(version, RFC_DCID)) == RFC_KEYS[version]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_packet_of_the_rfc(version: int) -> None:
    packet = rfc_packet(version)
    assert len(packet) == 1200
    assert (packet[:22].hex(), packet[22:38].hex(), packet[-16:].hex()) == RFC_EDGES[version]
    assert Protection(version, RFC_DCID).remove(packet, 18) == RFC_CRYPTO.ljust(1162, b"\0")
    assert told([packet]) == ["example.com"]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_first_datagram_of_aioquic(version: int) -> None:
    (datagram,) = datagrams(quic_client(version))
    assert told([datagram]) == [NAME]


@pytest.mark.parametrize("version", VERSIONS)
def test_a_hello_of_several_datagrams_in_any_order(version: int) -> None:
    sent = datagrams(quic_client(version, suites=1200))
    assert len(sent) == 3
    for order in permutations(sent):
        assert told(list(order)) == [None, None, NAME]
        assert told([*order[:2], *order[:2]]) == [None] * 4


def test_retransmitted_initials() -> None:
    connection = quic_client(suites=1200)
    _, *first = datagrams(connection)
    now = connection.get_timer()
    assert now is not None
    connection.handle_timer(now)
    again = datagrams(connection, now)
    assert told([*first, *first]) == [None] * 4
    assert told([*first, *again])[-1] == NAME


@pytest.mark.parametrize("version", VERSIONS)
def test_after_a_retry_the_keys_are_of_the_new_connection_id(version: int) -> None:
    connection = quic_client(version, suites=1200)
    first, *_ = datagrams(connection)
    header = pull_quic_header(Buffer(data=first), host_cid_length=8)
    retry = encode_quic_retry(version, b"servers", header.source_cid, header.destination_cid, b"t")
    connection.receive_datagram(retry, (SERVER, 443), 0.1)
    again = datagrams(connection, 0.1)
    assert pull_quic_header(Buffer(data=again[0])).destination_cid == b"servers"
    assert told([first, *again]) == [None] * 3 + [NAME]
    assert told([first, *again[1:]]) == [None] * 2 + [NAME]
    assert told(again) == [None] * 2 + [NAME]


def test_the_keys_stay_when_the_destination_changes_again() -> None:
    one, two, three = HELLO[:100], HELLO[100:200], HELLO[200:]
    first = initial(crypto(0, one), DCID)
    after_retry = initial(crypto(100, two), b"retry", number=1)
    later = initial(crypto(200, three), b"server's", number=2, keys_of=b"retry")
    assert told([first, after_retry, later]) == [None, None, NAME]
    straight = initial(crypto(100, HELLO[100:]), b"server's", number=1, keys_of=DCID)
    assert told([first, straight]) == [None, NAME]


def test_a_client_may_go_on_in_the_other_version() -> None:
    """RFC 9368 section 4: compatible negotiation keeps the first connection ID."""
    first = initial(crypto(0, HELLO[:100]), DCID)
    later = initial(crypto(100, HELLO[100:]), b"server's", 1, VERSION_2, keys_of=DCID)
    assert told([first, later]) == [None, NAME]


@given(st.data())
def test_crypto_frames_in_any_order_with_others_between(data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.sets(st.integers(1, len(HELLO) - 1), max_size=12)))
    edges = [0, *cuts, len(HELLO)]
    frames = [crypto(start, HELLO[start:end]) for start, end in pairwise(edges)]
    ack = b"\2" + varint(70) + varint(9) + varint(2) + varint(1) * 5
    ack_ecn = b"\3" + varint(70) + varint(9) + varint(0) + varint(1) + varint(300) * 3
    others = st.sampled_from([b"\0", b"\0" * 40, b"\1", ack, ack_ecn])
    frames += data.draw(st.lists(others, max_size=8))
    payload = b"".join(data.draw(st.permutations(frames)))
    half = len(frames) // 2
    assert told([initial(payload, DCID)]) == [NAME]
    parts = [b"".join(frames[:half]), b"".join(frames[half:])]
    packets = [initial(part, DCID, number) for number, part in enumerate(parts)]
    assert told(packets)[-1] == told([b"".join(packets)])[-1] == NAME


@pytest.mark.parametrize("number", [0, 0xFF, 0x1234, 0xABCDEF, 0xFFFFFFFF])
def test_packet_numbers(number: int) -> None:
    assert told([initial(crypto(0, HELLO), DCID, number)]) == [NAME]


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_packet_numbers_of_each_size(size: int) -> None:
    frames = crypto(0, HELLO)
    rest = b"\0" + varint(size + len(frames) + 16, 2) + (7).to_bytes(size)
    header = bytearray(long_header(INITIAL, DCID, rest))
    header[0] = 0xC0 | size - 1
    assert told([seal(bytes(header), frames, 7, DCID)]) == [NAME]


@pytest.mark.parametrize("size", [0, 1, 8, 20])
def test_connection_ids_and_tokens(size: int) -> None:
    packet = initial(crypto(0, HELLO), bytes(size), token=bytes(size * 5))
    assert told([packet]) == [NAME]


def test_longer_connection_ids_are_of_no_known_version() -> None:
    assert told([initial(crypto(0, HELLO), bytes(21))]) == [NAMELESS]
    rest = varint(0) + varint(100) + bytes(100)
    assert parse_header(long_header(INITIAL, DCID, rest, scid=bytes(20))) is not None
    assert parse_header(long_header(INITIAL, DCID, rest, scid=bytes(21))) is None


def other(kind: int, version: int = VERSION_1) -> bytes:
    """A packet of another type than Initial, of 100 octets behind its length."""
    return long_header(kind, DCID, varint(100) + bytes(100), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_other_packets_in_a_datagram_are_passed(version: int) -> None:
    packet = initial(crypto(0, HELLO), DCID, version=version)
    start = initial(crypto(0, HELLO[:100]), DCID, version=version)
    for kind in (ZERO_RTT, HANDSHAKE):
        assert told([start, other(kind, version) + packet]) == [None, NAME]
        assert told([start + other(kind, version) + packet]) == [NAME]
        assert told([other(kind, version) + packet]) == [NAMELESS]
    assert told([start, other(RETRY, version) + packet]) == [None, None]


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"\x40" + bytes(1199),  # a short header
        b"\x80" + initial(crypto(0, HELLO), DCID)[1:],  # without the fixed bit
        other(ZERO_RTT),
        other(HANDSHAKE),
        other(RETRY),
        long_header(INITIAL, DCID, b"\0" + varint(1100) + bytes(1100), version=0xFF00001D),
        encode_quic_version_negotiation(DCID, DCID, [1]),
        initial(crypto(0, HELLO), DCID)[:17],  # cut in its header
        bytes.fromhex("123401000001000000000000") + b"\7example\3com\0\0\1\0\1",  # DNS
    ],
    ids=range(10),  # some of their octets are chance
)
def test_a_flow_that_begins_with_anything_else_is_hopeless(datagram: bytes) -> None:
    assert told([datagram]) == [NAMELESS]


def test_what_is_no_initial_is_passed_over_later() -> None:
    one, two = (initial(crypto(at, HELLO[at : at + 200]), DCID, at) for at in (0, 200))
    noise = [b"", b"\x40" + bytes(99), encode_quic_version_negotiation(DCID, DCID, [1]), other(3)]
    assert told([one, *noise, two]) == [None] * 5 + [NAME]


def test_a_damaged_packet_is_passed_over() -> None:
    one, two = (initial(crypto(at, HELLO[at : at + 200]), DCID, at) for at in (0, 200))
    assert told([one, two]) == [None, NAME]
    for at in (0, 12, 22, 26, 100, len(two) - 1):  # first octet, DCID, length, number, data, tag
        damaged = two[:at] + bytes((two[at] ^ 1,)) + two[at + 1 :]
        assert told([one, damaged, two]) == [None, None, NAME]


def test_a_packet_longer_than_its_copy_is_passed_over() -> None:
    packet = initial(crypto(0, HELLO).ljust(3000, b"\0"), DCID)
    assert told([packet[:2020], packet]) == [None, NAME]
    assert told([packet[:-1], packet]) == [None, NAME]


def test_a_packet_too_short_for_a_sample_is_passed_over() -> None:
    keys = Protection(VERSION_1, DCID)
    for size in range(21):
        header = parse_header(long_header(INITIAL, DCID, b"\0" + varint(size) + bytes(size)))
        assert header is not None
        packet = long_header(INITIAL, DCID, b"\0" + varint(size) + bytes(size))
        assert header.size == len(packet)
        assert keys.remove(packet, header.number) is None
    assert keys.remove(initial(b"\1\0\0\0", DCID), 18) == b"\1\0\0\0"


def test_what_a_server_says_is_not_understood() -> None:
    """Its Initials go to the client's ID, and are protected by keys of their own."""
    frames = crypto(0, hello(server_name(b"server.example")))
    rest = b"\0" + varint(4 + len(frames) + 16, 2) + bytes(4)
    packet = seal(long_header(INITIAL, DCID, rest), frames, 0, DCID, is_client=False)
    assert told([packet] * MOST_PACKETS) == [None] * (MOST_PACKETS - 1) + [NAMELESS]


def test_no_client_hello_and_no_name() -> None:
    assert told([initial(crypto(0, b"\2\0\0\0"), DCID)]) == [NAMELESS]
    assert told([initial(crypto(0, hello(b"")), DCID)]) == [NAMELESS]


@pytest.mark.parametrize(
    ("payload", "found"),
    [
        (b"", []),
        (b"\0" * 9, []),
        (b"\0\0\1" + crypto(0, b"a") + b"\0\1\0" + crypto(1, b"b") + b"\0", [(0, b"a"), (1, b"b")]),
        (crypto(0, b"a\0\0"), [(0, b"a\0\0")]),
        (crypto(0, b""), [(0, b"")]),
        (crypto(0, b"a") + crypto(1, b"bcd")[:-1], [(0, b"a")]),
        (crypto(0, b"a") + b"\x1c" + crypto(1, b"b"), [(0, b"a")]),  # CONNECTION_CLOSE
        (b"\x08" + crypto(1, b"b"), []),  # STREAM
        (b"\2" + varint(5) + varint(0) + varint((1 << 62) - 1) + bytes(999), []),
        (b"\2" + bytes(4) + crypto(1, b"b"), [(1, b"b")]),
        (b"\3" + bytes(7) + crypto(1, b"b"), [(1, b"b")]),
        (b"\2" + b"\0\0\1" + bytes(3) + crypto(1, b"b"), [(1, b"b")]),
    ],
)
def test_frames(payload: bytes, found: list[tuple[int, bytes]]) -> None:
    assert list(iterate_crypto(payload)) == found


def test_a_flow_is_given_up_after_so_many_packets() -> None:
    first = initial(crypto(0, HELLO[:-1]), DCID)
    last = initial(crypto(0, HELLO), DCID, 1)
    for noise in (first, b"\x40", initial(b"\1", DCID, keys_of=b"others")):
        assert told([first, *[noise] * (MOST_PACKETS - 2), last])[-1] == NAME
        assert told([first, *[noise] * (MOST_PACKETS - 1), last])[-2] == NAMELESS


def test_only_so_many_packets_of_a_datagram_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    first = initial(crypto(0, HELLO[:-1]), DCID)
    last = initial(crypto(0, HELLO), DCID, 1)
    assert told([first * (MOST_IN_DATAGRAM - 1) + last]) == [NAME]
    assert told([first * MOST_IN_DATAGRAM + last]) == [None]
    others = [initial(b"\1", bytes((n,)) * 8) for n in range(40)]
    tried: list[bytes] = []
    monkeypatch.setattr(
        Protection, "remove", lambda _, packet, offset: tried.append(packet[:offset])
    )
    assert told([first + b"".join(others)]) == [None]
    assert len(tried) == 1  # they are of other connections


def test_only_so_many_frames_of_a_packet_are_looked_at() -> None:
    frames = b"".join(crypto(n, HELLO[n : n + 1]) for n in range(MOST_FRAMES - 1))
    rest = MOST_FRAMES - 1
    assert told([initial(frames + crypto(rest, HELLO[rest:]), DCID)]) == [NAME]
    frames += crypto(rest, HELLO[rest : rest + 1])
    assert told([initial(frames + crypto(rest + 1, HELLO[rest + 1 :]), DCID)]) == [None]


@pytest.mark.parametrize(("ranges", "name"), [(MOST_RANGES, NAME), (MOST_RANGES + 1, None)])
def test_only_so_many_ranges_are_passed(ranges: int, name: str | None) -> None:
    acknowledged = b"\2\0\0" + varint(ranges) + bytes(1 + 2 * ranges)
    assert told([initial(acknowledged + crypto(0, HELLO), DCID)]) == [name]


def test_a_hello_is_given_up_after_16_kib() -> None:
    message = hello(extension(0xFE0D, bytes(LIMIT)) + server_name(NAME.encode()))
    starts = range(0, len(message), 1000)
    packets = [initial(crypto(at, message[at : at + 1000]), DCID, at) for at in starts]
    assert len(packets) < MOST_PACKETS
    assert told(packets)[: LIMIT // 1000 + 1] == [None] * (LIMIT // 1000) + [NAMELESS]


def test_what_is_held_has_a_bound() -> None:
    flow = QuicInitials()
    for number in range(MOST_PACKETS - 1):
        frames = b"".join(crypto(1 + number * 40 + at, bytes(900)) for at in (0, 7))
        assert flow.add(initial(frames, DCID, number)) is None
    assert sum(map(len, flow._order._held.values())) <= LIMIT


def test_the_library_is_loaded_at_first_use_only() -> None:
    """A box that never sees QUIC keeps its 8 MB."""
    script = (
        "import sys; from appliance.hello.quic import QuicInitials as Q; "
        "from appliance.hello.reader import HelloReader as R; "
        "Q().add(b'no Initial'); R().read(bytes(99), 0.0); "
        "sys.exit('cryptography' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
