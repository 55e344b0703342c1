"""What must hold between the addresses and prefixes of a file."""

from collections.abc import Hashable, Iterable, Iterator
from typing import NamedTuple

from appliance.config import schema
from appliance.config.errors import Finding, Path, pointer_of
from appliance.config.intent import Address, Interface, Network
from appliance.config.validate import Parts


def check_networks(parts: Parts) -> Iterator[Finding]:
    for index, uplink in parts.uplinks.items():
        if parts.is_whole("uplinks", index, "gateway"):
            yield from _uplink(("uplinks", index), uplink)
    yield from _endpoints(parts)
    yield from _overlaps(_claims(parts))


def _uplink(path: Path, uplink: schema.Uplink) -> Iterator[Finding]:
    static = [address for address in uplink.address if address is not None]
    gateways = list(enumerate(uplink.gateway))
    if len(static) != len(uplink.address):
        if len(uplink.address) > 1:
            hint = "either the word dhcp alone, or addresses"
            yield Finding((*path, "address"), "dhcp beside other addresses", hint)
        if gateways:
            hint = "leave it out: the lease or the router advertisement names the gateway"
            yield Finding((*path, "gateway"), "a gateway beside `address: dhcp`", hint)
        return
    if not gateways:
        yield Finding(path, "`gateway` is missing", "static addresses need the provider's gateway")
    yield from _one_per_family((*path, "gateway"), uplink.gateway)
    for place, gateway in gateways:
        yield from _gateway((*path, "gateway", place), gateway, static)
    families = {address.version for address in static}
    for place, target in enumerate(uplink.health.targets if uplink.health else ()):
        if target.address.version not in families:
            message = f"the uplink has no IPv{target.address.version} address"
            yield Finding((*path, "health", "targets", place), message, "it could never answer")


def _gateway(path: Path, gateway: Address, static: list[Interface]) -> Iterator[Finding]:
    if gateway.is_link_local and gateway.version == 6:
        # Every IPv6 device has a link-local address, and routers announce themselves by theirs.
        if all(address.version == 4 for address in static):
            yield Finding(path, "the uplink has no IPv6 address", "add one, or leave this out")
        return
    networks = [a.network for a in static if a.version == gateway.version]
    if any(gateway == address.ip for address in static):
        yield Finding(path, f"{gateway} is the box itself", "give the address of the next router")
    elif not any(gateway in network for network in networks):
        own = ", ".join(str(network) for network in networks) or "no network of its family"
        yield Finding(path, f"{gateway} is not in the uplink's network", f"the uplink has {own}")


def _one_per_family(path: Path, addresses: Iterable[Address]) -> Iterator[Finding]:
    seen: set[int] = set()
    for place, address in enumerate(addresses):
        if address.version in seen:
            message = f"a second IPv{address.version} address"
            yield Finding((*path, place), message, "at most one of each family")
        seen.add(address.version)


def _endpoints(parts: Parts) -> Iterator[Finding]:
    """An endpoint and a slot make one UDP port on one host: it belongs to one uplink."""
    own: dict[Address, Path] = {}
    for index, uplink in parts.uplinks.items():
        for place, interface in enumerate(uplink.address):
            if interface is not None:
                own[interface.ip] = ("uplinks", index, "address", place)
    first: dict[tuple[Address, int], Path] = {}
    for index, peer in parts.peers.items():
        for position, remote in enumerate(peer.uplinks):
            at: Path = ("peers", index, "uplinks", position, "endpoint")
            yield from _one_per_family(at, remote.endpoint)
            slot = remote.slot or position + 1
            for place, endpoint in enumerate(remote.endpoint):
                path = (*at, place)
                hint = "give the address of the other site"
                if endpoint in own:
                    message = f"{endpoint} is this box: {pointer_of(own[endpoint])}"
                    yield Finding(path, message, hint)
                elif first.setdefault((endpoint, slot), path) is not path:
                    other = pointer_of(first[endpoint, slot])
                    message = f"{endpoint} with slot {slot} is the same as {other}"
                    yield Finding(path, message, "two sites behind one address need other slots")


class _Claim(NamedTuple):
    """A prefix that something in the file has. Sorts an outer prefix before what lies in it."""

    version: int
    first: int  # its first address, as a number
    length: int
    order: int  # place in the file
    last: int
    path: Path
    network: Network
    group: Hashable  # claims of one group may overlap


def _claims(parts: Parts) -> Iterator[_Claim]:
    found: list[tuple[Path, Network, Hashable]] = []
    if parts.fleet is not None:
        found.append((("fleet", "overlay"), parts.fleet.overlay, "overlay"))
    for index, uplink in parts.uplinks.items():
        # Two uplinks may be in one network: each has a routing table of its own.
        for place, interface in enumerate(uplink.address):
            if interface is not None:
                found.append((("uplinks", index, "address", place), interface.network, "uplinks"))
    for index, lan in parts.lans.items():
        for place, address in enumerate(lan.address):
            found.append((("lans", index, "address", place), address.network, ("lans", index)))
    for index, peer in parts.peers.items():
        for place, prefix in enumerate(peer.prefixes):
            path: Path = ("peers", index, "prefixes", place)
            found.append((path, prefix, path))
    for order, (path, network, group) in enumerate(found):
        first = int(network.network_address)
        last = first + (1 << (network.max_prefixlen - network.prefixlen)) - 1
        yield _Claim(network.version, first, network.prefixlen, order, last, path, network, group)


def _overlaps(claims: Iterable[_Claim]) -> Iterator[Finding]:
    """A finding for each claim that shares addresses with an earlier one of another group.

    Prefixes either nest or are disjoint. So one pass over the sorted claims, with a stack of the
    prefixes around the current one, finds all: O(n log n), as a prefix is in at most 128 others.
    """
    around: list[_Claim] = []
    blamed: set[Path] = set()
    for claim in sorted(claims):
        while around and (around[-1].version, around[-1].last) < (claim.version, claim.first):
            around.pop()
        for outer in reversed(around):
            early, late = (outer, claim) if outer.order < claim.order else (claim, outer)
            if outer.group != claim.group and late.path not in blamed:
                blamed.add(late.path)
                message = f"{late.network} overlaps {early.network} of {pointer_of(early.path)}"
                hint = "an address lies in one place: narrow one of the two"
                yield Finding(late.path, message, hint)
        # The same prefix again would only make the stack deep.
        if not around or around[-1].network != claim.network:
            around.append(claim)
