"""What leads out in each address family, and the firewall's part of it."""

from dataclasses import replace

from appliance.config.addressing import internet_table, plane_nexthop
from appliance.config.intent import Internet
from appliance.contract.ids import INTERNET, Plane, Slot, exit_plane
from appliance.core.steering import Assignment, Carrier, Steering
from appliance.plan.adopt import steering_from
from appliance.plan.breakout import leading, spares
from appliance.plan.compile import compile_plan
from appliance.plan.counters import render_counters
from appliance.plan.filter import render_filter
from appliance.plan.overlay import EVERYWHERE
from appliance.plan.plan import Key, Kind, NexthopGroup, Route, WireguardPeer
from appliance.plan.steer import Steerer
from tests.unit.plan import examples as ex

ONE, TWO = exit_plane(Slot(1)), exit_plane(Slot(2))
BOTH = frozenset({(Slot(1), 4), (Slot(1), 6), (Slot(2), 4)})


def default(index: int, family: int, metric: int = 100) -> Key:
    return Key(Kind.ROUTE, (internet_table(index), {4: "0.0.0.0/0", 6: "::/0"}[family], metric))


def outside(*slots: int) -> Assignment:
    return ex.carried(*(ex.path("internet", slot, 0) for slot in slots))


def plan_of(assignments, facts=ex.BRANCH_FACTS, intent=ex.BRANCH):
    steering = Steering({(name, INTERNET): a for name, a in assignments.items()})
    return compile_plan(intent, facts, steering, ex.KEY_A)


def test_a_family_that_the_carrier_has_not_goes_by_the_best_that_has_it():
    assert leading({TWO: 3}, (ONE, TWO), BOTH, 4) == {TWO: 3}
    assert leading({TWO: 3}, (TWO, ONE), BOTH, 6) == {ONE: 1}
    assert leading({TWO: 3}, (TWO,), BOTH, 6) == {}, "never by one that is not permitted"
    assert leading({}, (ONE, TWO), BOTH, 4) == {}, "a closed class is closed"


def test_a_spare_that_is_known_to_work_comes_before_better_ones():
    ways = frozenset({(Slot(1), 4), (Slot(2), 4), (Slot(3), 6)})
    three = exit_plane(Slot(3))
    assert leading({three: 1}, (ONE, TWO), ways, 4, {2, 3}) == {TWO: 1}
    assert leading({three: 1}, (ONE, TWO), ways, 4, {3}) == {ONE: 1}, "or what there is"
    assert leading({ONE: 1}, (ONE, TWO), ways, 4, {2}) == {ONE: 1}, "a class stays where it waits"


def test_a_spare_that_dies_is_left_though_the_class_does_not_move():
    lte6 = frozenset({(Slot(1), 4), (Slot(2), 4), (Slot(2), 6)})
    by_three = {(ex.VOICE, INTERNET): ex.carried(ex.path("internet", 3, 0))}
    before, after = (Steering(by_three, working=frozenset(map(Slot, w))) for w in ((1, 2), (2,)))
    (op,) = Steerer(ex.BRANCH).ops(before, after, {}, exits=lte6)
    assert (op.key, op.item) == (default(1, 4), Route(nexthop=plane_nexthop(TWO, 4)))


def test_spares_are_permitted_and_in_the_order_of_the_tiers():
    voice = replace(ex.BRANCH.policies[0], metered=False)
    default_ = replace(ex.BRANCH.policies[2], tiers=((ex.LTE,), (ex.FIBRE,)))
    intent = replace(ex.BRANCH, policies=(voice, ex.BRANCH.policies[1], default_))
    assert spares(intent) == {ex.VOICE: (ONE,), ex.BULK: (ONE, TWO), ex.DEFAULT: (TWO, ONE)}


def test_routes_of_a_class_and_where_they_end():
    plan = plan_of({ex.VOICE: outside(2), ex.BULK: outside(1, 2), ex.DEFAULT: Assignment()})
    hops = {ident: k.ident[0] for k in plan if k.kind is Kind.NEXTHOP for ident in [plan[k]]}
    lte = next(hop for item, hop in hops.items() if item.device == "wwan0")
    fibre6 = next(hop for item, hop in hops.items() if (item.device, item.family) == ("eth0", 6))
    assert plan[default(1, 4)] == Route(nexthop=lte)
    assert plan[default(1, 6)] == Route(nexthop=fibre6), "the lte has no IPv6"
    group = plan[Key(Kind.GROUP, (plan[default(2, 4)].nexthop,))]
    assert isinstance(group, NexthopGroup)
    assert len(group.members) == 2
    assert plan[default(3, 4)] == plan[default(3, 6)] == Route(), "discarded"
    for index in (1, 2, 3):
        assert plan[default(index, 4, 1_000_000)] == Route(), "and nothing falls through"


def test_an_uplink_without_carrier_has_no_way_out():
    facts = {**ex.BRANCH_FACTS, Slot(2): replace(ex.BRANCH_FACTS[Slot(2)], has_carrier=False)}
    plan = plan_of({ex.BULK: Assignment((Carrier(ex.path("internet", 2, 0), 1),))}, facts)
    members = plan[Key(Kind.GROUP, (plan[default(2, 4)].nexthop,))].members
    assert len(members) == 1, "the fibre is permitted, and a spare"
    assert not any(k.kind is Kind.NEXTHOP and i.device == "wwan0" for k, i in plan.items())


