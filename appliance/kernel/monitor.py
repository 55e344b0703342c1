"""Notices of the kernel about what changed, whoever changed it, except ourselves.

A notice says where to look, not what to believe: the supervisor reads the facts or observes anew.
The one exception is the carrier of a link, which must not wait. When notices were lost because we
read too slowly, `Resync` says so, and everything is to be read again.
"""

import asyncio
import contextlib
import errno
import socket
import struct
from collections.abc import Collection
from dataclasses import dataclass

from appliance.config.addressing import DEVICE_PREFIX, ROUTE_PROTOCOL
from appliance.kernel import bpf, listing
from appliance.kernel import rtnetlink as rt
from appliance.kernel.facts import has_carrier
from appliance.kernel.netlink import attributes, messages
from appliance.plan.plan import Kind

_SOL_NETLINK, _ADD_MEMBERSHIP, _SO_RCVBUFFORCE = 270, 1, 33
# Links, addresses, routes and rules of both families, nexthops (linux/rtnetlink.h, RTNLGRP_*).
_GROUPS = (1, 5, 7, 8, 9, 11, 19, 32)
_BUFFER = 8 << 20
_READ = 1 << 16
_MOST_AT_ONCE = 64  # datagrams


@dataclass(frozen=True, slots=True)
class LinkChanged:
    """A device appeared, changed or went."""

    name: str
    exists: bool
    is_up: bool
    has_carrier: bool
    mtu: int
    ifindex: int = 0


@dataclass(frozen=True, slots=True)
class AddressesChanged:
    """Addresses of the device with this index changed."""

    ifindex: int


@dataclass(frozen=True, slots=True)
class ObjectsChanged:
    """Somebody else changed something of this kind that bears our mark: observe."""

    kind: Kind


@dataclass(frozen=True, slots=True)
class Resync:
    """Notices were lost: read everything anew."""


Notice = LinkChanged | AddressesChanged | ObjectsChanged | Resync


class Monitor:
    """Listens from the moment it is made. `ours` are the ports of our own sockets."""

    def __init__(self, ours: Collection[int] = (), buffer: int = _BUFFER) -> None:
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        with contextlib.suppress(PermissionError):  # listening needs no privilege, only this does
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, buffer)
        if ours:
            bpf.attach(self._socket, _ignore(ours))
        self._socket.bind((0, 0))
        for group in _GROUPS:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def close(self) -> None:
        self._socket.close()

    async def read(self) -> tuple[Notice, ...]:
        """Wait for notices and return those that are there, each once, in order.

        Not all at once: somebody may add a hundred thousand routes, and others have their turn.
        """
        found: dict[Notice, None] = {}
        while not found:
            await asyncio.sleep(0)
            _add(await self._wait(), found)
            for _ in range(_MOST_AT_ONCE):
                if (data := self._read_now()) is None:
                    break
                _add(data, found)
        return tuple(found)

    async def _wait(self) -> bytes:
        loop = asyncio.get_running_loop()
        try:
            return await loop.sock_recv(self._socket, _READ)
        except OSError as error:
            return _lost(error)

    def _read_now(self) -> bytes | None:
        try:
            return self._socket.recv(_READ)
        except BlockingIOError:
            return None
        except OSError as error:
            return _lost(error)


def _ignore(ports: Collection[int]) -> list[bytes]:
    """A program that drops notices of changes made through these ports.

    In the kernel, because a hub's own moves are thousands of notices. Links are let through: a
    device that we set up is news to those who wait for its carrier.
    """
    count = len(ports)
    # The program reads big-endian, netlink writes in the machine's own order.
    kinds = [_swapped("H", kind) for kind in (rt.NEWLINK, rt.DELLINK)]
    program = [bpf.load_16(4)]
    program += [bpf.is_equal(kind, count + 2 - place, 0) for place, kind in enumerate(kinds)]
    program.append(bpf.load_32(12))
    program += [
        bpf.is_equal(_swapped("I", port), count - place, 0) for place, port in enumerate(ports)
    ]
    return [*program, bpf.KEEP, bpf.DROP]


def _swapped(layout: str, value: int) -> int:
    swapped: int = struct.unpack(f">{layout}", struct.pack(f"={layout}", value))[0]
    return swapped


def _lost(error: OSError) -> bytes:
    """An overrun reads as nothing; anything else is a failure."""
    if error.errno != errno.ENOBUFS:
        raise error
    return b""


def _add(data: bytes, found: dict[Notice, None]) -> None:
    if not data:
        found[Resync()] = None
    for kind, _, _, payload in messages(data):
        if (notice := _notice(kind, payload)) is not None:
            found[notice] = None


def _notice(kind: int, payload: bytes) -> Notice | None:
    match kind:
        case rt.NEWLINK | rt.DELLINK:
            if payload[0] != socket.AF_UNSPEC:
                return None  # of a bridge port or the like
            seen = listing.link(payload)
            exists = kind == rt.NEWLINK
            carrier = exists and has_carrier(payload)
            is_up = exists and seen.is_up
            return LinkChanged(seen.name, exists, is_up, carrier, seen.mtu, seen.ifindex)
        case rt.NEWADDR | rt.DELADDR:
            return AddressesChanged(rt.ADDRESS_HEADER.unpack_from(payload)[4])
        case rt.NEWROUTE | rt.DELROUTE:
            if rt.ROUTE_HEADER.unpack_from(payload)[5] == ROUTE_PROTOCOL:
                return ObjectsChanged(Kind.ROUTE)
        case rt.NEWNEXTHOP | rt.DELNEXTHOP:
            if rt.NEXTHOP_HEADER.unpack_from(payload)[2] == ROUTE_PROTOCOL:
                return ObjectsChanged(Kind.NEXTHOP)
        case rt.NEWRULE | rt.DELRULE:
            found = attributes(payload, rt.RULE_HEADER.size)
            if found.get(rt.FRA_PROTOCOL) == bytes([ROUTE_PROTOCOL]):
                return ObjectsChanged(Kind.RULE)
        case _:
            pass
    return None


def is_ours(device: str) -> bool:
    """Is it a device that we made: a plane, a shaper's, the management device?"""
    return device.startswith(DEVICE_PREFIX)
