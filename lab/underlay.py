"""The underlay: one internet router, and per uplink a line from it to a site.

    site: wan0 --- [provider router: only behind NAT or an MTU limit] --- u<n> :internet

Everything that impairs a line stands outside of the site's namespace, because that one belongs to
the product: its own queues and its drift detection must not meet the lab's objects.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network
from typing import Literal

from lab.line import Direction, Line
from lab.machine import Daemon, Machine

Addressing = Literal["static", "dhcp"]

_FILTER_ICMP = """
table inet lab_pmtu {
  chain out {
    type filter hook output priority 0
    icmp type destination-unreachable icmp code frag-needed drop
    icmpv6 type packet-too-big drop
  }
}
"""


def _uplink_networks() -> Iterator[IPv4Network]:
    blocks = ("198.51.100.0/24", "203.0.113.0/24", "198.18.0.0/15")  # RFC 5737, RFC 2544
    return itertools.chain.from_iterable(IPv4Network(b).subnets(new_prefix=28) for b in blocks)


@dataclass(frozen=True, slots=True)
class Attachment:
    """The addresses of an uplink, as its provider would write them on paper.

    For an uplink with addressing "dhcp" they are what the provider's server hands out first.
    """

    address4: IPv4Interface
    gateway4: IPv4Interface
    address6: IPv6Interface
    gateway6: IPv6Interface


class Internet(Machine):
    """The router in the middle, to which all uplinks and internet hosts are attached."""

    def __init__(self) -> None:
        super().__init__("internet")
        self.numbers = itertools.count(1)
        self._networks = enumerate(_uplink_networks(), start=1)
        make_router(self)

    def next_attachment(self) -> Attachment:
        """Addresses that no uplink has had yet."""
        number, network4 = next(self._networks)
        return attachment(network4, IPv6Network(f"2001:db8:{number:x}::/64"))


def make_router(machine: Machine) -> None:
    machine.sysctl(
        net__ipv4__ip_forward=1,
        net__ipv6__conf__all__forwarding=1,
        net__ipv6__conf__all__keep_addr_on_down=1,
        net__ipv6__conf__default__keep_addr_on_down=1,
        net__ipv6__conf__default__accept_dad=0,
        net__ipv4__conf__all__rp_filter=0,
        net__ipv4__conf__default__rp_filter=0,
    )


def attachment(network4: IPv4Network, network6: IPv6Network) -> Attachment:
    """Gateway is the first address of each network, the site the second."""
    return Attachment(
        address4=IPv4Interface((network4[2], network4.prefixlen)),
        gateway4=IPv4Interface((network4[1], network4.prefixlen)),
        address6=IPv6Interface((network6[2], network6.prefixlen)),
        gateway6=IPv6Interface((network6[1], network6.prefixlen)),
    )


class Uplink:
    """A WAN attachment of a site. Create through `Site.uplink`.

    `down` is the direction towards the site, `up` the one from it: each has its own properties
    and its own cut.
    """

    def __init__(
        self,
        site: Machine,
        internet: Internet,
        name: str,
        device: str,
        *,
        addressing: Addressing,
        nat: bool,
        mtu: int | None,
        icmp_filtered: bool,
        seed: int,
    ) -> None:
        self.site = site
        self.name = name
        self.device = device
        self.addressing = addressing
        self.is_natted = nat
        self._internet = internet
        self._number = next(internet.numbers)
        self._mtu = mtu
        self.core_device = f"u{self._number}"  # on the internet router
        self.public = internet.next_attachment()  # as the internet sees the uplink
        self.facts = self.public  # as the site sees it
        if nat:
            inside = IPv4Network(f"100.64.{self._number}.0/24")  # RFC 6598
            network6 = self.public.address6.network
            self.facts = attachment(inside, network6)
        self.provider: Machine | None = None
        if nat or mtu is not None:
            self.provider = Machine(f"{site.name}-{name}-isp")
            make_router(self.provider)
        self._peer, self._peer_device = (
            (self.provider, "customer") if self.provider else (internet, self.core_device)
        )
        self._server: Daemon | None = None
        self.down = Direction(internet, self.core_device, ifb=None, seed=seed)
        self.up = Direction(internet, self.core_device, ifb=f"i{self._number}", seed=seed)
        self._connect_core(icmp_filtered=icmp_filtered)
        self.create_device()

    # -- what a story does to it ---------------------------------------------------------------

    def impair(self, *, down: Line | None = None, up: Line | None = None) -> None:
        """Set all properties of one or both directions."""
        if down is not None:
            self.down.set(down)
        if up is not None:
            self.up.set(up)

    def cut(self) -> None:
        """Drop everything in both directions, silently. The carrier stays."""
        self.up.prepare()  # or the answers would be missed long before the packets are
        self.down.cut()
        self.up.cut()

    def heal(self) -> None:
        self.down.heal()
        self.up.heal()

    def unplug(self) -> None:
        """Carrier loss at the site's device."""
        self._peer.ip(f"link set {self._peer_device} down")

    def plug_in(self) -> None:
        """The carrier returns, with everything as it was."""
        self._peer.ip(f"link set {self._peer_device} up")

    def delete_device(self) -> None:
        """The site's device disappears altogether, like a USB modem that is pulled out."""
        self._stop_server()
        self._peer.ip(f"link del {self._peer_device}")

    def create_device(self) -> None:
        """The site's device (again, with a new index), attached to the provider."""
        tail = f"{self._number >> 8:02x}:{self._number & 255:02x}"
        self._peer.ip(
            f"link add {self._peer_device} address 02:00:00:01:{tail} type veth "
            f"peer name {self.device} address 02:00:00:02:{tail} netns {self.site.name}",
            f"link set {self._peer_device} up",
            f"addr add {self.facts.gateway4} dev {self._peer_device}",
            f"addr add {self.facts.gateway6} dev {self._peer_device} nodad",
        )
        if self.addressing == "dhcp":
            self._start_server()
        if self.provider is None:
            self.down.reinstall()
            self.up.reinstall()

    def renumber(self) -> None:
        """The provider hands out other addresses from now on (DHCP); the old ones stop working."""
        old, new = self.facts, self._internet.next_attachment()
        self._stop_server()
        self.facts = new
        if self.provider is None:
            self.public = new
        self._peer.ip(
            f"addr del {old.gateway4} dev {self._peer_device}",
            f"addr del {old.gateway6} dev {self._peer_device}",
            f"addr add {new.gateway4} dev {self._peer_device}",
            f"addr add {new.gateway6} dev {self._peer_device} nodad",
        )
        if self.addressing == "dhcp":
            self._start_server()

    def set_mtu(self, mtu: int) -> None:
        """Change the MTU inside the provider's network (uplinks created with `mtu` only)."""
        if self.provider is None:
            message = f"{self.name}: create the uplink with mtu=1500 to change its MTU later"
            raise ValueError(message)
        self.provider.ip(f"link set core mtu {mtu}")
        self._internet.ip(f"link set {self.core_device} mtu {mtu}")

    # -- building ------------------------------------------------------------------------------

    def _connect_core(self, *, icmp_filtered: bool) -> None:
        """The line between the internet and a provider router of its own."""
        if self.provider is None:
            return
        n = self._number
        self._internet.ip(
            f"link add {self.core_device} type veth peer name core netns {self.provider.name}",
            f"addr add fe80::1/64 dev {self.core_device} nodad",
            f"link set {self.core_device} up mtu {self._mtu or 1500}",
        )
        self.provider.ip(
            "addr add fe80::2/64 dev core nodad",
            f"link set core up mtu {self._mtu or 1500}",
            "-6 route add default via fe80::1 dev core",
        )
        route6 = f"-6 route add {self.facts.gateway6.network} via fe80::2 dev {self.core_device}"
        if self.is_natted:
            self.provider.ip(
                f"addr add {self.public.address4} dev core",
                f"route add default via {self.public.gateway4.ip}",
            )
            self._internet.ip(f"addr add {self.public.gateway4} dev {self.core_device}", route6)
            self.provider.nft(
                "table ip lab_nat { chain post { type nat hook postrouting priority srcnat;"
                'oifname "core" masquerade; }; }'
            )
        else:
            inner = IPv4Network(f"10.255.{n}.0/30")
            self.provider.ip(
                f"addr add {inner[2]}/30 dev core", f"route add default via {inner[1]}"
            )
            self._internet.ip(
                f"addr add {inner[1]}/30 dev {self.core_device}",
                f"route add {self.facts.gateway4.network} via {inner[2]}",
                route6,
            )
        if icmp_filtered:
            self.provider.nft(_FILTER_ICMP)
            self._internet.nft(_FILTER_ICMP)

    def _start_server(self) -> None:
        """DHCPv4, router advertisements and DHCPv6 of the provider."""
        network4, network6 = self.facts.address4.network, self.facts.address6.network
        self._server = self._peer.background(
            [
                "dnsmasq",
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--pid-file=",
                "--user=root",
                "--port=0",
                "--bind-dynamic",
                f"--interface={self._peer_device}",
                "--leasefile-ro",
                "--log-facility=-",
                "--no-ping",
                "--enable-ra",
                f"--ra-param={self._peer_device},4,1800",
                f"--dhcp-range={network4[2]},{network4[-2]},{network4.netmask},1h",
                f"--dhcp-option=option:router,{self.facts.gateway4.ip}",
                "--dhcp-option=option:dns-server,192.0.2.53",
                f"--dhcp-range={network6[2]},{network6[0xFF]},64,1h",
            ],
            name=f"dnsmasq-{self._peer_device}",
        )

    def _stop_server(self) -> None:
        if self._server is not None:
            self._server.stop()
            self._server = None
