"""Counters of real packets per site and plane, both ways, as a second nftables table.

They feed the loss test with traffic that is there anyway (RFC 8972 section 4.5, Direct
Measurement). They hang on the devices before the fast path, so offloaded packets count too.

What counts goes from a LAN of one end to a LAN of the other, since both ends know these by the same
prefixes: not what boxes say themselves, nor what comes from a network that is not ours, which the
far end drops. TCP does not count: its segments are merged by GSO on the way out and by GRO on the
way in, so the two ends would count different numbers.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType

from appliance.config.addressing import NFT_TABLE, management_address, plane_device
from appliance.config.intent import Intent, planes
from appliance.contract.ids import Plane, SiteId, Slot
from appliance.plan.plan import Filter, Key, Kind, digested
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


# By slot of their uplink, each site with its prefixes and their families.
_FarEnds = Mapping[Slot, Sequence[tuple[SiteId, tuple[tuple[str, int], ...]]]]
_WAYS: Mapping[str, tuple[str, str, Callable[[Plane, SiteId], str]]] = MappingProxyType(
    {"tx": ("egress", "daddr", sent_counter), "rx": ("ingress", "saddr", received_counter)}
)


def render_counters(intent: Intent) -> Filter:
    """`netdev branchline`. Its text changes with sites, prefixes and uplinks only."""
    far_ends = _far_ends(intent)
    lines = [f"table netdev {NFT_TABLE} {{"]
    for plane in planes(intent):
        ways = ("tx",) if _is_shaped(intent, plane) else ("tx", "rx")
        lines += (f"  {line}" for way in ways for line in _plane(intent, far_ends, plane, way))
    lines.append("}")
    return digested("\n".join(lines) + "\n")


def render_received(intent: Intent) -> Iterator[str]:
    """Lines of `inet branchline` that count what is received where it is shaped.

    What comes back from the device of a shaper has passed by the hooks on ingress, and so by the
    fast path.
    """
    far_ends = _far_ends(intent)
    for plane in planes(intent):
        if _is_shaped(intent, plane):
            yield from _plane(intent, far_ends, plane, "rx", f'iifname "{plane_device(plane)}" ')


def _far_ends(intent: Intent) -> _FarEnds:
    found: dict[Slot, list[tuple[SiteId, tuple[tuple[str, int], ...]]]] = {}
    for peer in intent.peers:
        prefixes = site_prefixes(peer)
        for uplink in peer.uplinks:
            found.setdefault(uplink.slot, []).append((peer.site_id, prefixes))
    return found


def _is_shaped(intent: Intent, plane: Plane) -> bool:
    uplink = intent.uplink(plane.local)
    return uplink is not None and uplink.shaping is not None


def _condition(intent: Intent, way: str, family: int) -> str | None:
    """Which packets count; None when none of the family does."""
    if way == "tx":
        return _of_lans(intent, family, "saddr")
    if any(peer.internet for peer in intent.peers):  # what goes on to the internet does not count
        return _of_lans(intent, family, "daddr")
    if family == 4:
        return ""
    return f"ip6 daddr != {management_address(intent.overlay, intent.site_id)} "


def _of_lans(intent: Intent, family: int, side: str) -> str | None:
    """Is one end one of ours? None when we have no LAN of the family."""
    networks = {str(a.network) for lan in intent.lans for a in lan.addresses if a.version == family}
    return f"{_WORDS[family]} {side} {{ {', '.join(sorted(networks))} }} " if networks else None


def _plane(
    intent: Intent, far_ends: _FarEnds, plane: Plane, way: str, of_plane: str = ""
) -> Iterator[str]:
    """Counters of one way of a plane. `of_plane` names it where the hook is not its own."""
    tag = f"{plane.local}_{plane.remote}"
    hook, side, name = _WAYS[way]
    sites = [(name(plane, site), prefixes) for site, prefixes in far_ends[plane.remote]]
    for counter, _ in sites:
        yield f"counter {counter} {{ }}"
    rules = []
    for family in FAMILIES:
        elements = ", ".join(
            f'{prefix} : "{counter}"'
            for counter, prefixes in sites
            for prefix, version in prefixes
            if version == family
        )
        condition = _condition(intent, way, family)
        if elements and condition is not None:
            yield f"map {way}{family}_{tag} {{"
            yield f"  type {_TYPES[family]} : counter"
            yield "  flags interval"
            yield f"  elements = {{ {elements} }}"
            yield "}"
            word = _WORDS[family]
            rules.append(
                f"{of_plane}{condition}meta l4proto != tcp "
                f"counter name {word} {side} map @{way}{family}_{tag}"
            )
    if of_plane:
        hook = "prerouting priority raw - 10"
    else:
        hook = f'{hook} device "{plane_device(plane)}" priority -10'
    yield f"chain {way}_{tag} {{"
    yield f"  type filter hook {hook}; policy accept;"
    for rule in rules:
        yield f"  {rule}"
    yield "}"
