"""The YAML surface: which keys there are, and the form, default and meaning of each.

Strict: an unknown key is an error and nothing is coerced. What spans several keys is judged in
`checks`. The published JSON Schema and the tables of docs/CONFIGURATION.md are made from here.
"""

from typing import Annotated, Literal

from pydantic import Field

from appliance.config.fields import (
    MAX_SLOT,
    CodePoint,
    DefaultClassName,
    Device,
    Domain,
    Endpoint,
    FallbackName,
    FlowPrefix,
    Gateway,
    HealthTarget,
    Hold,
    InternetName,
    Interval,
    LanAddress,
    Limit,
    Loss,
    MacAddress,
    ModeName,
    Name,
    OneOrMany,
    Overlay,
    Port,
    PortRange,
    ProtocolName,
    PublicKey,
    Rate,
    SecretFile,
    Section,
    SiteNumber,
    SitePrefix,
    SlotNumber,
    Tier,
    Title,
    UplinkAddress,
    WebAddress,
    WhenName,
    by_default,
    parse_hold,
    parse_interval,
)
from appliance.config.intent import DefaultClass, Fallback, Internet, Mode
from appliance.config.line import Shaping

VERSION = 1
MAX_CLASSES = 14  # beside the default class
MAX_NAME_SERVERS = 8


class Site(Section):
    """Who this box is in its fleet."""

    name: Name = Field(description="Name of the site, unique in the fleet.", examples=["branch-a"])
    id: SiteNumber = Field(
        description="Number of the site, unique in the fleet; part of its overlay addresses.",
        examples=[1],
    )


class Fleet(Section):
    """What all sites have in common."""

    overlay: Overlay = Field(
        description="The fleet's /48 of unique local addresses (RFC 4193), the same at every site.",
        examples=["fd12:3456:789a::/48"],
    )


class Health(Section):
    """Probes to hosts on the internet, outside the tunnels, bound to the uplink."""

    targets: list[HealthTarget] = Field(
        min_length=1,
        description=(
            "At least three hosts to ask: `icmp ADDRESS`, `dns ADDRESS NAME` or `tcp ADDRESS PORT`."
        ),
        examples=[["icmp 192.0.2.1", "dns 192.0.2.53 example.net", "tcp 192.0.2.80 443"]],
    )
    quorum: Annotated[int, Field(ge=1)] = Field(
        default=1,
        description="So many targets must answer for the uplink to count as healthy.",
        examples=[2],
    )


class Uplink(Section):
    """A WAN attachment of this box."""

    name: Name = Field(description="Name of the uplink, unique on the box.", examples=["fibre"])
    label: Name | None = Field(
        default=None,
        description="What policies call it; several uplinks may share a label. Default: its name.",
        examples=["fibre"],
    )
    slot: SlotNumber | None = Field(
        default=None,
        description=(
            "Place of the uplink in ports, marks and device names, the same in the files of all "
            "other sites. Default: its position in the list."
        ),
        examples=[1],
    )
    device: Device = Field(description="The box's network interface.", examples=["eth0"])
    address: Annotated[list[UplinkAddress], Field(min_length=1), OneOrMany()] = Field(
        description=(
            "`dhcp` (DHCPv4, router advertisements and DHCPv6), or static addresses with their "
            "prefix lengths."
        ),
        examples=["dhcp", ["203.0.113.2/24", "2001:db8:1::2/64"]],
    )
    gateway: Annotated[list[Gateway], OneOrMany()] = Field(
        default=[],
        description="With static addresses only, then needed: at most one per address family.",
        examples=[["203.0.113.1", "fe80::1"]],
    )
    metered: bool = Field(
        default=False, description="Traffic costs money: probe sparingly.", examples=[True]
    )
    weight: Annotated[int, Field(ge=1, le=255)] = Field(
        default=1,
        description="Share of the flows that it gets in mode `share`, relative to the others.",
        examples=[10],
    )
    shaping: Shaping | None = Field(
        default=None,
        description="Its rates, to queue what is sent and received here. Without it nothing is "
        "queued here.",
    )
    health: Health | None = Field(
        default=None,
        description="Probes outside the tunnels. Without it only carrier, address and paths count.",
    )


class Lan(Section):
    """A local network of this box."""

    name: Name = Field(description="Name of the LAN, unique on the box.", examples=["office"])
    device: Device = Field(description="The box's network interface.", examples=["lan0"])
    address: Annotated[list[LanAddress], Field(min_length=1), OneOrMany()] = Field(
        description="The box's own addresses in the LAN, with their prefix lengths.",
        examples=[["192.0.2.1/24", "2001:db8:10::1/64"]],
    )
    trust_dscp: bool = Field(
        default=True,
        description="`false`: the DSCP of packets from this LAN counts for nothing and is set to "
        "0 as they come in.",
        examples=[False],
    )
    dns: bool = Field(
        default=False,
        description="`true`: hosts of this LAN may ask this box for names. From the answers it "
        "learns the addresses of domains, by which matches know flows.",
        examples=[True],
    )


