"""The shapers: where packets wait for an uplink.

Before encryption and after decryption, so that inner flows, hosts and DSCP are in sight: all
planes of an uplink and its direct traffic pass through one device for each direction, which
carries CAKE at the uplink's rate. Encrypted packets have waited already, and pass by it.

CAKE's tins go by DSCP (tc-cake(8), diffserv4). Probes are CS6, which no bulk traffic delays.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from appliance.config.addressing import (
    FILTER_PRIORITY_FIRST,
    plane_device,
    shaper_device,
)
from appliance.config.intent import Intent, Shaping, SiteShare, Uplink, planes
from appliance.contract.ids import Plane, Slot
from appliance.core.autorate import Bounds
from appliance.core.events import UplinkFacts
from appliance.plan.filter import tunnel_ports
from appliance.plan.hierarchy import CONTROL_SHARE, whole_octets
from appliance.plan.overlay import Attachment
from appliance.plan.plan import (
    Clsact,
    Device,
    Item,
    Key,
    Kind,
    Observed,
    Redirect,
    Shaper,
    Share,
    SiteQueue,
)

DIRECTIONS = {"up": "egress", "down": "ingress"}
# WireGuard's header and tag, and UDP's and IP's headers, by the family of the underlay.
TUNNEL_OVERHEAD = {4: 32 + 8 + 20, 6: 32 + 8 + 40}
# On a line so fast 64 KiB in one piece make others wait for 1 ms; cut up for CAKE, they would cost
# the stack more CPU, from there through WireGuard to the far end. In a hierarchy there are slower
# queues, and HTB takes a piece for one packet, whose overhead it counts once.
WHOLE_BPS = 500_000_000
_MTU = 1500
_PROTOCOLS = ("ip", "ipv6")
Rates = Mapping[tuple[Slot, str], int]  # learned, in bit/s, by uplink and direction
NOTHING_LEARNED: Rates = MappingProxyType({})
_LAST = FILTER_PRIORITY_FIRST + 2 * len(_PROTOCOLS)  # of a plane, after those of an uplink


def shaping_items(
    intent: Intent,
    facts: Mapping[Slot, UplinkFacts],
    attachments: Mapping[Slot, Attachment],
    rates: Rates = NOTHING_LEARNED,
) -> dict[Key, Item]:
    """Everything of a plan that makes packets wait. An uplink without a device has its planes."""
    found: dict[Key, Item] = dict(shapers(intent, attachments, rates))
    for uplink in intent.uplinks:
        if uplink.shaping is not None:
            for direction in DIRECTIONS:
                key = Key(Kind.DEVICE, (shaper_device(uplink.slot, direction),))
                found[key] = Device("ifb", _MTU)
            found.update(_planes(intent, uplink))
            if facts.get(uplink.slot, UplinkFacts(uplink.slot)).has_device:
                found.update(_direct(intent, uplink))
    return found


def shapers(
    intent: Intent, attachments: Mapping[Slot, Attachment], rates: Rates
) -> Iterator[tuple[Key, Shaper]]:
    """The shapers alone: all that depends on the rates."""
    for uplink in intent.uplinks:
        shaping = uplink.shaping
        if shaping is None:
            continue
        families = {i.version for i in attachments[uplink.slot].addresses}
        # Direct traffic has no tunnel's overhead: what is left is a margin.
        overhead = shaping.overhead + TUNNEL_OVERHEAD[min(families or {4})]
        for direction in DIRECTIONS:
            rate_bps = rate_of(shaping, direction, rates.get((uplink.slot, direction)))
            key = Key(Kind.SHAPER, (shaper_device(uplink.slot, direction),))
            shares = _shares(intent, shaping, rate_bps)
            given_bps = sum(share.guarantee_bps for share in shares)
            sites = _sites(intent, uplink.slot, shaping, direction, rate_bps, given_bps)
            is_hierarchy = bool(shares or sites)
            yield (
                key,
                Shaper(
                    rate_bps,
                    overhead,
                    is_ingress=direction == "down" and not is_hierarchy,  # HTB has no such thing
                    shares=shares,
                    overlay=str(intent.overlay) if is_hierarchy else "",
                    keeps_gso=not is_hierarchy and shaping.bounds(direction)[0] >= WHOLE_BPS,
                    sites=sites,
                ),
            )


def _shares(intent: Intent, shaping: Shaping, rate_bps: int) -> tuple[Share, ...]:
    """The shares of classes, in octets a second: as the kernel has them."""
    indexes = {each.name: each.index for each in intent.classes}
    found = (
        Share(
            indexes[share.class_name],
            whole_octets(rate_bps * share.guarantee),
            whole_octets(rate_bps * share.ceiling),
        )
        for share in shaping.shares
    )
    return tuple(sorted(found))


def _sites(
    intent: Intent, slot: Slot, shaping: Shaping, direction: str, rate_bps: int, given_bps: int
) -> tuple[SiteQueue, ...]:
    """Queues of the sites with a share of a line, and of lines of sites of which the rate is told.

    Sites without a guarantee get half of what nobody is guaranteed, in proportion to what they
    could take. Classes have `given_bps`.
    """
    sites = list(_shared_with(intent, slot, shaping, direction, rate_bps))
    guaranteed = sum(site.share.guarantee or 0.0 for site in sites)
    rest_bps = max(0.0, rate_bps * (1 - CONTROL_SHARE - guaranteed) - given_bps) / 2
    takes_bps = sum(site.takes_bps for site in sites if site.share.guarantee is None)
    found: list[SiteQueue] = []
    for site in sites:
        guarantee = site.share.guarantee
        if guarantee is None:
            own_bps = min(site.takes_bps, rest_bps * site.takes_bps / takes_bps)
        else:
            own_bps = rate_bps * guarantee
        whole = _queue(own_bps, rate_bps * site.share.ceiling)
        whole = whole._replace(is_received=direction == "down")
        if not site.lines:
            found.append(whole._replace(networks=site.networks))
            continue
        if site.is_held:
            found.append(whole)
        within = len(found) if site.is_held else 0
        all_bps = sum(bps for _, bps in site.lines)
        for device, bps in site.lines:
            queue = _queue(min(bps, own_bps * bps / all_bps), bps)
            found.append(queue._replace(networks=site.networks, device=device, within=within))
    return tuple(found)


def _queue(guarantee_bps: float, ceiling_bps: float) -> SiteQueue:
    """In octets a second, as the kernel has them."""
    least, most = whole_octets(guarantee_bps), whole_octets(ceiling_bps)
    return SiteQueue(least, max(least, most))


class _Site(NamedTuple):
    """A site that has queues. It `is_held` to its share as a whole, whatever lines it has."""

    networks: tuple[str, ...]
    share: SiteShare
    is_held: bool
    lines: tuple[tuple[str, int], ...]  # the plane's device, and bit/s
    takes_bps: float


def _shared_with(
    intent: Intent, slot: Slot, shaping: Shaping, direction: str, rate_bps: int
) -> Iterator[_Site]:
    shares = {share.site: share for share in shaping.sites}
    for peer in intent.peers:
        share = shares.get(peer.name)
        is_slow = direction == "up" and any(line.down_bps is not None for line in peer.uplinks)
        lines = tuple(
            (plane_device(Plane(slot, line.slot)), min(line.down_bps or rate_bps, rate_bps))
            for line in peer.uplinks
            if is_slow and (line.down_bps is not None or share is not None)
        )
        if peer.prefixes and (share is not None or lines):
            networks = tuple(map(str, sorted(peer.prefixes, key=lambda each: each.version)))
            used = share or SiteShare(peer.name)
            takes_bps = min(rate_bps * used.ceiling, sum(bps for _, bps in lines) or rate_bps)
            yield _Site(networks, used, share is not None, lines, takes_bps)


def rate_of(shaping: Shaping, direction: str, learned_bps: int | None) -> int:
    """The rate of a direction: what was learned as far as it may be, in whole octets a second."""
    bounds = Bounds(*shaping.bounds(direction))
    rate_bps = bounds.start_bps if learned_bps is None else learned_bps
    return round(bounds.clamp(rate_bps)) // 8 * 8  # the kernel counts octets a second


def rates_from(intent: Intent, observed: Observed) -> dict[tuple[Slot, str], int]:
    """The rates that the kernel's shapers have, of the directions whose rate is learned."""
    found = {}
    for uplink in intent.uplinks:
        for direction in DIRECTIONS:
            if uplink.shaping is not None and uplink.shaping.is_learned(direction):
                key = Key(Kind.SHAPER, (shaper_device(uplink.slot, direction),))
                item = observed.get(key)
                if isinstance(item, Shaper) and item.rate_bps:
                    found[uplink.slot, direction] = item.rate_bps
    return found


