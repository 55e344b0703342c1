"""The filter that spreads a flow over planes: one BPF program on all planes of all bonds.

They share one instance, because it counts on each plane what it sent there from another. What it
is told changes in place, so that a plane leaves all bonds at once; the names of the filters, by
which a later process knows them again, follow one by one.
"""

import struct
from collections.abc import Collection, Mapping
from hashlib import sha256
from socket import htonl, if_nametoindex

from appliance.config.addressing import BOND_PRIORITY, DEVICE_PREFIX, class_mark
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
from appliance.plan.plan import MOST_BONDED, Bond, Item, Key, Kind, Op

STRANGE = "something else"  # what somebody made of a filter of ours
_PLACE = Place("egress", BOND_PRIORITY, 1)
_BOND = struct.Struct(f"=I{MOST_BONDED}I")  # number of devices, their indexes
_CLASS = struct.Struct("=I")  # in network order


class Bonding:
    """Makes, removes and observes the filters."""

    def __init__(self, filters: BpfFilters) -> None:
        self._filters = filters
        self._program: Program | None = None
        self._told: dict[bytes, bytes] = {}
        self._item: tuple[Bond, dict[str, int]] | None = None  # what was told last

    def close(self) -> None:
        """The filters stay."""
        if self._program is not None:
            self._program.close()
            self._program, self._item = None, None

    def trouble(self) -> str | None:
        """Why this kernel cannot bond; None when it can."""
        try:
            Program(built("bond").source).close()
        except OSError as error:
            return error.strerror or str(error)
        return None

    def apply(self, op: Op) -> None:
        """Carry out one operation. Raises KernelError."""
        index = self._filters.begin(op, _PLACE)
        if index is None:
            return
        if not isinstance(op.item, Bond):
            raise ValueError(op.key.kind)
        try:
            indexes = {name: if_nametoindex(name) for name in op.item.devices}
            program = self._tell(op.item, indexes)
        except OSError as error:
            raise failed(op, error) from error
        self._filters.attach(op, index, _PLACE, program, _name(op.item, indexes))

    def _tell(self, item: Bond, indexes: dict[str, int]) -> Program:
        """Our instance, which knows what this says and nothing else. Raises OSError."""
        if self._program is None:
            self._program, self._told = Program(built("bond").source), {}
        if self._item is not None and self._item[0] is item and self._item[1] == indexes:
            return self._program  # another plane of the same move
        self._item = None
        entries, bonds = _entries(item, indexes), self._program.maps["bonds"]
        for key, value in entries.items():
            if self._told.get(key) != value:
                bonds.set(key, value)
                self._told[key] = value
        for key in self._told.keys() - entries.keys():  # last: what it excepted has its own now
            bonds.delete(key)
            del self._told[key]
        self._item = item, indexes
        return self._program

    # -- observing -----------------------------------------------------------------------------

    def observe(self, hooked: Collection[str], names: Mapping[int, str]) -> dict[Key, Item]:
        """Filters of ours on planes that have a clsact qdisc. Raises OSError."""
        indexes = {name: index for index, name in names.items()}
        seen: dict[str, Seen] = {}
        for device in hooked:
            if device.startswith(DEVICE_PREFIX) and device in indexes:
                for each in self._filters.listed(indexes[device]):
                    if (each.place.hook, each.place.priority) == (_PLACE.hook, _PLACE.priority):
                        seen[device] = each
        own = self._program.id if self._program else None
        common = common_instance([each.program for each in seen.values()], own)
        if own is not None and common not in {own, None}:
            self.close()  # another process put its own in the place of ours
        # A plane that was made anew has another index.
        made = _digest({device: indexes[device] for device in seen})
        return {
            Key(Kind.BOND, (device,)): _seen(each, made)
            if each.program == common
            else Bond(STRANGE)
            for device, each in seen.items()
        }


def _entries(item: Bond, indexes: Mapping[str, int]) -> dict[bytes, bytes]:
    found = {}
    for stripe in item.stripes:
        devices = [indexes[device] for device in stripe.devices][:MOST_BONDED]
        value = _BOND.pack(len(devices), *devices, *[0] * (MOST_BONDED - len(devices)))
        mark = _CLASS.pack(htonl(class_mark(stripe.class_index)))
        for network in stripe.networks:
            found[destination(network, mark)] = value
    return found


def _name(item: Bond, indexes: Mapping[str, int]) -> str:
    return f"branchline-bond {item.digest} {_digest(indexes)} {built('bond').digest}"


def _digest(indexes: Mapping[str, int]) -> str:
    told = " ".join(f"{name}={index}" for name, index in sorted(indexes.items()))
    return sha256(told.encode()).hexdigest()[:16]


def _seen(seen: Seen, made: str) -> Bond:
    match seen.words:
        case ["branchline-bond", told, of, digest] if of == made and is_built("bond", digest):
            return Bond(told)
    return Bond(STRANGE)