class PeerUplink(Section):
    """An uplink of another site, as far as this box needs to know it."""

    label: Name = Field(description="Its label at the other site.", examples=["fibre"])
    slot: SlotNumber | None = Field(
        default=None,
        description="Its slot at the other site. Default: its position in the list.",
        examples=[1],
    )
    endpoint: Annotated[list[Endpoint], OneOrMany()] = Field(
        default=[],
        description=(
            "Addresses at which it can be reached, at most one per family. Leave it out when it is "
            "behind NAT or has no fixed address: then that site calls."
        ),
        examples=[["198.51.100.1", "2001:db8:3::1"]],
    )
    metered: bool = Field(
        default=False, description="Traffic costs money over there.", examples=[True]
    )
    down: Rate | None = Field(
        default=None,
        description="What that line receives, a little below what it carries: over each shaped "
        "uplink here no more is sent by it to the site's prefixes. For hubs, whose lines are "
        "faster.",
        examples=["19 Mbit/s"],
    )


class Peer(Section):
    """Another site of the fleet."""

    name: Name = Field(description="Name of the site.", examples=["hq"])
    id: SiteNumber = Field(description="Number of the site.", examples=[3])
    public_key: PublicKey = Field(
        description="WireGuard public key of the site, as `wg pubkey` prints it.",
        examples=["n3G605KN4teQgPzou1RLcSTTvOxn0Bsqg06plE924H8="],
    )
    uplinks: list[PeerUplink] = Field(
        min_length=1,
        json_schema_extra={"maxItems": MAX_SLOT},
        description="The uplinks of the site, in their order, at most 15.",
    )
    prefixes: list[SitePrefix] = Field(
        default=[],
        description="The networks behind the site.",
        examples=[["192.168.3.0/24", "2001:db8:30::/64"]],
    )
    internet: bool = Field(
        default=False,
        description="`true`: hosts of that site may leave for the internet through this box, which "
        "is a gateway for it.",
        examples=[True],
    )
    preshared_key_file: SecretFile | None = Field(
        default=None,
        description="File beside this one with a key shared with this site alone, as `wg genpsk` "
        "prints it.",
        examples=["hq.psk"],
    )


class ApplicationMatch(Section):
    """How an application is known: all its conditions hold, each by one of its items."""

    dscp: Annotated[list[CodePoint], Field(min_length=1), OneOrMany()] | None = Field(
        default=None,
        description="DSCP by name (`ef`, `af41`, `cs5`, `va`, `le`, `df`) or number 0 to 63.",
        examples=["ef", ["cs5", 40]],
    )
    protocol: Annotated[list[ProtocolName], Field(min_length=1), OneOrMany()] | None = Field(
        default=None,
        description="Protocol: `tcp`, `udp`, `icmp`, `icmpv6`, `esp`, `sctp`.",
        examples=["udp", ["tcp", "udp"]],
    )
    ports: Annotated[list[PortRange], Field(min_length=1), OneOrMany()] | None = Field(
        default=None,
        description="Ports or ranges of the side that was called; `protocol` says of which kind.",
        examples=[[5060, "10000-20000"]],
    )
    destinations: Annotated[list[FlowPrefix], Field(min_length=1), OneOrMany()] | None = Field(
        default=None,
        alias="to",
        description="Prefixes of the side that was called.",
        examples=[["192.168.3.10/32"]],
    )


class Match(ApplicationMatch):
    """One way to belong to a class: all its conditions hold, each by one of its items."""

    sources: Annotated[list[FlowPrefix], Field(min_length=1), OneOrMany()] | None = Field(
        default=None,
        alias="from",
        description="Prefixes of the side that called.",
        examples=["192.0.2.64/26"],
    )
    application: Annotated[list[Name], Field(min_length=1), OneOrMany()] | None = Field(
        default=None,
        description="Applications of the catalogue or of `applications`, by name.",
        examples=["rdp", ["rdp", "ssh"]],
    )
    lan: Annotated[list[Name], Field(min_length=1), OneOrMany()] | None = Field(
        default=None,
        description="LANs of this box in which the flow begins, by name.",
        examples=["office", ["office", "guests"]],
    )
    device: Annotated[list[MacAddress], Field(min_length=1), OneOrMany()] | None = Field(
        default=None,
        description="Devices in a LAN that begin the flow, by MAC address.",
        examples=["02:00:5e:10:00:01"],
    )
    domain: Annotated[list[Domain], Field(min_length=1), OneOrMany()] | None = Field(
        default=None,
        description="Domains, with all that is below them: the side that was called has an address "
        "that this box was told for such a name (`dns` of a LAN), or is called so in the first "
        "packets of TLS or QUIC.",
        examples=["example.net", ["example.net", "mail.example.com"]],
    )


