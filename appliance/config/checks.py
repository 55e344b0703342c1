"""What must hold between the keys of a file: names, references, counts, classes and policies.

The checks see the sound parts only. One that could blame a sound part for damage in another does
nothing while that other part is damaged. Addresses and prefixes are judged in `networks`.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import attrgetter

from appliance.config import schema
from appliance.config.addressing import listen_ports
from appliance.config.catalogue import known
from appliance.config.errors import Finding, Path, pointer_of
from appliance.config.fields import MAX_SLOT, Section
from appliance.config.intent import (
    WITH_PORTS,
    DefaultClass,
    Internet,
    Mode,
    Network,
    Protocol,
    is_below,
)
from appliance.config.networks import check_networks
from appliance.config.rules import rules_of
from appliance.config.scalars import did_you_mean, render_duration
from appliance.config.schema import MAX_CLASSES, MAX_NAME_SERVERS
from appliance.config.shaping import check_shaping
from appliance.config.validate import Parts
from appliance.contract.ids import INTERNET

DEFAULT_CLASS = DefaultClass.DEFAULT.value
MIN_TARGETS = 3
MAX_LISTS = 5  # of domains that a name is in: dnsmasq takes 1024 octets a line
# A family of addresses that a protocol is confined to.
_FAMILY = {Protocol.ICMP: 4, Protocol.ICMPV6: 6}


def check(parts: Parts, own_public_key: str | None = None) -> Iterator[Finding]:
    """Everything wrong between the parts. The own public key is in no file: give it when known."""
    yield from _identities(parts, own_public_key)
    yield from _slots(parts)
    yield from _health(parts)
    yield from _applications(parts)
    yield from _classes(parts)
    yield from _policies(parts)
    yield from _gateways(parts)
    yield from _name_servers(parts)
    yield from _probing(parts)
    yield from check_shaping(parts)
    yield from check_networks(parts)


Claims = Iterable[tuple[Path, Hashable]]


def _claims(section: str, items: Mapping[int, Section], key: str) -> Claims:
    get = attrgetter("class_name" if key == "class" else key)
    return (((section, index, key), get(item)) for index, item in items.items())


def _unique(hint: str, *claims: Claims) -> Iterator[Finding]:
    """A finding for every claim to what an earlier one has."""
    first: dict[Hashable, Path] = {}
    for path, value in chain(*claims):
        if first.setdefault(value, path) is not path:
            yield Finding(path, f"the same as {pointer_of(first[value])}", hint)


def _identities(parts: Parts, own_public_key: str | None) -> Iterator[Finding]:
    own: list[tuple[Path, str]] = [(("site", "name"), parts.site.name)] if parts.site else []
    yield from _unique(
        "every site of the fleet has a name of its own", own, _claims("peers", parts.peers, "name")
    )
    for at, name in [*own, *_claims("peers", parts.peers, "name")]:
        if name == INTERNET:
            yield Finding(at, f"`{INTERNET}` is where what goes to no site goes", "another name")
    own_id: list[tuple[Path, int]] = [(("site", "id"), parts.site.id)] if parts.site else []
    yield from _unique(
        "every site of the fleet has an id of its own", own_id, _claims("peers", parts.peers, "id")
    )
    yield from _unique(
        "every site has a key of its own, made at the site",
        _claims("peers", parts.peers, "public_key"),
    )
    for index, peer in parts.peers.items():
        if peer.public_key == own_public_key:
            hint = "ask the other site for its public key"
            yield Finding(("peers", index, "public_key"), "the key of this box itself", hint)
    yield from _unique("choose another name", _claims("uplinks", parts.uplinks, "name"))
    yield from _unique("choose another name", _claims("lans", parts.lans, "name"))
    yield from _unique("join the two", _claims("applications", parts.applications, "name"))
    yield from _unique("choose another name", _claims("classes", parts.classes, "name"))
    yield from _unique(
        "a class has one policy: join the two", _claims("policies", parts.policies, "class")
    )
    yield from _unique(
        "every uplink and every LAN has a device of its own",
        _claims("uplinks", parts.uplinks, "device"),
        _claims("lans", parts.lans, "device"),
    )


def _slots(parts: Parts) -> Iterator[Finding]:
    if parts.is_whole("uplinks"):
        yield from _slots_of("uplinks", MAX_SLOT, ("uplinks",), parts.uplinks.items())
    for index, peer in parts.peers.items():
        yield from _slots_of(
            "uplinks", MAX_SLOT, ("peers", index, "uplinks"), enumerate(peer.uplinks)
        )
    if parts.is_whole("classes"):
        yield from _slots_of("classes", MAX_CLASSES, ("classes",), parts.classes.items())


def _slots_of(
    what: str,
    most: int,
    at: Path,
    items: Iterable[tuple[int, schema.Uplink | schema.PeerUplink | schema.TrafficClass]],
) -> Iterator[Finding]:
    first: dict[int, Path] = {}
    for index, item in items:
        path: Path = (*at, index)
        if index == most:
            yield Finding(path, f"more than {most} {what}", f"there are {most} slots")
        if item.slot is None and index >= most:
            continue
        slot = item.slot or index + 1
        if first.setdefault(slot, path) is not path:
            message = f"slot {slot} is taken by {pointer_of(first[slot])}"
            hint = "where no slot is written, it is the position; give each its own"
            yield Finding((*path, "slot"), message, hint)


def _health(parts: Parts) -> Iterator[Finding]:
    for index, uplink in parts.uplinks.items():
        if uplink.health is None:
            continue
        targets = uplink.health.targets
        path: Path = ("uplinks", index, "health")
        if len(targets) < MIN_TARGETS:
            message = f"{len(targets)} of at least {MIN_TARGETS} targets"
            hint = "one host that is down must not condemn the line"
            yield Finding((*path, "targets"), message, hint)
        if uplink.health.quorum > len(targets):
            message = f"more than the number of targets, {len(targets)}"
            yield Finding((*path, "quorum"), message, "lower it, or add targets")
        places = (((*path, "targets", place), target) for place, target in enumerate(targets))
        yield from _unique("a target counts once", places)


def _classes(parts: Parts) -> Iterator[Finding]:
    first: dict[Hashable, Path] = {}
    applications = known(parts.applications.values())
    for index, each in parts.classes.items():
        at: Path = ("classes", index)
        if each.name == DEFAULT_CLASS:
            hint = "it exists always and comes last: leave it out and give it a policy"
            yield Finding((*at, "name"), f"`{DEFAULT_CLASS}` is the class of all other flows", hint)
        for place, match in enumerate(each.match):
            path: Path = (*at, "match", place)
            yield from _match(path, match)
            yield from _lans(path, match, parts)
            if parts.is_whole("applications"):
                yield from _named(path, match, applications)
            earlier = first.setdefault(repr(match), path)
            if earlier is not path:
                message = f"takes nothing: the same as {pointer_of(earlier)}"
                yield Finding(path, message, "the first class that fits takes a flow")
    if parts.is_whole("classes") and parts.is_whole("applications"):
        yield from _domains(parts, applications)


def _domains(parts: Parts, applications: Mapping[str, schema.Application]) -> Iterator[Finding]:
    """No name may be in more lists of domains than a line of dnsmasq's file has room for."""
    seen: dict[tuple[str, ...], Path] = {}
    for index, each in parts.classes.items():
        for place, match in enumerate(each.match):
            if any(name not in applications for name in match.application or ()):
                continue
            for _, rule in rules_of(match, "", applications):
                if rule.domains:
                    seen.setdefault(rule.domains, ("classes", index, "match", place))
    for domain in dict.fromkeys(domain for domains in seen for domain in domains):
        above = [p for d, p in seen.items() if any(is_below(domain, other) for other in d)]
        if len(above) > MAX_LISTS:
            message = f"`{domain}` is in more than {MAX_LISTS} different lists of domains"
            yield Finding(above[MAX_LISTS], message, "use the same list where you can")


