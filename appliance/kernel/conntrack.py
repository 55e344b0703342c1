"""The flows that the kernel tracks (linux/netfilter/nfnetlink_conntrack.h): read, or ended.

Either takes as long as there are flows: it is bounded, and meant for a thread.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from appliance.config.addressing import CLASS_MARK_MASK
from appliance.config.intent import Address
from appliance.kernel.netlink import Netlink, attribute, attributes, message, nested
from appliance.kernel.sysctl import read_sysctl

_NETLINK_NETFILTER = 12
_NEW = 1 << 8 | 0  # IPCTNL_MSG_CT_NEW; without the flag CREATE, of a flow that there is
_GET = 1 << 8 | 1  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_GET
_DELETE = 1 << 8 | 2  # IPCTNL_MSG_CT_DELETE
_MESSAGE = struct.Struct(">BBH")  # nfgenmsg: family, version, resource
_TUPLE_ORIGINAL, _STATUS, _MARK, _COUNTERS_ORIGINAL, _COUNTERS_REPLY, _ID = 1, 3, 8, 9, 10, 12
_MARK_MASK = 21
_TUPLE_IP, _TUPLE_PROTOCOL = 1, 2
_ADDRESSES = ((1, 2), (3, 4))  # source and destination, IPv4 and IPv6
_NUMBER, _SOURCE_PORT, _PORT = 1, 2, 3
_COUNTED_OCTETS = 2
_OFFLOADED = 1 << 14  # IPS_OFFLOAD


class FlowKey(NamedTuple):
    """What tells one flow of TCP or UDP from all others, as its first packet showed it."""

    protocol: int  # by its IANA number
    source: Address
    source_port: int
    destination: Address
    port: int


@dataclass(frozen=True, slots=True)
class TrackedFlow:
    """One flow of a class of ours, as its first packet showed it.

    Octets are counted since the flow began, and None while the kernel does not count.
    """

    ident: int
    protocol: int  # by its IANA number
    source: Address
    destination: Address
    source_port: int | None
    port: int | None
    mark: int
    sent: int | None  # octets the way of the first packet
    received: int | None
    is_offloaded: bool  # takes the fast path

    @property
    def key(self) -> FlowKey:
        ports = self.source_port or 0, self.port or 0
        return FlowKey(self.protocol, self.source, ports[0], self.destination, ports[1])


def flow_table() -> tuple[int, int] | None:
    """How many flows are tracked and how many can be; None where the kernel tracks none."""
    words = [read_sysctl(f"net/netfilter/nf_conntrack_{name}") for name in ("count", "max")]
    numbers = [int(word) for word in words if word is not None and word.isdecimal()]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else None


def read_flows(most: int) -> tuple[tuple[TrackedFlow, ...], bool]:
    """The flows that have a class, and whether these are all. Looks at `most` flows of any kind.

    Raises OSError.
    """
    netlink = Netlink(_NETLINK_NETFILTER)
    found: list[TrackedFlow] = []
    looked_at = 0
    try:
        for part in netlink.dump(_GET, _MESSAGE.pack(socket.AF_UNSPEC, 0, 0)):
            for payload in part[: most - looked_at]:
                found += parse_flow(payload)
            looked_at += len(part)
            if looked_at > most:
                break  # closing the socket ends the listing
    finally:
        netlink.close()
    return tuple(found), looked_at <= most


def end_flows(mark: int, mask: int) -> None:
    """Forget every flow whose mark has these bits: one message, the kernel looks for them.

    A `mask` of 0 would be all flows of the machine and is refused. Raises OSError, ValueError.
    """
    if not mask or mark & ~mask:
        msg = f"mark {mark:#x} with mask {mask:#x}"
        raise ValueError(msg)
    body = _MESSAGE.pack(socket.AF_UNSPEC, 0, 0)
    body += attribute(_MARK, mark.to_bytes(4)) + attribute(_MARK_MASK, mask.to_bytes(4))
    netlink = Netlink(_NETLINK_NETFILTER)
    try:
        for refusal in netlink.send([message(_DELETE, 0, body)]):
            if refusal.errno != errno.ENOENT:
                raise OSError(refusal.errno, os.strerror(refusal.errno))
    finally:
        netlink.close()


class FlowMarks:
    """Marks of single flows. Holds a socket; every method raises OSError when that fails."""

    def __init__(self) -> None:
        self._netlink = Netlink(_NETLINK_NETFILTER)

    def close(self) -> None:
        self._netlink.close()

    def read(self, flow: FlowKey) -> tuple[int, bool] | None:
        """The mark of a flow and whether it takes the fast path; None: not tracked, or not yet."""
        ((payload, code),) = self._netlink.ask([_of(flow, _GET)])
        if code == errno.ENOENT:
            return None
        if code:
            raise OSError(code, os.strerror(code))
        told = attributes(payload, _MESSAGE.size)
        mark, status = (_number(told.get(each, b"")) or 0 for each in (_MARK, _STATUS))
        return mark, bool(status & _OFFLOADED)

    def write(self, flow: FlowKey, mark: int, mask: int) -> None:
        """Give these bits of a flow's mark this value. Of one that has ended meanwhile: nothing."""
        marks = attribute(_MARK, mark.to_bytes(4)) + attribute(_MARK_MASK, mask.to_bytes(4))
        for refusal in self._netlink.send([_of(flow, _NEW, marks)]):
            if refusal.errno != errno.ENOENT:
                raise OSError(refusal.errno, os.strerror(refusal.errno))


