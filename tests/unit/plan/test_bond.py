from dataclasses import replace

from appliance.config.intent import Internet, Mode, without_bonds
from appliance.contract.ids import INTERNET, Plane, Slot
from appliance.core.steering import Assignment, Carrier, Steering
from appliance.plan.adopt import steering_from
from appliance.plan.bond import Bonder
from appliance.plan.compile import compile_plan
from appliance.plan.diff import diff
from appliance.plan.exits import exits
from appliance.plan.filter import render_filter
from appliance.plan.plan import Bond, Item, Key, Kind, Stripe
from appliance.plan.steer import Steerer
from tests.unit.plan import examples as ex

BONDED, STEERING = ex.BONDED, ex.BONDED_STEERING
OF_HQ = ("192.168.3.0/24", "2001:db8:3::/48")
EVERYWHERE = ("0.0.0.0/0", "::/0")
BOTH = ("bl-1-1", "bl-2-2")
HERE, THERE = Plane(Slot(1), Slot(1)), Plane(Slot(2), Slot(2))


def over(*planes: tuple[int, int], site: str = "hq") -> Assignment:
    return Assignment(tuple(Carrier(ex.path(site, *plane)) for plane in planes))


def steered(**more) -> Steering:
    """Bulk to hq and to the other branch, and out."""
    names = {"hq": ex.HQ, "branch_b": ex.BRANCH_B, "internet": INTERNET}
    moved = {(ex.BULK, names[site]): held for site, held in more.items()}
    return replace(STEERING, assignments={**STEERING.assignments, **moved})


def bonds(intent, steering) -> dict[str, Bond]:
    found = Bonder(intent).items(steering)
    return {str(key.ident[0]): item for key, item in found.items() if isinstance(item, Bond)}


def stripes(intent, steering) -> tuple[Stripe, ...]:
    (told,) = {item.stripes for item in bonds(intent, steering).values()}
    return told


def through_hq():
    """Bulk goes to the internet through hq."""
    policies = (
        BONDED.policies[0],
        replace(BONDED.policies[1], internet=Internet.GATEWAY),
        BONDED.policies[2],
    )
    intent = replace(BONDED, gateways=(ex.HQ,), policies=policies)
    return intent, replace(steered(internet=over((1, 1), (2, 2))), gateway=ex.HQ)


def test_nothing_is_planned_while_no_policy_bonds() -> None:
    assert Bonder(ex.BRANCH).hooks() == Bonder(ex.BRANCH).items(STEERING) == {}


def test_filters_hang_on_every_plane_and_are_none_while_nothing_is_carried_by_two() -> None:
    hooks = {key.ident[0] for key in Bonder(BONDED).hooks()}
    assert hooks == {f"bl-{x}-{y}" for x in (1, 2) for y in (1, 2)}
    for alone in (Steering(), steered(hq=over((1, 1))), steered(hq=over())):
        assert bonds(BONDED, alone) == {}


def test_all_members_are_told_the_same_and_no_other_plane_anything() -> None:
    found = bonds(BONDED, STEERING)
    assert tuple(sorted(found)) == BOTH
    assert len({(item.digest, item.stripes) for item in found.values()}) == 1
    assert stripes(BONDED, STEERING) == (Stripe(2, OF_HQ, BOTH),)
    assert found["bl-1-1"].devices == BOTH


def test_two_bonds_are_told_to_the_members_of_both() -> None:
    both = replace(steered(branch_b=over((1, 1), (2, 1), site="branch-b")), detours={})
    found = bonds(BONDED, both)
    assert sorted(found) == ["bl-1-1", "bl-2-1", "bl-2-2"]
    assert stripes(BONDED, both) == (
        Stripe(2, OF_HQ, BOTH),
        Stripe(2, ("192.168.2.0/24",), ("bl-1-1", "bl-2-1")),
    )


def test_other_members_are_another_bond_though_its_devices_are_the_same() -> None:
    one = steered(branch_b=over((1, 1), (2, 1), site="branch-b"), hq=over((1, 1)))
    other = steered(branch_b=over((1, 1), site="branch-b"), hq=over((1, 1), (2, 1)))
    one, other = replace(one, detours={}), replace(other, detours={})
    assert bonds(BONDED, one)["bl-1-1"].devices == bonds(BONDED, other)["bl-1-1"].devices
    assert bonds(BONDED, one)["bl-1-1"] != bonds(BONDED, other)["bl-1-1"]