def _applications(parts: Parts) -> Iterator[Finding]:
    for index, each in parts.applications.items():
        path: Path = ("applications", index)
        if not each.match and not each.domains and parts.is_whole(*path):
            yield Finding(path, "nothing says how it is known", "add `match` or `domains`")
        for place, match in enumerate(each.match):
            yield from _match((*path, "match", place), match)


def _named(
    path: Path,
    match: schema.Match,
    applications: Mapping[str, schema.Application],
) -> Iterator[Finding]:
    for place, name in enumerate(match.application or ()):
        at = (*path, "application", place)
        if name not in applications:
            message = f"there is no application `{name}`"
            yield Finding(at, message, did_you_mean(name, applications))
        else:
            alone = match.model_copy(update={"application": [name]})
            if not any(rules_of(alone, "", applications)):
                hint = "the other conditions exclude it: leave it or them out"
                yield Finding(at, f"takes nothing of `{name}`", hint)


def _match(path: Path, match: schema.ApplicationMatch) -> Iterator[Finding]:
    sources = match.sources if isinstance(match, schema.Match) else None
    protocols = frozenset(match.protocol or ())
    if match.ports is not None and not (protocols and protocols.issubset(WITH_PORTS)):
        hint = "add `protocol: tcp`, `udp`, `sctp` or several of them, and no other"
        yield Finding((*path, "ports"), "only tcp, udp and sctp have ports", hint)
    narrowing = match.model_copy(update={"sources": None, "destinations": None})
    is_open = all(condition is None for _, condition in narrowing)
    if is_open and _is_every(sources) and _is_every(match.destinations):
        hint = f"state a condition; what no class takes is in `{DEFAULT_CLASS}`"
        yield Finding(path, "takes every flow, so that no later class gets any", hint)
    families = _families(sources) & _families(match.destinations)
    if protocols:
        families &= frozenset().union(*({_FAMILY.get(p)} - {None} or {4, 6} for p in protocols))
    if not families:
        yield Finding(path, "takes nothing: IPv4 and IPv6 in one match", "split it into two")