def test_routes_of_a_group_that_goes_with_its_last_member_are_made_again():
    """And a way out that only a family's spare took is left, though the class does not move."""
    before, after = (
        Steering({(ex.BULK, INTERNET): outside(slot), (ex.VOICE, INTERNET): outside(2)})
        for slot in (1, 2)
    )
    later = frozenset({(Slot(2), 4), (Slot(2), 6)})
    left = frozenset({(Slot(1), 4), (Slot(1), 6), (Slot(2), 4), (Slot(2), 6)})
    ops = Steerer(ex.BRANCH).ops(before, after, exits=later, left_exits=left)
    groups = {op.key.ident[0] for op in ops if op.key.kind is Kind.GROUP}
    assert len(groups) == 2
    routes = {op.key: op.item for op in ops if op.key.kind is Kind.ROUTE}
    assert routes.keys() == {default(2, 4), default(2, 6)}
    assert {route.nexthop for route in routes.values()} == groups
    ops = Steerer(ex.BRANCH).ops(after, after, exits=BOTH - {(Slot(1), 6)}, left_exits=BOTH)
    assert [op.key for op in ops if isinstance(op.item, Route)] == [default(1, 6), default(2, 6)]


RESET = "ct state established meta l4proto tcp reject with tcp reset"


def test_a_class_leaves_by_permitted_uplinks_only():
    voice = replace(ex.BRANCH.policies[0], metered=False)
    bulk = replace(ex.BRANCH.policies[1], internet=Internet.NONE)
    text = render_filter(replace(ex.BRANCH, policies=(voice, bulk, ex.BRANCH.policies[2]))).text
    chains = {
        name: text.partition(f"chain {name} {{\n")[2].partition("\n  }")[0].split("\n")
        for name in ("leave_1", "leave_2", "leave_3", "forward")
    }
    assert [line.strip() for line in chains["leave_1"]] == [
        'oifname { "eth0" } return',
        RESET,
        "drop",
    ]
    assert [line.strip() for line in chains["leave_2"]] == [RESET, "drop"]
    assert [line.strip() for line in chains["leave_3"]] == [
        'oifname { "eth0", "wwan0" } return',
        RESET,
        "drop",
    ]
    rules = [line.strip() for line in chains["forward"]]
    place = rules.index("oifname @uplinks jump leave")
    assert not any("accept" in rule and "policy" not in rule for rule in rules[:place])


GATEWAYS = replace(
    ex.BRANCH,
    gateways=(ex.HQ,),
    policies=(
        replace(ex.BRANCH.policies[0], internet=Internet.GATEWAY),
        replace(ex.BRANCH.policies[1], internet=Internet.GATEWAY),
        ex.BRANCH.policies[2],
    ),
)


def through_hq():
    by_two = Assignment((Carrier(ex.path("hq", 1, 1), 10), Carrier(ex.path("hq", 2, 1), 1)))
    return Steering(
        {
            (ex.VOICE, INTERNET): ex.carried(ex.path("hq", 2, 1), mtu=1380),
            (ex.BULK, INTERNET): by_two,
            (ex.DEFAULT, INTERNET): outside(1),
        },
        gateway=ex.HQ,
    )


def test_through_a_gateway_by_the_planes_of_its_site():
    plan = compile_plan(GATEWAYS, ex.BRANCH_FACTS, through_hq(), ex.KEY_A)
    for family in (4, 6):
        hop = plane_nexthop(Plane(Slot(2), Slot(1)), family)
        assert plan[default(1, family)] == Route(nexthop=hop, mtu=1380)
        group = plan[Key(Kind.GROUP, (plan[default(2, family)].nexthop,))]
        assert [weight for _, weight in group.members] == [10, 1]
    assert steering_from(GATEWAYS, plan) == through_hq()


def test_everything_comes_from_the_gateway_that_is_used_and_from_no_other():
    for used in (ex.HQ, None):
        steering = replace(through_hq(), gateway=used)
        plan = compile_plan(GATEWAYS, ex.BRANCH_FACTS, steering, ex.KEY_A)
        for key, item in plan.items():
            if isinstance(item, WireguardPeer):
                is_open = item.allowed_ips >= EVERYWHERE
                assert is_open == (used is not None and key.ident[1] == ex.KEY_HQ)


def test_a_branch_takes_nothing_new_from_strange_addresses_through_the_tunnels():
    forward = render_filter(GATEWAYS).text.partition("chain forward {")[2].partition("\n  }")[0]
    rules = [line.strip() for line in forward.splitlines()]
    strange = rules.index("iifname @planes ip saddr != { 192.168.3.0/24, 192.168.2.0/24 } drop")
    assert rules.index("iifname @planes ip6 saddr != { 2001:db8:3::/48 } drop") > strange
    assert rules.index("iifname @planes oifname @inside accept") > strange
    assert "ip saddr !=" not in render_filter(ex.BRANCH).text


def test_a_gateway_serves_who_it_is_told_to():
    served = replace(ex.BRANCH.peers[1], internet=True)
    text = render_filter(replace(ex.BRANCH, peers=(ex.BRANCH.peers[0], served))).text
    assert "iifname @planes oifname @uplinks ip saddr { 192.168.2.0/24 } accept" in text
    assert "iifname @inside oifname @uplinks masquerade" in text
    assert text.index("iifname @uplinks ct mark and") < text.index("iifname != @inside return")
    alone = render_filter(ex.BRANCH).text
    assert "iifname @planes oifname @uplinks" not in alone
    assert "iifname @lans oifname @uplinks masquerade" in alone


def test_what_only_passes_through_a_gateway_is_not_counted_as_the_site_s():
    served = replace(ex.BRANCH.peers[1], internet=True)
    text = render_counters(replace(ex.BRANCH, peers=(ex.BRANCH.peers[0], served))).text
    assert "ip daddr { 192.0.2.0/24 } meta l4proto != tcp counter name ip saddr map" in text
