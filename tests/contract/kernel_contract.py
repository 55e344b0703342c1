"""What every kernel promises. One suite for FakeKernel and for the real one (tests/lab/lab_rim.py).

Each check gets a world of its own: a kernel without anything of ours, the devices of `ex.BRANCH`,
and hands that do what a person at the box would do. No pytest here: the lab's guest has none.
"""

import errno
from collections.abc import Awaitable, Callable
from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, Protocol

from appliance.config.addressing import class_table, plane_nexthop
from appliance.config.intent import Address, ClassShare, Shaping, SiteShare
from appliance.contract.ids import Plane, Slot, exit_plane
from appliance.core.steering import Assignment, Carrier, Steering
from appliance.kernel.kernel import Kernel, KernelError
from appliance.plan.adopt import steering_from
from appliance.plan.compile import compile_plan
from appliance.plan.counters import COUNTERS_KEY, sent_counter
from appliance.plan.diff import diff
from appliance.plan.filter import FILTER_KEY
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
    Item,
    Key,
    Kind,
    Nexthop,
    NexthopGroup,
    Once,
    Op,
    Plan,
    Redirect,
    Route,
    Rule,
    Shaper,
    Stripe,
    Sysctl,
    WireguardPeer,
)
from appliance.plan.steer import Steerer
from tests.unit.plan import examples as ex


class World(Protocol):
    """A kernel, and the hands of somebody at the box."""

    kernel: Kernel
    public_key: str
    far_key: str  # of a site that this world can speak for

    def remove(self, key: Key) -> None: ...
    def put_foreign(self, key: Key, item: Item) -> None: ...
    def drift(self, key: Key) -> None: ...
    def has_foreign(self, key: Key) -> bool: ...
    def roam(self, key: Key) -> tuple[Address, int]: ...  # the peer is heard from there


def branch_plan(world: World, steering: Steering = ex.BRANCH_STEERING) -> Plan:
    intent = replace(ex.BRANCH, peers=(ex.BRANCH.peers[0], replace(ex.BRANCH.peers[1])))
    return compile_plan(intent, ex.BRANCH_FACTS, steering, world.public_key)


def shared_plan(world: World, *shares: ClassShare, rate_bps: int = 19_000_000) -> Plan:
    """The plan of a branch whose classes have shares of its first line."""
    fibre = replace(ex.BRANCH.uplinks[0], shaping=Shaping(rate_bps, rate_bps, shares=shares))
    intent = replace(ex.BRANCH, uplinks=(fibre, *ex.BRANCH.uplinks[1:]))
    return compile_plan(intent, ex.BRANCH_FACTS, ex.BRANCH_STEERING, world.public_key)


async def converge(world: World, plan: Plan) -> tuple[Op, ...]:
    ops = diff(plan, await world.kernel.observe(plan.keys()))
    await world.kernel.apply(ops)
    return ops


async def refusal(world: World, *ops: Op) -> int:
    """The errno with which the kernel refuses; 0 when it does not."""
    try:
        await world.kernel.apply(ops)
    except KernelError as error:
        return error.errno
    return 0


async def refused(world: World, *ops: Op) -> Key | None:
    """What the kernel refuses; None when it does not."""
    try:
        await world.kernel.apply(ops)
    except KernelError as error:
        return error.op.key if error.op else None
    return None


def steer_refusal(world: World, *ops: Op) -> KernelError | None:
    """What the fast path refuses, or None when it does not."""
    try:
        world.kernel.steer(ops)
    except KernelError as error:
        return error
    return None


async def is_met(world: World, plan: Plan) -> bool:
    left = diff(plan, await world.kernel.observe(plan.keys()))
    if left:
        print("left to do:", left)
    return not left