def _of(flow: FlowKey, kind: int, more: bytes = b"") -> bytes:
    """A message about one flow."""
    is_v6 = flow.source.version == 6
    source, destination = _ADDRESSES[is_v6]
    original = nested(
        _TUPLE_ORIGINAL,
        nested(
            _TUPLE_IP,
            attribute(source, flow.source.packed),
            attribute(destination, flow.destination.packed),
        ),
        nested(
            _TUPLE_PROTOCOL,
            attribute(_NUMBER, flow.protocol.to_bytes(1)),
            attribute(_SOURCE_PORT, flow.source_port.to_bytes(2)),
            attribute(_PORT, flow.port.to_bytes(2)),
        ),
    )
    family = socket.AF_INET6 if is_v6 else socket.AF_INET
    return message(kind, 0, _MESSAGE.pack(family, 0, 0) + original + more)


def parse_flow(payload: bytes) -> Iterator[TrackedFlow]:
    """The flow of one message, if it has a class and can be understood."""
    told = attributes(payload, _MESSAGE.size)
    mark = _number(told.get(_MARK, b"")) or 0
    original = attributes(told.get(_TUPLE_ORIGINAL, b""))
    addresses = attributes(original.get(_TUPLE_IP, b""))
    transport = attributes(original.get(_TUPLE_PROTOCOL, b""))
    protocol, ident = _number(transport.get(_NUMBER, b"")), _number(told.get(_ID, b""))
    ends = next((e for e in _ADDRESSES if addresses.keys() >= set(e)), None)
    if not mark & CLASS_MARK_MASK or ends is None or protocol is None or ident is None:
        return
    try:
        source, destination = (ip_address(addresses[each]) for each in ends)
    except ValueError:  # an address of a strange length
        return
    yield TrackedFlow(
        ident,
        protocol,
        source,
        destination,
        _number(transport.get(_SOURCE_PORT, b"")),
        _number(transport.get(_PORT, b"")),
        mark,
        _octets(told.get(_COUNTERS_ORIGINAL, b"")),
        _octets(told.get(_COUNTERS_REPLY, b"")),
        bool((_number(told.get(_STATUS, b"")) or 0) & _OFFLOADED),
    )


def _octets(counters: bytes) -> int | None:
    return _number(attributes(counters).get(_COUNTED_OCTETS, b""))


def _number(data: bytes) -> int | None:
    """In network byte order; None where there is nothing."""
    return int.from_bytes(data) if data else None
