"""nftables text that puts flows into classes.

The first packet of a flow is matched, the class is kept in the conntrack mark, and every later
packet has it restored from there. All reads and writes are masked, and all values are constants,
so that bits of others survive on any kernel. Ports and addresses are those of the flow's first
direction, so a flow that was there before us is classified alike from either side.
"""

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from appliance.config.addressing import (
    CLASS_MARK_MASK,
    HELLOS,
    LOG_GROUP,
    UPLINK_MARK_MASK,
    class_mark,
    learned_sets,
    uplink_mark,
)
from appliance.config.intent import (
    WITH_PORTS,
    Intent,
    Internet,
    Match,
    Network,
    Protocol,
    Uplink,
    learned_domains,
    permits,
    rules,
)

MOST_LEARNED = 16384  # addresses of a set: what strangers' answers may fill
HELLO_PACKETS = 16  # of a flow, in which it may say whom it calls: some 16 KiB
# Octets of such a packet: what was merged of several segments (GRO) is to be seen whole, as far as
# a name may be away, and so is each datagram of QUIC.
HELLO_OCTETS = {"tcp": 16504, "udp": 2048}
HELLOS_PER_S = 1000  # of all flows; each costs the supervisor 0.02 to 0.2 ms
HELLOS_OF_ONE_PER_S = 200  # of one address, so that nobody takes the others' part
MOST_SENDERS = 16384
SETTLED_PACKETS = 3 * HELLO_PACKETS  # of a flow, both ways, after which its class stays
_HTTPS = (443, 443)
_BARE = "{ 40, 52, 60, 72 }"  # IPv4 and IPv6, TCP without options or with timestamps
_QUIC_VERSIONS = "{ 0x00000001, 0x6b3343cf }"  # RFC 9000, RFC 9369
MAX_COMMENT = 127  # octets of a rule's comment that nft takes
_KEEP = CLASS_MARK_MASK ^ 0xFFFFFFFF
_LOOSE = UPLINK_MARK_MASK ^ 0xFFFFFFFF
_NO_LANS: Mapping[str, str] = MappingProxyType({})


def render_classes(intent: Intent) -> Iterator[str]:
    """Lines of the chains that classify, to stand inside the table; `classify` is the first."""
    yield "chain classify {"
    yield "  type filter hook prerouting priority mangle; policy accept;"
    known = ", ".join(
        f"{class_mark(c.index):#010x} : goto restore_{c.index}" for c in intent.classes
    )
    if any(peer.internet for peer in intent.peers):
        # What comes back from the internet for another site goes there by the class of its flow.
        yield f"  iifname @uplinks ct mark and {CLASS_MARK_MASK:#010x} vmap {{ {known} }}"
    yield "  iifname != @inside return"
    pins = ", ".join(f"{uplink_mark(u.slot):#010x} : jump pinned_{u.slot}" for u in intent.uplinks)
    yield f"  ct mark and {UPLINK_MARK_MASK:#010x} vmap {{ {pins} }}"
    yield f"  ct mark and {CLASS_MARK_MASK:#010x} vmap {{ {known} }}"
    device_of = {lan.name: lan.device for lan in intent.lans}
    learned = learned_domains(intent)
    for each, match in rules(intent):
        if match.domains and match.domains not in learned:
            continue  # it is for the flow's own words: see `render_hellos`
        comment = f"{each.name}, {match.rule}" if match.rule else each.name
        for condition in render_match(match, device_of):
            yield f'  {condition} goto class_{each.index} comment "{comment[:MAX_COMMENT]}"'
    default = intent.default_class
    yield f'  goto class_{default.index} comment "{default.name}"'
    yield "}"
    for each in intent.classes:
        mark = class_mark(each.index)
        yield f"chain class_{each.index} {{"
        yield f"  ct mark set ct mark and {_KEEP:#010x} or {mark:#010x}"
        yield f"  goto restore_{each.index}"
        yield "}"
        yield f"chain restore_{each.index} {{"
        yield f"  meta mark set meta mark and {_KEEP:#010x} or {mark:#010x}"
        yield "}"


def render_pins(intent: Intent) -> Iterator[str]:
    """Lines of the chains that keep a flow on the uplink by which its first packet left.

    The conntrack mark remembers the uplink beside the class. A packet of the flow from inside has
    it restored, and the rule of that mark leads to the uplink's own table: its address was
    translated to one of that uplink's, so that no other can carry it.
    """
    for uplink in intent.uplinks:
        yield f"chain pinned_{uplink.slot} {{"
        yield f"  meta mark set meta mark and {_LOOSE:#010x} or {uplink_mark(uplink.slot):#010x}"
        yield "}"