_WAYS_OUT = {plane_nexthop(exit_plane(Slot(slot)), f) for slot in (1, 2) for f in (4, 6)}
HOP_A, HOP_B = 0x0B0000F0, 0x0B0000F2
GROUP = 0x400000F0
TABLE = class_table(9)
DUMMY = Key(Kind.DEVICE, ("bl-x",))
NEXTHOP = Key(Kind.NEXTHOP, (HOP_A,))
ROUTE = Key(Kind.ROUTE, (TABLE, "192.0.2.128/25", 100))
RULE = Key(Kind.RULE, (4, 20900))
ADDRESS = Key(Kind.ADDRESS, ("bl-x", "fd00::1/128"))
LONE: dict[Key, Item] = {
    DUMMY: Device("dummy", 1500),
    ADDRESS: DeviceAddress(ip_interface("fd00::1/128")),
    NEXTHOP: Nexthop(4, "bl-x"),
    Key(Kind.NEXTHOP, (HOP_B,)): Nexthop(4, "bl-x"),
    Key(Kind.GROUP, (GROUP,)): NexthopGroup(((HOP_A, 1), (HOP_B, 256))),
    ROUTE: Route(nexthop=HOP_A, mtu=1380),
    Key(Kind.ROUTE, (TABLE, "192.0.2.0/25", 100)): Route(nexthop=GROUP),
    RULE: Rule(TABLE, 0x10000000, 0xF0000000),
}


async def check_a_bare_kernel_has_nothing_of_ours(world: World) -> None:
    assert not await world.kernel.observe(())


async def check_a_whole_plan_is_met_at_once_and_stays_met(world: World) -> None:
    plan = branch_plan(world)
    assert await converge(world, plan)
    assert await is_met(world, plan)
    assert await converge(world, plan) == ()


async def check_a_restart_finds_its_steering(world: World) -> None:
    plan = branch_plan(world)
    await converge(world, plan)
    seen = await world.kernel.observe(plan.keys())
    assert steering_from(ex.BRANCH, seen) == ex.BRANCH_STEERING


async def check_everything_goes_but_what_is_shared_or_foreign(world: World) -> None:
    foreign: dict[Key, Item] = {
        Key(Kind.ROUTE, (254, "0.0.0.0/0", 5)): Route(device="lan0"),
        Key(Kind.RULE, (4, 20950)): Rule(254),
        Key(Kind.NEXTHOP, (7,)): Nexthop(4, "lan0"),
        Key(Kind.ADDRESS, ("lan0", "192.0.2.9/24")): DeviceAddress(ip_interface("192.0.2.9/24")),
    }
    for key, item in foreign.items():
        world.put_foreign(key, item)
    plan = branch_plan(world)
    await converge(world, plan)
    assert await is_met(world, plan)
    await converge(world, {})
    left = await world.kernel.observe(plan.keys())
    assert {key.kind for key in left} <= SHARED, left
    assert all(world.has_foreign(key) for key in foreign)


async def check_another_plan_takes_the_place_of_the_first(world: World) -> None:
    await converge(world, branch_plan(world))
    one_peer = replace(ex.BRANCH, peers=ex.BRANCH.peers[:1], lans=())
    facts = {**ex.BRANCH_FACTS, Slot(1): replace(ex.BRANCH_FACTS[Slot(1)], has_carrier=False)}
    other = compile_plan(one_peer, facts, ex.BRANCH_STEERING, world.public_key)
    await converge(world, other)
    assert await is_met(world, other)
    assert {op.key.kind for op in await converge(world, branch_plan(world))} >= {
        Kind.PEER,
        Kind.ROUTE,
        Kind.FILTER,
    }


async def check_adding_what_is_there_is_refused(world: World) -> None:
    await converge(world, LONE)
    for key, item in LONE.items():
        assert await refusal(world, Add(key, item)) == errno.EEXIST, key
    assert await is_met(world, LONE)


async def check_changing_what_is_missing_is_refused(world: World) -> None:
    await world.kernel.apply([Add(DUMMY, LONE[DUMMY]), Add(NEXTHOP, LONE[NEXTHOP])])
    hop_b, group = Key(Kind.NEXTHOP, (HOP_B,)), Key(Kind.GROUP, (GROUP,))
    default = Key(Kind.ROUTE, (TABLE, "0.0.0.0/0", 100))
    for key in (hop_b, ROUTE):
        assert await refusal(world, Change(key, LONE[key], LONE[key])) == errno.ENOENT, key
    alone = NexthopGroup(((HOP_A, 1),))
    through = Route(nexthop=GROUP)
    # These go with the carrier of an uplink, and are wanted again when another one takes over.
    world.kernel.steer([Change(group, alone, alone), Change(default, through, through)])
    assert (await world.kernel.observe(()))[group] == alone
    missing = Key(Kind.DEVICE, ("bl-y",))
    assert await refusal(world, Change(missing, LONE[DUMMY], LONE[DUMMY])) == errno.ENODEV


