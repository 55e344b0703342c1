"""The one description of everything that we own in the kernel.

A plan maps the identity of each object, as the kernel compares it, to what the object should be.
Both halves are frozen values and have a form that a person would type (`appliance/plan/text.py`).
What is observed has the same shape, so that `diff` needs no translation. Secrets never appear:
a device is known by its public key, and the kernel package reads the private key from its file.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import sha256
from typing import NamedTuple

from appliance.config.intent import Address, Interface, Network


class Kind(IntEnum):
    """Order of creation; deletion runs backwards. What a kind refers to comes before it.

    Addresses come early, because the rest of the plan depends on what the uplinks have.

    Forwarding is switched on when the firewall stands: a box that is half set up fails closed.
    What is set of conntrack is set then, too, because before there is none.
    Every other sysctl comes early, because turning IPv6 forwarding on makes the kernel drop the
    default routers of each device that does not have `accept_ra=2` by then. Shaping, copies and
    bonds come last, since a box without them is of use.
    """

    DEVICE = 0
    LINK = 1
    SYSCTL = 2
    ADDRESS = 3
    WIREGUARD = 4
    PEER = 5
    NEXTHOP = 6
    GROUP = 7
    ROUTE = 8
    RULE = 9
    FILTER = 10
    FORWARDING = 11
    SHAPER = 12
    CLSACT = 13
    REDIRECT = 14
    ONCE = 15
    COPY = 16
    BOND = 17


# Shared with whoever else runs on the box: set where we need it, never taken away.
SHARED = frozenset({Kind.LINK, Kind.SYSCTL, Kind.CLSACT, Kind.FORWARDING})


# WireGuard's REJECT_AFTER_TIME (wireguard.com/protocol): no packet is taken under an older
# handshake, and probes see to it that there is a new one every two minutes.
HEARD_S = 180


class Key(NamedTuple):
    """Identity of an object: its kind, then what the kernel tells such objects apart by."""

    kind: Kind
    ident: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Sysctl:
    """`sysctl`. Key ("net/ipv4/ip_forward",), with slashes, since a device name may have dots.

    Of kind SYSCTL, or FORWARDING. Never deleted: others may rely on it.
    """

    value: str


@dataclass(frozen=True, slots=True)
class Device:
    """`ip link add NAME type TYPE`, a device of ours. Key (name,).

    `kind` is "wireguard", "dummy" or "ifb". A plan wants every device up; what is observed may be
    down.
    """

    kind: str
    mtu: int
    is_up: bool = True


@dataclass(frozen=True, slots=True)
class Link:
    """`ip link set NAME up`, a device that is not ours. Key (name,). Never deleted."""

    is_up: bool = True


@dataclass(frozen=True, slots=True)
class Wireguard:
    """`wg set NAME ...`. Key (device,). Not observed while the device has no private key."""

    public_key: str
    listen_port: int
    fwmark: int


@dataclass(frozen=True, slots=True)
class WireguardPeer:
    """`wg set NAME peer KEY ...`. Key (device, public key).

    `endpoint` None leaves what the kernel learned from the peer's own packets. `preshared` is the
    first 8 hexadecimal digits of the SHA-256 of the preshared key, or None without one. `is_heard`
    is only observed: a handshake younger than HEARD_S.
    """

    endpoint: tuple[Address, int] | None
    allowed_ips: frozenset[Network]
    keepalive_s: int
    preshared: str | None = None
    is_heard: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class DeviceAddress:
    """`ip address add`. Key (device, "2001:db8::1/64")."""

    interface: Interface


@dataclass(frozen=True, slots=True)
class Nexthop:
    """`ip nexthop add id ID [via GATEWAY] dev DEVICE`. Key (id,)."""

    family: int  # 4 or 6
    device: str
    gateway: Address | None = None
    on_link: bool = False


@dataclass(frozen=True, slots=True)
class NexthopGroup:
    """`ip nexthop add id ID group ...`. Key (id,). Members are (nexthop id, weight 1..256)."""

    members: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Route:
    """`ip route add PREFIX table TABLE ...`. Key (table, prefix, metric).

    Exactly one of: `nexthop` (id), `device` with or without `gateway`, or neither: `unreachable`.
    """

    nexthop: int | None = None
    device: str | None = None
    gateway: Address | None = None
    source: Address | None = None  # preferred source address
    mtu: int | None = None
    on_link: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """`ip rule add`. Key (family, priority). `is_specific`: the table's default routes are none."""

    table: int
    mark: int | None = None
    mask: int | None = None
    is_specific: bool = False


class Share(NamedTuple):
    """What a class gets of a line, in bit/s."""

    class_index: int
    guarantee_bps: int
    ceiling_bps: int


class SiteQueue(NamedTuple):
    """What a site, or one line of it, gets of a line, in bit/s.

    In it wait packets to its networks, or, with `is_received`, from there; of one plane only if its
    `device` is given. A queue in which others are has no networks: they are `within` it, by its
    position in the shaper, which counts from 1.
    """

    guarantee_bps: int
    ceiling_bps: int
    networks: tuple[str, ...] = ()
    device: str = ""
    is_received: bool = False
    within: int = 0


