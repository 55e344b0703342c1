"""The filters that send packets twice and let them in once: BPF programs on planes (tc-bpf(8)).

They are loaded here and made by netlink, since `tc` takes no program that is in no file system.
They outlive the process, and what they were told is in the names that the kernel keeps for them.
All planes must share one instance of what lets packets in, because it remembers what came: a
process that holds none loads one, and what is left of another is then seen as something else.
"""

import errno
import os
import socket
import struct
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from ipaddress import IPv6Network, ip_network
from pathlib import Path

from appliance.config.addressing import COPY_PRIORITIES, DEVICE_PREFIX, ONCE_PRIORITY, class_mark
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
from appliance.plan.plan import Add, Copy, Delete, Item, Key, Kind, Once, Op
from appliance.plan.text import copy_handle, copy_priority

KINDS = frozenset({Kind.ONCE, Kind.COPY})
STRANGE = "something else"  # what somebody made of a filter of ours

_NEWTFILTER, _DELTFILTER, _GETTFILTER = 44, 45, 46
_KIND, _OPTIONS = 1, 2  # TCA_*
_FD, _NAME, _FLAGS, _ID = 6, 7, 8, 11  # TCA_BPF_*
_DIRECT = 1  # TCA_BPF_FLAG_ACT_DIRECT: the program's result is the verdict
_HOOKS = {"ingress": 0xFFFFFFF2, "egress": 0xFFFFFFF3}  # parents: TC_H_MIN_INGRESS, _EGRESS
_ALL_PROTOCOLS = socket.htons(3)  # ETH_P_ALL
_ONCE_HANDLE = 1
_ONCE_SETTINGS = struct.Struct("=8s8s")  # seed, overlay
_COPY_SETTINGS = struct.Struct("=IIIxxxx")  # mark, device, whether only to prefixes
_FIRST = bytes(4)  # the only key of a map with one entry
_DESTINATION = struct.Struct("=I16s")
_V4 = b"\0\0\0\0\0\0\0\0\0\0\xff\xff"  # IPv4 as ::ffff:0:0/96


@dataclass(frozen=True, slots=True)
class _Object:
    source: ObjectFile
    digest: str


@cache
def _object(name: str) -> _Object:
    """A program as `make bpf` built it. Raises OSError."""
    octets = Path(__file__).with_name(f"{name}.bpf.o").read_bytes()
    try:
        return _Object(parse_object(octets, name), sha256(octets).hexdigest()[:16])
    except ObjectError as error:
        raise OSError(0, str(error)) from error


class Duplication:
    """Makes, removes and observes the filters."""

    def __init__(self, netlink: Netlink) -> None:
        self._netlink = netlink
        self._once: tuple[str, Program] | None = None  # with what it was told

    def close(self) -> None:
        """The filters stay."""
        if self._once is not None:
            self._once[1].close()
            self._once = None

    def trouble(self) -> str | None:
        """Why this kernel cannot duplicate; None when it can."""
        try:
            Program(_object("once").source).close()
            _loaded_copy(0, 0, ()).close()
        except OSError as error:
            return error.strerror or str(error)
        return None

    def apply(self, op: Op) -> None:
        """Carry out one operation. Raises KernelError."""
        try:
            index = socket.if_nametoindex(str(op.key.ident[0]))
        except OSError as error:
            if isinstance(op, Delete):
                return
            raise _failed(op, error) from error
        if isinstance(op, Delete):
            self._send(op, message(_DELTFILTER, 0, _header(index, op.key)))
            return
        try:
            program, name, is_ours = self._program(op)
        except OSError as error:
            raise _failed(op, error) from error
        try:
            options = nested(
                _OPTIONS,
                attribute_u32(_FD, program.fileno()),
                text(_NAME, name),
                attribute_u32(_FLAGS, _DIRECT),
            )
            flags = CREATE | EXCL if isinstance(op, Add) else CREATE
            body = _header(index, op.key) + text(_KIND, "bpf") + options
            self._send(op, message(_NEWTFILTER, flags, body))
        finally:
            if is_ours:
                program.close()  # the filter holds it

    def _send(self, op: Op, encoded: bytes) -> None:
        try:
            refused = self._netlink.send([encoded])
        except OSError as error:
            raise _failed(op, error) from error
        for refusal in refused:
            is_gone = (
                refusal.errno in rt.ABSENT or refusal.errno == errno.EINVAL
            )  # no clsact either
            if not (isinstance(op, Delete) and is_gone):
                raise KernelError(op, refusal.errno, refusal.detail)

    def _program(self, op: Op) -> tuple[Program, str, bool]:
        """What to attach, under which name, and whether it serves nothing else. Raises OSError."""
        item = op.item
        if isinstance(item, Once):
            return self._once_for(item.overlay), _once_name(item), False
        if not isinstance(item, Copy):
            raise ValueError(op.key.kind)
        to = socket.if_nametoindex(item.to) if item.to else 0
        mark = class_mark(int(op.key.ident[1]))
        return _loaded_copy(mark, to, item.prefixes), _copy_name(item, to), True

    def _once_for(self, overlay: str) -> Program:
        """The one instance, for all planes. Raises OSError."""
        if self._once is None or self._once[0] != overlay:
            program = Program(_object("once").source)
            told = _ONCE_SETTINGS.pack(os.urandom(8), _first_octets(overlay))
            program.maps["settings_of"].set(_FIRST, told)
            self.close()
            self._once = overlay, program
        return self._once[1]

    # -- observing -----------------------------------------------------------------------------

    def observe(self, hooked: Collection[str], names: Mapping[int, str]) -> dict[Key, Item]:
        """Filters of ours on planes that have a clsact qdisc. Raises OSError."""
        indexes = {name: index for index, name in names.items()}
        found: dict[Key, Item] = {}
        instances: dict[Key, int] = {}
        for device in hooked:
            if not device.startswith(DEVICE_PREFIX) or device not in indexes:
                continue
            for hook, parent in _HOOKS.items():
                request = rt.TC_HEADER.pack(0, indexes[device], 0, parent, 0)
                for payload in collect(self._netlink.dump(_GETTFILTER, request)):
                    seen = _seen(device, hook, payload, names)
                    if seen is not None:
                        key, item, program = seen
                        found[key] = item
                        if key.kind is Kind.ONCE:
                            instances[key] = program
        common = self._instance(instances.values())
        for key, program in instances.items():
            if program != common:
                found[key] = Once(STRANGE)
        return found

    def _instance(self, seen: Collection[int]) -> int | None:
        """The one that all planes should have."""
        if self._once is not None and self._once[1].id in seen:
            return self._once[1].id
        counted = Counter(seen)
        if self._once is not None and counted:
            self.close()  # another process put its own in the place of ours
        return max(counted, key=lambda program: (counted[program], program), default=None)