async def check_deleting_what_is_missing_is_no_failure(world: World) -> None:
    plan = {**branch_plan(world), **LONE}
    await world.kernel.apply([Delete(k, i) for k, i in plan.items() if k.kind is not Kind.PEER])
    assert not [k for k in await world.kernel.observe(()) if k.kind not in SHARED]


async def check_nothing_may_refer_to_what_is_missing(world: World) -> None:
    nowhere = Key(Kind.ADDRESS, ("bl-nowhere", "fd00::1/128"))
    assert await refusal(world, Add(nowhere, LONE[ADDRESS])) == errno.ENODEV
    assert await refusal(world, Add(NEXTHOP, Nexthop(4, "bl-nowhere"))) == errno.ENODEV
    assert await refusal(world, Add(ROUTE, LONE[ROUTE])) == errno.EINVAL
    group = Key(Kind.GROUP, (GROUP,))
    assert await refusal(world, Add(group, LONE[group])) == errno.EINVAL
    setting = Key(Kind.SYSCTL, ("net/ipv4/conf/bl-nowhere/rp_filter",))
    assert await refusal(world, Add(setting, Sysctl("2"))) == errno.ENOENT


async def check_a_route_needs_a_nexthop_of_its_family(world: World) -> None:
    await converge(world, LONE)
    six = Key(Kind.ROUTE, (TABLE, "2001:db8::/64", 100))
    assert await refusal(world, Add(six, Route(nexthop=HOP_A))) == errno.EINVAL


async def check_what_goes_with_a_device_is_seen_and_mended(world: World) -> None:
    plan = branch_plan(world)
    await converge(world, plan)
    world.remove(Key(Kind.DEVICE, ("bl-1-1",)))
    seen = await world.kernel.observe(plan.keys())
    gone = set(plan) - set(seen)
    both = {plane_nexthop(Plane(Slot(1), Slot(1)), f) for f in (4, 6)}
    detoured = {plane_nexthop(Plane(Slot(2), Slot(1)), f) for f in (4, 6)}
    hops = {Key(Kind.NEXTHOP, (hop,)) for hop in both | detoured}
    on_device = {k for k in plan if k.kind < Kind.NEXTHOP and "bl-1-1" in str(k.ident[0])}
    routes = {
        k
        for k, i in plan.items()
        if isinstance(i, Route) and (i.nexthop in both | detoured or i.device == "bl-1-1")
    }
    filters = {k for k in plan if k.kind is Kind.REDIRECT and k.ident[0] == "bl-1-1"}
    assert {k for k in gone if k.kind not in SHARED} == hops | on_device - {
        k for k in on_device if k.kind in SHARED
    } | routes | filters
    groups = [i for i in seen.values() if isinstance(i, NexthopGroup)]
    hit = [g for g in groups if not any(hop in _WAYS_OUT for hop, _ in g.members)]
    assert [len(g.members) for g in hit] == [1, 1]
    await converge(world, plan)
    assert await is_met(world, plan)


async def check_what_goes_with_a_nexthop_is_seen_and_mended(world: World) -> None:
    await converge(world, LONE)
    world.remove(NEXTHOP)
    seen = await world.kernel.observe(())
    assert set(LONE) - set(seen) == {NEXTHOP, ROUTE}
    assert seen[Key(Kind.GROUP, (GROUP,))] == NexthopGroup(((HOP_B, 256),))
    await converge(world, LONE)
    assert await is_met(world, LONE)


async def check_each_thing_removed_by_hand_is_mended(world: World) -> None:
    plan = branch_plan(world)
    await converge(world, plan)
    for kind in (
        *(Kind.PEER, Kind.ADDRESS, Kind.GROUP, Kind.ROUTE, Kind.RULE),
        *(Kind.SHAPER, Kind.REDIRECT, Kind.FILTER),
    ):
        key = max(k for k in plan if k.kind is kind)
        world.remove(key)
        assert key not in await world.kernel.observe(()), key
        assert await converge(world, plan)
        assert await is_met(world, plan), key


