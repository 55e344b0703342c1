"""BPF programs as filters of tc on a device (tc-bpf(8)), made and listed by netlink.

`tc` takes no program that is in no file system, so it is not used. A filter outlives the process,
and what its program was told is in the name that the kernel keeps for it.
"""

import errno
import socket
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from functools import cache
from hashlib import sha256
from ipaddress import ip_network
from pathlib import Path
from typing import NamedTuple

from appliance.kernel import rtnetlink as rt
from appliance.kernel.ebpf import ObjectError, ObjectFile, Program, parse_object
from appliance.kernel.kernel import KernelError
from appliance.kernel.netlink import (
    CREATE,
    EXCL,
    Netlink,
    attribute_u32,
    attributes,
    collect,
    message,
    nested,
    text,
)
from appliance.plan.plan import Add, Delete, Op

HOOKS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}  # parents: TC_H_MIN_INGRESS, _EGRESS
_NEWTFILTER, _DELTFILTER, _GETTFILTER = 44, 45, 46
_KIND, _OPTIONS = 1, 2  # TCA_*
_FD, _NAME, _FLAGS, _ID = 6, 7, 8, 11  # TCA_BPF_*
_DIRECT = 1  # TCA_BPF_FLAG_ACT_DIRECT: the program's result is the verdict
_ALL_PROTOCOLS = socket.htons(3)  # ETH_P_ALL
_V4 = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"  # IPv4 as ::ffff:0:0/96


class Built(NamedTuple):
    """A program as `make bpf` built it, and the digest of its file."""

    source: ObjectFile
    digest: str


@cache
def built(name: str) -> Built:
    """Raises OSError."""
    octets = Path(__file__).with_name(f"{name}.bpf.o").read_bytes()
    try:
        return Built(parse_object(octets, name), sha256(octets).hexdigest()[:16])
    except ObjectError as error:
        raise OSError(0, str(error)) from error


def is_built(name: str, digest: str) -> bool:
    """Is this the digest of what we would load?"""
    try:
        return built(name).digest == digest
    except OSError:
        return False


def destination(prefix: str, before: bytes = b"") -> bytes:
    """A key of the maps that find the longest prefix of an address, after what stands `before`."""
    network = ip_network(prefix)
    address, length = network.network_address.packed, network.prefixlen
    if network.version == 4:
        address, length = _V4 + address, length + 96
    return struct.pack("=I", 8 * len(before) + length) + before + address


def common_instance(seen: Collection[int], own: int | None) -> int | None:
    """Of programs of which all places should have the same instance, by id: that one.

    It is our `own`, if any place has it, else that which the most have.
    """
    if own in seen:
        return own
    counted = Counter(seen)
    return max(counted, key=lambda program: (counted[program], program), default=None)


class Place(NamedTuple):
    """Where on a device a filter is."""

    hook: str  # "ingress" or "egress"
    priority: int
    handle: int


class Seen(NamedTuple):
    """A filter as it is listed: the words of its name, and the id of its program."""

    place: Place
    words: tuple[str, ...]
    program: int


class BpfFilters:
    """Makes, removes and lists filters. Raises KernelError, where `op` is given, else OSError."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink

    def begin(self, op: Op, place: Place) -> int | None:
        """The index of the device at which to attach; None for a deletion, which is done then."""
        try:
            index = socket.if_nametoindex(str(op.key.ident[0]))
        except OSError as error:
            if isinstance(op, Delete):
                return None  # it went with its device
            raise failed(op, error) from error
        if not isinstance(op, Delete):
            return index
        self._send(op, message(_DELTFILTER, 0, _header(index, place)))
        return None

    def attach(self, op: Op, index: int, place: Place, program: Program, name: str) -> None:
        """The filter holds the program from now on."""
        options = nested(
            _OPTIONS,
            attribute_u32(_FD, program.fileno()),
            text(_NAME, name),
            attribute_u32(_FLAGS, _DIRECT),
        )
        flags = CREATE | EXCL if isinstance(op, Add) else CREATE
        body = _header(index, place) + text(_KIND, "bpf") + options
        self._send(op, message(_NEWTFILTER, flags, body))

    def listed(self, index: int) -> Iterator[Seen]:
        """All filters of a device that are BPF programs."""
        for hook, parent in HOOKS.items():
            request = rt.TC_HEADER.pack(0, index, 0, parent, 0)
            for payload in collect(self._netlink.dump(_GETTFILTER, request)):
                seen = _seen(hook, payload)
                if seen is not None:
                    yield seen

    def _send(self, op: Op, encoded: bytes) -> None:
        try:
            refused = self._netlink.send([encoded])
        except OSError as error:
            raise failed(op, error) from error
        for refusal in refused:
            # No clsact either gives EINVAL.
            is_gone = refusal.errno in rt.ABSENT or refusal.errno == errno.EINVAL
            if not (isinstance(op, Delete) and is_gone):
                raise KernelError(op, refusal.errno, refusal.detail)


def failed(op: Op, error: OSError) -> KernelError:
    # A device that is not there has no number: socket.if_nametoindex.
    return KernelError(op, error.errno or errno.ENODEV, error.strerror or "")


def _header(index: int, place: Place) -> bytes:
    where = HOOKS[place.hook], place.priority << 16 | _ALL_PROTOCOLS
    return rt.TC_HEADER.pack(0, index, place.handle, *where)


def _seen(hook: str, payload: bytes) -> Seen | None:
    _, _, handle, _, info = rt.TC_HEADER.unpack_from(payload)
    parts = attributes(payload, rt.TC_HEADER.size)
    if parts.get(_KIND, b"").rstrip(b"\0") != b"bpf" or not handle:
        return None  # or it is the head of a priority
    options = attributes(parts.get(_OPTIONS, b""))
    words = options.get(_NAME, b"").rstrip(b"\0").decode(errors="replace").split(" ")
    program = int.from_bytes(options.get(_ID, b""), "little")
    return Seen(Place(hook, info >> 16, handle), tuple(words), program)
