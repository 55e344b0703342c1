"""A kernel in memory, kept honest by the contract suite that the real one runs too.

It knows what refers to what, refuses what the real one refuses with the same errno, and takes
along what the real one takes along when a device or a nexthop object goes.
"""

import asyncio
import errno
from collections.abc import AsyncGenerator, Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import assert_never

from appliance.config.intent import Address
from appliance.kernel.conntrack import FlowKey, TrackedFlow
from appliance.kernel.kernel import KernelError, MissingFeature, QueueCounters, is_rate
from appliance.kernel.keys import Keys
from appliance.kernel.nflog import LoggedPacket
from appliance.plan.plan import (
    SHARED,
    Add,
    Bond,
    Change,
    Clsact,
    Copy,
    Delete,
    Device,
    DeviceAddress,
    Filter,
    Item,
    Key,
    Kind,
    Link,
    Nexthop,
    NexthopGroup,
    Observed,
    Once,
    Op,
    Redirect,
    Route,
    Rule,
    Shaper,
    Sysctl,
    Wireguard,
    WireguardPeer,
)

_UNSAID = 0  # of a program that failed
_MISSING = {Kind.DEVICE: errno.ENODEV}
# These know no difference between adding and changing.
_ONLY_SET = SHARED | {Kind.WIREGUARD, Kind.PEER, Kind.SHAPER, Kind.REDIRECT, Kind.FILTER}
_ON_DEVICE = frozenset(
    {
        *(Kind.WIREGUARD, Kind.PEER, Kind.ADDRESS),
        *(Kind.SHAPER, Kind.REDIRECT, Kind.CLSACT, Kind.ONCE, Kind.COPY, Kind.BOND),
    }
)
_STEERING = frozenset({Kind.NEXTHOP, Kind.GROUP, Kind.ROUTE, Kind.BOND})


class Crash(BaseException):
    """The supervisor died here. Not an Exception: nobody may catch it by accident."""