async def check_a_shaper_changes_in_place(world: World) -> None:
    plan = dict(branch_plan(world))
    await converge(world, plan)
    key = Key(Kind.SHAPER, ("bl-up1",))
    for rate_bps in (5_000_000, 100_000, 10_000_000_000):
        plan[key] = replace(plan[key], rate_bps=rate_bps)
        assert len(await converge(world, plan)) == 1
        assert await is_met(world, plan)
    for keeps_gso in (True, False):
        plan[key] = replace(plan[key], keeps_gso=keeps_gso)
        assert len(await converge(world, plan)) == 1
        assert await is_met(world, plan)


async def check_the_rate_of_a_shaper_is_steered(world: World) -> None:
    plan = branch_plan(world)
    await converge(world, plan)
    key = Key(Kind.SHAPER, ("bl-up1",))
    for rate_bps in (5_000_000, 100_000, 10_000_000_000):
        before = (await world.kernel.observe(()))[key]
        assert isinstance(before, Shaper)
        other = replace(before, rate_bps=rate_bps)
        assert steer_refusal(world, Change(key, before, other)) is None
        assert (await world.kernel.observe(()))[key] == other
        more = replace(other, overhead=other.overhead + 1)
        error = steer_refusal(world, Change(key, other, more))
        assert error is not None
        assert error.errno == errno.EOPNOTSUPP
    assert len(await converge(world, plan)) == 1  # the same as a rate that somebody changed
    world.remove(key)
    error = steer_refusal(world, Change(key, plan[key], replace(plan[key], rate_bps=8_000_000)))
    assert error is not None
    assert error.errno == errno.ENOENT


async def check_shares_of_classes_come_change_and_go(world: World) -> None:
    without = branch_plan(world)
    key = Key(Kind.SHAPER, ("bl-up1",))
    one, two = ClassShare(ex.VOICE, 0.2), ClassShare(ex.BULK, 0.1, 0.5)
    wanted = [shared_plan(world, *shares) for shares in ((one,), (one, two), (two,))]
    for plan in (*wanted, without, wanted[1]):
        await converge(world, plan)
        assert await is_met(world, plan)
    item = wanted[1][key]
    assert isinstance(item, Shaper)
    slower = shared_plan(world, one, two, rate_bps=1_000_000)
    assert steer_refusal(world, Change(key, item, slower[key])) is None
    assert (await world.kernel.observe(()))[key] == slower[key]
    assert len(await converge(world, wanted[1])) == 1
    assert await is_met(world, wanted[1])
    world.remove(key)
    error = steer_refusal(world, Change(key, item, slower[key]))
    assert error is not None
    assert error.errno == errno.ENOENT
    assert [op.key for op in await converge(world, wanted[1])] == [key]
    assert await is_met(world, wanted[1])


def sites_plan(world: World, *downs: int | None, **shaping: Any) -> Plan:
    """The plan of a branch that knows what lines of its first peer receive."""
    intent = ex.BRANCH
    fibre = replace(intent.uplinks[0], shaping=Shaping(19_000_000, 19_000_000, **shaping))
    first, *others = intent.peers
    lines = [replace(line, down_bps=down) for line, down in zip(first.uplinks, downs, strict=False)]
    peers = (replace(first, uplinks=(*lines, *first.uplinks[len(lines) :])), *others)
    intent = replace(intent, uplinks=(fibre, *intent.uplinks[1:]), peers=peers)
    return compile_plan(intent, ex.BRANCH_FACTS, ex.BRANCH_STEERING, world.public_key)


