"""Each operation as the command that a person would type.

For logs, `plan --dry-run` and golden tests. Of these commands only those of `tc` are run, by
`kernel/tc.py`. Secrets cannot appear: a plan has none.
"""

from typing import assert_never

from appliance.config.addressing import (
    BOND_PRIORITY,
    CLASS_MARK_MASK,
    COPY_PRIORITIES,
    ONCE_PRIORITY,
    QDISC_HANDLE,
    ROUTE_PROTOCOL,
    class_mark,
)
from appliance.plan.hierarchy import render_hierarchy, render_rates
from appliance.plan.overlay import is_dummy, is_unshared
from appliance.plan.plan import (
    Add,
    Bond,
    Change,
    Clsact,
    Copy,
    Delete,
    Device,
    DeviceAddress,
    Filter,
    Item,
    Key,
    Link,
    Nexthop,
    NexthopGroup,
    Once,
    Op,
    Redirect,
    Route,
    Rule,
    Shaper,
    Sysctl,
    Wireguard,
    WireguardPeer,
)

_TABLES = {254: "main", 255: "local", 253: "default"}


def render_op(op: Op, *, full: bool = False) -> str:
    """One operation as a command. With `full`, an nftables table is written out and not named."""
    match op:
        case Delete(key, item):
            return _delete(key, item)
        case Add(key, item):
            return _put(key, item, "add", full)
        case Change(key, before, Rule() as item):
            # Rules cannot be replaced: the new one comes before the old one goes.
            return f"{_rule('add', key, item)}\n{_delete(key, before)}"
        case Change(key, Shaper() as before, Shaper() as item) if (
            before.is_hierarchy or item.is_hierarchy
        ):
            device = str(key.ident[0])
            if before.is_like(item):
                return "\n".join(render_rates(device, item))
            return f"{_delete(key, before)}\n{_shaper(key, item)}"
        case Change(key, before, Redirect() as item):
            return f"{_delete(key, before)}\n{_redirect(key, item)}"
        case Change(key, _, item):
            return _put(key, item, "replace", full)
        case _:
            assert_never(op)


def _put(key: Key, item: Item, verb: str, full: bool) -> str:
    name = key.ident[0]
    match item:
        case Device(kind, mtu, is_up):
            verb, made = ("add", f" type {kind}") if verb == "add" else ("set", "")
            return f"ip link {verb} {name} mtu {mtu} {'up' if is_up else 'down'}{made}"
        case Link(is_up):
            return f"ip link set {name} {'up' if is_up else 'down'}"
        case Sysctl(value):
            return f"sysctl -w {name}={value}"
        case Wireguard(public_key, port, fwmark):
            return (
                f"wg set {name} listen-port {port} fwmark {fwmark:#010x} "
                f"private-key KEY_FILE # public key {public_key}"
            )
        case WireguardPeer():
            return _peer(key, item)
        case DeviceAddress(interface):
            words = " nodad" if is_unshared(interface, str(name)) else ""
            words += " scope link" if is_dummy(interface) else ""
            return f"ip address add {interface} dev {name} proto {ROUTE_PROTOCOL}{words}"
        case Nexthop(family, device, gateway, on_link):
            via = f"via {gateway} " if gateway is not None else ""
            where = f"{via}dev {device}{' onlink' if on_link else ''}"
            return f"ip -{family} nexthop {verb} id {name} {where} protocol {ROUTE_PROTOCOL}"
        case NexthopGroup(members):
            listed = "/".join(f"{hop},{weight}" for hop, weight in members)
            return f"ip nexthop {verb} id {name} group {listed} protocol {ROUTE_PROTOCOL}"
        case Route():
            return _route(verb, key, item)
        case Rule():
            return _rule(verb, key, item)
        case Shaper():
            return _shaper(key, item)
        case Clsact():
            return f"tc qdisc add dev {name} clsact"
        case Redirect():
            return _redirect(key, item)
        case Once(overlay):
            program = f"{_program(key, item, verb)} object-file once.bpf.o section once"
            return f"{program} # the same on all planes, not for {overlay}"
        case Bond():
            program = f"{_program(key, item, verb)} object-file bond.bpf.o section bond"
            return f"{program} # {_bonded(item)}"
        case Copy():
            program = f"{_program(key, item, verb)} object-file twice.bpf.o section twice"
            return f"{program} # {_copied(key, item)}"
        case Filter(digest, text):
            what = f"nft -f - # table {name} {key.ident[1]}, digest {digest}"
            return f"{what}\n{text.rstrip()}" if full else what
        case _:
            assert_never(item)


def _delete(key: Key, item: Item) -> str:
    name = key.ident[0]
    match item:
        case Device():
            return f"ip link del {name}"
        case Shaper():
            return f"tc qdisc del dev {name} root"
        case Redirect(protocol):
            _, hook, priority = key.ident
            return f"tc filter del dev {name} {hook} protocol {protocol} pref {priority}"
        case Once() | Copy() | Bond():
            return _program(key, item, "del")
        case Link() | Sysctl() | Clsact():
            return f"# {name} stays as it is"
        case Wireguard():
            return f"wg set {name} listen-port 0 fwmark 0 private-key /dev/null"
        case WireguardPeer():
            return f"wg set {name} peer {key.ident[1]} remove"
        case DeviceAddress(interface):
            return f"ip address del {interface} dev {name}"
        case Nexthop() | NexthopGroup():
            return f"ip nexthop del id {name}"
        case Route():
            return _route("del", key, item)
        case Rule():
            return _rule("del", key, item)
        case Filter():
            return f"nft delete table {name} {key.ident[1]}"
        case _:
            assert_never(item)