def _lans(path: Path, match: schema.Match, parts: Parts) -> Iterator[Finding]:
    names = [lan.name for lan in parts.lans.values()]
    for place, name in enumerate(match.lan or ()):
        if name not in names and parts.is_whole("lans"):
            hint = did_you_mean(name, names) or "the box has no LANs: leave it out"
            yield Finding((*path, "lan", place), f"there is no LAN `{name}`", hint)


def _is_every(prefixes: Sequence[Network] | None) -> bool:
    return prefixes is None or {4, 6} == {p.version for p in prefixes if p.prefixlen == 0}


def _families(prefixes: Sequence[Network] | None) -> frozenset[int]:
    return frozenset((4, 6)) if prefixes is None else frozenset(p.version for p in prefixes)


def _policies(parts: Parts) -> Iterator[Finding]:
    classes = [*(each.name for each in parts.classes.values()), DEFAULT_CLASS]
    if not parts.names_classes:
        classes = list(DefaultClass)
    metered: dict[str, bool] = {}  # label -> all its uplinks are metered
    for uplink in parts.uplinks.values():
        label = uplink.label or uplink.name
        metered[label] = metered.get(label, True) and uplink.metered
    far_labels = {uplink.label for peer in parts.peers.values() for uplink in peer.uplinks}
    for index, policy in parts.policies.items():
        path: Path = ("policies", index)
        if policy.class_name not in classes and parts.is_whole("classes"):
            message = f"there is no class `{policy.class_name}`"
            hint = did_you_mean(policy.class_name, classes)
            yield Finding((*path, "class"), message, hint)
        if policy.when is not None and policy.mode is not Mode.DUPLICATE:
            hint = "add `mode: duplicate`, or leave it out"
            yield Finding((*path, "when"), "only mode `duplicate` sends anything twice", hint)
        if not parts.is_whole("uplinks"):
            continue
        if policy.mode is Mode.BOND:
            yield from _unshaped(parts, policy, path)
        labels = [
            ((*path, "tiers", place, item), label)
            for place, tier in enumerate(policy.tiers or ())
            for item, label in enumerate(tier)
        ]
        yield from _unique("a label stands in one tier", labels)
        for at, label in labels:
            # A label of a far end's uplink counts too: a path is as good as its worse end.
            if label not in metered and label not in far_labels and parts.is_whole("peers"):
                message = f"no uplink of this box or of a peer has the label `{label}`"
                yield Finding(
                    at,
                    message,
                    did_you_mean(label, [*metered, *sorted(far_labels - metered.keys())]),
                )
        own = {label for _, label in labels} & metered.keys()
        if labels and not own and all(label in far_labels for _, label in labels):
            message = "no uplink of this box may carry the class: all labels are of peers"
            yield Finding((*path, "tiers"), message, f"add one of: {', '.join(sorted(metered))}")
        used = own or set(metered)
        if not policy.metered and used and all(metered[label] for label in used):
            message = "no uplink may carry the class: all are metered"
            yield Finding((*path, "metered"), message, "add a label to the tiers, or leave it out")


