"""The firewall and the classification as one nftables table, loaded whole and atomically.

Default deny. Nothing in it depends on leases or on steering, so neither a new address nor a
failover ever reloads it. Decides nothing about paths.
"""

from collections.abc import Collection, Iterable, Iterator

from appliance.config.addressing import (
    NFT_TABLE,
    listen_port,
    listen_ports,
    management_address,
    plane_device,
    probe_address,
)
from appliance.config.intent import Intent, Method, Uplink, planes
from appliance.contract.ids import Plane, Slot
from appliance.plan.classify import (
    pin,
    render_borders,
    render_classes,
    render_hellos,
    render_learned,
    render_pins,
    render_remarks,
    without_fast_path,
)
from appliance.plan.counters import render_received
from appliance.plan.plan import Filter, Key, Kind, digested

FILTER_KEY = Key(Kind.FILTER, ("inet", NFT_TABLE))
# Errors that senders need, and echo. The rate keeps a flood from costing us the box.
_ICMP = "{ destination-unreachable, time-exceeded, parameter-problem, echo-request }"
_ICMPV6 = (
    "{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem, echo-request }"
)
# Neighbour discovery and multicast listener reports live on one link only (RFC 4890, 4.4).
_ND = (
    "{ nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, "
    "nd-redirect, mld-listener-query, mld-listener-report, mld-listener-done, "
    "mld2-listener-report }"
)


def render_filter(intent: Intent, absent: Collection[str] = ()) -> Filter:
    """`inet branchline`. `absent` are missing LAN devices, which nothing on ingress can name."""
    lines = [f"table inet {NFT_TABLE} {{"]
    lines += (f"  {line}" for line in _body(intent, absent))
    lines.append("}")
    return digested("\n".join(lines) + "\n")


def _body(intent: Intent, absent: Collection[str]) -> Iterator[str]:
    lans = [lan.device for lan in intent.lans]
    tunnels = [plane_device(p) for p in planes(intent)]
    yield from _set("lans", "ifname", map(_quoted, lans))
    yield from _set("planes", "ifname", map(_quoted, tunnels))
    yield from _set("inside", "ifname", map(_quoted, [*lans, *tunnels]))
    yield from _set("uplinks", "ifname", (_quoted(u.device) for u in intent.uplinks))
    yield from _set("own", "ipv6_addr", _own_addresses(intent))
    yield from render_learned(intent)
    yield from _flowtable([*(d for d in lans if d not in absent), *tunnels])
    yield from _untrusted(intent, absent)
    yield from render_received(intent)
    yield from _untracked(intent)
    yield from render_hellos(intent)
    yield from render_classes(intent)
    yield from render_pins(intent)
    yield from render_remarks(intent)
    yield from _input(intent)
    yield from render_borders(intent)
    yield from _forward(intent, bool(tunnels))
    yield "chain postrouting {"
    yield "  type nat hook postrouting priority srcnat; policy accept;"
    # Of other sites only those come as far as this whom `forward` has let through.
    sources = "inside" if any(peer.internet for peer in intent.peers) else "lans"
    # Of a flow's packets only the first comes by here.
    for uplink in intent.uplinks:
        yield f"  iifname @{sources} oifname {_quoted(uplink.device)} {pin(uplink)}"
    for own, ports in _translations(intent.listen_port_base):
        yield f"  iifname @{sources} oifname @uplinks udp sport {own} masquerade to :{ports}"
    yield f"  iifname @{sources} oifname @uplinks masquerade"
    yield "}"


def _own_addresses(intent: Intent) -> Iterator[str]:
    yield str(management_address(intent.overlay, intent.site_id))
    for plane in planes(intent):
        yield str(probe_address(intent.overlay, plane, intent.site_id))


def _flowtable(devices: list[str]) -> Iterator[str]:
    if devices:
        yield "flowtable fast {"
        yield "  hook ingress priority filter;"
        yield "  counter;"  # else nothing tells what a flow of the fast path carries
        yield f"  devices = {{ {', '.join(map(_quoted, devices))} }};"
        yield "}"


def _untrusted(intent: Intent, absent: Collection[str]) -> Iterator[str]:
    """Packets of the fast path see no later hook, so a DSCP is taken away before it begins."""
    lans = (lan for lan in intent.lans if not lan.trust_dscp and lan.device not in absent)
    if devices := ", ".join(_quoted(lan.device) for lan in lans):
        yield "chain untrusted {"
        yield f"  type filter hook ingress devices = {{ {devices} }} priority -10; policy accept;"
        yield "  ip dscp set 0x00"
        yield "  ip6 dscp set 0x00"
        yield "}"


def _untracked(intent: Intent) -> Iterator[str]:
    """Encrypted packets and probes need no conntrack: it would cost an entry each, and time."""
    yield "chain untracked_in {"
    yield "  type filter hook prerouting priority raw; policy accept;"
    for uplink in intent.uplinks:
        if ports := _ports(intent, uplink):
            yield f"  iifname {_quoted(uplink.device)} udp dport {ports} notrack accept"
    yield "  ip6 daddr @own iifname @planes notrack"
    yield "}"
    yield "chain untracked_out {"
    yield "  type filter hook output priority raw; policy accept;"
    for uplink in intent.uplinks:
        if ports := _ports(intent, uplink):
            yield f"  oifname {_quoted(uplink.device)} udp sport {ports} notrack accept"
    yield "  ip6 saddr @own oifname @planes notrack"
    yield "}"


