"""The underlay as kernel objects: uplinks, LANs, the tables and rules that keep uplinks apart.

An encrypted packet bears its uplink's mark, and the rule of that mark leads to a table that knows
no other uplink and ends in `unreachable`: it can never leave by another WAN.
"""

from collections.abc import Collection, Iterator, Mapping

from appliance.config.addressing import (
    BACKSTOP_TABLE,
    CLASS_MARK_MASK,
    RULE_PRIORITY_FIRST,
    UPLINK_MARK_MASK,
    class_mark,
    class_table,
    internet_table,
    management_address,
    uplink_mark,
    uplink_table,
)
from appliance.config.intent import Address, Intent, Interface, Method, Mode, Uplink
from appliance.contract.ids import Slot
from appliance.core.events import UplinkFacts
from appliance.plan.breakout import DEFAULT_ROUTE
from appliance.plan.overlay import MAIN_TABLE, Attachment, address
from appliance.plan.plan import Item, Key, Kind, Link, Route, Rule, Sysctl
from appliance.plan.steer import FAMILIES, METRIC, UNREACHABLE, site_prefixes

LAST_METRIC = 1_000_000  # of the `unreachable` that ends an uplink's table
_CLASS_PRIORITY = RULE_PRIORITY_FIRST + 100
_DEFAULT_PRIORITY = RULE_PRIORITY_FIRST + 200
_BACKSTOP_PRIORITY = RULE_PRIORITY_FIRST + 201
_KNOWN_PRIORITY = RULE_PRIORITY_FIRST + 250
_INTERNET_PRIORITY = RULE_PRIORITY_FIRST + 300


def uplink_addresses(
    intent: Intent, facts: Mapping[Slot, UplinkFacts]
) -> dict[Slot, tuple[Interface, ...]]:
    """The addresses of each uplink: configured, or what the lease brought."""
    return {
        u.slot: u.addresses
        if u.method is Method.STATIC
        else facts.get(u.slot, UplinkFacts(u.slot)).addresses
        for u in intent.uplinks
    }


def attachments(intent: Intent, facts: Mapping[Slot, UplinkFacts]) -> dict[Slot, Attachment]:
    """What each uplink has to reach endpoints with: another gateway of a family is the same."""
    found: dict[Slot, Attachment] = {}
    addresses = uplink_addresses(intent, facts)
    for uplink in intent.uplinks:
        slot = uplink.slot
        leased = facts.get(slot, UplinkFacts(slot)).gateways
        gateways = uplink.gateways if uplink.method is Method.STATIC else leased
        found[slot] = Attachment(addresses[slot], frozenset(g.version for g in gateways))
    return found


def underlay_items(
    intent: Intent, facts: Mapping[Slot, UplinkFacts], absent: Collection[str]
) -> dict[Key, Item]:
    """Everything of a plan but planes, steering, backstop and firewall.

    `absent` are missing LAN devices.
    """
    # The first IPv4 route of a boot by nexthop id crashes kernel 6.12 while `lo` is down.
    found: dict[Key, Item] = {Key(Kind.LINK, ("lo",)): Link()}
    addresses = uplink_addresses(intent, facts)
    for order, uplink in enumerate(intent.uplinks):
        seen = facts.get(uplink.slot, UplinkFacts(uplink.slot))
        found.update(_table(uplink, seen, addresses[uplink.slot], METRIC + order))
        if seen.has_device:
            found.update(_uplink_device(uplink))
    for lan in intent.lans:
        if lan.device not in absent:
            found[Key(Kind.LINK, (lan.device,))] = Link()
            found.update(address(lan.device, interface) for interface in lan.addresses)
    found.update(_rules(intent))
    found.update(_box_sysctls(intent))
    return found


def _box_sysctls(intent: Intent) -> Iterator[tuple[Key, Sysctl]]:
    yield Key(Kind.FORWARDING, ("net/ipv4/ip_forward",)), Sysctl("1")
    yield Key(Kind.FORWARDING, ("net/ipv6/conf/all/forwarding",)), Sysctl("1")
    # Octets of each flow, for `branchline flows`. The setting is there once something is tracked.
    yield Key(Kind.FORWARDING, ("net/netfilter/nf_conntrack_acct",)), Sysctl("1")
    # Otherwise replacing one nexthop object announces every route that uses it: a detour on a hub
    # would flood each netlink listener with thousands of messages.
    yield Key(Kind.SYSCTL, ("net/ipv4/nexthop_compat_mode",)), Sysctl("0")
    if any(p.mode in {Mode.SHARE, Mode.BOND} for p in intent.policies):
        # Spread flows, not hosts, over a group: hash ports too.
        for family in ("ipv4", "ipv6"):
            yield Key(Kind.SYSCTL, (f"net/{family}/fib_multipath_hash_policy",)), Sysctl("1")