class FakeKernel:
    """Owned and foreign objects, devices that are not ours, and a crash on demand.

    `crash_after` raises Crash instead of carrying out the operation with that number. `applied` is
    every operation that was carried out.
    """

    def __init__(
        self,
        owned: Mapping[Key, Item] | None = None,
        foreign: Mapping[Key, Item] | None = None,
        devices: Collection[str] = ("lo",),
        crash_after: int | None = None,
    ) -> None:
        self.owned: dict[Key, Item] = dict(owned or {})
        self.table: tuple[int, int] | None = None  # flows, and how many there may be
        self.learned: dict[str, set[Address]] = {}  # by the names of sets
        self.foreign: dict[Key, Item] = dict(foreign or {})
        self.links: dict[str, Link] = {name: Link(is_up=False) for name in devices}
        self.sysctls: dict[str, str] = {}
        self.clsacts: set[str] = set()  # devices on which filters may hang
        self.counters: dict[str, int] = {}
        self.drops: dict[str, int] = {}
        self.queues: dict[str, QueueCounters] = {}
        self.trouble: str | None = None  # with duplicating
        self.bond_trouble: str | None = None
        self.missing: tuple[MissingFeature, ...] = ()  # for shaping
        self.tried: list[bool] = []  # shaping, with or without shares
        self.flows: list[TrackedFlow] = []
        self.logged: asyncio.Queue[tuple[LoggedPacket, ...]] = asyncio.Queue()
        self.marks: dict[FlowKey, int] = {}  # of flows that are tracked
        self.offloaded: set[FlowKey] = set()
        self.applied: list[Op] = []
        self.crash_after = crash_after

    @property
    def ports(self) -> frozenset[int]:
        return frozenset()

    def use_keys(self, keys: Keys) -> None:
        """It makes no tunnels: a peer is known by the digest of its key."""

    def close(self) -> None:
        """There is nothing to let go of."""

    async def missing_for_shaping(self, *, has_shares: bool) -> tuple[MissingFeature, ...]:
        self.tried.append(has_shares)
        return self.missing

    async def observe(self, wanted: Collection[Key]) -> Observed:
        found = dict(self.owned)
        for key in wanted:
            if (shared := self._shared(key)) is not None:
                found[key] = shared
        return found

    async def apply(self, ops: Sequence[Op]) -> None:
        for op in ops:
            self._apply(op)

    def steer(self, ops: Sequence[Op]) -> None:
        for op in ops:
            if op.key.kind not in _STEERING and not is_rate(op):
                raise KernelError(op, errno.EOPNOTSUPP, "not a matter of steering")
            if is_rate(op) and op.key not in self.owned:
                raise KernelError(op, errno.ENOENT)
            self._apply(op)

    def read_counters(self, names: Sequence[str]) -> tuple[int | None, ...]:
        return tuple(self.counters.get(name) for name in names)

    async def read_flows(self, most: int) -> tuple[tuple[TrackedFlow, ...], bool]:
        return tuple(self.flows[:most]), len(self.flows) <= most

    async def end_flows(self, mark: int, mask: int) -> None:
        self.flows = [flow for flow in self.flows if flow.mark & mask != mark]

    def flow_table(self) -> tuple[int, int] | None:
        return self.table

    async def follow_logged(self) -> AsyncGenerator[tuple[LoggedPacket, ...]]:
        yield ()
        while True:
            yield await self.logged.get()

    def mark_of(self, flow: FlowKey) -> tuple[int, bool] | None:
        mark = self.marks.get(flow)
        return None if mark is None else (mark, flow in self.offloaded)

    def mark_flow(self, flow: FlowKey, mark: int, mask: int) -> None:
        if flow in self.marks:
            self.marks[flow] = self.marks[flow] & ~mask | mark

    async def read_learned(self) -> Mapping[Address, frozenset[str]]:
        return {
            address: bases
            for address in {a for addresses in self.learned.values() for a in addresses}
            if (bases := self._bases_of(address))
        }

    def _bases_of(self, address: Address) -> frozenset[str]:
        return frozenset(
            n.rpartition("_")[0] for n, held in self.learned.items() if address in held
        )

    async def empty_learned(self, half: str) -> None:
        for name, addresses in self.learned.items():
            if name.endswith(half):
                addresses.clear()

    def read_queue(self, device: str) -> QueueCounters | None:
        return self.queues.get(device)

    def duplication_trouble(self) -> str | None:
        return self.trouble

    def bonding_trouble(self) -> str | None:
        return self.bond_trouble

    def read_drops(self, device: str) -> int | None:
        return self.drops.get(device)

    # What somebody else does, by hand or by pulling a plug.

    def put_foreign(self, key: Key, item: Item) -> None:
        self.foreign[key] = item

    def drift(self, key: Key) -> None:
        """Somebody changes a table of ours."""
        self.owned[key] = Filter("drifted")

    def remove(self, key: Key) -> None:
        """Take one object of ours away as a person would, with everything that goes with it."""
        self._remove(key)

    def roam(self, key: Key, endpoint: tuple[Address, int]) -> None:
        """A peer's authentic packet comes from there."""
        self.owned[key] = replace(self._peer(key), endpoint=endpoint, is_heard=True)

    def silence(self, key: Key) -> None:
        """A peer has not been heard for longer than its last handshake counts."""
        self.owned[key] = replace(self._peer(key), is_heard=False)

    def _peer(self, key: Key) -> WireguardPeer:
        peer = self.owned[key]
        if not isinstance(peer, WireguardPeer):
            raise ValueError(key.kind)
        return peer

    # The kernel's own behaviour.

    def _shared(self, key: Key) -> Item | None:
        name = str(key.ident[0])
        if key.kind is Kind.LINK:
            return self.links.get(name)
        if key.kind is Kind.CLSACT:
            return Clsact() if name in self.clsacts else None
        if key.kind in SHARED:
            return Sysctl(self.sysctls.get(name, "0")) if self._has_sysctl(name) else None
        if key.kind is Kind.ADDRESS:
            return self.foreign.get(key)
        return None

    def _has_sysctl(self, name: str) -> bool:
        parts = name.split("/")
        is_per_device = (
            len(parts) == 5 and parts[2] == "conf" and parts[3] not in ("all", "default")
        )
        return not is_per_device or self._has_device(parts[3])

    def _has_device(self, name: str) -> bool:
        return name in self.links or Key(Kind.DEVICE, (name,)) in self.owned

    def _apply(self, op: Op) -> None:
        if self.crash_after is not None and len(self.applied) >= self.crash_after:
            raise Crash
        match op:
            case Add(key, item):
                if key.kind not in _ONLY_SET and (key in self.owned or key in self.foreign):
                    raise KernelError(op, errno.EEXIST)
                self._put(op, key, item)
            case Change(key, _, item):
                is_made = key.kind is Kind.ROUTE and str(key.ident[1]).endswith("/0")
                is_made = is_made or key.kind is Kind.GROUP
                if key.kind not in _ONLY_SET and key not in self.owned and not is_made:
                    raise KernelError(op, _MISSING.get(key.kind, errno.ENOENT))
                self._put(op, key, item)
            case Delete(key, _):
                if key.kind not in SHARED:
                    self._remove(key)
            case _:
                assert_never(op)
        self.applied.append(op)

    def _put(self, op: Op, key: Key, item: Item) -> None:
        name = str(key.ident[0])
        if (refusal := self._refusal(key, item)) is not None:
            raise KernelError(op, refusal)
        if isinstance(item, Link):
            self.links[name] = item
        elif isinstance(item, Sysctl):
            self.sysctls[name] = item.value
        elif isinstance(item, Clsact):
            self.clsacts.add(name)
        else:
            self.owned[key] = self._learned(key, item)
            if isinstance(item, Device) and not item.is_up:
                self._cascade_down(name)

    def _learned(self, key: Key, item: Item) -> Item:
        """A peer keeps the endpoint that it was last heard from."""
        before = self.owned.get(key)
        if isinstance(item, WireguardPeer) and isinstance(before, WireguardPeer):
            endpoint = item.endpoint or before.endpoint
            return replace(item, endpoint=endpoint, is_heard=before.is_heard)
        return item

    def _refusal(self, key: Key, item: Item) -> int | None:
        name = str(key.ident[0])
        match item:
            case Link():
                return None if name in self.links else errno.ENODEV
            case Sysctl():
                return None if self._has_sysctl(name) else errno.ENOENT
            case Wireguard() | WireguardPeer():
                return None if Key(Kind.DEVICE, (name,)) in self.owned else errno.ENODEV
            case Shaper() | Clsact():
                return None if self._has_device(name) else _UNSAID
            case Redirect(_, to):
                is_there = name in self.clsacts and (to is None or self._has_device(to))
                return None if is_there else _UNSAID
            case Copy(to):
                if not self._has_device(name) or not (to is None or self._has_device(to)):
                    return errno.ENODEV
                return None if name in self.clsacts else errno.EINVAL
            case Bond():
                if not all(self._has_device(each) for each in (name, *item.devices)):
                    return errno.ENODEV
                return None if name in self.clsacts else errno.EINVAL
            case Once():
                if not self._has_device(name):
                    return errno.ENODEV
                return None if name in self.clsacts else errno.EINVAL
            case DeviceAddress():
                return None if self._has_device(name) else errno.ENODEV
            case Nexthop(device=device):
                return None if self._has_device(device) else errno.ENODEV
            case NexthopGroup(members):
                known = all(Key(Kind.NEXTHOP, (hop,)) in self.owned for hop, _ in members)
                return None if known and members else errno.EINVAL
            case Route(int() as hop):
                family = 6 if ":" in str(key.ident[1]) else 4
                return None if self._hop_family(hop) == family else errno.EINVAL
            case Route(None, str() as device):
                return None if self._has_device(device) else errno.ENODEV
            case Route() | Device() | Rule() | Filter():
                return None
            case _:
                assert_never(item)

    def _hop_family(self, hop: int) -> int | None:
        found = self.owned.get(Key(Kind.NEXTHOP, (hop,)), self.owned.get(Key(Kind.GROUP, (hop,))))
        if isinstance(found, NexthopGroup):
            return self._hop_family(found.members[0][0])
        return found.family if isinstance(found, Nexthop) else None

    def _remove(self, key: Key) -> None:
        item = self.owned.pop(key, None)
        if isinstance(item, Device):
            self._cascade_device(str(key.ident[0]))
        elif isinstance(item, Nexthop | NexthopGroup):
            self._cascade_nexthop(int(key.ident[0]))

    def _cascade_device(self, name: str) -> None:
        self.clsacts.discard(name)
        for key, item in list(self.owned.items()):
            if isinstance(item, Redirect) and item.to == name:
                self.owned[key] = replace(item, to="*")  # as tc shows it
            if isinstance(item, Copy) and item.to == name:
                self.owned[key] = Copy("*", "")
            if isinstance(item, Bond) and name in item.devices:
                self.owned[key] = Bond("*")
        self._drop(lambda k, _: k.kind in _ON_DEVICE and k.ident[0] == name)
        self._cascade_down(name)

    def _cascade_down(self, name: str) -> None:
        """A device that is set down keeps its IPv4 addresses only, and no way through it."""
        self._drop(
            lambda k, _: k.kind is Kind.ADDRESS and k.ident[0] == name and ":" in str(k.ident[1])
        )
        self._drop(lambda _, i: isinstance(i, Route) and i.device == name)
        for key, item in list(self.owned.items()):
            if isinstance(item, Nexthop) and item.device == name:
                self._remove(key)

    def _cascade_nexthop(self, hop: int) -> None:
        self._drop(lambda _, i: isinstance(i, Route) and i.nexthop == hop)
        for key, item in list(self.owned.items()):
            if isinstance(item, NexthopGroup) and any(h == hop for h, _ in item.members):
                rest = tuple(m for m in item.members if m[0] != hop)
                if rest:
                    self.owned[key] = NexthopGroup(rest)
                else:
                    self._remove(key)

    def _drop(self, is_gone: Callable[[Key, Item], bool]) -> None:
        for key in [k for k, i in self.owned.items() if is_gone(k, i)]:
            del self.owned[key]
