"""Copies of packets that rules of ours log (linux/netfilter/nfnetlink_log.h).

The packets themselves go on at once, whoever reads the copies and whether anybody does.
"""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import closing, suppress
from typing import NamedTuple

from appliance.config.addressing import LOG_GROUP
from appliance.kernel.netlink import Netlink, attribute, attributes, message, messages

_NETLINK_NETFILTER = 12
_PACKET, _CONFIG = 4 << 8, 4 << 8 | 1  # NFNL_SUBSYS_ULOG, NFULNL_MSG_*
_MESSAGE = struct.Struct(">BBH")  # nfgenmsg: family, version, resource
_COMMAND, _MODE, _THRESHOLD = 1, 2, 5  # NFULA_CFG_*
_BIND, _COPY_PACKET = 1, 2
_DEVICE, _SENDER, _OCTETS = 4, 8, 9  # NFULA_*
_MAC_SIZE = 6
_MOST_AT_ONCE = 8  # datagrams, of one copy each, between two turns of the loop


class LoggedPacket(NamedTuple):
    """A copy of a packet, and what is known beside it."""

    octets: bytes  # from its IP header on, as many as the rule asked for
    device: str  # by which it came; empty for one that is gone
    sender: str | None  # MAC address, in lower case, of one that came over Ethernet


async def follow_logged() -> AsyncGenerator[tuple[LoggedPacket, ...]]:
    """What is logged from now on, some at a time. Needs CAP_NET_ADMIN. Raises OSError.

    First come none, as soon as it listens. Copies that nobody fetched in time are lost.
    """
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    with closing(Netlink(_NETLINK_NETFILTER)) as netlink:
        for refusal in netlink.send(_requests()):
            if refusal.errno == errno.EPERM and not refusal.place:
                msg = f"another program reads group {LOG_GROUP} of the kernel's packet log"
                raise OSError(errno.EPERM, msg)
            raise OSError(refusal.errno, os.strerror(refusal.errno))
        loop.add_reader(netlink.fileno(), ready.set)
        try:
            while True:
                yield tuple(_read(netlink))
                await asyncio.sleep(0)
                await ready.wait()
                ready.clear()
        finally:
            loop.remove_reader(netlink.fileno())


def _requests() -> list[bytes]:
    """Bind to the group; octets of the packets, and each packet at once."""
    head = _MESSAGE.pack(socket.AF_UNSPEC, 0, LOG_GROUP)
    settings = (
        attribute(_COMMAND, bytes([_BIND])),
        attribute(_MODE, struct.pack(">IBx", 0xFFFF, _COPY_PACKET)),
        attribute(_THRESHOLD, (1).to_bytes(4)),
    )
    return [message(_CONFIG, 0, head + each) for each in settings]


def _read(netlink: Netlink) -> list[LoggedPacket]:
    found: list[LoggedPacket] = []
    for _ in range(_MOST_AT_ONCE):
        try:
            data = netlink.read_now()
        except OSError as error:
            if error.errno != errno.ENOBUFS:  # more came than we could read: those are lost
                raise
            continue
        if not data:
            break
        found += [
            parse_logged(payload) for kind, _, _, payload in messages(data) if kind == _PACKET
        ]
    return found


def parse_logged(payload: bytes) -> LoggedPacket:
    """One message. What it does not tell is empty, or None."""
    told = attributes(payload, _MESSAGE.size)
    device = ""
    with suppress(OSError):
        device = socket.if_indextoname(int.from_bytes(told.get(_DEVICE, b"")[:4]))
    address = told.get(_SENDER, b"")  # its length in 2 octets, 2 of padding, the address
    sender = None
    if int.from_bytes(address[:2]) == _MAC_SIZE and len(address) >= 4 + _MAC_SIZE:
        sender = address[4 : 4 + _MAC_SIZE].hex(":")
    return LoggedPacket(told.get(_OCTETS, b""), device, sender)
