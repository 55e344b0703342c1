"""What the operator wants, as one frozen value: the configuration after validation and defaults.

Nothing here knows YAML, pydantic or the kernel. Every later layer reads this and never the file.
Units are in the names; ratios are 0..1.
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from appliance.contract.ids import (
    ClassName,
    Label,
    PathId,
    Plane,
    SiteId,
    SiteName,
    Slot,
    UplinkName,
)

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network


class Method(StrEnum):
    """How an uplink gets its addresses."""

    STATIC = "static"
    DHCP = "dhcp"  # DHCPv4, router advertisements and DHCPv6, by dhcpcd


class TargetKind(StrEnum):
    ICMP = "icmp"
    DNS = "dns"
    TCP = "tcp"


@dataclass(frozen=True, slots=True)
class Target:
    """Somebody on the internet whose answer shows that an uplink works."""

    kind: TargetKind
    address: Address
    port: int | None = None  # None for ICMP
    query: str | None = None  # the name asked for, DNS only


@dataclass(frozen=True, slots=True)
class ClassShare:
    """What a class gets of a line: ratios of its rate, 0..1."""

    class_name: ClassName
    guarantee: float
    ceiling: float = 1.0


@dataclass(frozen=True, slots=True)
class SiteShare:
    """What another site gets of a line, as parts of its rate. Without a guarantee: of the rest."""

    site: SiteName
    guarantee: float | None = None
    ceiling: float = 1.0


@dataclass(frozen=True, slots=True)
class Shaping:
    """What a line carries, in bit/s, and the octets that it adds to each IP packet.

    A direction with a least rate has one that varies: it is learned, between that and the other.
    """

    up_bps: int
    down_bps: int
    overhead: int = 18
    up_least_bps: int | None = None
    down_least_bps: int | None = None
    shares: tuple[ClassShare, ...] = ()
    sites: tuple[SiteShare, ...] = ()

    def bounds(self, direction: str) -> tuple[int, int]:
        """The least and the most that a direction ("up" or "down") may be shaped at."""
        least, most = self.up_least_bps, self.up_bps
        if direction == "down":
            least, most = self.down_least_bps, self.down_bps
        return (most if least is None else least), most

    def is_learned(self, direction: str) -> bool:
        least, most = self.bounds(direction)
        return least < most


@dataclass(frozen=True, slots=True)
class Uplink:
    """A WAN attachment of this box."""

    name: UplinkName
    slot: Slot
    label: Label
    device: str
    method: Method
    addresses: tuple[Interface, ...] = ()  # static only
    gateways: tuple[Address, ...] = ()  # static only; at most one per family
    metered: bool = False
    weight: int = 1  # share of flows in mode `share`, 1..255
    targets: tuple[Target, ...] = ()
    quorum: int = 1  # targets that must answer for the uplink to count as healthy
    shaping: Shaping | None = None


@dataclass(frozen=True, slots=True)
class Lan:
    name: str
    device: str
    addresses: tuple[Interface, ...]
    trust_dscp: bool = True  # False: a DSCP from there counts for nothing and is set to 0
    dns: bool = False  # may its hosts ask this box for names?


@dataclass(frozen=True, slots=True)
class PeerUplink:
    """An uplink of another site, as far as we need to know it."""

    slot: Slot
    label: Label
    endpoints: tuple[Address, ...] = ()  # empty: behind NAT, the peer must call us
    metered: bool = False
    down_bps: int | None = None  # no more is sent by it to the prefixes, over each shaped uplink


@dataclass(frozen=True, slots=True)
class Peer:
    """Another site of the fleet."""

    name: SiteName
    site_id: SiteId
    public_key: str  # X25519, base64 as `wg` prints it
    uplinks: tuple[PeerUplink, ...]
    prefixes: tuple[Network, ...]  # what lies behind the site
    preshared_key_file: str | None = None
    internet: bool = False  # may its hosts leave for the internet here?


class Protocol(StrEnum):
    TCP = "tcp"
    UDP = "udp"
    ICMP = "icmp"
    ICMPV6 = "icmpv6"
    ESP = "esp"
    SCTP = "sctp"


WITH_PORTS = (Protocol.TCP, Protocol.UDP, Protocol.SCTP)


class DefaultClass(StrEnum):
    """The classes of a box whose file names none, in the order of matching."""

    REALTIME = "realtime"
    INTERACTIVE = "interactive"
    BUSINESS = "business"
    BULK = "bulk"
    DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Match:
    """One way to be in a class: all stated conditions hold. An empty tuple means "any".

    `rule` says where a person finds it, inside its class: "match 2, application rdp". In a class
    that the file does not name it is "by default", or "by default, application rdp".
    """

    dscp: tuple[int, ...] = ()  # code points 0..63
    protocols: tuple[Protocol, ...] = ()
    ports: tuple[tuple[int, int], ...] = ()  # inclusive ranges, of the responder's side
    sources: tuple[Network, ...] = ()
    destinations: tuple[Network, ...] = ()
    lans: tuple[str, ...] = ()  # names: the flow begins in one of them
    devices: tuple[str, ...] = ()  # MAC addresses in lower case, of who begins the flow
    domains: tuple[str, ...] = ()  # the responder is called by a name in one of them
    rule: str = ""
    is_shipped: bool = False  # by default, of the shipped catalogue: it comes after all others


@dataclass(frozen=True, slots=True)
class TrafficClass:
    """Flows that are steered alike. The first class that matches a flow's first packet wins."""

    name: ClassName
    index: int  # 1..15, its place in marks and table ids: `slot` in the file
    matches: tuple[Match, ...]  # empty only for the default class, which is last
    set_dscp: int | None = None  # of its packets that leave for a tunnel or an uplink; None: as is