def _input(intent: Intent) -> Iterator[str]:
    yield "chain input {"
    yield "  type filter hook input priority filter; policy drop;"
    # First, because every encrypted packet comes by here; the fast path spares the inner ones only.
    for uplink in intent.uplinks:
        if ports := _ports(intent, uplink):
            yield f"  iifname {_quoted(uplink.device)} udp dport {ports} accept"
    yield "  ct state vmap { established : accept, related : accept, invalid : drop }"
    yield '  iifname "lo" accept'
    # The overlay is reached over the overlay only, whoever claims to be in it.
    yield f"  iifname @planes ip6 saddr {intent.overlay} ip6 daddr @own accept"
    yield "  ip6 daddr @own drop"
    for lan in intent.lans:
        if lan.dns:  # who asks teaches the box: only those who may
            for each in lan.addresses:
                word = "ip" if each.version == 4 else "ip6"
                asked = f"{word} daddr {each.ip} meta l4proto {{ tcp, udp }} th dport 53"
                yield f"  iifname != {_quoted(lan.device)} {asked} drop"
    yield "  iifname @lans accept"
    for uplink in intent.uplinks:
        if uplink.method is Method.DHCP:
            device = _quoted(uplink.device)
            yield f"  iifname {device} udp sport 67 udp dport 68 accept"
            yield f"  iifname {device} ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept"
    yield f"  icmpv6 type {_ND} ip6 hoplimit {{ 1, 255 }} accept"
    yield f"  icmp type {_ICMP} limit rate 200/second burst 200 packets accept"
    yield f"  icmpv6 type {_ICMPV6} limit rate 200/second burst 200 packets accept"
    yield "}"


def _forward(intent: Intent, has_planes: bool) -> Iterator[str]:
    yield "chain forward {"
    yield "  type filter hook forward priority filter; policy drop;"
    # The overlay is for boxes: nobody on a LAN speaks to other sites' ends of it, or in its name.
    yield f"  iifname @lans ip6 saddr {intent.overlay} drop"
    yield f"  iifname @lans ip6 daddr {intent.overlay} drop"
    yield "  oifname @uplinks jump leave"
    # Before the fast path: a SYN is never offloaded.
    yield "  oifname @planes tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"
    if has_planes:
        # By packets from a LAN only: the kernel looks up the way back for the device by which the
        # packet came, and one from a tunnel would pin the way out to that tunnel, against the
        # routes of its class: docs/adr/0020.
        begun = "iifname @lans oifname @inside"
        spared = f"{begun} meta l4proto {{ tcp, udp }}{without_fast_path(intent)}"
        yield f"  ct state established {spared} flow add @fast"
    yield "  ct state vmap { established : accept, related : accept, invalid : drop }"
    yield "  iifname @lans accept"
    if intent.gateways:
        # From a gateway's tunnels anything may come as an answer, but nothing else.
        sites = [prefix for peer in intent.peers for prefix in peer.prefixes]
        for version, word in ((4, "ip"), (6, "ip6")):
            known = ", ".join(str(prefix) for prefix in sites if prefix.version == version)
            strange = f"{word} saddr != {{ {known} }}" if known else f"meta nfproto ipv{version}"
            yield f"  iifname @planes {strange} drop"
    yield "  iifname @planes oifname @inside accept"
    guests = [prefix for peer in intent.peers if peer.internet for prefix in peer.prefixes]
    for version, word in ((4, "ip"), (6, "ip6")):
        if served := ", ".join(str(prefix) for prefix in guests if prefix.version == version):
            yield f"  iifname @planes oifname @uplinks {word} saddr {{ {served} }} accept"
    yield "}"


def tunnel_ports(intent: Intent, uplink: Uplink) -> tuple[int, int] | None:
    """First and last of our listen ports on one uplink; None without peers."""
    remote: list[Slot] = [p.remote for p in planes(intent) if p.local == uplink.slot]
    if not remote:
        return None
    base = intent.listen_port_base
    first, last = (Plane(uplink.slot, r) for r in (min(remote), max(remote)))
    return listen_port(base, first), listen_port(base, last)


def _translations(base: int) -> Iterator[tuple[str, str]]:
    """UDP source ports of LANs, and those by which they leave: never by one that tunnels may have.

    What comes back to a tunnel's port is ours, whoever sent it. Left to itself, conntrack keeps a
    source port, and when that is taken chooses any from 1024 on. Lower ones stay low.
    """
    first, last = listen_ports(base)[0], listen_ports(base)[-1]
    below, above = (1024, first - 1), (last + 1, 65535)
    if first - 1024 > 65535 - last:
        sides = ((1024, last), below), (above, above)
    else:
        sides = (below, below), ((first, 65535), above)
    for sources, ports in sides:
        if ports[0] <= ports[1]:
            yield _range(sources), _range(ports)


def _range(ports: tuple[int, int]) -> str:
    return "-".join(map(str, ports))


def _ports(intent: Intent, uplink: Uplink) -> str:
    ports = tunnel_ports(intent, uplink)
    return "" if ports is None else "-".join(map(str, sorted(set(ports))))


def _set(name: str, of: str, elements: Iterable[str]) -> Iterator[str]:
    yield f"set {name} {{"
    yield f"  type {of}"
    if listed := ", ".join(elements):
        yield f"  elements = {{ {listed} }}"
    yield "}"


def _quoted(name: str) -> str:
    return f'"{name}"'