class Application(Section):
    """A service that matches can name instead of its ports and prefixes."""

    name: Name = Field(
        description="Its name; that of a shipped one replaces that one.", examples=["till"]
    )
    title: Title | None = Field(
        default=None, description="What people call it.", examples=["The tills' server"]
    )
    class_name: DefaultClassName = Field(
        alias="class",
        default=DefaultClass.DEFAULT,
        description="The class that takes it while the file names no classes.",
        examples=["business"],
    )
    match: list[ApplicationMatch] = Field(
        default=[],
        description="Ways to know it; one of them is enough.",
        examples=[[{"protocol": "tcp", "ports": 8443, "to": "192.0.2.16/28"}]],
    )
    domains: list[Domain] = Field(
        default=[],
        description="Domains that it uses, with all that is below them. They are known from what "
        "hosts ask for (`dns` of a LAN) and from what flows say (TLS, QUIC).",
        examples=[["till.example.net"]],
    )
    source: Annotated[list[WebAddress], OneOrMany()] = Field(
        default=[],
        description="Where ports, prefixes and domains are written down.",
        examples=["https://example.net/till/ports"],
    )


class TrafficClass(Section):
    """Flows that are steered alike: a flow is in the first class that fits its first packet."""

    name: Name = Field(description="Name of the class; not `default`.", examples=["voice"])
    slot: Annotated[int, Field(ge=1, le=MAX_CLASSES)] | None = Field(
        default=None,
        description="Place of the class in marks and table ids, on this box alone, 1 to 14. "
        "Default: its position in the list.",
        examples=[1],
    )
    match: list[Match] = Field(
        min_length=1,
        description="Ways to belong to the class; one of them is enough.",
        examples=[[{"dscp": "ef"}]],
    )
    set_dscp: CodePoint | None = Field(
        default=None,
        description="DSCP that its packets have when they leave for a tunnel or an uplink. "
        "Default: as they came. Its flows then have no fast path.",
        examples=["cs1"],
    )


class Sla(Section):
    """What a path must keep to. Exceeding one limit violates the SLA."""

    loss: Loss | None = Field(
        default=None,
        description="Packets lost in the worse direction, 0.01 % to 50 %.",
        examples=["1 %"],
    )
    delay: Limit | None = Field(
        default=None, description="Two-way delay, 100 us to 10 s.", examples=["150 ms"]
    )
    jitter: Limit | None = Field(
        default=None,
        description="Delay variation (RFC 3550) in the worse direction, 100 us to 10 s.",
        examples=["30 ms"],
    )
    mos: Annotated[float, Field(ge=1, le=4.5)] | None = Field(
        default=None,
        description="Voice quality that must be reached (ITU-T G.107), 1 to 4.5.",
        examples=[3.6],
    )


class Policy(Section):
    """How a class chooses among the paths to a site."""

    class_name: Name = Field(
        alias="class", description="Name of a class, or `default`.", examples=["voice"]
    )
    tiers: Annotated[list[Tier], Field(min_length=1)] | None = Field(
        default=None,
        description=(
            "Uplink labels, best first; labels in one pair of brackets are equal. An uplink whose "
            "label is missing here is not used. Default: all labels in the order of the uplinks."
        ),
        examples=[["fibre", "lte"], [["fibre", "dsl"], "lte"]],
    )
    sla: Sla = Field(default=Sla(), description="What a path must keep to. Default: no limits.")
    mode: ModeName = Field(
        default=Mode.SINGLE,
        description=(
            "`single`: all flows over the best path; `share`: flows spread by weight over all "
            "paths of the tier that meet the SLA; `bond`: each flow over several of these paths at "
            "once, of which no two share an uplink where that can be and none has more than four "
            "times the round trip of the quickest, three to join, packet by packet (needs "
            "`shaping`; its `sla` has a loss of 1 % if it says nothing of loss); `duplicate`: "
            "over the best path, and a copy of each packet over a second one, of which the far end "
            "delivers what comes first. The sites at both ends must have the mode for one of their "
            "classes. Flows of the last two have no fast path."
        ),
        examples=["share", "bond", "duplicate"],
    )
    when: WhenName | None = Field(
        default=None,
        description=(
            "In mode `duplicate` only. `always`; or `impaired`: packets leave twice only while the "
            "path that carries the class misses an answer, violates the SLA or has lost something "
            "within the last minute. Default: `always`."
        ),
        examples=["impaired"],
    )
    fallback: FallbackName = Field(
        default=Fallback.BEST_EFFORT,
        description=(
            "When no path meets the SLA: `best-effort`, the best usable one carries the class; "
            "`fail-closed`, its packets are discarded."
        ),
        examples=["fail-closed"],
    )
    metered: bool = Field(
        default=True, description="Whether metered uplinks may carry the class.", examples=[False]
    )
    internet: InternetName = Field(
        default=Internet.LOCAL,
        description=(
            "How the class gets to the internet: `local`, out of the uplinks that its tiers name; "
            "`gateway`, through the first of `gateways` that is reached; `none`, not at all."
        ),
        examples=["none"],
    )
    hold: Hold = Field(
        **by_default("60 s", parse_hold),
        description=(
            "A path must be clean this long before the class returns, 1 s to 60 min. One that fell "
            "twice or more often within 10 min must be so for 1 min at least, so that no class "
            "follows a line that flaps; from the fourth fall on `hold` doubles with each, up to 8 "
            "times."
        ),
        examples=["60 s"],
    )


