"""A shaper in which classes or sites have shares of the rate: an HTB class for each.

    b1:ffff  the line's rate
      b1:10    what boxes tell each other (CS6 and CS7 within the overlay), before all others
      b1:1..e  classes with a share, by the index that their mark has
      b1:20..  sites with a share, and lines of sites that carry less than this one
      b1:f     everything else

HTB (tc-htb(8)) gives each class what it is guaranteed and then lends what is left, in proportion
to the quanta. Nobody on a LAN speaks in the overlay's name, so nobody there gets before others by
a DSCP. CAKE without a rate keeps hosts and flows of a class apart, and drops for it. Many sites
have FQ-CoDel in its place (tc-fq_codel(8)), since every CAKE takes its megabyte, used or not.
"""

from collections.abc import Iterator
from ipaddress import ip_network
from typing import NamedTuple

from appliance.config.addressing import CLASS_MARK_MASK, QDISC_HANDLE, class_mark
from appliance.plan.plan import Shaper

ROOT, CONTROL, OTHERS, FIRST_SITE = 0xFFFF, 0x10, 0xF, 0x20  # minor numbers
CONTROL_SHARE = 0.1
LEAST_BPS = 8_000  # HTB knows no rate of nothing
TOS, TOS_MASK = 0xC0, 0xC0  # CS6 and CS7, and what is between
_PACKET = 1514
_QUANTUM = 30_000  # octets of a class that has all of the line
_MOST_QUANTUM = 60_000
BURST_S = 0.001
CONTROL_PRIORITY, MARKS_PRIORITY = 1, 4
_SITE_PROTOCOLS = {4: ("ip", 2), 6: ("ipv6", 3)}  # and priorities, by IP version
FEW_SITES = 32  # each with a CAKE of its own
FQ_CODEL = "fq_codel limit 1000 flows 128"


class Node(NamedTuple):
    """One HTB class. Rates are multiples of 8 bit/s, because the kernel counts octets."""

    minor: int
    parent: int  # its minor number; 0: the qdisc itself
    priority: int
    rate_bps: int
    ceiling_bps: int
    quantum: int
    leaf: str  # its qdisc, as tc is told; "" for a class that has others below it


def nodes(shaper: Shaper) -> tuple[Node, ...]:
    """All classes of a shaper with shares, the root first."""
    whole = shaper.rate_bps
    control = whole_octets(whole * CONTROL_SHARE)
    given = sum(queue.guarantee_bps for queue in shaper.sites if not queue.within)
    given += sum(share.guarantee_bps for share in shaper.shares)
    others = whole_octets(whole - control - given)
    sorting = "cake unlimited diffserv4 nat split-gso"
    return (
        Node(ROOT, 0, 0, whole, whole, _PACKET, ""),
        Node(
            CONTROL,
            ROOT,
            0,
            control,
            whole,
            _quantum(control, whole),
            "cake unlimited besteffort split-gso",
        ),
        *(
            Node(
                share.class_index,
                ROOT,
                1,
                whole_octets(share.guarantee_bps),
                max(whole_octets(share.guarantee_bps), whole_octets(share.ceiling_bps)),
                _quantum(share.guarantee_bps, whole),
                sorting,
            )
            for share in shaper.shares
        ),
        Node(OTHERS, ROOT, 1, others, whole, _quantum(others, whole), sorting),
        *_sites(shaper, sorting if len(shaper.sites) <= FEW_SITES else FQ_CODEL),
    )


def _sites(shaper: Shaper, leaf: str) -> Iterator[Node]:
    for position, queue in enumerate(shaper.sites):
        yield Node(
            FIRST_SITE + position,
            FIRST_SITE + queue.within - 1 if queue.within else ROOT,
            1,
            whole_octets(queue.guarantee_bps),
            max(whole_octets(queue.guarantee_bps), whole_octets(queue.ceiling_bps)),
            _quantum(queue.guarantee_bps, shaper.rate_bps),
            leaf if queue.networks else "",
        )


