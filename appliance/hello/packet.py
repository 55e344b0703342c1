"""TCP and UDP in IPv4 (RFC 791) and IPv6 (RFC 8200), from copies that may have been cut short.

Finding the flow that a packet belongs to is a step of its own, because most packets are of flows
about which all is known: those go no further.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Final, NamedTuple

TCP: Final = 6
UDP: Final = 17
_TCP_SIZE = 20  # without options
_UDP_SIZE = 8
_IPV4_SIZE = 20  # without options
_IPV6_SIZE = 40
# Hop-by-hop options, routing, destination options. Fragments are not put together: QUIC forbids
# them (RFC 9000 section 14), and TCP makes its segments small enough.
_EXTENSIONS = (0, 43, 60)
_MOST_EXTENSIONS = 8
_SYN = 0x02
_FRAGMENT_OFFSET = 0x1FFF


class Location(NamedTuple):
    """Where in a packet TCP or UDP begins and ends, and what tells its flow from others."""

    protocol: int
    start: int
    end: int  # as IP says, or where the copy ends
    flow: bytes  # protocol, addresses and ports, this way only


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet of a flow."""

    protocol: int  # TCP or UDP
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    source_port: int
    port: int  # the destination's
    dscp: int  # 0..63
    sequence: int | None  # of the first octet of a TCP payload, or of the one that would come next
    payload: bytes  # what was copied of it


def locate(octets: bytes) -> Location | None:
    """Find TCP or UDP in a packet that begins with its IP header.

    None when it is something else, a fragment without ports, or ends inside these headers.
    """
    version = octets[0] >> 4 if octets else 0
    if version == 4 and len(octets) >= _IPV4_SIZE:
        protocol, addresses = octets[9], octets[12:20]
        start = (octets[0] & 0x0F) * 4
        end = int.from_bytes(octets[2:4])
        if start < _IPV4_SIZE or int.from_bytes(octets[6:8]) & _FRAGMENT_OFFSET:
            return None
    elif version == 6 and len(octets) >= _IPV6_SIZE:
        protocol, addresses = octets[6], octets[8:40]
        start = _IPV6_SIZE
        end = _IPV6_SIZE + int.from_bytes(octets[4:6])
        for _ in range(_MOST_EXTENSIONS):
            if protocol not in _EXTENSIONS or start + 2 > len(octets):
                break
            protocol, start = octets[start], start + 8 + 8 * octets[start + 1]
    else:
        return None
    end = min(end, len(octets))
    if protocol == TCP:
        least = _TCP_SIZE
    elif protocol == UDP:
        least = _UDP_SIZE
    else:
        return None
    if start + least > end:
        return None
    return Location(
        protocol, start, end, bytes((protocol,)) + addresses + octets[start : start + 4]
    )


def parse(octets: bytes, location: Location | None = None) -> Packet | None:
    """Read a packet; None as `locate` does, or when its TCP header is wrong or cut."""
    location = location or locate(octets)
    if location is None:
        return None
    protocol, start, end, _ = location
    sequence = None
    payload = start + _UDP_SIZE
    if protocol == TCP:
        size = (octets[start + 12] >> 4) * 4
        payload = start + size
        if size < _TCP_SIZE or payload > end:
            return None
        # A SYN takes a number of its own, before what it may carry (RFC 7413).
        is_opening = bool(octets[start + 13] & _SYN)
        sequence = int.from_bytes(octets[start + 4 : start + 8]) + is_opening & 0xFFFFFFFF
    source: IPv4Address | IPv6Address
    destination: IPv4Address | IPv6Address
    if octets[0] >> 4 == 4:
        source, destination = IPv4Address(octets[12:16]), IPv4Address(octets[16:20])
        traffic_class = octets[1]
    else:
        source, destination = IPv6Address(octets[8:24]), IPv6Address(octets[24:40])
        traffic_class = int.from_bytes(octets[:2]) >> 4 & 0xFF
    return Packet(
        protocol,
        source,
        destination,
        int.from_bytes(octets[start : start + 2]),
        int.from_bytes(octets[start + 2 : start + 4]),
        traffic_class >> 2,
        sequence,
        octets[payload:end],
    )
