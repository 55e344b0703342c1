"""Planes made by hand with `ip` and `wg`, as a person without the product would make them.

What the product is compared with: plain WireGuard devices with plain routes, one per pair of
uplinks, named and numbered like the product's.
"""

import itertools
from collections.abc import Sequence

from lab.topology import Site

PORT_BASE = 51820
TABLE_BASE = 1000


def device(local: int, remote: int) -> str:
    return f"bl-{local}-{remote}"


def connect(a: Site, b: Site) -> None:
    """Join two sites by one WireGuard device per pair of their uplinks, without routes to LANs."""
    keys = {site.name: site.run(["wg", "genkey"]).strip() for site in (a, b)}
    for site, far in ((a, b), (b, a)):
        _attach(site)
        public = site.run(["wg", "pubkey"], stdin=keys[far.name]).strip()
        for local, remote in itertools.product(range(1, len(site.uplinks) + 1), repeat=2):
            _plane(site, far, (local, remote), keys[site.name], public)


def route(site: Site, far: Site, plane: tuple[int, int]) -> None:
    """Send what goes to the far site's LANs by one plane, by a nexthop object."""
    lans = far.lans.values()
    site.ip(
        f"nexthop add id 4 dev {device(*plane)}",
        *(f"route add {lan.address4.network} nhid 4" for lan in lans),
        f"-6 nexthop add id 6 dev {device(*plane)}",
        *(f"-6 route add {lan.address6.network} nhid 6" for lan in lans),
    )


def _attach(site: Site) -> None:
    """Addresses and, per uplink, a table that only the encrypted packets of its planes use."""
    site.sysctl(
        net__ipv4__ip_forward=1,
        net__ipv6__conf__all__forwarding=1,
        net__ipv4__conf__all__rp_filter=0,
        net__ipv4__conf__default__rp_filter=0,
    )
    commands: list[str] = []
    for lan in site.lans.values():
        commands += _up(lan.device, [lan.address4, lan.address6])
    for slot, uplink in enumerate(site.uplinks.values(), start=1):
        facts, table = uplink.facts, TABLE_BASE + slot
        commands += _up(uplink.device, [facts.address4, facts.address6])
        commands += [
            f"route add default via {facts.gateway4.ip} dev {uplink.device} table {table}",
            f"rule add fwmark {slot << 24:#x} table {table} pref {table}",
        ]
    site.ip(*commands)


def _up(name: str, addresses: Sequence[object]) -> list[str]:
    return [
        f"link set {name} up",
        *(f"addr add {address} dev {name} nodad" for address in addresses if ":" in str(address)),
        *(f"addr add {address} dev {name}" for address in addresses if ":" not in str(address)),
    ]


def _plane(site: Site, far: Site, plane: tuple[int, int], private: str, public: str) -> None:
    local, remote = plane
    name = device(local, remote)
    address = list(far.uplinks.values())[remote - 1].facts.address4.ip
    port, far_port = (PORT_BASE + 16 * x + y for x, y in (plane, (remote, local)))
    site.ip(f"link add {name} type wireguard", f"link set {name} mtu 1420")
    site.run(
        ["wg", "setconf", name, "/proc/self/fd/0"],
        stdin=(
            f"[Interface]\nPrivateKey = {private}\nListenPort = {port}\nFwMark = {local << 24}\n"
            f"[Peer]\nPublicKey = {public}\nEndpoint = {address}:{far_port}\n"
            "AllowedIPs = 0.0.0.0/0, ::/0\n"
        ),
    )
    site.ip(f"link set {name} up")
