"""Intents of a branch and a gateway, and the facts of their uplinks."""

from base64 import b64encode
from dataclasses import replace
from ipaddress import IPv6Network, ip_address, ip_interface, ip_network
from types import MappingProxyType

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
    Protocol,
    Shaping,
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
from appliance.core.events import UplinkFacts
from appliance.core.steering import Assignment, Carrier, Steering

KEY_A = "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="
KEY_B = "QkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkI="
KEY_HQ = "SFFIUUhRSFFIUUhRSFFIUUhRSFFIUUhRSFFIUUhRSFE="
OVERLAY = IPv6Network("fd12:3456:789a::/48")
HQ = SiteName("hq")
BRANCH_A = SiteName("branch-a")
BRANCH_B = SiteName("branch-b")
VOICE, BULK, DEFAULT = ClassName("voice"), ClassName("bulk"), ClassName("default")
FIBRE, LTE = Label("fibre"), Label("lte")


def uplink(slot: int, label: str, device: str, **more) -> Uplink:
    method = more.pop("method", Method.STATIC)
    return Uplink(UplinkName(label), Slot(slot), Label(label), device, method, **more)


def path(site: str, local: int, remote: int) -> PathId:
    return PathId(SiteName(site), Plane(Slot(local), Slot(remote)))


def carried(*paths: PathId, mtu: int | None = None) -> Assignment:
    return Assignment(tuple(Carrier(p) for p in sorted(paths)), mtu)


def classes() -> tuple[TrafficClass, ...]:
    return (
        TrafficClass(
            VOICE,
            1,
            (
                Match(dscp=(46,)),
                Match(protocols=(Protocol.UDP,), ports=((5060, 5060), (10000, 20000))),
                Match(destinations=(ip_network("192.168.3.10/32"), ip_network("2001:db8:3::/64"))),
            ),
        ),
        TrafficClass(BULK, 2, (Match(protocols=(Protocol.TCP,), ports=((873, 873),)),)),
        TrafficClass(DEFAULT, 3, ()),
    )


def policies() -> tuple[Policy, ...]:
    return (
        Policy(
            VOICE,
            ((FIBRE,), (LTE,)),
            Sla(loss_ratio=0.01, delay_us=150_000),
            fallback=Fallback.FAIL_CLOSED,
        ),
        Policy(BULK, ((FIBRE, LTE),), mode=Mode.SHARE),
        Policy(DEFAULT, ((FIBRE,), (LTE,))),
    )