def _unshaped(parts: Parts, policy: schema.Policy, path: Path) -> Iterator[Finding]:
    """A bond sends each packet where a shaper lets it through first, so each line needs one."""
    labels = {label for tier in policy.tiers or () for label in tier}
    for uplink in parts.uplinks.values():
        is_named = not labels or (uplink.label or uplink.name) in labels
        is_used = is_named and (policy.metered or not uplink.metered)
        if is_used and uplink.shaping is None:
            message = f"mode `bond` needs the rates of uplink `{uplink.name}`"
            yield Finding((*path, "mode"), message, f"add `shaping` to {uplink.name}")


def _gateways(parts: Parts) -> Iterator[Finding]:
    names = [peer.name for peer in parts.peers.values()]
    places: list[tuple[Path, str]] = [
        (("gateways", place), name) for place, name in enumerate(parts.gateways)
    ]
    yield from _unique("a gateway stands in the list once", places)
    if parts.is_whole("peers"):
        for at, name in places:
            if name not in names:
                hint = did_you_mean(name, names) or "name a peer"
                yield Finding(at, f"there is no peer `{name}`", hint)
    if not parts.gateways and parts.is_whole("gateways"):
        for index, policy in parts.policies.items():
            if policy.internet is Internet.GATEWAY:
                path: Path = ("policies", index, "internet")
                yield Finding(path, "there is no gateway", "name peers under `gateways`")


def _name_servers(parts: Parts) -> Iterator[Finding]:
    if parts.dns is None or not parts.is_whole("dns"):
        return
    servers: list[tuple[Path, Hashable]] = [
        (("dns", "servers", place), server) for place, server in enumerate(parts.dns.servers)
    ]
    yield from _unique("a server stands in the list once", servers)
    for path, _ in servers[MAX_NAME_SERVERS : MAX_NAME_SERVERS + 1]:
        yield Finding(path, f"more than {MAX_NAME_SERVERS} name servers", "leave some out")
    is_told = any(not any(uplink.address) for uplink in parts.uplinks.values())
    if servers or is_told or not parts.is_whole("uplinks"):
        return
    for index, lan in parts.lans.items():
        if lan.dns:
            message = "no name server is known: no uplink is told one by DHCP"
            yield Finding(("lans", index, "dns"), message, "name some under `dns: servers`")


def _probing(parts: Parts) -> Iterator[Finding]:
    probing, wireguard = parts.probing, parts.wireguard
    if probing is None or not parts.is_whole("probing"):
        return
    for key in ("idle_interval", "metered_interval"):
        slower = getattr(probing, key)
        if slower is not None and slower < probing.interval:
            message = f"{render_duration(slower)} is shorter than `interval`"
            hint = f"at least {render_duration(probing.interval)}"
            yield Finding(("probing", key), message, hint)
    if wireguard is not None and parts.is_whole("wireguard"):
        ports = listen_ports(wireguard.listen_port_base)
        if probing.port in ports:
            message = f"the tunnels listen on {ports[0]} to {ports[-1]}"
            yield Finding(("probing", "port"), message, "choose a port outside of these")