def pin(uplink: Uplink) -> str:
    """The statement that keeps a flow on an uplink."""
    return f"ct mark set ct mark and {_LOOSE:#010x} or {uplink_mark(uplink.slot):#010x}"


def render_borders(intent: Intent) -> Iterator[str]:
    """Lines of the chains that let a class leave by the uplinks of its policy and by no other.

    Routes lead nowhere else. This holds whoever changes them, and for flows that are under way. A
    flow that went to a site before has no address of the uplink's, and gets none: it ends.
    """
    for each, policy in zip(intent.classes, intent.policies, strict=True):
        yield f"chain leave_{each.index} {{"
        is_local = policy.internet is Internet.LOCAL
        devices = [f'"{u.device}"' for u in intent.uplinks if is_local and permits(policy, u)]
        if devices:
            yield f"  oifname {_set(devices)} return"
        yield "  ct state established meta l4proto tcp reject with tcp reset"
        yield "  drop"
        yield "}"
    chains = ", ".join(
        f"{class_mark(c.index):#010x} : goto leave_{c.index}" for c in intent.classes
    )
    yield "chain leave {"
    strange = f"ct state established ct mark and {UPLINK_MARK_MASK:#010x} == 0"
    yield f"  {strange} meta l4proto tcp reject with tcp reset"
    yield f"  {strange} drop"
    yield f"  meta mark and {CLASS_MARK_MASK:#010x} vmap {{ {chains} }}"
    yield "  drop"
    yield "}"


def render_remarks(intent: Intent) -> Iterator[str]:
    """Lines of the chain that gives packets of some classes another DSCP on their way out.

    It runs before the queues of `plan/shape.py`, so these sort by what is written here. Encrypted
    packets bear no class, and what goes into a LAN stays as it came.
    """
    remarked = [each for each in intent.classes if each.set_dscp is not None]
    if not remarked:
        return
    chains = ", ".join(f"{class_mark(c.index):#010x} : goto remark_{c.index}" for c in remarked)
    for each in remarked:
        yield f"chain remark_{each.index} {{"
        yield f"  ip dscp set {each.set_dscp:#04x}"
        yield f"  ip6 dscp set {each.set_dscp:#04x}"
        yield "}"
    yield "chain remark {"
    yield "  type filter hook postrouting priority mangle; policy accept;"
    yield "  oifname @lans return"
    yield f"  meta mark and {CLASS_MARK_MASK:#010x} vmap {{ {chains} }}"
    yield "}"


def is_named(intent: Intent) -> bool:
    """Is there a rule that goes by names?"""
    return any(_named(intent))


def render_hellos(intent: Intent) -> Iterator[str]:
    """Lines of the chains that copy packets which may tell a server's name.

    These are the first ones of a flow, from whoever began it: of TCP to the ports that rules with
    domains are for, and of QUIC to any port, known by its long header and version (RFC 9000, 17.2).
    The packets themselves go on. What has no counts is a flow from before there were any.
    """
    if not is_named(intent):
        return
    yield f"limit {HELLOS} {{"
    yield f"  rate {HELLOS_PER_S}/second burst {HELLOS_PER_S} packets"
    yield "}"
    for version, of in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        yield f"set {HELLOS}_{version} {{"
        yield f"  type {of}"
        yield f"  size {MOST_SENDERS}"
        yield "  flags dynamic,timeout"
        yield "  timeout 10s"
        yield "}"
    yield f"chain {HELLOS} {{"
    yield "  type filter hook prerouting priority -160; policy accept;"  # `classify` is at -150
    young = f"ct original packets 1-{HELLO_PACKETS}"
    yield f"  iifname @inside ct direction original {young} goto hello"
    yield "}"
    yield "chain hello {"
    if ports := _hello_ports(intent):
        # No bare acknowledgements, by their lengths; SYNs with data only (RFC 7413).
        to = f"tcp dport {_set(ports)}"
        yield f"  {to} tcp flags & (syn | fin | rst) == 0x0 meta length != {_BARE} goto hello_tcp"
        yield f"  {to} tcp flags & (syn | ack | rst) == syn meta length > 120 goto hello_tcp"
    if any(not m.protocols or Protocol.UDP in m.protocols for m in _named(intent)):
        long = f"@th,64,8 & 0xc0 == 0xc0 @th,72,32 {_QUIC_VERSIONS}"
        yield f"  meta l4proto udp {long} goto hello_udp"
    yield "}"
    for protocol, octets in HELLO_OCTETS.items():
        yield f"chain hello_{protocol} {{"
        rate = f"limit rate over {HELLOS_OF_ONE_PER_S}/second burst {HELLOS_OF_ONE_PER_S} packets"
        for version, word in ((4, "ip"), (6, "ip6")):
            yield f"  update @{HELLOS}_{version} {{ {word} saddr {rate} }} return"
        yield f'  limit name "{HELLOS}" log group {LOG_GROUP} snaplen {octets} queue-threshold 1'
        yield "}"