BRANCH = Intent(
    site=BRANCH_A,
    site_id=SiteId(1),
    overlay=OVERLAY,
    uplinks=(
        uplink(
            1,
            "fibre",
            "eth0",
            addresses=(ip_interface("203.0.113.2/24"), ip_interface("2001:db8:1::2/64")),
            gateways=(ip_address("203.0.113.1"), ip_address("fe80::1")),
            weight=10,
            shaping=Shaping(19_000_000, 95_000_000),
        ),
        uplink(2, "lte", "wwan0", method=Method.DHCP, metered=True),
    ),
    lans=(
        Lan("office", "lan0", (ip_interface("192.0.2.1/24"), ip_interface("2001:db8:10::1/64"))),
    ),
    peers=(
        Peer(
            HQ,
            SiteId(3),
            KEY_HQ,
            (
                PeerUplink(
                    Slot(1), FIBRE, (ip_address("198.51.100.1"), ip_address("2001:db8:f::1"))
                ),
                PeerUplink(Slot(2), LTE, (ip_address("2001:db8:e::1"),)),
            ),
            (ip_network("192.168.3.0/24"), ip_network("2001:db8:3::/48")),
        ),
        Peer(
            BRANCH_B,
            SiteId(2),
            KEY_B,
            (PeerUplink(Slot(1), FIBRE),),
            (ip_network("192.168.2.0/24"),),
            preshared_key_file="b.psk",
        ),
    ),
    classes=classes(),
    policies=policies(),
)
BRANCH_FACTS = {
    Slot(1): UplinkFacts(Slot(1), True, True, BRANCH.uplinks[0].addresses),
    Slot(2): UplinkFacts(
        Slot(2), True, True, (ip_interface("100.64.7.9/32"),), (ip_address("100.64.0.1"),)
    ),
}
BRANCH_STEERING = Steering(
    MappingProxyType(
        {
            (VOICE, HQ): carried(path("hq", 1, 1), mtu=1380),
            (BULK, HQ): Assignment(
                (Carrier(path("hq", 1, 1), 10), Carrier(path("hq", 2, 2), 1)),
            ),
            (DEFAULT, HQ): carried(path("hq", 2, 1)),
            (VOICE, BRANCH_B): Assignment(),
            (DEFAULT, BRANCH_B): carried(path("branch-b", 1, 1)),
            (VOICE, INTERNET): carried(path("internet", 1, 0)),
            (BULK, INTERNET): Assignment(
                (Carrier(path("internet", 1, 0), 10), Carrier(path("internet", 2, 0), 1)),
            ),
            (DEFAULT, INTERNET): carried(path("internet", 2, 0)),
        }
    ),
    MappingProxyType({Plane(Slot(2), Slot(1)): Plane(Slot(1), Slot(1))}),
)
# The same with calls that are sent twice: to hq, over 1-1 and 2-2.
TWICE = replace(BRANCH, policies=(replace(policies()[0], mode=Mode.DUPLICATE), *policies()[1:]))
TWICE_STEERING = replace(
    BRANCH_STEERING,
    assignments={
        **BRANCH_STEERING.assignments,
        (VOICE, HQ): replace(carried(path("hq", 1, 1), mtu=1380), second=path("hq", 2, 2)),
        (VOICE, BRANCH_B): replace(carried(path("branch-b", 1, 1)), second=path("branch-b", 2, 1)),
    },
)
# The same with single bulk flows over several lines: to hq, over 1-1 and 2-2.
BONDED = replace(
    BRANCH, policies=(policies()[0], replace(policies()[1], mode=Mode.BOND), policies()[2])
)
BONDED_STEERING = replace(
    BRANCH_STEERING,
    assignments={
        **BRANCH_STEERING.assignments,
        # Flows begin on the first.
        (BULK, HQ): Assignment((Carrier(path("hq", 2, 2)), Carrier(path("hq", 1, 1)))),
        (BULK, BRANCH_B): carried(path("branch-b", 1, 1)),
    },
)
BRANCH_DEVICES = ("lo", "eth0", "wwan0", "lan0")
PRESHARED = {BRANCH_B: "0a1b2c3d"}


def gateway(sites: int) -> Intent:
    """A gateway with two uplinks and this many branches of two uplinks each, behind NAT."""
    return Intent(
        site=HQ,
        site_id=SiteId(60000),
        overlay=OVERLAY,
        uplinks=(
            uplink(
                1,
                "fibre",
                "eth0",
                addresses=(ip_interface("198.51.100.1/24"),),
                gateways=(ip_address("198.51.100.254"),),
            ),
            uplink(
                2,
                "lte",
                "eth1",
                addresses=(ip_interface("203.0.113.1/24"),),
                gateways=(ip_address("203.0.113.254"),),
            ),
        ),
        lans=(Lan("servers", "lan0", (ip_interface("192.168.3.1/24"),)),),
        peers=tuple(_branch(i) for i in range(1, sites + 1)),
        classes=classes(),
        policies=(policies()[0], replace(policies()[1], mode=Mode.SINGLE), policies()[2]),
    )


def _branch(number: int) -> Peer:
    return Peer(
        SiteName(f"site-{number}"),
        SiteId(number),
        b64encode(number.to_bytes(32)).decode(),
        (PeerUplink(Slot(1), FIBRE), PeerUplink(Slot(2), LTE)),
        (ip_network(f"10.{number >> 8}.{number & 255}.0/24"),),
    )


def attached(intent: Intent) -> dict[Slot, UplinkFacts]:
    """Facts of a box whose uplinks are all static and plugged in."""
    return {u.slot: UplinkFacts(u.slot, True, True, u.addresses) for u in intent.uplinks}


def first_paths(intent: Intent) -> Steering:
    """Every class to every site over the first plane."""
    return Steering(
        MappingProxyType(
            {
                (c.name, p.name): carried(path(p.name, 1, 1))
                for c in intent.classes
                for p in intent.peers
            }
        )
    )
