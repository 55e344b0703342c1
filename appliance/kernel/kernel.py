"""What the rest of the supervisor may ask of a kernel, the real one or the one in memory."""

import os
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from appliance.config.intent import Address
from appliance.kernel.conntrack import FlowKey, TrackedFlow
from appliance.kernel.keys import Keys
from appliance.kernel.nflog import LoggedPacket
from appliance.plan.plan import Change, Key, Observed, Op, Shaper
from appliance.plan.text import render_op


class KernelError(Exception):
    """The kernel refused something. `op` is None when it refused to be observed.

    `errno` is the kernel's, and 0 when a program failed in another way; `detail` is what it said.
    """

    def __init__(self, op: Op | None, errno: int, detail: str = "") -> None:
        self.op = op
        self.errno = errno
        self.detail = detail
        what = render_op(op) if op is not None else "observe"
        why = ": ".join(x for x in (os.strerror(errno) if errno else "", detail) if x)
        super().__init__(f"{what}: {why}")


def is_rate(op: Op) -> bool:
    """Does an operation change the rate of a shaper and nothing else?"""
    return (
        isinstance(op, Change)
        and isinstance(op.before, Shaper)
        and isinstance(op.item, Shaper)
        and op.before.is_like(op.item)
    )


@dataclass(frozen=True, slots=True)
class MissingFeature:
    """Something that the box lacks, and what to do about it."""

    name: str
    remedy: str


class QueueCounters(NamedTuple):
    """What a queue has let through and dropped so far, and what waits in it."""

    octets: int  # of what it let through, without what the line adds
    packets: int
    dropped: int  # packets
    waiting: int  # octets


class Kernel(Protocol):
    """Observes and applies; decides nothing. What does not bear our mark is never touched."""

    @property
    def ports(self) -> frozenset[int]:
        """By these a netlink listener knows our own changes."""
        ...

    def use_keys(self, keys: Keys) -> None:
        """The next plan is for these keys. Nothing in the kernel changes.

        Not while operations are applied: those are for the keys before.
        """
        ...

    def close(self) -> None:
        """Let go. Nothing in the kernel changes."""
        ...

    async def missing_for_shaping(self, *, has_shares: bool) -> tuple[MissingFeature, ...]:
        """What shaping lacks here, found out by trying; empty when nothing.

        Nobody sees what is made for that. Raises OSError.
        """
        ...

    async def observe(self, wanted: Collection[Key]) -> Observed:
        """Everything that bears our mark, and of what is shared with others the `wanted` keys.

        Shared are sysctls, the up flag of devices that are not ours, and addresses: one that
        somebody else has put where we want it counts as present and stays when we no longer do.
        Raises KernelError, as everything here that fails.
        """
        ...

    async def apply(self, ops: Sequence[Op]) -> None:
        """Carry out the operations in order, stopping at the first that fails.

        Deleting what is not there is no failure; adding what is there is one (EEXIST), because it
        shows that the observation was stale. Raises KernelError.
        """
        ...

    def steer(self, ops: Sequence[Op]) -> None:
        """The same for nexthop objects, groups and routes, at once and without waiting.

        And for a `Change` of a shaper to another rate: what waits in it goes on waiting.
        """
        ...

    def read_counters(self, names: Sequence[str]) -> tuple[int | None, ...]:
        """Packets of each named counter of `netdev branchline`; None for one that cannot be read.

        A smaller value than before means that the table was loaded anew: start over.
        """
        ...

    async def read_flows(self, most: int) -> tuple[tuple[TrackedFlow, ...], bool]:
        """Flows that have a class, and whether these are all: at most so many are looked at.

        Raises KernelError.
        """
        ...

    async def end_flows(self, mark: int, mask: int) -> None:
        """Forget all flows whose conntrack mark has these bits. Raises KernelError."""
        ...

    def flow_table(self) -> tuple[int, int] | None:
        """How many flows are tracked and how many can be; None without connection tracking."""
        ...

    def follow_logged(self) -> AsyncGenerator[tuple[LoggedPacket, ...]]:
        """Copies of packets that the plan's rules log, some at a time, from now on.

        First come none, as soon as somebody listens. Closing it ends that. Raises KernelError.
        """
        ...

    def mark_of(self, flow: FlowKey) -> tuple[int, bool] | None:
        """The conntrack mark of a flow, and whether it takes the fast path; None: not tracked.

        Raises KernelError.
        """
        ...

    def mark_flow(self, flow: FlowKey, mark: int, mask: int) -> None:
        """Give these bits of a flow's conntrack mark this value, if it is there still.

        Raises KernelError.
        """
        ...

    async def read_learned(self) -> Mapping[Address, frozenset[str]]:
        """Addresses that the name server told, and of which domains, by `learned_set`.

        Raises KernelError.
        """
        ...

    async def empty_learned(self, half: str) -> None:
        """Empty one set, "a" or "b", of each pair that it fills. Raises KernelError."""
        ...

    def read_queue(self, device: str) -> QueueCounters | None:
        """What the root qdisc of a device counts; None for one that is not there."""
        ...

    def duplication_trouble(self) -> str | None:
        """Why this kernel cannot send packets twice and let them in once; None when it can."""
        ...

    def bonding_trouble(self) -> str | None:
        """Why this kernel cannot spread a flow over planes; None when it can."""
        ...

    def read_drops(self, device: str) -> int | None:
        """Packets that the root qdisc of a device has dropped; None for one that is not there."""
        ...
