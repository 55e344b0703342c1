"""What clients say first, and the packets that carry it: by Python's ssl, by aioquic, by hand."""

import ssl
from collections.abc import Iterable
from ipaddress import ip_address
from itertools import pairwise

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from aioquic.tls import CipherSuite

NAME = "www.example.com"
CLIENT, SERVER = "192.0.2.1", "198.51.100.7"
VERSION_1, VERSION_2 = 1, 0x6B3343CF
TCP, UDP = 6, 17
SYN, ACK = 0x02, 0x10
INITIAL, ZERO_RTT, HANDSHAKE, RETRY = range(4)


# -- TLS -------------------------------------------------------------------------------------------


def ssl_stream(name: str | None = NAME, **limits: ssl.TLSVersion) -> bytes:
    """What Python's ssl sends first: one record with a ClientHello."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    for attribute, version in limits.items():
        setattr(context, attribute, version)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    connection = context.wrap_bio(incoming, outgoing, server_hostname=name)
    try:
        connection.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError


def vector(octets: bytes, size: int) -> bytes:
    """Octets behind their length, as TLS writes both."""
    return len(octets).to_bytes(size) + octets


def extension(kind: int, octets: bytes) -> bytes:
    return kind.to_bytes(2) + vector(octets, 2)


def server_name(name: bytes, kind: int = 0) -> bytes:
    return extension(0, vector(bytes((kind,)) + vector(name, 2), 2))


def hello(extensions: bytes | None, kind: int = 1, session: bytes = b"") -> bytes:
    """A handshake message; None leaves the extensions out, as TLS 1.2 may."""
    body = b"\3\3" + bytes(range(32)) + vector(session, 1)
    body += vector(bytes.fromhex("13011302"), 2) + vector(b"\0", 1)
    if extensions is not None:
        body += vector(extensions, 2)
    return bytes((kind,)) + vector(body, 3)


def records(message: bytes, size: int = 1 << 14, version: bytes = b"\3\1") -> bytes:
    """Handshake records with fragments of `size` octets."""
    parts = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16" + version + vector(part, 2) for part in parts)


# -- QUIC ------------------------------------------------------------------------------------------


def quic_client(version: int = VERSION_1, suites: int = 1) -> QuicConnection:
    """aioquic's client after it has begun. Many cipher suites put the name's place off."""
    configuration = QuicConfiguration(
        is_client=True,
        server_name=NAME,
        alpn_protocols=["h3"],
        original_version=version,
        cipher_suites=[CipherSuite.AES_128_GCM_SHA256] * suites,
    )
    connection = QuicConnection(configuration=configuration)
    connection.connect((SERVER, 443), now=0.0)
    return connection


def datagrams(connection: QuicConnection, now: float = 0.0) -> list[bytes]:
    return [octets for octets, _ in connection.datagrams_to_send(now=now)]


def varint(value: int, size: int = 0) -> bytes:
    """RFC 9000 section 16, in the shortest form or one of `size` octets."""
    size = size or next(size for size in (1, 2, 4, 8) if value < 1 << 8 * size - 2)
    return (value | (size.bit_length() - 1) << 8 * size - 2).to_bytes(size)


def crypto(offset: int, octets: bytes) -> bytes:
    return b"\6" + varint(offset) + varint(len(octets)) + octets


def long_header(kind: int, dcid: bytes, rest: bytes, version: int = 1, scid: bytes = b"") -> bytes:
    """`kind` as version 1 numbers it."""
    bits = kind + (version == VERSION_2) & 3
    return (
        bytes((0xC3 | bits << 4,)) + version.to_bytes(4) + vector(dcid, 1) + vector(scid, 1) + rest
    )


def seal(header: bytes, frames: bytes, number: int, keys_of: bytes, **role: int) -> bytes:
    """A packet as aioquic protects it; `keys_of` the client's first destination."""
    pair = CryptoPair()
    pair.setup_initial(keys_of, **({"is_client": True, "version": VERSION_1} | role))
    sealed: bytes = pair.encrypt_packet(header, frames, number)
    return sealed


def initial(
    frames: bytes,
    dcid: bytes = bytes(8),
    number: int = 0,
    version: int = VERSION_1,
    token: bytes = b"",
    keys_of: bytes | None = None,
) -> bytes:
    """A client's Initial; `keys_of` another connection ID than its own."""
    frames = frames.ljust(4, b"\0")
    rest = varint(len(token)) + token + varint(4 + len(frames) + 16, 2) + number.to_bytes(4)
    header = long_header(INITIAL, dcid, rest, version)
    return seal(header, frames, number, dcid if keys_of is None else keys_of, version=version)


# -- IP --------------------------------------------------------------------------------------------


def ip(protocol: int, transport: bytes, source: str = CLIENT, destination: str = SERVER) -> bytes:
    """A packet of DSCP 46; checksums are left out, nobody looks at them."""
    ends = ip_address(source).packed + ip_address(destination).packed
    if len(ends) == 8:
        start = bytes((0x45, 0xB8)) + (20 + len(transport)).to_bytes(2)
        return start + bytes(4) + bytes((64, protocol, 0, 0)) + ends + transport
    start = bytes.fromhex("6b800000") + len(transport).to_bytes(2) + bytes((protocol, 64))
    return start + ends + transport


def tcp(sequence: int, payload: bytes, flags: int = ACK, port: int = 40000, **ends: str) -> bytes:
    header = port.to_bytes(2) + (443).to_bytes(2) + (sequence % (1 << 32)).to_bytes(4)
    return ip(TCP, header + bytes(4) + bytes((0x50, flags)) + bytes(6) + payload, **ends)


def udp(payload: bytes, port: int = 40000, **ends: str) -> bytes:
    header = port.to_bytes(2) + (443).to_bytes(2) + (8 + len(payload)).to_bytes(2) + bytes(2)
    return ip(UDP, header + payload, **ends)


def segments(stream: bytes, cuts: Iterable[int], sequence: int = 1000) -> list[tuple[int, bytes]]:
    """A stream cut at these offsets: (sequence number, octets) of each."""
    edges = [0, *cuts, len(stream)]
    return [((sequence + start) % (1 << 32), stream[start:end]) for start, end in pairwise(edges)]