async def check_queues_of_sites_come_change_and_go(world: World) -> None:
    key = Key(Kind.SHAPER, ("bl-up1",))
    first, last = (
        SiteShare(peer.name, 0.2, 0.5) for peer in (ex.BRANCH.peers[0], ex.BRANCH.peers[-1])
    )
    wanted = [
        sites_plan(world, 5_000_000),
        sites_plan(world, 5_000_000, 2_000_000),
        sites_plan(world, 5_000_000, sites=(first, last)),
        sites_plan(world, sites=(first,), shares=(ClassShare(ex.VOICE, 0.2),)),
        branch_plan(world),
        sites_plan(world, 5_000_000, 2_000_000, shares=(ClassShare(ex.VOICE, 0.2),)),
    ]
    for plan in wanted:
        await converge(world, plan)
        assert await is_met(world, plan)
    item = wanted[-1][key]
    assert isinstance(item, Shaper)
    assert len(item.sites) == 2
    slower = sites_plan(world, 4_000_000, 1_000_000, shares=(ClassShare(ex.VOICE, 0.2),))
    assert steer_refusal(world, Change(key, item, slower[key])) is None
    assert (await world.kernel.observe(()))[key] == slower[key]
    assert len(await converge(world, wanted[-1])) == 1
    assert await is_met(world, wanted[-1])


async def check_a_redirection_to_a_shaper_that_was_removed_is_mended(world: World) -> None:
    plan = branch_plan(world)
    await converge(world, plan)
    world.remove(Key(Kind.DEVICE, ("bl-up1",)))
    assert not await is_met(world, plan)
    await converge(world, plan)
    assert await is_met(world, plan)


async def check_changed_filters_are_seen_and_mended(world: World) -> None:
    plan = branch_plan(world)
    await converge(world, plan)
    for key in [k for k in plan if k.kind is Kind.REDIRECT][:3]:
        other = replace(plan[key], to="bl-mgmt", ports=None)
        await world.kernel.apply([Change(key, plan[key], other)])
        assert (await world.kernel.observe(()))[key] == other
    await converge(world, plan)
    assert await is_met(world, plan)


async def check_nothing_hangs_on_a_missing_device(world: World) -> None:
    await converge(world, branch_plan(world))
    for key, item in {
        Key(Kind.CLSACT, ("bl-nowhere",)): Clsact(),
        Key(Kind.SHAPER, ("bl-nowhere",)): Shaper(1_000_000, 0, is_ingress=False),
        Key(Kind.REDIRECT, ("bl-nowhere", "egress", 45312)): Redirect("ip", None),
        Key(Kind.REDIRECT, ("bl-1-1", "egress", 45399)): Redirect("ip", "bl-nowhere"),
    }.items():
        assert await refused(world, Add(key, item)) == key


def twice_plan(world: World, steering: Steering = ex.TWICE_STEERING) -> Plan:
    return compile_plan(ex.TWICE, ex.BRANCH_FACTS, steering, world.public_key)


async def check_what_duplicates_is_met_found_and_taken_away(world: World) -> None:
    assert world.kernel.duplication_trouble() is None
    plan = twice_plan(world)
    await converge(world, plan)
    assert await is_met(world, plan)
    seen = await world.kernel.observe(())
    assert steering_from(ex.TWICE, seen) == ex.TWICE_STEERING
    await converge(world, branch_plan(world))
    left = await world.kernel.observe(())
    assert not [key for key in left if key.kind in (Kind.ONCE, Kind.COPY)]


async def check_copies_go_another_way_in_place(world: World) -> None:
    await converge(world, twice_plan(world))
    for local, remote in ((1, 2), (2, 1), (2, 2)):
        assignments = dict(ex.TWICE_STEERING.assignments)
        held, path = assignments[ex.VOICE, ex.HQ], ex.path("hq", local, remote)
        assignments[ex.VOICE, ex.HQ] = replace(held, second=path)
        plan = twice_plan(world, replace(ex.TWICE_STEERING, assignments=assignments))
        ops = await converge(world, plan)
        assert {op.key.kind for op in ops} == {Kind.COPY}, ops
        assert await is_met(world, plan)


async def check_what_duplicates_is_mended_when_it_is_removed(world: World) -> None:
    plan = twice_plan(world)
    await converge(world, plan)
    for key in sorted(k for k in plan if k.kind in (Kind.ONCE, Kind.COPY)):
        world.remove(key)
        assert key not in await world.kernel.observe(()), key
        assert [op.key for op in await converge(world, plan)] == [key]
        assert await is_met(world, plan), key


