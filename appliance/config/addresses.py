"""The grammars of addresses, prefixes and probe targets: a text -> a typed value, or Malformed."""

import re
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)

from appliance.config.errors import Malformed
from appliance.config.intent import Address, Interface, Network, Target, TargetKind
from appliance.config.scalars import as_text

HOST_PATTERN = r"^([A-Za-z0-9_-]{1,63}\.)*[A-Za-z0-9_-]{1,63}$"
TARGET_PATTERN = (
    r"^(icmp [0-9A-Fa-f.:]+|dns [0-9A-Fa-f.:]+ [A-Za-z0-9_.-]+|tcp [0-9A-Fa-f.:]+ [0-9]+)$"
)
DHCP = "dhcp"

_HOST = re.compile(HOST_PATTERN)
_PORT = re.compile(r"[0-9]{1,5}")
_LENGTH = re.compile(r"[0-9]{1,3}")
_LOCAL = IPv6Network("fd00::/8")  # RFC 4193: locally assigned


def parse_address(value: object) -> Address:
    """The address of one host, without a prefix length and without a scope."""
    text = as_text(value)
    try:
        address = _address(text)
    except ValueError:
        hint = "an IPv4 or IPv6 address without prefix length; names are not looked up"
        raise Malformed(text, "is no address", hint) from None
    _refuse_special(address)
    return address


def parse_endpoint(value: object) -> Address:
    """An address at which another site can be reached over the internet."""
    address = parse_address(value)
    if address.is_link_local:
        raise Malformed(address, "is link-local", "give an address that this box can route to")
    return address


def parse_interface(value: object) -> Interface:
    """An address of an interface, with the prefix length of its network."""
    text = as_text(value)
    try:
        address, length = _with_length(text)
        interface = _interface(address, length)
    except ValueError:
        hint = "an address and its prefix length, as in 192.0.2.1/24 or 2001:db8::1/64"
        raise Malformed(text, "is no address of an interface", hint) from None
    _refuse_special(interface.ip)
    if interface.ip.is_link_local and interface.version == 6:
        raise Malformed(interface, "is link-local", "leave it out: the kernel makes it itself")
    _refuse_ends(interface)
    return interface


def parse_uplink_address(value: object) -> Interface | None:
    """An address of an uplink; None stands for `dhcp`."""
    if value == DHCP:
        return None
    try:
        return parse_interface(value)
    except Malformed as error:
        error.hint = f"{error.hint}; or the word dhcp"
        raise


def parse_network(value: object) -> Network:
    """A prefix behind a site, without host bits."""
    text = as_text(value)
    try:
        address, length = _with_length(text)
        network = _network(address, length)
    except ValueError:
        hint = "an address and its prefix length, as in 192.0.2.0/24 or 2001:db8::/48"
        raise Malformed(text, "is no prefix", hint) from None
    if network.network_address != address:
        raise Malformed(text, "has host bits set", f"did you mean {network}?")
    return network


def parse_site_prefix(value: object) -> Network:
    """A prefix that lies behind another site."""
    network = parse_network(value)
    if network.prefixlen == 0:
        raise Malformed(network, "is the default route", "list the prefixes behind the site")
    if network.is_multicast or network.is_loopback or network.is_link_local:
        raise Malformed(network, "cannot lie behind a site", "give a prefix that can be routed")
    return network


def parse_overlay(value: object) -> IPv6Network:
    """A fleet's /48 of unique local addresses, RFC 4193."""
    text = as_text(value)
    try:
        network = IPv6Network(text)
    except ValueError:
        network = None
    if network is None or network.prefixlen != 48 or not network.subnet_of(_LOCAL):
        hint = "a /48 in fd00::/8 with 40 random bits, as in fd12:3456:789a::/48"
        raise Malformed(text, "is no /48 of unique local addresses", hint)
    return network


def parse_target(value: object) -> Target:
    """`icmp ADDRESS`, `dns ADDRESS NAME` or `tcp ADDRESS PORT`, separated by single spaces."""
    text = as_text(value)
    kind, *rest = text.split(" ")
    match kind, rest:
        case TargetKind.ICMP, [address]:
            return Target(TargetKind.ICMP, parse_endpoint(address))
        case TargetKind.DNS, [address, name]:
            if len(name) > 253 or not _HOST.fullmatch(name):
                raise Malformed(name, "is no name to ask for", "as in example.net")
            return Target(TargetKind.DNS, parse_endpoint(address), 53, name)
        case TargetKind.TCP, [address, port]:
            if not _PORT.fullmatch(port) or not 1 <= int(port) <= 65535:
                raise Malformed(port, "is no port", "from 1 to 65535")
            return Target(TargetKind.TCP, parse_endpoint(address), int(port))
        case _:
            hint = "`icmp ADDRESS`, `dns ADDRESS NAME` or `tcp ADDRESS PORT`"
            raise Malformed(text, "is no target", hint)


def _address(text: str) -> Address:
    if "%" in text:
        raise ValueError(text)
    return IPv6Address(text) if ":" in text else IPv4Address(text)


def _with_length(text: str) -> tuple[Address, int]:
    """The parts of `ADDRESS/LENGTH`; a netmask in place of the length is refused."""
    address, _, length = text.partition("/")
    if not _LENGTH.fullmatch(length):
        raise ValueError(text)
    return _address(address), int(length)


def _interface(address: Address, length: int) -> Interface:
    parts = (int(address), length)
    return IPv4Interface(parts) if address.version == 4 else IPv6Interface(parts)


def _network(address: Address, length: int) -> Network:
    parts = (int(address), length)
    return IPv4Network(parts, False) if address.version == 4 else IPv6Network(parts, False)


def _refuse_special(address: Address) -> None:
    """Refuse what can never be the address of one host elsewhere (RFC 6890, RFC 4291)."""
    number = int(address)
    if isinstance(address, IPv4Address):
        first = number >> 24  # "this network", loopback, multicast, class E and broadcast
        special = first in (0, 127) or first >= 224
    else:
        special = number <= 1 or number >> 120 == 0xFF  # unspecified, loopback, multicast
        if number >> 32 == 0xFFFF:
            raise Malformed(address, "is IPv4 in disguise", f"write {address.ipv4_mapped}")
    if special:
        raise Malformed(address, "is not the address of one host")


def _refuse_ends(interface: Interface) -> None:
    """Refuse the network's own address and the broadcast address, where there are such."""
    network = interface.network
    if network.max_prefixlen - network.prefixlen < 2:  # RFC 3021, RFC 6164: both ends are hosts
        return
    if interface.ip == network.network_address:
        raise Malformed(
            interface, "is the network itself", f"as in {network[1]}/{network.prefixlen}"
        )
    if isinstance(network, IPv4Network) and interface.ip == network.broadcast_address:
        raise Malformed(interface, f"is the broadcast address of {network}")
