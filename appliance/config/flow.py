"""A flow as a person asks about it: grammars of its parts, and what they must be together."""

import re
from dataclasses import dataclass

from appliance.config.addresses import parse_address
from appliance.config.errors import Malformed
from appliance.config.intent import WITH_PORTS, Address, Protocol
from appliance.config.scalars import (
    choice_of,
    parse_domain,
    parse_dscp,
    parse_mac,
    parse_name,
)

_FAMILY = {Protocol.ICMP: 4, Protocol.ICMPV6: 6}
_NUMBER = re.compile("[0-9]{1,3}")
_parse_protocol = choice_of(Protocol)


@dataclass(frozen=True, slots=True)
class Flow:
    """The first packet of a flow, as it comes in. Both addresses are of one family."""

    source: Address
    destination: Address
    protocol: Protocol | None = None  # None: one that no match can name
    port: int | None = None  # of the side that is called
    dscp: int = 0  # as it was sent
    lan: str | None = None  # name of the LAN that it comes from; None: from another site
    device: str | None = None  # MAC address of who sent it, in lower case
    name: str | None = None  # that its destination was asked for by, in lower case
    learned: frozenset[str] = (
        frozenset()
    )  # `learned_set` of domains that the destination was told for


def parse_flow(
    source: str,
    destination: str,
    *,
    protocol: str | None = None,
    port: int | None = None,
    dscp: str | None = None,
    lan: str | None = None,
    device: str | None = None,
    name: str | None = None,
) -> Flow:
    """The flow that these texts describe; with a port and no protocol it is TCP.

    Raises Malformed for the first that is wrong, or that does not fit the others.
    """
    ends = parse_address(source), parse_address(destination)
    if ends[0].version != ends[1].version:
        raise Malformed(destination, "is not of the family of the other end")
    kind = _parse_protocol(protocol) if protocol is not None else None
    if port is not None:
        kind = kind or Protocol.TCP
        if kind not in WITH_PORTS:
            raise Malformed(protocol, "has no ports", "leave the port out, or say tcp, udp or sctp")
        if not 1 <= port <= 65535:
            raise Malformed(port, "is no port", "from 1 to 65535")
    elif kind in WITH_PORTS:
        raise Malformed(protocol, "needs a port", "give the port of the side that is called")
    if kind is not None and _FAMILY.get(kind, ends[0].version) != ends[0].version:
        raise Malformed(protocol, f"is not of IPv{ends[0].version}")
    return Flow(
        *ends,
        kind,
        port,
        0 if dscp is None else parse_dscp(int(dscp) if _NUMBER.fullmatch(dscp) else dscp),
        parse_name(lan) if lan is not None else None,
        parse_mac(device) if device is not None else None,
        parse_domain(name.lower().removesuffix(".")) if name is not None else None,
    )
