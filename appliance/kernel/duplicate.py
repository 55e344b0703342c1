"""The filters that send packets twice and let them in once: BPF programs on planes.

All planes must share one instance of what lets packets in, because it remembers what came: a
process that holds none loads one, and what is left of another is then seen as something else.
"""

import os
import struct
from collections.abc import Collection, Mapping, Sequence
from ipaddress import IPv6Network
from socket import if_nametoindex

from appliance.config.addressing import COPY_PRIORITIES, DEVICE_PREFIX, ONCE_PRIORITY, class_mark
from appliance.kernel.ebpf import Program
from appliance.kernel.filters import (
    BpfFilters,
    Place,
    Seen,
    built,
    common_instance,
    destination,
    failed,
    is_built,
)
from appliance.plan.plan import Copy, Item, Key, Kind, Once, Op
from appliance.plan.text import copy_handle, copy_priority

KINDS = frozenset({Kind.ONCE, Kind.COPY})
STRANGE = "something else"  # what somebody made of a filter of ours

_ONCE_HANDLE = 1
_ONCE_SETTINGS = struct.Struct("=8s8s")  # seed, overlay
_COPY_SETTINGS = struct.Struct("=IIIxxxx")  # mark, device, whether only to prefixes
_FIRST = bytes(4)  # the only key of a map with one entry


class Duplication:
    """Makes, removes and observes the filters."""

    def __init__(self, filters: BpfFilters) -> None:
        self._filters = filters
        self._once: tuple[str, Program] | None = None  # with what it was told

    def close(self) -> None:
        """The filters stay."""
        if self._once is not None:
            self._once[1].close()
            self._once = None

    def trouble(self) -> str | None:
        """Why this kernel cannot duplicate; None when it can."""
        try:
            Program(built("once").source).close()
            _loaded_copy(0, 0, ()).close()
        except OSError as error:
            return error.strerror or str(error)
        return None

    def apply(self, op: Op) -> None:
        """Carry out one operation. Raises KernelError."""
        index = self._filters.begin(op, _place(op.key))
        if index is None:
            return
        try:
            program, name, is_ours = self._program(op)
        except OSError as error:
            raise failed(op, error) from error
        try:
            self._filters.attach(op, index, _place(op.key), program, name)
        finally:
            if is_ours:
                program.close()  # the filter holds it

    def _program(self, op: Op) -> tuple[Program, str, bool]:
        """What to attach, under which name, and whether it serves nothing else. Raises OSError."""
        item = op.item
        if isinstance(item, Once):
            return self._once_for(item.overlay), _once_name(item), False
        if not isinstance(item, Copy):
            raise ValueError(op.key.kind)
        to = if_nametoindex(item.to) if item.to else 0
        mark = class_mark(int(op.key.ident[1]))
        return _loaded_copy(mark, to, item.prefixes), _copy_name(item, to), True

    def _once_for(self, overlay: str) -> Program:
        """The one instance, for all planes. Raises OSError."""
        if self._once is None or self._once[0] != overlay:
            program = Program(built("once").source)
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
            for each in self._filters.listed(indexes[device]):
                if (item := _seen(device, each, names)) is not None:
                    key, found[key] = item[0], item[1]
                    if key.kind is Kind.ONCE:
                        instances[key] = each.program
        own = self._once[1].id if self._once else None
        common = common_instance(instances.values(), own)
        if own is not None and common not in {own, None}:
            self.close()  # another process put its own in the place of ours
        for key, program in instances.items():
            if program != common:
                found[key] = Once(STRANGE)
        return found


def _loaded_copy(mark: int, device: int, prefixes: Sequence[str]) -> Program:
    """An instance that copies into a device. Raises OSError."""
    program = Program(built("twice").source)
    try:
        told = _COPY_SETTINGS.pack(mark, device, bool(prefixes))
        program.maps["settings_of"].set(_FIRST, told)
        for prefix in prefixes:
            program.maps["prefixes"].set(destination(prefix), _FIRST)
    except OSError:
        program.close()
        raise
    return program


def _first_octets(overlay: str) -> bytes:
    return IPv6Network(overlay).network_address.packed[:8]


def _place(key: Key) -> Place:
    if key.kind is Kind.ONCE:
        return Place("ingress", ONCE_PRIORITY, _ONCE_HANDLE)
    return Place("egress", copy_priority(key), copy_handle(key))


# Names, by which filters are known again: of the item, then of the program.


def _once_name(item: Once) -> str:
    return f"branchline-once {item.overlay} {built('once').digest}"


def _copy_name(item: Copy, index: int) -> str:
    digest = built("twice").digest
    return f"branchline-copy {item.to or '-'} {index} {item.digest} {digest}"


def _seen(device: str, seen: Seen, names: Mapping[int, str]) -> tuple[Key, Item] | None:
    """A filter of a listing, if it is at a place of ours."""
    hook, priority, handle = seen.place
    if hook == "ingress" and priority == ONCE_PRIORITY:
        return Key(Kind.ONCE, (device,)), _seen_once(seen.words)
    if hook == "egress" and priority in COPY_PRIORITIES:
        ident = device, handle >> 16, handle & 0xFFFF
        return Key(Kind.COPY, ident), _seen_copy(seen.words, names)
    return None


def _seen_once(words: Sequence[str]) -> Once:
    match words:
        case ["branchline-once", overlay, digest] if is_built("once", digest):
            return Once(overlay)
    return Once(STRANGE)


def _seen_copy(words: Sequence[str], names: Mapping[int, str]) -> Copy:
    match words:
        case ["branchline-copy", to, index, told, digest] if is_built("twice", digest):
            # A plane that was made anew has another index.
            if to == "-" or (index.isdecimal() and names.get(int(index)) == to):
                return Copy(None if to == "-" else to, told)
    return Copy(STRANGE, "")
