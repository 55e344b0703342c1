"""Which class a flow is in, and by which rule: what the kernel does with a flow's first packet.

The order and the meaning are those of the nftables text in `plan/classify.py`, and a story of the
lab holds the two equal.
"""

from dataclasses import dataclass, replace

from appliance.config.addressing import learned_set
from appliance.config.flow import Flow
from appliance.config.intent import (
    WITH_PORTS,
    Address,
    Intent,
    Internet,
    Match,
    Network,
    TrafficClass,
    Uplink,
    is_below,
    permits,
    rules,
)
from appliance.contract.ids import INTERNET, SiteName


@dataclass(frozen=True, slots=True)
class Classified:
    """The class of a flow and the match that put it there; None: no match did."""

    traffic_class: TrafficClass
    match: Match | None
    dscp: int  # as this box takes it


def classify(intent: Intent, flow: Flow) -> Classified:
    """The class that takes a flow which begins now. What no match takes is by default."""
    if flow.lan in {lan.name for lan in intent.lans if not lan.trust_dscp}:
        flow = replace(flow, dscp=0)
    for each, match in rules(intent):
        if holds(match, flow):
            return Classified(each, match, flow.dscp)
    return Classified(intent.default_class, None, flow.dscp)


def holds(match: Match, flow: Flow) -> bool:
    """Do all conditions of a match hold for a flow?"""
    protocols = match.protocols or (WITH_PORTS if match.ports else ())
    port = flow.port
    return (
        (not match.dscp or flow.dscp in match.dscp)
        and (not match.lans or flow.lan in match.lans)
        and (not match.devices or flow.device in match.devices)
        and (not protocols or flow.protocol in protocols)
        and (not match.ports or (port is not None and _is_within(port, match.ports)))
        and (not match.sources or _is_in(flow.source, match.sources))
        and (not match.destinations or _is_in(flow.destination, match.destinations))
        and (not match.domains or _is_named(flow, match.domains))
    )


def _is_named(flow: Flow, domains: tuple[str, ...]) -> bool:
    name = flow.name
    is_asked_for = name is not None and any(is_below(name, domain) for domain in domains)
    return is_asked_for or learned_set(domains) in flow.learned


def likely_rule(traffic_class: TrafficClass, flow: Flow) -> str:
    """The first rule of a class that fits a flow of which DSCP and device are not known.

    That is all that can be said of a flow under way: the kernel keeps its class alone.
    """
    for match in traffic_class.matches:
        if holds(replace(match, dscp=(), devices=()), flow):
            return match.rule
    return "no match takes it"


def lan_of(intent: Intent, source: Address) -> str | None:
    """The name of the LAN that an address is in, if it is in one of this box."""
    for lan in intent.lans:
        if _is_in(source, tuple(address.network for address in lan.addresses)):
            return lan.name
    return None


class Sites:
    """Which site an address is behind, for many addresses: a hub has thousands of prefixes."""

    def __init__(self, intent: Intent) -> None:
        self._by_length: dict[tuple[int, int], dict[int, SiteName]] = {}
        for peer in intent.peers:
            for prefix in peer.prefixes:
                shift = prefix.max_prefixlen - prefix.prefixlen
                same = self._by_length.setdefault((prefix.version, shift), {})
                same.setdefault(int(prefix.network_address) >> shift, peer.name)
        self._by_length = dict(sorted(self._by_length.items()))  # the longest first

    def of(self, address: Address) -> SiteName | None:
        """The other site that an address is behind, if it is behind one."""
        for (version, shift), names in self._by_length.items():
            if version == address.version and (name := names.get(int(address) >> shift)):
                return name
        return None


def goes_to(intent: Intent, destination: Address, sites: Sites | None = None) -> SiteName | None:
    """Where packets to an address go: to a site, to the internet, or None when they stay here.

    `sites` are those of the intent, for whoever asks often.
    """
    is_near = destination.is_multicast or destination.is_link_local or destination.is_loopback
    site = (sites or Sites(intent)).of(destination)
    if site is not None or is_near or lan_of(intent, destination) is not None:
        return site
    if destination.version == 6 and destination in intent.overlay:
        return None
    return INTERNET


def may_join(
    intent: Intent, to: SiteName | None, uplink: Uplink | None, traffic_class: TrafficClass
) -> bool:
    """May a flow that has begun get into a class? `uplink` is that by which it left here, if any.

    To a site any way will do. To the internet a flow has the address of its way, and no other can
    carry it: it joins classes that may go by it, and those that may not go there at all.
    """
    if to != INTERNET:
        return True
    policy = intent.policy(traffic_class.name)
    match policy.internet:
        case Internet.LOCAL:
            return uplink is not None and permits(policy, uplink)
        case Internet.GATEWAY:
            return uplink is None
        case Internet.NONE:
            return True


def _is_within(port: int, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(first <= port <= last for first, last in ranges)


def _is_in(address: Address, networks: tuple[Network, ...]) -> bool:
    return any(address in each for each in networks if each.version == address.version)
