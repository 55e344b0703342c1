"""Whatever is found in the kernel, the operations lead to the plan, and never through a hole."""

import asyncio
import contextlib
from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.config.addressing import internet_table
from appliance.config.intent import Internet, Mode
from appliance.contract.ids import INTERNET, Slot
from appliance.core.events import UplinkFacts
from appliance.core.steering import Assignment, Carrier, Steering
from appliance.kernel.fake import Crash, FakeKernel
from appliance.plan.adopt import steering_from
from appliance.plan.compile import compile_plan
from appliance.plan.diff import diff
from appliance.plan.exits import exit_key, exits
from appliance.plan.overlay import MAIN_TABLE, MANAGEMENT_DEVICE
from appliance.plan.plan import (
    SHARED,
    DeviceAddress,
    Key,
    Kind,
    Nexthop,
    NexthopGroup,
    Plan,
    Route,
    Rule,
)
from appliance.plan.steer import Steerer
from tests.unit.plan import examples as ex

PATHS = {
    ex.HQ: [ex.path("hq", x, y) for x in (1, 2) for y in (1, 2)],
    ex.BRANCH_B: [ex.path("branch-b", x, 1) for x in (1, 2)],
    INTERNET: [ex.path("internet", x, 0) for x in (1, 2)],
}
PLANES = sorted({p.plane for s, paths in PATHS.items() if s != INTERNET for p in paths})
OUTSIDE = {internet_table(c.index) for c in ex.BRANCH.classes}
SHARING = {p.class_name for p in ex.BRANCH.policies if p.mode is Mode.SHARE}


@st.composite
def assignments(draw, class_name, site):
    """One that can be read back: planes in order, and weights only where there is a group."""
    chosen = draw(st.lists(st.sampled_from(PATHS[site]), unique=True, max_size=3))
    if not chosen:
        return Assignment()
    weighted = class_name in SHARING or len(chosen) > 1
    weights = st.integers(1, 3) if weighted else st.just(1)
    carriers = tuple(Carrier(p, draw(weights)) for p in sorted(chosen))
    sizes = [None] if site == INTERNET else [None, 1380]
    return Assignment(carriers, draw(st.sampled_from(sizes)))


@st.composite
def steerings(draw):
    where = [(c.name, site) for c in ex.BRANCH.classes for site in PATHS]
    chosen = draw(st.lists(st.sampled_from(where), unique=True))
    detours = draw(st.dictionaries(st.sampled_from(PLANES), st.sampled_from(PLANES), max_size=3))
    return Steering(
        {w: draw(assignments(*w)) for w in chosen},
        {a: b for a, b in detours.items() if a != b},
        working=draw(st.sampled_from([frozenset(), frozenset({Slot(2)})])),
    )


@st.composite
def twice_steerings(draw):
    """With a second path wherever there may be one."""
    steering = draw(steerings())
    found = dict(steering.assignments)
    for (name, site), held in found.items():
        if name == ex.VOICE and len(held.carriers) == 1 and site != INTERNET:
            others = [p for p in PATHS[site] if p != held.carriers[0].path]
            found[name, site] = replace(held, second=draw(st.sampled_from([None, *others])))
    return replace(steering, assignments=found)


@st.composite
def bonded_steerings(draw):
    """Often with a bond: to both sites, or through hq to the internet as well."""
    steering = draw(steerings())
    found = dict(steering.assignments)
    for where, held in found.items():
        if where[0] == ex.BULK and where[1] != INTERNET:  # one may come first, none weighs more
            carriers = tuple(replace(c, weight=1) for c in held.carriers)
            found[where] = replace(held, carriers=carriers)
    for site in draw(st.lists(st.sampled_from([ex.HQ, ex.BRANCH_B]), unique=True)):
        members = draw(st.lists(st.sampled_from(PATHS[site]), unique=True, min_size=2))
        in_order = (members[0], *sorted(members[1:]))
        found[ex.BULK, site] = Assignment(tuple(map(Carrier, in_order)))
    if draw(st.booleans()) and (ex.BULK, ex.HQ) in found:
        found[ex.BULK, INTERNET] = found[ex.BULK, ex.HQ]
        steering = replace(steering, gateway=ex.HQ)
    return replace(steering, assignments=found)