@dataclass(frozen=True, slots=True)
class Shaper:
    """`tc qdisc replace dev DEVICE root cake ...` (tc-cake(8)). Key (device,).

    With `is_ingress` it counts what it drops as received, because the line has carried it. With
    shares of classes, in the order of their indexes, or queues of sites it is a hierarchy, and the
    `overlay` tells by its addresses what boxes say themselves: see `hierarchy`. With `keeps_gso`
    what TCP handed over in one piece (GSO, GRO) waits and leaves as one.
    """

    rate_bps: int
    overhead: int  # octets that tunnel and line add to each packet
    is_ingress: bool
    shares: tuple[Share, ...] = ()
    overlay: str = ""  # a network, in a hierarchy
    keeps_gso: bool = False
    sites: tuple[SiteQueue, ...] = ()

    @property
    def is_hierarchy(self) -> bool:
        return bool(self.shares or self.sites)

    def is_like(self, other: "Shaper") -> bool:
        """Are the two the same but for their rates?"""
        return self._but_rates() == other._but_rates()

    def _but_rates(self) -> tuple[object, ...]:
        indexes = [share.class_index for share in self.shares]
        sites = [queue._replace(guarantee_bps=0, ceiling_bps=0) for queue in self.sites]
        return self.overhead, self.is_ingress, self.overlay, self.keeps_gso, indexes, sites


@dataclass(frozen=True, slots=True)
class Clsact:
    """`tc qdisc add dev DEVICE clsact`, on which filters hang. Key (device,). Never deleted."""


@dataclass(frozen=True, slots=True)
class Redirect:
    """`tc filter add dev DEVICE HOOK ...`. Key (device, "ingress" or "egress", priority).

    Packets of a protocol ("ip", "ipv6" or "all") wait in another device first, or, with `to` None,
    in none. `ports` are of UDP, ours: the source on egress, the destination on ingress. With
    `is_marked` each packet bears the class of its flow when it comes there (act_ctinfo), which
    packets of the fast path, and received ones, do not bear by themselves.
    """

    protocol: str
    to: str | None
    ports: tuple[int, int] | None = None
    is_marked: bool = False


@dataclass(frozen=True, slots=True)
class Once:
    """`tc filter add dev DEVICE ingress ... bpf ...`. Key (device,).

    What was sent twice comes in once. One program for all planes. What boxes say themselves, inside
    `overlay`, it leaves alone.
    """

    overlay: str


@dataclass(frozen=True, slots=True)
class Copy:
    """`tc filter add dev DEVICE egress ... bpf ...`. Key (device, class index, site id or 0).

    Packets of a class that leave by a plane leave by plane `to` as well, or not even where a filter
    for all sites says so. Without a site it is about all of them, otherwise about its `prefixes`.
    What is observed knows these by their digest only.
    """

    to: str | None
    digest: str
    prefixes: tuple[str, ...] = field(default=(), compare=False)


MOST_BONDED = 8  # planes of one bond


class Stripe(NamedTuple):
    """Packets of a class to these networks are spread over the planes of these devices, if any."""

    class_index: int
    networks: tuple[str, ...]
    devices: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bond:
    """`tc filter add dev DEVICE egress ... bpf ...`. Key (device,).

    One program for all planes of all bonds, which is told all `stripes` of the box. What is
    observed knows these by their digest only.
    """

    digest: str
    stripes: tuple[Stripe, ...] = field(default=(), compare=False)

    @property
    def devices(self) -> tuple[str, ...]:
        """Of all planes in any bond."""
        return tuple(sorted({device for stripe in self.stripes for device in stripe.devices}))


@dataclass(frozen=True, slots=True)
class Filter:
    """A whole nftables table. Key (family, name).

    `text` is what `nft -f` reads. What is observed carries the text's digest only, and another one
    when somebody changed the table, so two filters are equal when their digests are.
    """

    digest: str
    text: str = ""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Filter) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)


def digested(text: str) -> Filter:
    """A table's text with the digest by which it is compared."""
    return Filter(sha256(text.encode()).hexdigest()[:16], text)


Item = (
    Device
    | Link
    | Sysctl
    | Wireguard
    | WireguardPeer
    | DeviceAddress
    | Nexthop
    | NexthopGroup
    | Route
    | Rule
    | Shaper
    | Clsact
    | Redirect
    | Once
    | Copy
    | Bond
    | Filter
)
Plan = Mapping[Key, Item]
Observed = Mapping[Key, Item]


@dataclass(frozen=True, slots=True)
class Add:
    """Create what does not exist."""

    key: Key
    item: Item


@dataclass(frozen=True, slots=True)
class Change:
    """Turn `before` into `item` in place, without a moment in which neither is there."""

    key: Key
    before: Item
    item: Item


@dataclass(frozen=True, slots=True)
class Delete:
    """Remove what nobody wants any more."""

    key: Key
    item: Item


Op = Add | Change | Delete
