"""Intents for tests of the core: a branch with two uplinks, its policies, and what it is told."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from ipaddress import IPv6Network, ip_address, ip_interface, ip_network

from appliance.config.intent import (
    Fallback,
    Intent,
    Lan,
    Match,
    Method,
    Mode,
    Peer,
    PeerUplink,
    Policy,
    Probing,
    Sla,
    TrafficClass,
    Uplink,
)
from appliance.contract.ids import (
    INTERNET,
    ClassName,
    Label,
    PathId,
    Plane,
    SiteId,
    SiteName,
    Slot,
    UplinkName,
)
from appliance.core.actions import Action, ClearWarning, EndFlows, MoveClass, RaiseWarning
from appliance.core.events import UplinkFacts

HQ, SHOP = SiteName("hq"), SiteName("shop")
VOICE, DEFAULT = ClassName("voice"), ClassName("default")
KEY = "SFFIUUhRSFFIUUhRSFFIUUhRSFFIUUhRSFFIUUhRSFE="
FIBRE, DSL, LTE = Label("fibre"), Label("dsl"), Label("lte")
PREFER_FIBRE = ((FIBRE,), (DSL,), (LTE,))


def path(site: str, local: int, remote: int) -> PathId:
    return PathId(SiteName(site), Plane(Slot(local), Slot(remote)))


def uplink(slot: int, label: str, *, metered: bool = False, weight: int = 1) -> Uplink:
    return Uplink(
        UplinkName(label),
        Slot(slot),
        Label(label),
        f"eth{slot}",
        Method.STATIC,
        addresses=(ip_interface(f"203.0.113.{16 * slot}/28"),),
        gateways=(ip_address(f"203.0.113.{16 * slot + 1}"),),
        metered=metered,
        weight=weight,
    )


def peer(name: str, number: int, labels: Sequence[str] = ("cable", "cable2")) -> Peer:
    return Peer(
        SiteName(name),
        SiteId(number),
        KEY,
        tuple(
            PeerUplink(Slot(slot), Label(label), (ip_address(f"198.51.100.{slot}"),))
            for slot, label in enumerate(labels, start=1)
        ),
        (ip_network(f"10.{number // 256}.{number % 256}.0/24"),),
    )


VOICE_POLICY = Policy(VOICE, PREFER_FIBRE, Sla(loss_ratio=0.01, delay_us=60_000))
DEFAULT_POLICY = Policy(DEFAULT, PREFER_FIBRE)


def intent(
    *,
    uplinks: Sequence[Uplink] | None = None,
    peers: Sequence[Peer] | None = None,
    voice: Policy = VOICE_POLICY,
    default: Policy = DEFAULT_POLICY,
    interval_s: float = 0.02,
) -> Intent:
    """A branch with fibre (1) and dsl (2), and one peer with two uplinks: four paths."""
    return Intent(
        site=SiteName("branch"),
        site_id=SiteId(1),
        overlay=IPv6Network("fd12:3456:789a::/48"),
        uplinks=tuple(uplinks or (uplink(1, "fibre"), uplink(2, "dsl"))),
        lans=(Lan("office", "lan0", (ip_interface("192.0.2.1/24"),)),),
        peers=tuple(peers or (peer("hq", 3),)),
        classes=(
            TrafficClass(VOICE, 1, (Match(dscp=(46,)),)),
            TrafficClass(DEFAULT, 2, ()),
        ),
        policies=(voice, default),
        probing=Probing(interval_s=interval_s),
    )


def policy(base: Policy = VOICE_POLICY, **changes: object) -> Policy:
    return replace(base, **changes)  # type: ignore[arg-type]


def about_sites(actions: Iterable[Action]) -> list[Action]:
    """Without what concerns the internet: `test_breakout` and `test_replay` look at that."""
    return [a for a in actions if not _is_outside(a)]


def _is_outside(action: Action) -> bool:
    match action:
        case MoveClass(site=site):
            return site == INTERNET
        case RaiseWarning(subject=subject) | ClearWarning(subject=subject):
            return subject.endswith(INTERNET)
        case _:
            return isinstance(action, EndFlows)


def facts(slot: int, *, carrier: bool = True) -> UplinkFacts:
    """What the kernel says of an uplink that is attached, or that has lost its carrier."""
    return UplinkFacts(
        Slot(slot),
        has_device=True,
        has_carrier=carrier,
        addresses=(ip_interface(f"203.0.113.{16 * slot}/28"),),
        gateways=(ip_address(f"203.0.113.{16 * slot + 1}"),),
    )


__all__ = [
    "DEFAULT",
    "DEFAULT_POLICY",
    "DSL",
    "FIBRE",
    "HQ",
    "LTE",
    "PREFER_FIBRE",
    "SHOP",
    "VOICE",
    "VOICE_POLICY",
    "Fallback",
    "Mode",
    "Sla",
    "about_sites",
    "facts",
    "intent",
    "path",
    "peer",
    "policy",
    "uplink",
]