facts = st.fixed_dictionaries(
    {
        slot: st.sampled_from(
            [
                ex.BRANCH_FACTS[slot],
                UplinkFacts(slot),
                replace(ex.BRANCH_FACTS[slot], has_carrier=False),
            ]
        )
        for slot in (Slot(1), Slot(2))
    }
)
intents = st.sampled_from(
    [ex.BRANCH, replace(ex.BRANCH, peers=ex.BRANCH.peers[:1]), replace(ex.BRANCH, lans=())]
)
BONDED = replace(
    ex.BONDED,
    gateways=(ex.HQ,),
    policies=(
        ex.BONDED.policies[0],
        replace(ex.BONDED.policies[1], internet=Internet.GATEWAY),
        ex.BONDED.policies[2],
    ),
)
plans = (
    st.builds(compile_plan, intents, facts, steerings(), st.sampled_from([ex.KEY_A, ex.KEY_B]))
    | st.builds(compile_plan, st.just(ex.TWICE), facts, twice_steerings(), st.just(ex.KEY_A))
    | st.builds(compile_plan, st.just(BONDED), facts, bonded_steerings(), st.just(ex.KEY_A))
)

FOREIGN = {
    Key(Kind.ROUTE, (MAIN_TABLE, "0.0.0.0/0", 0)): Route(device="eth0"),
    Key(Kind.RULE, (4, 5)): Rule(7),
    Key(Kind.NEXTHOP, (7,)): Nexthop(4, "eth0"),
    Key(Kind.ADDRESS, ("lan0", "192.0.2.9/24")): DeviceAddress(
        ex.BRANCH.lans[0].addresses[0].__class__("192.0.2.9/24")
    ),
}


def a_kernel(plan: Plan = {}, crash_after: int | None = None) -> FakeKernel:  # noqa: B006
    kernel = FakeKernel(None, FOREIGN, ex.BRANCH_DEVICES)
    asyncio.run(kernel.apply(diff(plan, {})))
    kernel.crash_after = None if crash_after is None else len(kernel.applied) + crash_after
    return kernel


def seen(kernel: FakeKernel, plan: Plan):
    return asyncio.run(kernel.observe(plan.keys()))


def converge(kernel: FakeKernel, plan: Plan):
    ops = diff(plan, seen(kernel, plan))
    asyncio.run(kernel.apply(ops))
    return ops


@given(plans)
def test_a_met_plan_needs_nothing(plan):
    assert diff(plan, plan) == ()


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(plans, plans, st.data())
def test_converges_from_any_plan_even_after_a_crash_and_damage(start, plan, data):
    """An older plan, its change cut short, things removed by hand: one more round mends it all."""
    kernel = a_kernel(start)
    ops = diff(plan, seen(kernel, plan))
    kernel.crash_after = len(kernel.applied) + data.draw(st.integers(0, len(ops)))
    with contextlib.suppress(Crash):
        asyncio.run(kernel.apply(ops))
    kernel.crash_after = None
    for key in data.draw(st.lists(st.sampled_from(sorted(kernel.owned)), max_size=3)):
        kernel.remove(key)
    converge(kernel, plan)
    assert diff(plan, seen(kernel, plan)) == ()
    assert set(kernel.owned) == {k for k in plan if k.kind not in SHARED}
    assert kernel.foreign == FOREIGN


@given(plans, plans)
def test_the_box_stays_reachable_throughout(start, plan):
    """Neither the management address nor the last default route goes while both plans have one."""
    kernel = a_kernel(start)
    addresses = [k for k in plan if k.kind is Kind.ADDRESS and k.ident[0] == MANAGEMENT_DEVICE]
    for op in diff(plan, seen(kernel, plan)):
        asyncio.run(kernel.apply([op]))
        assert all(key in kernel.owned for key in addresses)
        for default in ("0.0.0.0/0", "::/0"):
            if _defaults(start, default) and _defaults(plan, default):
                assert _defaults(kernel.owned, default)


def _defaults(objects, prefix):
    return [k for k in objects if k.kind is Kind.ROUTE and k.ident[:2] == (MAIN_TABLE, prefix)]


@given(facts, steerings(), steerings())
def test_the_fast_path_is_what_a_whole_diff_would_do(seen_facts, before, after):
    old = compile_plan(ex.BRANCH, seen_facts, before, ex.KEY_A)
    new = compile_plan(ex.BRANCH, seen_facts, after, ex.KEY_A)
    fast = Steerer(ex.BRANCH).ops(before, after, exits=exits(ex.BRANCH, seen_facts))
    whole = diff(new, old)
    assert len(fast) == len(whole)
    assert set(fast) == set(whole)


@given(facts, facts, steerings(), steerings())
def test_the_fast_path_follows_ways_out_that_are_lost(seen_facts, later, before, after):
    """What goes with the carriers is made again by the fast path alone, as far as it is routes."""
    old = compile_plan(ex.BRANCH, seen_facts, before, ex.KEY_A)
    new = compile_plan(ex.BRANCH, later, after, ex.KEY_A)
    left = exits(ex.BRANCH, seen_facts)
    open_to = exits(ex.BRANCH, later) & left  # the kernel has not been told of others
    kernel = a_kernel(old)
    for slot, family in left - open_to:
        kernel.remove(exit_key(slot, family))
    kernel.steer(Steerer(ex.BRANCH).ops(before, after, exits=open_to, left_exits=left))
    if exits(ex.BRANCH, later) <= left:
        ways = [k for k in new if k.kind is Kind.ROUTE and k.ident[0] in OUTSIDE]
        assert {k: kernel.owned.get(k) for k in ways} == {k: new[k] for k in ways}