async def check_copies_into_a_plane_that_was_made_anew_are_mended(world: World) -> None:
    plan = twice_plan(world)
    await converge(world, plan)
    world.remove(Key(Kind.DEVICE, ("bl-2-2",)))
    copy = next(k for k, i in plan.items() if isinstance(i, Copy) and i.to == "bl-2-2")
    assert (await world.kernel.observe(()))[copy] != plan[copy]
    assert copy in [op.key for op in await converge(world, plan)]
    assert await is_met(world, plan)


async def check_no_program_hangs_on_what_is_missing(world: World) -> None:
    await converge(world, branch_plan(world))
    once, copy = Once(str(ex.OVERLAY)), Copy("bl-2-2", "all")
    for key, item in {
        Key(Kind.ONCE, ("bl-nowhere",)): once,
        Key(Kind.COPY, ("bl-nowhere", 1, 0)): copy,
        Key(Kind.COPY, ("bl-1-1", 1, 0)): Copy("bl-nowhere", "all"),
        Key(Kind.ONCE, ("bl-mgmt",)): once,  # it has no clsact qdisc
    }.items():
        assert await refused(world, Add(key, item)) == key
        await world.kernel.apply([Delete(key, item)])


def bonded_plan(world: World, steering: Steering = ex.BONDED_STEERING) -> Plan:
    return compile_plan(ex.BONDED, ex.BRANCH_FACTS, steering, world.public_key)


def bonded_over(*planes: tuple[int, int]) -> Steering:
    """Bulk to hq over these, and none of them under a detour."""
    held = Assignment(tuple(Carrier(ex.path("hq", *plane)) for plane in planes))
    assignments = {**ex.BONDED_STEERING.assignments, (ex.BULK, ex.HQ): held}
    return replace(ex.BONDED_STEERING, assignments=assignments, detours={})


def bonds_of(plan: Plan) -> list[Key]:
    return sorted(key for key in plan if key.kind is Kind.BOND)


async def check_bonds_are_met_found_and_taken_away(world: World) -> None:
    assert world.kernel.bonding_trouble() is None
    plan = bonded_plan(world)
    assert [key.ident[0] for key in bonds_of(plan)] == ["bl-1-1", "bl-2-2"]
    await converge(world, plan)
    assert await is_met(world, plan)
    seen = await world.kernel.observe(())
    assert steering_from(ex.BONDED, seen) == ex.BONDED_STEERING
    await converge(world, branch_plan(world))
    assert not bonds_of(await world.kernel.observe(()))


async def check_bonds_change_in_place(world: World) -> None:
    await converge(world, bonded_plan(world, bonded_over((1, 1), (2, 2))))
    plan: Plan = {}
    for members in (((1, 1), (1, 2), (2, 2)), ((1, 2), (2, 1)), ((1, 1), (2, 1)), ((1, 1), (2, 2))):
        plan = bonded_plan(world, bonded_over(*members))
        ops = await converge(world, plan)
        assert {op.key.kind for op in ops} == {Kind.GROUP, Kind.BOND}, ops
        assert await is_met(world, plan)
    bonds = bonds_of(plan)
    stripe = Stripe(2, ("192.168.9.0/24",), tuple(str(key.ident[0]) for key in bonds))
    plan = {**plan, **{key: Bond("4567", (stripe,)) for key in bonds}}
    assert [op.key for op in await converge(world, plan)] == bonds
    assert await is_met(world, plan)


async def check_bonds_are_steered(world: World) -> None:
    steerer, before = Steerer(ex.BONDED), bonded_over((1, 1), (2, 2))
    await converge(world, bonded_plan(world, before))
    dead = {Plane(Slot(2), Slot(r)): Plane(Slot(1), Slot(r)) for r in (1, 2)}
    for after in (
        bonded_over((1, 1), (2, 1)),
        bonded_over((1, 1)),
        bonded_over((1, 2), (2, 1)),
        replace(bonded_over((1, 2), (2, 1)), detours=dead),
        ex.BONDED_STEERING,
    ):
        assert steer_refusal(world, *steerer.ops(before, after)) is None
        assert await is_met(world, bonded_plan(world, after))
        before = after


async def check_bonds_are_mended_when_one_is_removed(world: World) -> None:
    plan = bonded_plan(world)
    await converge(world, plan)
    for key in bonds_of(plan):
        world.remove(key)
        assert key not in await world.kernel.observe(()), key
        ops = await converge(world, plan)
        assert key in [op.key for op in ops]
        assert {op.key.kind for op in ops} == {Kind.BOND}, ops
        assert await is_met(world, plan), key