class SiteFilter(NamedTuple):
    """Leads packets to, or from, a network into the queue of its site (tc-flower(8))."""

    protocol: str
    version: int  # of IP
    priority: int
    device: str  # from which they come; "": from any
    side: str
    network: str
    minor: int


def site_filters(shaper: Shaper) -> Iterator[SiteFilter]:
    """All of them, in the order of the queues."""
    for position, queue in enumerate(shaper.sites):
        side = "src_ip" if queue.is_received else "dst_ip"
        for network in queue.networks:
            version = ip_network(network).version
            protocol, priority = _SITE_PROTOCOLS[version]
            minor = FIRST_SITE + position
            yield SiteFilter(protocol, version, priority, queue.device, side, network, minor)


def whole_octets(bps: float) -> int:
    """A rate as HTB can have it, in bit/s."""
    return max(LEAST_BPS, round(bps) // 8 * 8)


def _quantum(rate_bps: int, whole_bps: int) -> int:
    """In proportion to the rate, a packet at least."""
    return min(_MOST_QUANTUM, max(_PACKET, round(_QUANTUM * rate_bps / whole_bps)))


def burst(rate_bps: int) -> int:
    """Octets that may leave at once: two packets, or what a millisecond brings."""
    return max(2 * _PACKET, round(rate_bps / 8 * BURST_S))


def render_hierarchy(device: str, shaper: Shaper) -> Iterator[str]:
    """The commands that make it on a device that has no qdisc of that handle."""
    major = f"{QDISC_HANDLE:x}"
    yield f"tc qdisc replace dev {device} root handle {major}: htb default {OTHERS:x}"
    for node in nodes(shaper):
        yield _class("add", device, node, shaper.overhead)
        if node.leaf:
            handle = leaf_handle(node.minor)
            parent = f"parent {major}:{node.minor:x} handle {handle:x}:"
            yield f"tc qdisc add dev {device} {parent} {node.leaf}"
    yield (
        f"tc filter add dev {device} parent {major}: protocol ipv6 pref {CONTROL_PRIORITY} flower "
        f"src_ip {shaper.overlay} ip_tos {TOS:#x}/{TOS_MASK:#x} classid {major}:{CONTROL:x}"
    )
    for each in site_filters(shaper):
        indev = f"indev {each.device} " if each.device else ""
        yield (
            f"tc filter add dev {device} parent {major}: "
            f"protocol {each.protocol} pref {each.priority} "
            f"flower {indev}{each.side} {each.network} classid {major}:{each.minor:x}"
        )
    for share in shaper.shares:
        mark = f"{class_mark(share.class_index):#x}/{CLASS_MARK_MASK:#x}"
        yield (
            f"tc filter add dev {device} parent {major}: protocol all pref {MARKS_PRIORITY} "
            f"handle {mark} fw classid {major}:{share.class_index:x}"
        )


def render_rates(device: str, shaper: Shaper) -> Iterator[str]:
    """The commands that change the rates of all its classes, and nothing else."""
    for node in nodes(shaper):
        yield _class("change", device, node, shaper.overhead)


def _class(verb: str, device: str, node: Node, overhead: int) -> str:
    parent = f"{QDISC_HANDLE:x}:{node.parent:x}" if node.parent else f"{QDISC_HANDLE:x}:"
    return (
        f"tc class {verb} dev {device} parent {parent} classid {QDISC_HANDLE:x}:{node.minor:x} "
        f"htb prio {node.priority} rate {node.rate_bps}bit ceil {node.ceiling_bps}bit "
        f"burst {burst(node.rate_bps)} cburst {burst(node.ceiling_bps)} overhead {overhead} "
        f"quantum {node.quantum}"
    )


def leaf_handle(minor: int) -> int:
    """Major number of the qdisc below a class, in 16 bits: room for 40,000 queues of sites."""
    return QDISC_HANDLE << 8 | minor if minor < FIRST_SITE else 0x1000 + minor