def _is_shared(uplink: Uplink) -> bool:
    """Must its shapers know the class of each packet?"""
    return uplink.shaping is not None and bool(uplink.shaping.shares)


def _planes(intent: Intent, uplink: Uplink) -> Iterator[tuple[Key, Item]]:
    for plane in planes(intent):
        if plane.local == uplink.slot:
            device = plane_device(plane)
            yield Key(Kind.CLSACT, (device,)), Clsact()
            for direction, hook in DIRECTIONS.items():
                to = shaper_device(uplink.slot, direction)
                is_marked = _is_shared(uplink)
                key = Key(Kind.REDIRECT, (device, hook, _LAST))
                yield key, Redirect("all", to, is_marked=is_marked)


def _direct(intent: Intent, uplink: Uplink) -> Iterator[tuple[Key, Item]]:
    yield Key(Kind.CLSACT, (uplink.device,)), Clsact()
    ports = tunnel_ports(intent, uplink)
    for direction, hook in DIRECTIONS.items():
        priority = FILTER_PRIORITY_FIRST
        for to in (None, shaper_device(uplink.slot, direction)):
            for protocol in _PROTOCOLS:
                if to is not None or ports is not None:
                    own = ports if to is None else None
                    key = Key(Kind.REDIRECT, (uplink.device, hook, priority))
                    is_marked = to is not None and _is_shared(uplink)
                    yield key, Redirect(protocol, to, own, is_marked)
                priority += 1