async def check_bonds_of_a_plane_that_was_made_anew_are_mended(world: World) -> None:
    plan = bonded_plan(world)
    await converge(world, plan)
    world.remove(Key(Kind.DEVICE, ("bl-2-2",)))
    one, other = bonds_of(plan)
    seen = await world.kernel.observe(())
    assert other not in seen
    assert seen[one] != plan[one]
    assert {op.key for op in await converge(world, plan)} >= {one, other}
    assert await is_met(world, plan)


async def check_no_bond_hangs_on_what_is_missing(world: World) -> None:
    await converge(world, branch_plan(world))
    sound = Bond("0123", (Stripe(2, ("192.168.3.0/24",), ("bl-1-1", "bl-2-2")),))
    broken = Bond("0123", (Stripe(2, ("192.168.3.0/24",), ("bl-1-1", "bl-nowhere")),))
    for key, item in {
        Key(Kind.BOND, ("bl-nowhere",)): sound,
        Key(Kind.BOND, ("bl-1-1",)): broken,
        Key(Kind.BOND, ("bl-mgmt",)): sound,  # it has no clsact qdisc
    }.items():
        assert await refused(world, Add(key, item)) == key
        await world.kernel.apply([Delete(key, item)])
    left = bonds_of(await world.kernel.observe(()))
    assert not left, left


async def check_somebody_elses_address_counts_but_is_not_taken(world: World) -> None:
    key = Key(Kind.ADDRESS, ("lan0", "192.0.2.1/24"))
    world.put_foreign(key, DeviceAddress(ip_interface("192.0.2.1/24")))
    plan = branch_plan(world)
    assert key not in [op.key for op in await converge(world, plan)]
    assert await is_met(world, plan)
    assert key not in await world.kernel.observe(())
    await converge(world, {})
    assert world.has_foreign(key)


async def check_a_peer_keeps_the_endpoint_that_it_was_heard_from(world: World) -> None:
    plan = dict(branch_plan(world))
    key = Key(Kind.PEER, ("bl-1-1", ex.KEY_B))
    called = replace(plan[key], endpoint=(ip_address("198.51.100.7"), 4500))
    await converge(world, {**plan, key: called})
    assert plan[key].endpoint is None
    assert await converge(world, plan) == ()
    await world.kernel.apply([Change(key, called, replace(plan[key], keepalive_s=9))])
    assert (await world.kernel.observe(()))[key] == replace(called, keepalive_s=9)


async def check_a_peer_that_is_heard_from_elsewhere_is_no_drift(world: World) -> None:
    plan = dict(branch_plan(world))
    key = Key(Kind.PEER, ("bl-1-1", world.far_key))
    here, there = ((ip_address(f"198.51.100.{n}"), 4500) for n in (7, 8))
    plan[key] = WireguardPeer(here, frozenset(), 0)
    await converge(world, plan)
    silent = (await world.kernel.observe(()))[key]
    assert isinstance(silent, WireguardPeer)
    assert (silent, silent.is_heard) == (plan[key], False)
    elsewhere = world.roam(key)
    assert await converge(world, plan) == ()
    heard = (await world.kernel.observe(()))[key]
    assert isinstance(heard, WireguardPeer)
    assert (heard.endpoint, heard.is_heard) == (elsewhere, True)
    other = {**plan, key: WireguardPeer(there, frozenset(), 0)}
    ops = diff(other, await world.kernel.observe(other.keys()), plan)
    assert [op.key for op in ops] == [key]
    await world.kernel.apply(ops)
    assert (await world.kernel.observe(()))[key] == other[key]


async def check_peers_change_in_place(world: World) -> None:
    plan = dict(branch_plan(world))
    await converge(world, plan)
    key = Key(Kind.PEER, ("bl-1-1", ex.KEY_HQ))
    peer = plan[key]
    for allowed in (frozenset(list(peer.allowed_ips)[:1]), peer.allowed_ips):
        plan[key] = replace(peer, allowed_ips=allowed)
        await converge(world, plan)
        assert await is_met(world, plan)