def _peer(key: Key, peer: WireguardPeer) -> str:
    device, public_key = key.ident
    words = [f"wg set {device} peer {public_key}"]
    if peer.preshared is not None:
        words.append("preshared-key KEY_FILE")
    if peer.endpoint is not None:
        host, port = peer.endpoint
        words.append(
            f"endpoint [{host}]:{port}" if host.version == 6 else f"endpoint {host}:{port}"
        )
    words.append(f"persistent-keepalive {peer.keepalive_s or 'off'}")
    allowed = sorted(peer.allowed_ips, key=lambda n: (n.version, n))
    words.append("allowed-ips " + ",".join(map(str, allowed)))
    if peer.preshared is not None:
        words.append(f"# preshared key digest {peer.preshared}")
    return " ".join(words)


def _route(verb: str, key: Key, route: Route) -> str:
    table, prefix, metric = key.ident
    words = [f"ip -{6 if ':' in str(prefix) else 4} route {verb}"]
    if route.nexthop is None and route.device is None:
        words.append("unreachable")
    words.append("default" if str(prefix).endswith("/0") else str(prefix))
    if route.nexthop is not None:
        words.append(f"nhid {route.nexthop}")
    if route.gateway is not None:
        words.append(f"via {route.gateway}")
    if route.device is not None:
        words.append(f"dev {route.device}")
    words.append(f"table {_TABLES.get(int(table), table)} metric {metric} proto {ROUTE_PROTOCOL}")
    if route.source is not None:
        words.append(f"src {route.source}")
    if route.mtu is not None:
        words.append(f"mtu {route.mtu}")
    if route.on_link:
        words.append("onlink")
    return " ".join(words)


def _shaper(key: Key, shaper: Shaper) -> str:
    if shaper.is_hierarchy:
        return "\n".join(render_hierarchy(str(key.ident[0]), shaper))
    way = "ingress" if shaper.is_ingress else "egress"
    gso = "no-split-gso" if shaper.keeps_gso else "split-gso"
    return (
        f"tc qdisc replace dev {key.ident[0]} root handle {QDISC_HANDLE:x}: cake "
        f"bandwidth {shaper.rate_bps}bit diffserv4 nat {way} overhead {shaper.overhead} mpu 0 {gso}"
    )


def _redirect(key: Key, redirect: Redirect) -> str:
    device, hook, priority = key.ident
    words = [f"tc filter add dev {device} {hook} protocol {redirect.protocol} pref {priority}"]
    if redirect.ports is None:
        words.append("matchall")
    else:
        side = "src_port" if hook == "egress" else "dst_port"
        ports = "-".join(map(str, sorted(set(redirect.ports))))
        words.append(f"flower ip_proto udp {side} {ports}")
    if redirect.to is None:
        words.append("action pass")
    else:
        if redirect.is_marked:
            words.append(f"action ctinfo cpmark {CLASS_MARK_MASK:#010x}")
        words.append(f"action mirred egress redirect dev {redirect.to}")
    return " ".join(words)


def _program(key: Key, item: Once | Copy | Bond, verb: str) -> str:
    if isinstance(item, Once):
        hook, priority, handle = "ingress", ONCE_PRIORITY, 1
    elif isinstance(item, Bond):
        hook, priority, handle = "egress", BOND_PRIORITY, 1
    else:
        hook, priority, handle = "egress", copy_priority(key), copy_handle(key)
    where = f"dev {key.ident[0]} {hook} protocol all pref {priority} handle {handle:#x}"
    return f"tc filter {verb} {where} bpf{'' if verb == 'del' else ' da'}"


def copy_priority(key: Key) -> int:
    """Of the filter of a `Copy`: what is said of one site comes before what is said of all."""
    return COPY_PRIORITIES[0 if key.ident[2] else 1]


def copy_handle(key: Key) -> int:
    """Of the filter of a `Copy`: class index and site id."""
    return int(key.ident[1]) << 16 | int(key.ident[2])


def _copied(key: Key, item: Copy) -> str:
    what = f"mark {class_mark(int(key.ident[1])):#010x}"
    if item.prefixes:
        what += f" to {', '.join(item.prefixes)}"
    return f"{what} into {item.to}" if item.to else f"{what} not copied"


def _bonded(item: Bond) -> str:
    stripes = [
        f"mark {class_mark(s.class_index):#010x} to {', '.join(s.networks)} "
        f"{'over ' + ', '.join(s.devices) if s.devices else 'not bonded'}"
        for s in item.stripes
    ]
    return "; ".join(stripes) or f"bonds {item.digest}"


def _rule(verb: str, key: Key, rule: Rule) -> str:
    family, priority = key.ident
    words = [f"ip -{family} rule {verb} pref {priority}"]
    if rule.mark is not None:
        mask = f"/{rule.mask:#010x}" if rule.mask is not None else ""
        words.append(f"fwmark {rule.mark:#010x}{mask}")
    words.append(f"lookup {_TABLES.get(rule.table, rule.table)}")
    if rule.is_specific:
        words.append("suppress_prefixlength 0")
    words.append(f"protocol {ROUTE_PROTOCOL}")
    return " ".join(words)
