"""The overlay as kernel objects: plane devices, their peers, and the addresses on them.

Decides how a plane is reached (endpoint, address family, keep-alive), never which plane carries
what: that is steering.
"""

from collections.abc import Mapping
from functools import partial
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, IPv6Network, ip_network
from typing import NamedTuple

from appliance.config.addressing import (
    DEVICE_PREFIX,
    listen_port,
    management_address,
    mirrored,
    plane_device,
    plane_subnet,
    probe_address,
    uplink_mark,
)
from appliance.config.intent import Address, Intent, Interface, Network, Peer, planes
from appliance.contract.ids import Plane, SiteName, Slot
from appliance.core.steering import DEVICE_MTU
from appliance.plan.plan import (
    Device,
    DeviceAddress,
    Item,
    Key,
    Kind,
    Route,
    Sysctl,
    Wireguard,
    WireguardPeer,
)
from appliance.plan.steer import METRIC

MANAGEMENT_DEVICE = f"{DEVICE_PREFIX}mgmt"
MANAGEMENT_MTU = 1500
# Of the peers of a device only one may have these: to all others goes what they are nearer to.
EVERYWHERE: frozenset[Network] = frozenset({ip_network("0.0.0.0/0"), ip_network("::/0")})
# The dummy address of RFC 7600 section 4.3. Loose source validation takes a packet that would be
# answered on another plane only if the device has some IPv4 address; without one it is as good as
# strict, and of a class that has moved at one end only, every packet would be dropped.
DUMMY4 = IPv4Interface("192.0.0.8/32")
KEEPALIVE_S = 25  # the shortest UDP mapping that NATs keep is about 30 s (RFC 4787, REQ-5)
MAIN_TABLE = 254
_TRANSLATED = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
)  # RFC 1918, RFC 6598, RFC 4193: somebody translates these before they reach the internet


class Attachment(NamedTuple):
    """What an uplink has to reach endpoints with. Which gateways they are is no matter here."""

    addresses: tuple[Interface, ...] = ()
    gateway_families: frozenset[int] = frozenset()  # 4, 6


NOT_ATTACHED = Attachment()


def overlay_items(
    intent: Intent,
    attachments: Mapping[Slot, Attachment],
    public_key: str,
    preshared: Mapping[SiteName, str],
    gateway: SiteName | None = None,
) -> dict[Key, Item]:
    """Everything of a plan that makes the planes. The internet comes from the `gateway`."""
    found: dict[Key, Item] = {}
    own = management_address(intent.overlay, intent.site_id)
    found[Key(Kind.DEVICE, (MANAGEMENT_DEVICE,))] = Device("dummy", MANAGEMENT_MTU)
    found.update([address(MANAGEMENT_DEVICE, IPv6Interface((own, 128)))])
    allowed = {p.name: _behind(intent.overlay, p) for p in intent.peers}
    if gateway is not None and gateway in allowed:
        allowed[gateway] |= EVERYWHERE
    for plane in planes(intent):
        found.update(_device(intent, plane, public_key))
        far = partial(_peer, intent, plane, attachments.get(plane.local, NOT_ATTACHED))
        for peer in intent.peers:
            if any(u.slot == plane.remote for u in peer.uplinks):
                item = far(peer, allowed[peer.name], preshared.get(peer.name))
                found[Key(Kind.PEER, (plane_device(plane), peer.public_key))] = item
    return found


def address(device: str, interface: Interface) -> tuple[Key, DeviceAddress]:
    """An address on a device, ready for a plan."""
    return Key(Kind.ADDRESS, (device, str(interface))), DeviceAddress(interface)


def is_unshared(interface: Interface, device: str) -> bool:
    """Is it an IPv6 address that nobody else can have, so that looking for duplicates only delays?

    Until duplicate address detection ends, the kernel refuses the address as a route's source.
    """
    return interface.version == 6 and device.startswith(DEVICE_PREFIX)


def is_dummy(interface: Interface) -> bool:
    """Is it an address that no packet of ours may have as its source? (Scope: this link.)"""
    return interface == DUMMY4


def _device(intent: Intent, plane: Plane, public_key: str) -> dict[Key, Item]:
    name = plane_device(plane)
    port = listen_port(intent.listen_port_base, plane)
    own = probe_address(intent.overlay, plane, intent.site_id)
    subnet = plane_subnet(intent.overlay, mirrored(plane))
    ipv4 = f"net/ipv4/conf/{name}"
    return {
        Key(Kind.DEVICE, (name,)): Device("wireguard", DEVICE_MTU),
        # Loose: what comes in on one plane may be answered on another. It counts as the greater of
        # this and `all`, so it also lifts a strict `all` for this device. See DUMMY4.
        Key(Kind.SYSCTL, (f"{ipv4}/rp_filter",)): Sysctl("2"),
        # Look the way back up in the table of the packet's own class: the default class may be
        # closed toward a site whose other classes are carried.
        Key(Kind.SYSCTL, (f"{ipv4}/src_valid_mark",)): Sysctl("1"),
        Key(Kind.WIREGUARD, (name,)): Wireguard(public_key, port, uplink_mark(plane.local)),
        **dict([address(name, IPv6Interface((own, 128))), address(name, DUMMY4)]),
        Key(Kind.ROUTE, (MAIN_TABLE, str(subnet), METRIC)): Route(device=name),
    }


def _behind(overlay: IPv6Network, peer: Peer) -> frozenset[Network]:
    """What a site may send from on any plane; its probe address comes in plane by plane."""
    return frozenset((_host(management_address(overlay, peer.site_id)), *peer.prefixes))


def _peer(
    intent: Intent,
    plane: Plane,
    attachment: Attachment,
    peer: Peer,
    behind: frozenset[Network],
    preshared: str | None,
) -> WireguardPeer:
    far = mirrored(plane)
    probe = _host(probe_address(intent.overlay, far, peer.site_id))
    endpoints = next(u.endpoints for u in peer.uplinks if u.slot == plane.remote)
    chosen = _endpoint(attachment, endpoints)
    return WireguardPeer(
        endpoint=(chosen, listen_port(intent.listen_port_base, far)) if chosen else None,
        allowed_ips=behind | {probe},
        keepalive_s=KEEPALIVE_S if chosen and _is_translated(attachment.addresses, chosen) else 0,
        preshared=preshared,
    )


def _endpoint(own: Attachment, endpoints: tuple[Address, ...]) -> Address | None:
    """IPv4 when both ends have it, else IPv6 when both have that, else None: the peer calls us.

    To have a family is to have an address and, unless the endpoint is on-link, a gateway of it: a
    modem's management network leads nowhere.

    IPv4 first, because its path MTU is at least that of IPv6 and 20 octets more of it are payload.
    """
    for version in (4, 6):
        networks = [i.network for i in own.addresses if i.version == version]
        if networks:
            has_gateway = version in own.gateway_families
            for endpoint in endpoints:
                if endpoint.version == version and (
                    has_gateway or any(endpoint in network for network in networks)
                ):
                    return endpoint
    return None


def _host(address: IPv6Address) -> IPv6Network:
    """The network of one address, by its number: from an address it would be made from a text."""
    return IPv6Network((int(address), 128))


def _is_translated(own: tuple[Interface, ...], endpoint: Address) -> bool:
    """Does a NAT stand between us and the endpoint, which must be kept open from inside?"""
    return not any(
        i.version == endpoint.version
        and not any(i.version == n.version and i.ip in n for n in _TRANSLATED)
        for i in own
    )
