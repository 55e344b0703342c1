"""The real kernel of this network namespace.

Observes and applies, decides nothing, and remembers nothing that counts: who holds it may be
killed at any instruction.
"""

import asyncio
import errno
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Mapping, Sequence
from contextlib import aclosing, closing
from itertools import groupby

from appliance.config.intent import Address
from appliance.kernel import bond, duplicate, listing, tc
from appliance.kernel import rtnetlink as rt
from appliance.kernel.conntrack import (
    FlowKey,
    FlowMarks,
    TrackedFlow,
    end_flows,
    flow_table,
    read_flows,
)
from appliance.kernel.features import missing_for_shaping
from appliance.kernel.filters import BpfFilters
from appliance.kernel.kernel import KernelError, MissingFeature, QueueCounters, is_rate
from appliance.kernel.keys import Keys
from appliance.kernel.netlink import InterruptedDumpError, Netlink, Refusal
from appliance.kernel.nflog import LoggedPacket, follow_logged
from appliance.kernel.nft import Nftables
from appliance.kernel.sysctl import read_sysctl, write_sysctl
from appliance.kernel.wireguard import WireguardNetlink
from appliance.plan.plan import (
    SHARED,
    Change,
    Delete,
    Device,
    Item,
    Key,
    Kind,
    Observed,
    Op,
    Sysctl,
)

_STEERING = frozenset({Kind.NEXTHOP, Kind.GROUP, Kind.ROUTE})
_WIREGUARD = frozenset({Kind.WIREGUARD, Kind.PEER})
_SYSCTLS = frozenset({Kind.SYSCTL, Kind.FORWARDING})
_SLICE = 128  # operations between two breaths of the event loop
_MOST_AT_ONCE = 8192  # messages: what the socket's buffer takes, some 80 octets each
_DUMP_TRIES = 5


