"""The shapers: where packets wait for an uplink.

Before encryption and after decryption, so that inner flows, hosts and DSCP are in sight: all
planes of an uplink and its direct traffic pass through one device for each direction, which
carries CAKE at the uplink's rate. Encrypted packets have waited already, and pass by it.

CAKE's tins go by DSCP (tc-cake(8), diffserv4). Probes are CS6, which no bulk traffic delays.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from appliance.config.addressing import (
    FILTER_PRIORITY_FIRST,
    plane_device,
    shaper_device,
)
from appliance.config.intent import Intent, Shaping, Uplink, planes
from appliance.contract.ids import Slot
from appliance.core.autorate import Bounds
from appliance.core.events import UplinkFacts
from appliance.plan.filter import tunnel_ports
from appliance.plan.hierarchy import LEAST_BPS
from appliance.plan.overlay import Attachment
from appliance.plan.plan import Clsact, Device, Item, Key, Kind, Observed, Redirect, Shaper, Share

DIRECTIONS = {"up": "egress", "down": "ingress"}
# WireGuard's header and tag, and UDP's and IP's headers, by the family of the underlay.
TUNNEL_OVERHEAD = {4: 32 + 8 + 20, 6: 32 + 8 + 40}
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
            is_ingress = direction == "down" and not shares  # HTB knows no difference
            overlay = str(intent.overlay) if shares else ""
            yield key, Shaper(rate_bps, overhead, is_ingress, shares, overlay)


def _shares(intent: Intent, shaping: Shaping, rate_bps: int) -> tuple[Share, ...]:
    """The shares of classes, in octets a second: as the kernel has them."""
    indexes = {each.name: each.index for each in intent.classes}
    found = (
        Share(
            indexes[share.class_name],
            max(LEAST_BPS, round(rate_bps * share.guarantee) // 8 * 8),
            max(LEAST_BPS, round(rate_bps * share.ceiling) // 8 * 8),
        )
        for share in shaping.shares
    )
    return tuple(sorted(found))


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