def _loaded_copy(mark: int, device: int, prefixes: Sequence[str]) -> Program:
    """An instance that copies into a device. Raises OSError."""
    program = Program(_object("twice").source)
    try:
        told = _COPY_SETTINGS.pack(mark, device, bool(prefixes))
        program.maps["settings_of"].set(_FIRST, told)
        for prefix in prefixes:
            program.maps["prefixes"].set(_destination(prefix), _FIRST)
    except OSError:
        program.close()
        raise
    return program


def _destination(prefix: str) -> bytes:
    network = ip_network(prefix)
    if network.version == 4:
        return _DESTINATION.pack(96 + network.prefixlen, _V4 + network.network_address.packed)
    return _DESTINATION.pack(network.prefixlen, network.network_address.packed)


def _first_octets(overlay: str) -> bytes:
    return IPv6Network(overlay).network_address.packed[:8]


def _header(index: int, key: Key) -> bytes:
    if key.kind is Kind.ONCE:
        hook, priority, handle = "ingress", ONCE_PRIORITY, _ONCE_HANDLE
    else:
        hook, priority, handle = "egress", copy_priority(key), copy_handle(key)
    return rt.TC_HEADER.pack(0, index, handle, _HOOKS[hook], priority << 16 | _ALL_PROTOCOLS)


# Names, by which filters are known again: of the item, then of the program.


def _once_name(item: Once) -> str:
    return f"branchline-once {item.overlay} {_object('once').digest}"


def _copy_name(item: Copy, index: int) -> str:
    digest = _object("twice").digest
    return f"branchline-copy {item.to or '-'} {index} {item.digest} {digest}"


def _seen(
    device: str, hook: str, payload: bytes, names: Mapping[int, str]
) -> tuple[Key, Item, int] | None:
    """One filter of a listing with the id of its program, if it is at a place of ours."""
    _, _, handle, _, info = rt.TC_HEADER.unpack_from(payload)
    parts = attributes(payload, rt.TC_HEADER.size)
    if parts.get(_KIND, b"").rstrip(b"\0") != b"bpf" or not handle:
        return None  # or it is the head of a priority
    options = attributes(parts.get(_OPTIONS, b""))
    words = options.get(_NAME, b"").rstrip(b"\0").decode(errors="replace").split(" ")
    program = int.from_bytes(options.get(_ID, b""), "little")
    priority = info >> 16
    if hook == "ingress" and priority == ONCE_PRIORITY:
        return Key(Kind.ONCE, (device,)), _seen_once(words), program
    if hook == "egress" and priority in COPY_PRIORITIES:
        ident = device, handle >> 16, handle & 0xFFFF
        return Key(Kind.COPY, ident), _seen_copy(words, names), program
    return None


def _seen_once(words: Sequence[str]) -> Once:
    match words:
        case ["branchline-once", overlay, digest] if _is_built("once", digest):
            return Once(overlay)
    return Once(STRANGE)


def _seen_copy(words: Sequence[str], names: Mapping[int, str]) -> Copy:
    match words:
        case ["branchline-copy", to, index, told, digest] if _is_built("twice", digest):
            # A plane that was made anew has another index.
            if to == "-" or (index.isdecimal() and names.get(int(index)) == to):
                return Copy(None if to == "-" else to, told)
    return Copy(STRANGE, "")


def _is_built(name: str, digest: str) -> bool:
    try:
        return _object(name).digest == digest
    except OSError:
        return False


def _failed(op: Op, error: OSError) -> KernelError:
    # A device that is not there has no number: socket.if_nametoindex.
    return KernelError(op, error.errno or errno.ENODEV, error.strerror or "")
