"""Reads what dhcpcd told our hook: DHCPv4 leases, router advertisements, DHCPv6 leases. Pure.

It decides what of a server's words is a fact. Every word comes from a stranger on the wire: what is
not an address or a number in its range is not a fact, and text is never kept, run or shown.

Not used yet, on purpose: the interface MTU (the tunnels probe theirs), the captive portal's address
(RFC 8910) and routes other than the default (RFC 3442, RFC 4191), by which a server on the uplink
could draw traffic to itself.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address
from typing import TypeVar

from appliance.config.intent import Address

LARGEST_MESSAGE = 65536  # octets of a hook file
MOST_ENTRIES = 512
MOST_LISTED = 16  # addresses kept of one list, routers kept of one link
INFINITE = 0xFFFFFFFF  # a lifetime without end (RFC 2131 section 3.3, RFC 4861 section 4.6.2)
PROTOCOLS = ("dhcp", "dhcp6", "ra")

# After these there is a lease; after any other reason of dhcpcd-run-hooks(8) there is none.
LEASED = frozenset({"BOUND", "RENEW", "REBIND", "REBOOT", "TIMEOUT"})
LEASED6 = frozenset({"BOUND6", "RENEW6", "REBIND6", "REBOOT6"})

T = TypeVar("T")


class HookError(Exception):
    """A hook file is not what our hook writes, or a server's words are no facts."""


@dataclass(frozen=True, slots=True)
class Message:
    """What dhcpcd said at one event: its reason and its variables, unjudged."""

    reason: str
    uptime_s: float  # when, in seconds since boot
    boot: str  # which boot
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Lease4:
    """An IPv4 lease in force."""

    address: IPv4Interface
    routers: tuple[IPv4Address, ...]
    dns: tuple[IPv4Address, ...]
    mtu: int | None
    ends_s: float | None  # on the clock that the caller counts in; None: never


@dataclass(frozen=True, slots=True)
class Router:
    """A default router that advertises itself, best first by preference (RFC 4191)."""

    address: IPv6Address  # link-local
    preference: int  # 1 high, 0 medium, -1 low
    mtu: int | None
    ends_s: float


@dataclass(frozen=True, slots=True)
class Lease6:
    """A DHCPv6 lease in force: addresses, not prefixes."""

    addresses: tuple[IPv6Address, ...]
    dns: tuple[IPv6Address, ...]
    ends_s: float | None


@dataclass(frozen=True, slots=True)
class LeaseFacts:
    """All that servers and routers on one link have told us and that has not run out."""

    lease4: Lease4 | None = None
    routers: tuple[Router, ...] = ()
    lease6: Lease6 | None = None

    def at(self, now: float) -> "LeaseFacts":
        """The same without what has run out by `now`, whoever should have said so."""
        return LeaseFacts(
            _unless_over(self.lease4, now),
            tuple(r for r in self.routers if r.ends_s > now),
            _unless_over(self.lease6, now),
        )

    @property
    def next_end_s(self) -> float | None:
        """When the next of them runs out; None when none ever does."""
        ends = [each.ends_s for each in (self.lease4, self.lease6, *self.routers) if each]
        return min((end for end in ends if end is not None), default=None)

    @property
    def name_servers(self) -> tuple[Address, ...]:
        """All that leases tell, of both families, but those that only the link itself knows."""
        v4 = self.lease4.dns if self.lease4 else ()
        v6 = self.lease6.dns if self.lease6 else ()
        return (*v4, *(address for address in v6 if not address.is_link_local))

    @property
    def gateways(self) -> tuple[Address, ...]:
        """The first default router of each family."""
        v4 = self.lease4.routers[:1] if self.lease4 else ()
        return (*v4, *(r.address for r in self.routers[:1]))


def parse_message(data: bytes) -> Message:
    """The content of a hook file. Raises HookError."""
    if len(data) > LARGEST_MESSAGE:
        message = f"longer than {LARGEST_MESSAGE} octets"
        raise HookError(message)
    if not data.endswith(b"\0"):
        message = "cut short"
        raise HookError(message)
    entries = data[:-1].decode("ascii", "replace").split("\0")
    if len(entries) > MOST_ENTRIES:
        message = f"more than {MOST_ENTRIES} variables"
        raise HookError(message)
    variables: dict[str, str] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        variables.setdefault(name, value)
    try:
        uptime_s = float(variables["branchline_uptime"])
        boot = variables["branchline_boot"]
        reason = variables["reason"]
    except (KeyError, ValueError) as error:
        message = f"without its head: {error}"
        raise HookError(message) from error
    if not 0 <= uptime_s < 1e12:
        message = f"written at {uptime_s} s after boot"
        raise HookError(message)
    return Message(reason, uptime_s, boot, variables)