def _uplink_device(uplink: Uplink) -> Iterator[tuple[Key, Item]]:
    device = uplink.device
    # Loose: a packet for one uplink's address may come while the default route is another's.
    yield Key(Kind.SYSCTL, (f"net/ipv4/conf/{device}/rp_filter",)), Sysctl("2")
    if uplink.method is Method.DHCP:
        # dhcpcd hears the router advertisements, and says so by the same value. Did the kernel
        # hear them too, default routes that are nobody's would come into the main table.
        yield Key(Kind.SYSCTL, (f"net/ipv6/conf/{device}/accept_ra",)), Sysctl("0")
    else:
        yield Key(Kind.LINK, (device,)), Link()
        for interface in uplink.addresses:
            yield address(device, interface)


def _table(
    uplink: Uplink, seen: UplinkFacts, addresses: tuple[Interface, ...], metric: int
) -> Iterator[tuple[Key, Route]]:
    """The uplink's own table, and its default routes in the main table (metric by order)."""
    table = uplink_table(uplink.slot)
    for family in FAMILIES:
        yield Key(Kind.ROUTE, (table, DEFAULT_ROUTE[family], LAST_METRIC)), UNREACHABLE
    if not (seen.has_device and seen.has_carrier):
        return
    for interface in addresses:
        network = interface.network
        if network.prefixlen < network.max_prefixlen:
            yield Key(Kind.ROUTE, (table, str(network), METRIC)), Route(device=uplink.device)
    for family, route in gateway_routes(uplink, seen, addresses):
        yield Key(Kind.ROUTE, (table, DEFAULT_ROUTE[family], METRIC)), route
        yield Key(Kind.ROUTE, (MAIN_TABLE, DEFAULT_ROUTE[family], metric)), route


def gateway_routes(
    uplink: Uplink, seen: UplinkFacts, addresses: tuple[Interface, ...]
) -> Iterator[tuple[int, Route]]:
    """The default route of an uplink in each family in which it has one now."""
    if not (seen.has_device and seen.has_carrier):
        return
    for gateway in seen.gateways or uplink.gateways:
        if any(i.version == gateway.version for i in addresses):
            yield gateway.version, _default_route(uplink.device, gateway, addresses)


def _default_route(device: str, gateway: Address, addresses: tuple[Interface, ...]) -> Route:
    is_near = gateway.is_link_local or any(gateway in i.network for i in addresses)
    return Route(device=device, gateway=gateway, on_link=not is_near)


def _rules(intent: Intent) -> Iterator[tuple[Key, Rule]]:
    """Uplink marks first, then class marks, then everything else as the default class.

    All of these tables hold site prefixes only, so what goes elsewhere falls through to main. Only
    what that knows by no more than a default route is left to the way of its class to the internet;
    what the box sends itself has no class and takes the default route of main.
    """
    for family in FAMILIES:
        for uplink in intent.uplinks:
            slot = uplink.slot
            rule = Rule(uplink_table(slot), uplink_mark(slot), UPLINK_MARK_MASK)
            yield Key(Kind.RULE, (family, RULE_PRIORITY_FIRST + slot)), rule
        for each in intent.classes:
            rule = Rule(class_table(each.index), class_mark(each.index), CLASS_MARK_MASK)
            yield Key(Kind.RULE, (family, _CLASS_PRIORITY + each.index)), rule
        default = Rule(class_table(intent.default_class.index))
        yield Key(Kind.RULE, (family, _DEFAULT_PRIORITY)), default
        yield Key(Kind.RULE, (family, _BACKSTOP_PRIORITY)), Rule(BACKSTOP_TABLE)
        yield Key(Kind.RULE, (family, _KNOWN_PRIORITY)), Rule(MAIN_TABLE, is_specific=True)
        for each in intent.classes:
            rule = Rule(internet_table(each.index), class_mark(each.index), CLASS_MARK_MASK)
            yield Key(Kind.RULE, (family, _INTERNET_PRIORITY + each.index)), rule


def backstop_items(intent: Intent) -> dict[Key, Item]:
    """Whatever no class carries to a site must not leak to the internet: fail closed."""
    found: dict[Key, Item] = {}
    for peer in intent.peers:
        management = f"{management_address(intent.overlay, peer.site_id)}/128"
        for prefix, _ in (*site_prefixes(peer), (management, 6)):
            found[Key(Kind.ROUTE, (BACKSTOP_TABLE, prefix, METRIC))] = UNREACHABLE
    return found