class Probing(Section):
    """How often paths are measured inside the tunnels (STAMP, RFC 8762)."""

    interval: Interval = Field(
        **by_default("50 ms", parse_interval),
        description="Between two probes of a path that carries a class or could take it over, "
        "10 ms to 10 s.",
        examples=["20 ms"],
    )
    idle_interval: Interval | None = Field(
        default=None,
        description="On a path that no policy would use, or that is down; not below `interval`, "
        "at most 10 s. Default: 1 s, or `interval` when that is longer.",
        examples=["1 s"],
    )
    metered_interval: Interval | None = Field(
        default=None,
        description="On a path over a metered uplink that carries nothing; not below `interval`, "
        "at most 10 s. Default: 500 ms, or `interval` when that is longer.",
        examples=["500 ms"],
    )
    key_file: SecretFile | None = Field(
        default=None,
        description="File with the fleet's probe key, beside this file: authenticated mode "
        "(RFC 8762 section 4.4).",
        examples=["stamp.key"],
    )
    port: Port = Field(default=862, description="UDP port inside the tunnels.", examples=[862])


class Wireguard(Section):
    """This box's ends of the tunnels."""

    private_key_file: SecretFile = Field(
        default="wireguard.key",
        description="File with the private key, in the state directory, where it is made at the "
        "first start; put one there to bring your own.",
        examples=["wireguard.key"],
    )
    listen_port_base: Annotated[int, Field(ge=1024, le=65535 - 255)] = Field(
        default=51820,
        description="The tunnels listen on the UDP ports from 17 to 255 above this number, which "
        "must be the same at all sites.",
        examples=[51820],
    )


class Dns(Section):
    """How hosts of LANs with `dns` are told the addresses of names."""

    servers: Annotated[list[Endpoint], OneOrMany()] = Field(
        default=[],
        json_schema_extra={"maxItems": MAX_NAME_SERVERS},
        description="Name servers to ask. Default: those that the providers of uplinks with DHCP "
        "tell.",
        examples=[["192.0.2.53", "2001:db8::53"]],
    )


class Config(Section):
    """A box of a Branchline fleet."""

    version: Literal[1] = Field(description="Version of this format.", examples=[VERSION])
    site: Site
    fleet: Fleet
    uplinks: list[Uplink] = Field(
        min_length=1,
        json_schema_extra={"maxItems": MAX_SLOT},
        description="WAN attachments, at most 15.",
    )
    lans: list[Lan] = Field(default=[], description="Local networks.")
    peers: list[Peer] = Field(default=[], description="The other sites.")
    gateways: list[Name] = Field(
        default=[],
        description="Peers through which classes with `internet: gateway` get to the internet, in "
        "the order of preference. There, this site must have `internet: true`.",
        examples=[["hq", "dc"]],
    )
    dns: Dns = Dns()
    applications: list[Application] = Field(
        default=[],
        description="Applications beside those of the catalogue, or instead of them.",
    )
    classes: list[TrafficClass] | None = Field(
        default=None,
        json_schema_extra={"maxItems": MAX_CLASSES},
        description="Traffic classes in the order of matching, at most 14. The class `default` "
        "exists always, comes last and takes what no other class took. Default: `realtime`, "
        "`interactive`, `business` and `bulk`; `[]` is none but `default`.",
    )
    policies: list[Policy] = Field(
        default=[],
        description="At most one per class. A class without one uses all uplinks in their order, "
        "`single`, with no SLA; a class that is there by default has the SLA shown below.",
    )
    probing: Probing = Probing()
    wireguard: Wireguard = Wireguard()