class LinuxKernel:
    """Everything that we do to the kernel. Needs CAP_NET_ADMIN; see `Kernel` for the contract."""

    def __init__(self, keys: Keys) -> None:
        self._steering = Netlink(socket.NETLINK_ROUTE)  # apart, so that a dump delays no move
        self._netlink = Netlink(socket.NETLINK_ROUTE)
        self._wireguard = WireguardNetlink(keys)
        self._nftables = Nftables()
        self._flow_marks = FlowMarks()
        self._duplication = duplicate.Duplication(BpfFilters(self._netlink))
        self._bonding = bond.Bonding(BpfFilters(self._steering))
        self._is_safe = False
        self._turn = asyncio.Lock()

    def close(self) -> None:
        self._steering.close()
        self._netlink.close()
        self._wireguard.close()
        self._nftables.close()
        self._flow_marks.close()
        self._duplication.close()
        self._bonding.close()

    def use_keys(self, keys: Keys) -> None:
        self._wireguard.use_keys(keys)

    @property
    def ports(self) -> frozenset[int]:
        return frozenset({self._steering.port, self._netlink.port})

    async def missing_for_shaping(self, *, has_shares: bool) -> tuple[MissingFeature, ...]:
        async with self._turn:  # what it makes bears our mark, and would be taken away
            return await missing_for_shaping(has_shares=has_shares)

    async def observe(self, wanted: Collection[Key]) -> Observed:
        async with self._turn:
            try:
                return await self._observe(frozenset(wanted))
            except OSError as error:
                raise _failed(None, error) from error

    async def apply(self, ops: Sequence[Op]) -> None:
        ours = (op for op in ops if not (isinstance(op, Delete) and op.key.kind in SHARED))
        async with self._turn:
            for (kind, _), group in groupby(ours, key=_batch):
                batch = list(group)
                if kind in tc.KINDS:
                    await tc.apply(batch)
                    continue
                if kind in duplicate.KINDS or kind is Kind.BOND:
                    for op in batch:
                        (self._bonding if kind is Kind.BOND else self._duplication).apply(op)
                        await asyncio.sleep(0)
                    continue
                if kind is Kind.FILTER:
                    await self._load(batch)
                    continue
                for start in range(0, len(batch), _SLICE):
                    self._apply(kind, batch[start : start + _SLICE])
                    await asyncio.sleep(0)

    def steer(self, ops: Sequence[Op]) -> None:
        for (is_delete, is_steering, _), group in groupby(ops, key=_turning):
            batch = list(group)
            if not is_steering:
                raise KernelError(batch[0], errno.EOPNOTSUPP, "not a matter of steering")
            if batch[0].key.kind is Kind.BOND:
                for op in batch:
                    self._bonding.apply(op)
                continue
            # What is left over goes in a second batch: not if what replaces it was refused.
            self._route(self._steering, batch, is_delete)

    def read_counters(self, names: Sequence[str]) -> tuple[int | None, ...]:
        try:
            return self._nftables.read_counters(names)
        except OSError:  # the socket failed: nothing is known this time
            return (None,) * len(names)

    async def read_flows(self, most: int) -> tuple[tuple[TrackedFlow, ...], bool]:
        try:
            return await asyncio.to_thread(read_flows, most)
        except OSError as error:
            raise _failed(None, error) from error

    async def end_flows(self, mark: int, mask: int) -> None:
        try:
            await asyncio.to_thread(end_flows, mark, mask)
        except OSError as error:
            raise _failed(None, error) from error

    def flow_table(self) -> tuple[int, int] | None:
        return flow_table()

    async def follow_logged(self) -> AsyncGenerator[tuple[LoggedPacket, ...]]:
        try:
            async with aclosing(follow_logged()) as logged:
                async for each in logged:
                    yield each
        except OSError as error:
            raise _failed(None, error) from error

    def mark_of(self, flow: FlowKey) -> tuple[int, bool] | None:
        try:
            return self._flow_marks.read(flow)
        except OSError as error:
            raise _failed(None, error) from error

    def mark_flow(self, flow: FlowKey, mark: int, mask: int) -> None:
        try:
            self._flow_marks.write(flow, mark, mask)
        except OSError as error:
            raise _failed(None, error) from error

    async def read_learned(self) -> Mapping[Address, frozenset[str]]:
        try:
            return await self._nftables.read_learned()
        except OSError as error:
            raise _failed(None, error) from error

    async def empty_learned(self, half: str) -> None:
        try:
            await self._nftables.empty_learned(half)
        except OSError as error:
            raise _failed(None, error) from error

    def bonding_trouble(self) -> str | None:
        return self._bonding.trouble()

    def duplication_trouble(self) -> str | None:
        return self._duplication.trouble()

    def read_queue(self, device: str) -> QueueCounters | None:
        try:
            ((payload, code),) = self._steering.ask([rt.get_root_qdisc(device)])
        except OSError:
            return None
        return None if code else listing.queue(payload)

    def read_drops(self, device: str) -> int | None:
        counters = self.read_queue(device)
        return None if counters is None else counters.dropped

    # Applying

    async def _load(self, batch: list[Op]) -> None:
        for op in batch:
            try:
                await self._nftables.apply(op)
            except OSError as error:
                raise _failed(op, error) from error

    def _apply(self, kind: Kind, batch: list[Op]) -> None:
        if kind in _SYSCTLS:
            for op in batch:
                _set_sysctl(op)
        elif kind in _WIREGUARD:
            try:
                refused = self._wireguard.apply(batch)
            except OSError as error:
                raise _failed(batch[0], error) from error
            if refused is not None:
                raise KernelError(*refused)
        else:
            self._route(self._netlink, batch, isinstance(batch[0], Delete))

    def _route(self, netlink: Netlink, batch: Sequence[Op], is_delete: bool) -> None:
        encoded: list[bytes] = []
        owners: list[Op] = []
        if not self._is_safe:
            # The first IPv4 route of a boot by nexthop id crashes kernel 6.12 while `lo` is down.
            _send(netlink, batch, [rt.link_up("lo")])
            self._is_safe = True
        for op in batch:
            try:
                found = rt.encode(op)
            except OSError as error:  # the device is not there
                if not is_delete:
                    raise KernelError(op, errno.ENODEV, str(error.strerror)) from error
                continue
            encoded += found
            owners += [op] * len(found)
        for start in range(0, len(encoded), _MOST_AT_ONCE):
            for refusal in _send(netlink, batch, encoded[start : start + _MOST_AT_ONCE]):
                op = owners[start + refusal.place]
                if not _is_tolerated(op, refusal.errno):
                    raise KernelError(op, refusal.errno, refusal.detail)

    # Observing

    async def _observe(self, wanted: frozenset[Key]) -> Observed:
        found: dict[Key, Item] = {}
        names: dict[int, str] = {}
        async for payload in self._dump(rt.GETLINK, rt.LINK_HEADER.pack(0, 0, 0, 0, 0)):
            seen = listing.link(payload)
            names[seen.ifindex] = seen.name
            key, item = listing.link_item(seen)
            if isinstance(item, Device) or key in wanted:
                found[key] = item
        for key in wanted:
            if key.kind in _SYSCTLS and (value := read_sysctl(str(key.ident[0]))) is not None:
                found[key] = Sysctl(value)
        for key, item in list(found.items()):
            if isinstance(item, Device) and item.kind == "wireguard":
                found.update(self._wireguard.observe(str(key.ident[0])))
                await asyncio.sleep(0)
        async for payload in self._dump(rt.GETADDR, rt.ADDRESS_HEADER.pack(0, 0, 0, 0, 0)):
            key, address, is_ours = listing.address(payload, names)
            if is_ours or key in wanted:
                found[key] = address
        async for payload in self._dump(rt.GETNEXTHOP, rt.NEXTHOP_HEADER.pack(0, 0, 0, 0)):
            if (hop := listing.nexthop(payload, names)) is not None:
                found[hop[0]] = hop[1]
        for family in rt.FAMILIES:
            async for payload in self._dump(rt.GETROUTE, listing.route_request(family)):
                if (route := listing.route(payload, names)) is not None:
                    found[route[0]] = route[1]
        for family in rt.FAMILIES.values():
            request = rt.RULE_HEADER.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)
            rules = [payload async for payload in self._dump(rt.GETRULE, request)]
            found.update(listing.each_rule(iter(rules)))
        found.update(await self._observe_shaping(wanted, names, found))
        found.update(await self._nftables.observe())
        return found

    async def _observe_shaping(
        self, wanted: frozenset[Key], names: Mapping[int, str], found: Mapping[Key, Item]
    ) -> dict[Key, Item]:
        """What `tc` tells, which is asked only where there is something that may be ours."""
        hooked: set[str] = set()
        async for payload in self._dump(rt.GETQDISC, rt.TC_HEADER.pack(0, 0, 0, 0, 0)):
            index, kind = listing.qdisc(payload)
            if kind == "clsact" and index in names:
                hooked.add(names[index])
        has_shapers = any(isinstance(i, Device) and i.kind == "ifb" for i in found.values())
        if not (hooked or has_shapers):
            return {}
        seen = await tc.observe(hooked)
        seen.update(self._duplication.observe(hooked, names))
        seen.update(self._bonding.observe(hooked, names))
        return {key: i for key, i in seen.items() if key.kind not in SHARED or key in wanted}

    async def _dump(self, kind: int, request: bytes) -> AsyncIterator[bytes]:
        """Everything of one kind, pausing between reads; anew when it changed meanwhile."""
        for attempt in range(_DUMP_TRIES):
            try:
                parts: list[bytes] = []
                with closing(self._netlink.dump(kind, request)) as dump:
                    for part in dump:
                        parts += part
                        await asyncio.sleep(0)
            except InterruptedDumpError:
                if attempt == _DUMP_TRIES - 1:
                    raise
                continue
            for number, payload in enumerate(parts, 1):
                yield payload
                if number % _SLICE == 0:
                    await asyncio.sleep(0)
            return