def _named(intent: Intent) -> Iterator[Match]:
    return (match for _, match in rules(intent) if match.domains)


def _hello_ports(intent: Intent) -> list[str]:
    """Ranges of TCP ports, none within another."""
    ranges: set[tuple[int, int]] = set()
    for match in _named(intent):
        if not match.protocols or Protocol.TCP in match.protocols:
            ranges.update(match.ports or (_HTTPS,))
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return list(map(_range, merged))


def without_fast_path(intent: Intent) -> str:
    """The condition that keeps flows out of the flowtable whose packets a hook must see.

    Of one that may still say whom it calls, these are its first ones. What has no counts is old.
    """
    young = f" ct packets != 1-{SETTLED_PACKETS}" if is_named(intent) else ""
    spread = (*intent.duplicated, *intent.bonded)
    seen = [c for c in intent.classes if c.set_dscp is not None or c in spread]
    marks = [f"{class_mark(c.index):#010x}" for c in seen]
    other = f" meta mark and {CLASS_MARK_MASK:#010x} != {_set(marks)}" if marks else ""
    return young + other


def render_match(match: Match, device_of: Mapping[str, str] = _NO_LANS) -> Iterator[str]:
    """One condition per address family that the match needs told apart.

    `device_of` has the network interface of each LAN by the LAN's name.

    A match without addresses and code points needs one for both; one whose source and destination
    are of different families can never hold and gives none.
    """
    common = " ".join([*_origin(match, device_of), *_protocol(match)])
    if not (match.dscp or match.sources or match.destinations or match.domains):
        yield common
        return
    for version, word, proto in ((4, "ip", "ipv4"), (6, "ip6", "ipv6")):
        sources = _of(match.sources, version)
        destinations = _of(match.destinations, version)
        if (match.sources and not sources) or (match.destinations and not destinations):
            continue
        parts = [f"meta nfproto {proto}"]
        if match.dscp:
            parts.append(f"{word} dscp {_set(f'{d:#04x}' for d in match.dscp)}")
        if sources:
            parts.append(f"ct original {word} saddr {_set(sources)}")
        if destinations:
            parts.append(f"ct original {word} daddr {_set(destinations)}")
        if not match.domains:
            yield " ".join([*parts, common]).rstrip()
            continue
        for learned in learned_sets(match.domains, version):
            named = f"ct original {word} daddr @{learned}"
            yield " ".join([*parts, named, common]).rstrip()


def render_learned(intent: Intent) -> Iterator[str]:
    """Lines of the sets that the name server fills with the addresses of domains.

    One of each pair is emptied each hour, by turns, so that an address stays for an hour at least
    after it was last told, and for two at most. An element with a timeout of its own would not do:
    adding it once more does not renew that (Linux 6.12).
    """
    for domains in learned_domains(intent):
        for version, of in ((4, "ipv4_addr"), (6, "ipv6_addr")):
            for name in learned_sets(domains, version):
                yield f"set {name} {{"
                yield f"  type {of}"
                yield f"  size {MOST_LEARNED}"
                yield "}"


def _origin(match: Match, device_of: Mapping[str, str]) -> Iterator[str]:
    if match.lans:
        quoted = (f'"{device_of[lan]}"' for lan in match.lans)
        yield f"iifname {_set(quoted)}"
    if match.devices:
        # Only Ethernet has such addresses; nft asks for that by itself.
        yield f"ether saddr {_set(match.devices)}"


def _protocol(match: Match) -> Iterator[str]:
    protocols = match.protocols or (WITH_PORTS if match.ports else ())
    if protocols:
        yield f"meta l4proto {_set(_L4.get(p, p.value) for p in protocols)}"
    if match.ports:
        yield f"ct original proto-dst {_set(map(_range, match.ports))}"


_L4 = {Protocol.ICMPV6: "ipv6-icmp"}


def _of(networks: Iterable[Network], version: int) -> list[str]:
    return [str(n) for n in networks if n.version == version]


def _range(ports: tuple[int, int]) -> str:
    first, last = ports
    return str(first) if first == last else f"{first}-{last}"


def _set(values: Iterable[str]) -> str:
    return "{ " + ", ".join(values) + " }"