async def check_a_peer_with_thousands_of_prefixes_is_in_force(world: World) -> None:
    plan = dict(branch_plan(world))
    key = Key(Kind.PEER, ("bl-1-1", ex.KEY_HQ))
    peer = plan[key]
    many = [ip_network(f"10.{n >> 8}.{n & 255}.0/24") for n in range(1500)]
    many += [ip_network(f"fd00:0:0:{n:x}::/64") for n in range(1500)]
    for allowed in (many, many[:200], many, many[1000:]):  # added, taken away, added in place
        plan[key] = replace(peer, allowed_ips=peer.allowed_ips | frozenset(allowed))
        assert await converge(world, plan)
        assert await is_met(world, plan)


async def check_a_device_that_was_set_down_comes_up(world: World) -> None:
    await converge(world, LONE)
    down = replace(LONE[DUMMY], is_up=False)
    await world.kernel.apply([Change(DUMMY, LONE[DUMMY], down)])
    assert (await world.kernel.observe(()))[DUMMY] == down
    await converge(world, LONE)
    assert await is_met(world, LONE)


async def check_settings_and_links_are_seen_only_when_wanted(world: World) -> None:
    plan = branch_plan(world)
    await converge(world, plan)
    kinds = {key.kind for key in await world.kernel.observe(())}
    assert not kinds & SHARED
    kinds = {key.kind for key in await world.kernel.observe(plan.keys())}
    assert kinds >= SHARED


async def check_nothing_after_a_refusal_is_done(world: World) -> None:
    await converge(world, LONE)
    strange = Key(Kind.ROUTE, (TABLE, "198.51.100.0/24", 100))
    ops = [
        Add(strange, Route(nexthop=HOP_A + 99)),
        Add(Key(Kind.RULE, (4, 20901)), Rule(TABLE)),
        Delete(ROUTE, LONE[ROUTE]),
    ]
    assert await refusal(world, *ops) == errno.EINVAL
    assert await is_met(world, LONE)
    error = steer_refusal(world, ops[0], ops[2])
    assert error is not None
    assert error.op == ops[0]
    assert await is_met(world, LONE)


async def check_moves_and_detours_take_the_fast_path(world: World) -> None:
    before = ex.BRANCH_STEERING
    await converge(world, branch_plan(world))
    moved = dict(before.assignments)
    moved[ex.VOICE, ex.HQ] = ex.carried(ex.path("hq", 2, 2))
    moved[ex.BULK, ex.HQ] = ex.carried(ex.path("hq", 1, 2), ex.path("hq", 2, 2), mtu=1300)
    moved[ex.VOICE, ex.BRANCH_B] = ex.carried(ex.path("branch-b", 1, 1))
    del moved[ex.DEFAULT, ex.BRANCH_B]
    dead = {Plane(Slot(1), Slot(r)): Plane(Slot(2), Slot(r)) for r in (1, 2)}
    for after in (Steering(moved, dead), Steering(moved), before):
        world.kernel.steer(Steerer(ex.BRANCH).ops(before, after))
        assert await is_met(world, branch_plan(world, after))
        before = after


async def check_steering_is_all_that_steer_does(world: World) -> None:
    error = steer_refusal(world, Add(RULE, LONE[RULE]))
    assert error is not None
    assert error.errno == errno.EOPNOTSUPP
    assert RULE not in await world.kernel.observe(())


async def check_a_changed_firewall_is_seen_and_loaded_anew(world: World) -> None:
    plan = branch_plan(world)
    await converge(world, plan)
    for key in (FILTER_KEY, COUNTERS_KEY):
        world.drift(key)
        assert (await world.kernel.observe(()))[key] != plan[key]
        assert [op.key for op in await converge(world, plan)] == [key]
        assert await is_met(world, plan)


async def check_counters_that_are_not_there_read_as_none(world: World) -> None:
    name = sent_counter(Plane(Slot(1), Slot(1)), ex.BRANCH.peers[0].site_id)
    assert world.kernel.read_counters([name]) == (None,)
    assert world.kernel.read_counters([]) == ()


CHECKS: dict[str, Callable[[World], Awaitable[None]]] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}