def _batch(op: Op) -> tuple[Kind, bool]:
    """Operations that may travel together: when one is refused, its neighbours may be done."""
    return op.key.kind, isinstance(op, Delete)


def _is_tolerated(op: Op, code: int) -> bool:
    """A delete finds its work done; a change of a rule was cut short before and finds half done."""
    if isinstance(op, Delete):
        return code in rt.ABSENT
    is_rule = isinstance(op, Change) and op.key.kind is Kind.RULE
    return is_rule and (code in rt.ABSENT or code == errno.EEXIST)


def _turning(op: Op) -> tuple[bool, bool, bool]:
    is_bond = op.key.kind is Kind.BOND
    return isinstance(op, Delete), is_bond or op.key.kind in _STEERING or is_rate(op), is_bond


def _set_sysctl(op: Op) -> None:
    if not isinstance(op.item, Sysctl):
        raise ValueError(op.key.kind)
    try:
        write_sysctl(str(op.key.ident[0]), op.item.value)
    except OSError as error:
        raise _failed(op, error) from error


def _send(netlink: Netlink, batch: Sequence[Op], encoded: Sequence[bytes]) -> tuple[Refusal, ...]:
    try:
        return netlink.send(encoded)
    except OSError as error:
        raise _failed(batch[0], error) from error


def _failed(op: Op | None, error: OSError) -> KernelError:
    return KernelError(op, error.errno or 0, str(error.strerror))
