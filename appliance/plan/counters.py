"""Counters of real packets per site and plane, both ways, as a second nftables table.

They feed the loss test with traffic that is there anyway (RFC 8972 section 4.5, Direct
Measurement). They hang on the devices before the fast path, so offloaded packets count too.

What counts goes from a LAN of one end to a LAN of the other, since both ends know these by the same
prefixes: not what boxes say themselves, nor what comes from a network that is not ours, which the
far end drops. TCP does not count: its segments are merged by GSO on the way out and by GRO on the
way in, so the two ends would count different numbers.
"""

from collections.abc import Iterator, Mapping

from appliance.config.addressing import NFT_TABLE, management_address, plane_device
from appliance.config.intent import Intent, Peer, planes
from appliance.contract.ids import Plane, SiteId
from appliance.plan.filter import digested
from appliance.plan.plan import Filter, Key, Kind
from appliance.plan.steer import FAMILIES, site_prefixes

COUNTERS_KEY = Key(Kind.FILTER, ("netdev", NFT_TABLE))
_TYPES = {4: "ipv4_addr", 6: "ipv6_addr"}
_WORDS = {4: "ip", 6: "ip6"}


def sent_counter(plane: Plane, site: SiteId) -> str:
    """Name of the counter of packets that left for a site by a plane."""
    return f"tx_{plane.local}_{plane.remote}_{site}"


def received_counter(plane: Plane, site: SiteId) -> str:
    """Name of the counter of packets that came from a site by a plane."""
    return f"rx_{plane.local}_{plane.remote}_{site}"


def render_counters(intent: Intent) -> Filter:
    """`netdev branchline`. Its text changes with sites, prefixes and uplinks only."""
    lines = [f"table netdev {NFT_TABLE} {{"]
    prefixes = {peer.site_id: site_prefixes(peer) for peer in intent.peers}
    conditions = {("tx", family): _of_lans(intent, family, "saddr") for family in FAMILIES}
    conditions["rx", 6] = f"ip6 daddr != {management_address(intent.overlay, intent.site_id)} "
    conditions["rx", 4] = ""
    if any(peer.internet for peer in intent.peers):  # what goes on to the internet does not count
        for family in FAMILIES:
            conditions["rx", family] = _of_lans(intent, family, "daddr")
    for plane in planes(intent):
        peers = [p for p in intent.peers if any(u.slot == plane.remote for u in p.uplinks)]
        lines += (f"  {line}" for line in _plane(plane, peers, prefixes, conditions))
    lines.append("}")
    return digested("\n".join(lines) + "\n")


def _of_lans(intent: Intent, family: int, side: str) -> str | None:
    """Is one end one of ours? None when we have no LAN of the family."""
    networks = {str(a.network) for lan in intent.lans for a in lan.addresses if a.version == family}
    return f"{_WORDS[family]} {side} {{ {', '.join(sorted(networks))} }} " if networks else None


def _plane(
    plane: Plane,
    peers: list[Peer],
    prefixes: Mapping[SiteId, tuple[tuple[str, int], ...]],
    conditions: Mapping[tuple[str, int], str | None],
) -> Iterator[str]:
    tag = f"{plane.local}_{plane.remote}"
    for peer in peers:
        yield f"counter {sent_counter(plane, peer.site_id)} {{ }}"
        yield f"counter {received_counter(plane, peer.site_id)} {{ }}"
    device = plane_device(plane)
    for way, hook, side, name in (
        ("tx", "egress", "daddr", sent_counter),
        ("rx", "ingress", "saddr", received_counter),
    ):
        rules = []
        for family in FAMILIES:
            elements = ", ".join(
                f'{prefix} : "{name(plane, peer.site_id)}"'
                for peer in peers
                for prefix, version in prefixes[peer.site_id]
                if version == family
            )
            condition = conditions[way, family]
            if elements and condition is not None:
                yield f"map {way}{family}_{tag} {{"
                yield f"  type {_TYPES[family]} : counter"
                yield "  flags interval"
                yield f"  elements = {{ {elements} }}"
                yield "}"
                word = _WORDS[family]
                rules.append(
                    f"{condition}meta l4proto != tcp "
                    f"counter name {word} {side} map @{way}{family}_{tag}"
                )
        yield f"chain {way}_{tag} {{"
        yield f'  type filter hook {hook} device "{device}" priority -10; policy accept;'
        for rule in rules:
            yield f"  {rule}"
        yield "}"