@dataclass(frozen=True, slots=True)
class Sla:
    """Limits that a path meets or violates; None does not limit. OR: one violation violates."""

    loss_ratio: float | None = None
    delay_us: int | None = None  # two-way
    jitter_us: int | None = None  # the worse direction
    mos: float | None = None  # at least, 1..4.5

    @property
    def is_empty(self) -> bool:
        return (self.loss_ratio, self.delay_us, self.jitter_us, self.mos) == (None,) * 4


BOND_LOSS = 0.01  # a path that loses more slows a flow over several of them, unless told otherwise


class Mode(StrEnum):
    SINGLE = "single"  # the whole class over the best path
    SHARE = "share"  # per flow, by weight, over all paths of the tier that meet the SLA
    DUPLICATE = "duplicate"  # as `single`, and a copy of each packet over a second path
    BOND = "bond"  # per packet, over paths of the tier that meet the SLA and share no uplink


class When(StrEnum):
    """When packets of a class in mode `duplicate` leave twice."""

    ALWAYS = "always"
    IMPAIRED = "impaired"  # only while the path that carries the class is in trouble


class Fallback(StrEnum):
    """What happens to a class when no path meets its SLA."""

    BEST_EFFORT = "best-effort"  # the best of the usable paths carries it
    FAIL_CLOSED = "fail-closed"  # its packets are discarded (MEF 70.1)


class Internet(StrEnum):
    """How a class gets to the internet."""

    LOCAL = "local"  # out of an uplink of this box
    GATEWAY = "gateway"  # through another site
    NONE = "none"  # not at all: its packets are discarded


@dataclass(frozen=True, slots=True)
class Policy:
    """How a class chooses among paths."""

    class_name: ClassName
    tiers: tuple[tuple[Label, ...], ...]  # best first; a label in no tier is not used
    sla: Sla = Sla()
    mode: Mode = Mode.SINGLE
    fallback: Fallback = Fallback.BEST_EFFORT
    metered: bool = True  # may metered uplinks carry it?
    hold_s: float = 60.0  # a path must be clean this long before the class returns to it
    internet: Internet = Internet.LOCAL
    when: When = When.ALWAYS  # mode `duplicate` only


@dataclass(frozen=True, slots=True)
class Probing:
    """How often paths are measured."""

    interval_s: float = 0.05  # a path that carries a class, or could take it over
    idle_interval_s: float = 1.0  # a path that no policy would use, or that is down (RFC 8085)
    metered_interval_s: float = 0.5  # a path over a metered uplink that carries nothing
    key_file: str | None = None  # authenticated mode (RFC 8762 section 4.4) when given
    port: int = 862


