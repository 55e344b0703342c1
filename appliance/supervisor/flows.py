"""Live flows out of two readings of the kernel's table: rates, class and the likely rule."""

from collections.abc import Callable, Iterable
from operator import itemgetter
from typing import NamedTuple

from appliance.config.addressing import (
    CLASS_MARK_MASK,
    UPLINK_MARK_MASK,
    class_mark,
    uplink_mark,
)
from appliance.config.flow import Flow
from appliance.config.intent import Intent, Protocol, TrafficClass
from appliance.contract.decision import CarrierStatus, FlowStatus
from appliance.contract.ids import INTERNET, ClassName, PathId, SiteName, Slot, exit_plane
from appliance.core.classify import Sites, lan_of, likely_rule
from appliance.kernel.conntrack import TrackedFlow

MOST_LOOKED_AT = 4096  # flows a reading: a second of a small box's CPU
INTERVAL_S = 1.0  # between two readings
_PROTOCOLS = {
    1: Protocol.ICMP,
    6: Protocol.TCP,
    17: Protocol.UDP,
    50: Protocol.ESP,
    58: Protocol.ICMPV6,
    132: Protocol.SCTP,
}

Carriers = Callable[[ClassName, SiteName], tuple[CarrierStatus, ...]]


class RatedFlow(NamedTuple):
    """A flow of a class with its rates in bit/s, None where the kernel does not count."""

    total_bps: int
    flow: TrackedFlow
    traffic_class: TrafficClass
    sent_bps: int | None
    received_bps: int | None


def rated(
    intent: Intent,
    before: Iterable[TrackedFlow],
    after: Iterable[TrackedFlow],
    seconds: float,
    class_name: ClassName | None,
) -> list[RatedFlow]:
    """Flows of the second reading, the fastest first. One that is new began in between.

    A flow whose class the configuration no longer has gets another with its next packet, and is
    left out.
    """
    classes = {class_mark(each.index): each for each in intent.classes}
    seen = {_identity(flow): flow for flow in before}
    found = []
    for flow in after:
        traffic_class = classes.get(flow.mark & CLASS_MARK_MASK)
        if traffic_class is None or class_name not in (None, traffic_class.name):
            continue
        was = seen.get(_identity(flow))
        sent = _rate(was.sent if was else 0, flow.sent, seconds)
        received = _rate(was.received if was else 0, flow.received, seconds)
        total = (sent or 0) + (received or 0)
        found.append(RatedFlow(total, flow, traffic_class, sent, received))
    return sorted(found, key=itemgetter(0), reverse=True)


def status_of(
    intent: Intent,
    sites: Sites,
    row: RatedFlow,
    carriers: Carriers,
    learned: frozenset[str] = frozenset(),
    server_name: str | None = None,
) -> FlowStatus:
    """All that is told of one flow. `learned` is what names its destination was told for.

    `server_name` is whom it said that it calls.
    """
    flow, name = row.flow, row.traffic_class.name
    protocol = _PROTOCOLS.get(flow.protocol)
    lan = lan_of(intent, flow.source)
    asked = Flow(
        flow.source,
        flow.destination,
        protocol,
        flow.port,
        lan=lan,
        name=server_name,
        learned=learned,
    )
    site = sites.of(flow.destination) or sites.of(flow.source)
    pinned = next((u for u in intent.uplinks if _is_pinned(flow, u.slot)), None)
    over: tuple[CarrierStatus, ...] = carriers(name, site) if site is not None else ()
    if pinned is not None:
        site, way = INTERNET, PathId(INTERNET, exit_plane(pinned.slot))
        over = (CarrierStatus(str(way), pinned.label),)
    return FlowStatus(
        protocol=str(protocol or flow.protocol),
        source=str(flow.source),
        source_port=flow.source_port,
        destination=str(flow.destination),
        port=flow.port,
        class_name=name,
        rule=likely_rule(row.traffic_class, asked),
        site=site,
        carriers=over,
        sent_bps=row.sent_bps,
        received_bps=row.received_bps,
        is_fast=flow.is_offloaded,
    )


def _is_pinned(flow: TrackedFlow, slot: Slot) -> bool:
    """Has the flow left for the internet by this uplink?"""
    return flow.mark & UPLINK_MARK_MASK == uplink_mark(slot)


def _identity(flow: TrackedFlow) -> tuple[object, ...]:
    """The kernel's number of a flow may come again: only with its ends it is one flow."""
    return flow.ident, flow.source, flow.destination, flow.source_port, flow.port


def _rate(before: int | None, after: int | None, seconds: float) -> int | None:
    if before is None or after is None:
        return None
    return max(0, round((after - before) * 8 / seconds))