@given(steerings(), steerings())
def test_a_move_never_leaves_a_route_out(before, after):
    """A prefix that has a route before and after has one at every step between."""
    old = compile_plan(ex.BRANCH, ex.BRANCH_FACTS, before, ex.KEY_A)
    new = compile_plan(ex.BRANCH, ex.BRANCH_FACTS, after, ex.KEY_A)
    both = {k for k in old if k.kind is Kind.ROUTE} & set(new)
    kernel = a_kernel(old)
    for op in Steerer(ex.BRANCH).ops(before, after, exits=exits(ex.BRANCH, ex.BRANCH_FACTS)):
        kernel.steer([op])
        assert both <= set(kernel.owned)


@given(facts, steerings())
def test_a_restart_reads_its_steering_back_and_moves_nothing(seen_facts, steering):
    plan = compile_plan(ex.BRANCH, seen_facts, steering, ex.KEY_A)
    kernel = a_kernel(plan)
    found = steering_from(ex.BRANCH, seen(kernel, plan))
    assert _to_sites(found) == _to_sites(steering)
    # An uplink may have one address family only: what is read back leads to the same routes.
    again = compile_plan(ex.BRANCH, seen_facts, found, ex.KEY_A)
    assert diff(again, seen(kernel, again)) == ()


def _to_sites(steering: Steering):
    to_sites = {w: a for w, a in steering.assignments.items() if w[1] != INTERNET}
    return to_sites, steering.detours


def test_ways_to_the_internet_are_read_back():
    outside = {
        (ex.VOICE, INTERNET): ex.carried(ex.path("internet", 1, 0)),
        (ex.BULK, INTERNET): Assignment(
            (Carrier(ex.path("internet", 1, 0), 10), Carrier(ex.path("internet", 2, 0), 1))
        ),
        (ex.DEFAULT, INTERNET): Assignment(),
    }
    plan = compile_plan(ex.BRANCH, ex.BRANCH_FACTS, Steering(outside), ex.KEY_A)
    assert steering_from(ex.BRANCH, plan).assignments == outside


@given(twice_steerings(), twice_steerings())
def test_copies_are_found_again_and_all_that_the_fast_path_leaves_to_do(before, after):
    old, new = (
        compile_plan(ex.TWICE, ex.BRANCH_FACTS, steering, ex.KEY_A) for steering in (before, after)
    )
    kernel = a_kernel(old)
    assert _to_sites(steering_from(ex.TWICE, seen(kernel, old))) == _to_sites(before)
    open_to = exits(ex.TWICE, ex.BRANCH_FACTS)
    kernel.steer(Steerer(ex.TWICE).ops(before, after, exits=open_to))
    assert {op.key.kind for op in converge(kernel, new)} <= {Kind.COPY}
    assert _to_sites(steering_from(ex.TWICE, seen(kernel, new))) == _to_sites(after)


@given(facts, bonded_steerings(), bonded_steerings())
def test_bonds_are_found_again_and_the_fast_path_leaves_nothing_of_them_to_do(
    seen_facts, before, after
):
    after = replace(after, gateway=before.gateway)  # another one is a matter of peers, too
    old, new = (
        compile_plan(BONDED, seen_facts, steering, ex.KEY_A) for steering in (before, after)
    )
    kernel = a_kernel(old)
    assert _to_sites(steering_from(BONDED, seen(kernel, old))) == _to_sites(before)
    fast = Steerer(BONDED).ops(before, after, exits=exits(BONDED, seen_facts))
    assert sorted(map(repr, fast)) == sorted(map(repr, diff(new, old)))
    kernel.steer(fast)
    assert converge(kernel, new) == ()


@given(plans)
def test_everything_goes_in_the_end_but_what_is_shared(plan):
    kernel = a_kernel(plan)
    converge(kernel, {})
    assert kernel.owned == {}
    assert kernel.foreign == FOREIGN


def test_groups_are_among_the_cases():
    """The strategies above would prove little if they never made a group or a detour."""
    plan = compile_plan(ex.BRANCH, ex.BRANCH_FACTS, ex.BRANCH_STEERING, ex.KEY_A)
    assert any(isinstance(i, NexthopGroup) for i in plan.values())
    assert steering_from(ex.BRANCH, plan) == ex.BRANCH_STEERING