@dataclass(frozen=True, slots=True)
class Intent:
    """Everything a box is told to be."""

    site: SiteName
    site_id: SiteId
    overlay: IPv6Network  # the fleet's /48 of unique local addresses
    uplinks: tuple[Uplink, ...]
    lans: tuple[Lan, ...]
    peers: tuple[Peer, ...]
    classes: tuple[TrafficClass, ...]  # in order of matching; the default class is last
    policies: tuple[Policy, ...]  # exactly one per class, in the order of `classes`
    probing: Probing = Probing()
    listen_port_base: int = 51820
    private_key_file: str = "wireguard.key"
    gateways: tuple[SiteName, ...] = ()  # through which classes get to the internet, best first
    name_servers: tuple[Address, ...] = ()  # empty: those that providers tell

    def uplink(self, slot: Slot) -> Uplink | None:
        return next((u for u in self.uplinks if u.slot == slot), None)

    def peer(self, name: SiteName) -> Peer | None:
        return next((p for p in self.peers if p.name == name), None)

    def policy(self, name: ClassName) -> Policy:
        """The policy of a class. Raises KeyError for a class that does not exist."""
        for policy in self.policies:
            if policy.class_name == name:
                return policy
        raise KeyError(name)

    @property
    def duplicated(self) -> tuple[TrafficClass, ...]:
        """The classes whose packets may leave twice."""
        return self._in_mode(Mode.DUPLICATE)

    @property
    def bonded(self) -> tuple[TrafficClass, ...]:
        """The classes of which one flow may take several paths."""
        return self._in_mode(Mode.BOND)

    def _in_mode(self, mode: Mode) -> tuple[TrafficClass, ...]:
        names = {p.class_name for p in self.policies if p.mode is mode}
        return tuple(each for each in self.classes if each.name in names)

    @property
    def default_class(self) -> TrafficClass:
        return self.classes[-1]


def rules(intent: Intent) -> tuple[tuple[TrafficClass, Match], ...]:
    """All matches in the order in which they are tried; what none of them takes is by default.

    Class by class, except that what nobody wrote for this box comes after what somebody did.
    """
    stated = [(each, match) for each in intent.classes for match in each.matches]
    return tuple(sorted(stated, key=lambda rule: rule[1].is_shipped))


def is_below(name: str, domain: str) -> bool:
    """Is a name the domain itself, or below it?"""
    return name == domain or name.endswith(f".{domain}")


def learned_domains(intent: Intent) -> tuple[tuple[str, ...], ...]:
    """What matches ask of names, each once: the addresses of each are learned into sets.

    Empty where no host may ask this box for names.
    """
    if not any(lan.dns for lan in intent.lans):
        return ()
    return tuple(dict.fromkeys(match.domains for _, match in rules(intent) if match.domains))


def permits(policy: Policy, uplink: Uplink) -> bool:
    """May a class use this uplink at this end?"""
    return (policy.metered or not uplink.metered) and any(
        uplink.label in labels for labels in policy.tiers
    )


def without_copies(intent: Intent) -> Intent:
    """The same intent for a box that cannot duplicate: mode `single` where it is `duplicate`."""
    return _with_mode(intent, Mode.DUPLICATE, Mode.SINGLE)


def without_bonds(intent: Intent) -> Intent:
    """The same intent for a box that cannot bond: mode `share` where it is `bond`."""
    return _with_mode(intent, Mode.BOND, Mode.SHARE)


def _with_mode(intent: Intent, mode: Mode, instead: Mode) -> Intent:
    if all(policy.mode is not mode for policy in intent.policies):
        return intent
    policies = tuple(replace(p, mode=instead) if p.mode is mode else p for p in intent.policies)
    return replace(intent, policies=policies)


def planes(intent: Intent) -> tuple[Plane, ...]:
    """Every plane that this box needs, in order: own uplink slots x all slots that peers use."""
    remote = sorted({u.slot for p in intent.peers for u in p.uplinks})
    local = sorted(u.slot for u in intent.uplinks)
    return tuple(Plane(x, y) for x in local for y in remote)


def paths(intent: Intent) -> tuple[PathId, ...]:
    """Every path of this box, by peer in the order of the configuration, then by plane."""
    local = sorted(u.slot for u in intent.uplinks)
    return tuple(
        PathId(peer.name, Plane(x, y.slot))
        for peer in intent.peers
        for x in local
        for y in sorted(peer.uplinks, key=lambda u: u.slot)
    )
