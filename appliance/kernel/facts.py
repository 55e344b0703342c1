"""Facts about devices, as the kernel knows them: carrier and addresses.

Read whole and anew whenever a notice says that something changed: a few system calls, and nothing
to get out of step.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

from appliance.config.intent import Interface
from appliance.kernel import listing
from appliance.kernel import rtnetlink as rt
from appliance.kernel.netlink import InterruptedDumpError, Netlink, attributes, collect

_TRIES = 5
_LOWER_UP = 0x10000
_UNUSABLE = 0x08 | 0x40  # IFA_F_DADFAILED, IFA_F_TENTATIVE
# IFA_F_DEPRECATED. The kernel says it of an IPv4 address too, from the rebinding time of its lease
# on, but only IPv6 chooses its source address by it (RFC 6724 rule 3).
_DEPRECATED_V6 = 0x20
_GLOBAL = 0
_U32 = struct.Struct("=I")


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """A device of this network namespace."""

    name: str
    is_up: bool
    has_carrier: bool  # IFF_LOWER_UP
    mtu: int
    addresses: tuple[
        Interface, ...
    ] = ()  # of global scope, that a new packet may have as its source
    ifindex: int = 0


class UnsteadyError(OSError):
    """Devices or addresses changed again and again while they were read."""

    def __init__(self) -> None:
        super().__init__(errno.EINTR, "devices change while they are read")


class FactsReader:
    """Reads all devices. Works without any privilege but the one to open a netlink socket."""

    def __init__(self) -> None:
        self._netlink = Netlink(socket.NETLINK_ROUTE)

    def close(self) -> None:
        self._netlink.close()

    def read(self) -> dict[str, DeviceFacts]:
        """Every device by name. Raises UnsteadyError, or another OSError when the socket fails."""
        names: dict[int, str] = {}
        found: dict[str, DeviceFacts] = {}
        for payload in self._dump(rt.GETLINK, rt.LINK_HEADER.pack(0, 0, 0, 0, 0)):
            seen = listing.link(payload)
            names[seen.ifindex] = seen.name
            found[seen.name] = DeviceFacts(
                seen.name,
                seen.is_up,
                has_carrier(payload),
                seen.mtu,
                ifindex=seen.ifindex,
            )
        for name, interface in self._addresses(names):
            known = found[name]
            found[name] = replace(known, addresses=(*known.addresses, interface))
        return found

    def _addresses(self, names: dict[int, str]) -> Iterator[tuple[str, Interface]]:
        for payload in self._dump(rt.GETADDR, rt.ADDRESS_HEADER.pack(0, 0, 0, 0, 0)):
            family, _, flags, scope, index = rt.ADDRESS_HEADER.unpack_from(payload)
            found = attributes(payload, rt.ADDRESS_HEADER.size)
            if rt.IFA_FLAGS in found:
                (flags,) = _U32.unpack(found[rt.IFA_FLAGS])
            unusable = _UNUSABLE | (_DEPRECATED_V6 if family == socket.AF_INET6 else 0)
            if scope == _GLOBAL and not flags & unusable and index in names:
                _, item, _ = listing.address(payload, names)
                yield names[index], item.interface

    def _dump(self, kind: int, request: bytes) -> list[bytes]:
        for attempt in range(_TRIES):
            try:
                return collect(self._netlink.dump(kind, request))
            except InterruptedDumpError as error:
                if attempt == _TRIES - 1:
                    raise UnsteadyError from error
        raise AssertionError


def has_carrier(payload: bytes) -> bool:
    """Of an RTM_NEWLINK message: is there a signal on the line?"""
    flags: int = rt.LINK_HEADER.unpack_from(payload)[3]
    return bool(flags & _LOWER_UP)
