"""The numbers that follow from identities: addresses, ports, marks, table ids, device names.

They are arithmetic, never remembered, so that two boxes and a restart agree without talking.

Overlay addresses, inside the fleet's /48 of unique local addresses (RFC 4193):

    <fleet /48> : <16 bits: local slot * 16 + remote slot> :: <site id>   a probe address
    <fleet /48> : ffff                                     :: <site id>   the management address

Seen from plane (l, r) every far end is in the subnet of the mirrored plane (r, l), so one route
per plane reaches all sites.

Marks live in 0xff000000: the class in the upper four bits, the uplink slot in the lower four.
"""

from collections.abc import Sequence
from hashlib import sha256
from ipaddress import IPv6Address, IPv6Network

from appliance.contract.ids import Plane, SiteId, Slot

# What is ours in the kernel bears one of these; what does not is never touched.
ROUTE_PROTOCOL = 177  # of routes, nexthops, rules and addresses; free in iproute2's rt_protos
DEVICE_PREFIX = "bl-"
NFT_TABLE = "branchline"
LOG_GROUP = 177  # of nfnetlink_log, for packets that may tell a server's name
HELLOS = "hellos"  # what the names begin with of what bounds these packets
LEARNED = "names_"  # what the names of sets begin with that the name server fills
CLASS_MARK_MASK = 0xF0000000
UPLINK_MARK_MASK = 0x0F000000
TABLE_BASE = 0xB1000000  # route table ids TABLE_BASE .. TABLE_BASE + 0xffff
RULE_PRIORITY_FIRST = 20000
QDISC_HANDLE = 0xB1  # major number of qdiscs
FILTER_PRIORITY_FIRST = 45312  # of tc filters
FILTER_PRIORITY_LAST = 45567
ONCE_PRIORITY = FILTER_PRIORITY_FIRST  # on ingress of planes, before what makes packets wait
COPY_PRIORITIES = FILTER_PRIORITY_FIRST, FILTER_PRIORITY_FIRST + 1  # on egress: of a site, of all
BOND_PRIORITY = FILTER_PRIORITY_FIRST + 2  # on egress of planes
NEXTHOP_ID_BASE = 0x0B000000  # nexthop ids NEXTHOP_ID_BASE .. 0x0bffffff and groups 0x4......

MANAGEMENT_SUBNET = 0xFFFF


def mirrored(plane: Plane) -> Plane:
    """The same plane as its far end sees it."""
    return Plane(plane.remote, plane.local)


def plane_device(plane: Plane) -> str:
    """Name of the plane's WireGuard device, at most 8 of the 15 octets that a name may have."""
    return f"{DEVICE_PREFIX}{plane.local}-{plane.remote}"


def shaper_device(slot: Slot, direction: str) -> str:
    """Name of the device in which packets of an uplink wait; `direction` is "up" or "down"."""
    return f"{DEVICE_PREFIX}{direction}{slot}"


def plane_subnet(overlay: IPv6Network, plane: Plane) -> IPv6Network:
    """The /64 in which every site has its own address for this plane."""
    return _subnet(overlay, plane.local * 16 + plane.remote)


def probe_address(overlay: IPv6Network, plane: Plane, site: SiteId) -> IPv6Address:
    """The address of a site on its own end of a plane."""
    return plane_subnet(overlay, plane)[site]


def management_address(overlay: IPv6Network, site: SiteId) -> IPv6Address:
    """The address of a site that does not depend on any path."""
    return _subnet(overlay, MANAGEMENT_SUBNET)[site]


def listen_port(base: int, plane: Plane) -> int:
    """UDP port of our end of the plane; the far end's is `listen_port(base, mirrored(plane))`."""
    return base + 16 * plane.local + plane.remote


def listen_ports(base: int) -> range:
    """All ports on which tunnels may listen: those of the planes 1-1 to 15-15."""
    return range(base + 17, base + 256)


def uplink_mark(slot: Slot) -> int:
    """Firewall mark of an encrypted packet that must leave by this uplink."""
    return slot << 24


def class_mark(index: int) -> int:
    """Firewall mark of a packet of the class with this index."""
    return index << 28


def learned_set(domains: Sequence[str]) -> str:
    """Of the sets that hold the addresses of these domains: what their names begin with.

    The same domains have the same sets in any configuration, so what was learned stays true.
    """
    return f"{LEARNED}{sha256(' '.join(domains).encode()).hexdigest()[:8]}"


def learned_sets(domains: Sequence[str], version: int) -> tuple[str, str]:
    """The two sets of one address family (4 or 6), which are emptied by turns."""
    base = learned_set(domains)
    return f"{base}_{version}a", f"{base}_{version}b"


def uplink_table(slot: Slot) -> int:
    """Route table through which only this uplink is reached."""
    return TABLE_BASE + slot


def class_table(index: int) -> int:
    """Route table of a class: one route per site prefix."""
    return TABLE_BASE + 0x100 + index


def internet_table(index: int) -> int:
    """Route table of a class for all that no other table knows: its way to the internet."""
    return TABLE_BASE + 0x300 + index


BACKSTOP_TABLE = TABLE_BASE + 0x200  # `unreachable` for every prefix of every site: fail closed


def plane_nexthop(plane: Plane, family: int) -> int:
    """Id of the nexthop object of a plane, or of an uplink's way out (`exit_plane`).

    `family` is 4 or 6: the kernel keeps them apart.
    """
    return NEXTHOP_ID_BASE + (plane.local * 16 + plane.remote) * 2 + (family == 6)


def group_nexthop(class_index: int, site: SiteId, family: int) -> int:
    """Id of the weighted nexthop group of a class in mode `share` toward a site.

    No site has the number 0, which stands for the internet here.
    """
    return 0x40000000 | class_index << 24 | site << 1 | (family == 6)


def _subnet(overlay: IPv6Network, number: int) -> IPv6Network:
    return IPv6Network((int(overlay.network_address) | number << 64, 64))