def test_a_plane_under_a_detour_is_no_member() -> None:
    three = steered(hq=over((1, 1), (1, 2), (2, 2)))
    assert sorted(bonds(BONDED, three)) == ["bl-1-1", "bl-1-2", "bl-2-2"]
    led = replace(three, detours={THERE: HERE})
    assert sorted(bonds(BONDED, led)) == ["bl-1-1", "bl-1-2"]
    assert bonds(BONDED, replace(STEERING, detours={THERE: HERE})) == {}


def test_a_site_with_one_carrier_has_no_stripe() -> None:
    assert steered().assignments[ex.BULK, ex.BRANCH_B] == over((1, 1), site="branch-b")
    assert [stripe.networks for stripe in stripes(BONDED, STEERING)] == [OF_HQ]


def test_out_of_its_own_uplinks_nothing_is_bonded() -> None:
    outward = over((1, 0), (2, 0), site="internet")
    assert bonds(BONDED, steered(hq=over((1, 1)), internet=outward)) == {}


def test_what_does_not_go_through_the_gateway_is_excepted_from_what_does() -> None:
    assert stripes(*through_hq()) == (
        Stripe(2, OF_HQ, BOTH),
        Stripe(2, ("192.168.2.0/24",), ()),
        Stripe(2, (str(ex.OVERLAY),), ()),
        Stripe(2, EVERYWHERE, BOTH),
    )


def test_through_a_gateway_a_site_without_prefixes_is_no_stripe() -> None:
    intent, steering = through_hq()
    bare = replace(intent.peers[1], prefixes=())
    told = stripes(replace(intent, peers=(intent.peers[0], bare)), steering)
    assert [stripe.networks for stripe in told] == [OF_HQ, (str(ex.OVERLAY),), EVERYWHERE]


def plan_of(steering: Steering) -> dict[Key, Item]:
    return dict(compile_plan(BONDED, ex.BRANCH_FACTS, steering, ex.KEY_A))


def test_a_move_does_what_a_whole_diff_would_do() -> None:
    steerer, open_to = Steerer(BONDED), exits(BONDED, ex.BRANCH_FACTS)
    after = (
        steered(hq=over((1, 1))),
        steered(hq=over((1, 2), (2, 1))),
        steered(branch_b=over((1, 1), (2, 1), site="branch-b")),
        replace(STEERING, detours={THERE: HERE}),
        replace(STEERING, detours={}),
        Steering(),
    )
    for other in after:
        for before, now in ((STEERING, other), (other, STEERING)):
            fast = steerer.ops(before, now, exits=open_to)
            whole = diff(plan_of(now), plan_of(before))
            assert set(fast) == set(whole)
            assert len(fast) == len(whole)


def test_a_move_of_another_class_does_nothing_to_bonds() -> None:
    moved = {**STEERING.assignments, (ex.VOICE, ex.HQ): ex.carried(ex.path("hq", 2, 2))}
    after = replace(STEERING, assignments=moved)
    for touched in (None, {(ex.VOICE, ex.HQ)}):
        ops = Steerer(BONDED).ops(STEERING, after, touched)
        assert ops
        assert Kind.BOND not in {op.key.kind for op in ops}


def test_a_restart_finds_the_members_again() -> None:
    for steering in (STEERING, steered(hq=over((1, 1))), replace(STEERING, detours={THERE: HERE})):
        assert steering_from(BONDED, plan_of(steering)) == steering


def test_flows_that_are_spread_take_no_fast_path() -> None:
    assert "mark and 0xf0000000 != { 0x20000000 } flow add @fast" in render_filter(BONDED).text
    twice = replace(BONDED.policies[0], mode=Mode.DUPLICATE)
    both = replace(BONDED, policies=(twice, *BONDED.policies[1:]))
    spread = "mark and 0xf0000000 != { 0x10000000, 0x20000000 } flow add @fast"
    assert spread in render_filter(both).text


def test_flows_are_hashed_by_their_ports_as_when_they_are_shared() -> None:
    key = Key(Kind.SYSCTL, ("net/ipv4/fib_multipath_hash_policy",))
    shared = compile_plan(ex.BRANCH, ex.BRANCH_FACTS, STEERING, ex.KEY_A)
    assert plan_of(STEERING)[key] == shared[key]


def test_a_box_that_cannot_has_mode_share_instead() -> None:
    assert without_bonds(ex.BRANCH) is ex.BRANCH
    assert without_bonds(BONDED) == ex.BRANCH
    assert without_bonds(ex.TWICE) is ex.TWICE