def lease4_of(message: Message, read_s: float, uptime_s: float) -> Lease4 | None:
    """The IPv4 lease that the message tells of, or None when it tells that there is none.

    `read_s` is the caller's clock and `uptime_s` the seconds since boot, both now. Raises
    HookError when there is no lease to be made of it; a router or DNS server that cannot be one
    (0.0.0.0 is common) is passed over.
    """
    if message.reason not in LEASED:
        return None
    read = message.variables
    address = _address4(_required(read, "new_ip_address"))
    interface = IPv4Interface((address, _number(_required(read, "new_subnet_cidr"), 1, 32)))
    network = interface.network
    # The kernel refuses these as gateways.
    impossible = {address}
    if network.prefixlen < 31:
        impossible |= {network.network_address, network.broadcast_address}
    routers = _several(read.get("new_routers", ""), _address4)
    seconds = _number(read.get("new_dhcp_lease_time", str(INFINITE)), 1, INFINITE)
    return Lease4(
        interface,
        tuple(router for router in routers if router not in impossible),
        _several(read.get("new_domain_name_servers", ""), _address4),
        _mtu(read.get("new_interface_mtu"), least=68),
        _end(seconds, message, read_s, uptime_s),
    )


def routers_of(message: Message, read_s: float, uptime_s: float) -> tuple[Router, ...]:
    """The default routers that the message tells of, best first. Raises HookError."""
    found = tuple(_routers(message, read_s, uptime_s))
    return tuple(sorted(found, key=lambda router: -router.preference))


def lease6_of(message: Message, read_s: float, uptime_s: float) -> Lease6 | None:
    """The DHCPv6 addresses that the message tells of, or None. Raises HookError."""
    if message.reason not in LEASED6:
        return None
    read = message.variables
    addresses: list[IPv6Address] = []
    longest = 0
    for n in range(1, MOST_LISTED + 1):
        value = read.get(f"new_dhcp6_ia_na1_ia_addr{n}")
        if value is None:
            break
        addresses.append(_address6(value))
        valid = _number(_required(read, f"new_dhcp6_ia_na1_ia_addr{n}_vltime"), 0, INFINITE)
        longest = max(longest, valid)
    if not addresses:
        return None
    return Lease6(
        tuple(addresses),
        _several(read.get("new_dhcp6_name_servers", ""), _address6),
        _end(longest, message, read_s, uptime_s),
    )


def _routers(message: Message, read_s: float, uptime_s: float) -> Iterator[Router]:
    read = message.variables
    for n in range(1, MOST_LISTED + 1):
        source = read.get(f"nd{n}_from")
        if source is None:
            return
        # Not a default router, or no longer one (RFC 4861 section 4.2).
        lifetime = _number(read.get(f"nd{n}_lifetime", "0"), 0, 65535)
        if lifetime == 0:
            continue
        address = _parse(IPv6Address, source)
        if not address.is_link_local:
            message_ = f"a router advertises itself from {address}"
            raise HookError(message_)
        # Both in seconds of one clock of dhcpcd's: how old the advertisement was already.
        acquired = _number(_required(read, f"nd{n}_acquired"), 0, INFINITE)
        heard = _number(_required(read, f"nd{n}_now"), 0, INFINITE)
        flags = read.get(f"nd{n}_flags", "")
        left = lifetime - max(heard - acquired, 0)
        yield Router(
            address,
            1 if "h" in flags else -1 if "l" in flags else 0,
            _mtu(read.get(f"nd{n}_mtu"), least=1280),
            read_s + left - _age_s(message, uptime_s),
        )


def _end(seconds: int, message: Message, read_s: float, uptime_s: float) -> float | None:
    return None if seconds == INFINITE else read_s + seconds - _age_s(message, uptime_s)


def _age_s(message: Message, uptime_s: float) -> float:
    return max(uptime_s - message.uptime_s, 0)


_Ending = TypeVar("_Ending", Lease4, Lease6)


def _unless_over(lease: _Ending | None, now: float) -> _Ending | None:
    return lease if lease and (lease.ends_s is None or lease.ends_s > now) else None


def _required(variables: Mapping[str, str], name: str) -> str:
    try:
        return variables[name]
    except KeyError:
        message = f"{name} is missing"
        raise HookError(message) from None


def _number(text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 10:
        message = f"{text[:20]!r} is no number"
        raise HookError(message)
    value = int(text)
    if not least <= value <= most:
        message = f"{value} is not in {least}..{most}"
        raise HookError(message)
    return value


def _mtu(text: str | None, least: int) -> int | None:
    try:
        return None if text is None else _number(text, least, 65535)
    except HookError:
        return None


def _parse(kind: Callable[[str], T], text: str) -> T:
    try:
        return kind(text)
    except ValueError:
        message = f"{text[:64]!r} is no address"
        raise HookError(message) from None


def _address4(text: str) -> IPv4Address:
    """An address that a computer can have: no network, group or loopback address."""
    address = _parse(IPv4Address, text)
    first = int(address) >> 24
    if first in (0, 127) or first >= 224:
        message = f"{address} is no host's address"
        raise HookError(message)
    return address


def _address6(text: str) -> IPv6Address:
    address = _parse(IPv6Address, text)
    if address.is_unspecified or address.is_loopback or address.is_multicast or address.scope_id:
        message = f"{address} is no host's address"
        raise HookError(message)
    return address


def _several(text: str, kind: Callable[[str], T]) -> tuple[T, ...]:
    found: list[T] = []
    for word in text.split(" ", MOST_LISTED)[:MOST_LISTED]:
        with suppress(HookError):
            found.append(kind(word))
    return tuple(found)
