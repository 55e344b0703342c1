"""Which class a flow is in, and by which rule: what the kernel does with a flow's first packet.

The order and the meaning are those of the nftables text in `plan/classify.py`, and a story of the
lab holds the two equal.
"""

from dataclasses import dataclass, replace

from appliance.config.intent import Address, Intent, Match, Network, Protocol, TrafficClass, rules

_WITH_PORTS = frozenset({Protocol.TCP, Protocol.UDP, Protocol.SCTP})


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


@dataclass(frozen=True, slots=True)
class Classified:
    """The class of a flow and the match that put it there; None: no match did."""

    traffic_class: TrafficClass
    match: Match | None


def classify(intent: Intent, flow: Flow) -> Classified:
    """The class that takes a flow which begins now."""
    if flow.lan in {lan.name for lan in intent.lans if not lan.trust_dscp}:
        flow = replace(flow, dscp=0)
    for each, match in rules(intent):
        if holds(match, flow):
            return Classified(each, match)
    return Classified(intent.default_class, None)


def holds(match: Match, flow: Flow) -> bool:
    """Do all conditions of a match hold for a flow?"""
    protocols = match.protocols or (_WITH_PORTS if match.ports else ())
    port = flow.port
    return (
        (not match.dscp or flow.dscp in match.dscp)
        and (not match.lans or flow.lan in match.lans)
        and (not match.devices or flow.device in match.devices)
        and (not protocols or flow.protocol in protocols)
        and (not match.ports or (port is not None and _is_within(port, match.ports)))
        and (not match.sources or _is_in(flow.source, match.sources))
        and (not match.destinations or _is_in(flow.destination, match.destinations))
    )


def lan_of(intent: Intent, source: Address) -> str | None:
    """The name of the LAN that an address is in, if it is in one of this box."""
    for lan in intent.lans:
        if _is_in(source, tuple(address.network for address in lan.addresses)):
            return lan.name
    return None


def _is_within(port: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= port <= last for first, last in ranges)


def _is_in(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in each for each in networks if each.version == address.version)
