"""What a plan says about uplinks, planes and missing things."""

from dataclasses import replace
from ipaddress import ip_address, ip_interface, ip_network

import pytest

from appliance.config.addressing import (
    BACKSTOP_TABLE,
    class_table,
    plane_device,
    uplink_mark,
    uplink_table,
)
from appliance.config.intent import planes
from appliance.contract.ids import Plane, Slot
from appliance.core.events import UplinkFacts
from appliance.core.steering import Steering
from appliance.plan.compile import compile_plan
from appliance.plan.diff import diff
from appliance.plan.exits import exits
from appliance.plan.overlay import MAIN_TABLE
from appliance.plan.plan import Key, Kind, Route, Wireguard
from tests.unit.plan import examples as ex

NO_FACTS = {}


def plan_of(intent=ex.BRANCH, facts=ex.BRANCH_FACTS, steering=ex.BRANCH_STEERING, **more):
    return compile_plan(intent, facts, steering, ex.KEY_A, **more)


def peer_of(plan, device, key=ex.KEY_HQ):
    return plan[Key(Kind.PEER, (device, key))]


def with_addresses(slot, *addresses, gateways=("100.64.0.1", "fe80::1")):
    own = tuple(ip_interface(a) for a in addresses)
    via = tuple(ip_address(g) for g in gateways)
    return {**ex.BRANCH_FACTS, Slot(slot): UplinkFacts(Slot(slot), True, True, own, via)}


@pytest.mark.parametrize(
    ("own", "endpoint", "keepalive_s"),
    [
        (("198.18.0.2/24",), "198.51.100.1", 0),
        (("192.168.178.20/24",), "198.51.100.1", 25),
        (("100.64.9.9/10",), "198.51.100.1", 25),
        (("10.0.0.9/8", "2001:db8:7::9/64"), "198.51.100.1", 25),
        (("2001:db8:7::9/64",), "2001:db8:f::1", 0),
        (("fd00::9/64",), "2001:db8:f::1", 25),
        ((), None, 0),
    ],
)
def test_endpoint_family_and_keepalive_follow_the_uplinks_address(own, endpoint, keepalive_s):
    peer = peer_of(plan_of(facts=with_addresses(2, *own)), "bl-2-1")
    port = ex.BRANCH.listen_port_base + 16 * 1 + 2  # the far end's plane is (1, 2)
    assert peer.endpoint == ((ip_address(endpoint), port) if endpoint else None)
    assert peer.keepalive_s == keepalive_s


MODEM = "192.168.100.2/24"  # the management address of an LTE modem, without a gateway
GLOBAL = "2001:db8:7::9/64"


@pytest.mark.parametrize(
    ("own", "gateways", "endpoint", "keepalive_s"),
    [
        ((MODEM, GLOBAL), ("fe80::1",), "2001:db8:f::1", 0),
        ((MODEM, "fd00::9/64"), ("fe80::1",), "2001:db8:f::1", 25),
        ((MODEM, GLOBAL), ("192.168.100.1", "fe80::1"), "198.51.100.1", 25),
        ((MODEM, GLOBAL), (), None, 0),
        ((GLOBAL,), ("192.168.100.1",), None, 0),
        (("198.51.100.9/24", GLOBAL), ("fe80::1",), "198.51.100.1", 0),
        (("2001:db8:f::9/64",), (), "2001:db8:f::1", 0),
    ],
)
def test_a_family_counts_with_a_gateway_or_an_endpoint_on_link(
    own, gateways, endpoint, keepalive_s
):
    peer = peer_of(plan_of(facts=with_addresses(2, *own, gateways=gateways)), "bl-2-1")
    assert (str(peer.endpoint[0]) if peer.endpoint else None) == endpoint
    assert peer.keepalive_s == keepalive_s


def test_the_endpoint_follows_a_gateway_that_comes_later():
    """Of the same intent and the same addresses: what is remembered must not be used."""
    for gateways, endpoint in (
        (("fe80::1",), "2001:db8:f::1"),
        (("192.168.100.1", "fe80::1"), "198.51.100.1"),
        (("fe80::1",), "2001:db8:f::1"),
    ):
        facts = with_addresses(2, MODEM, GLOBAL, gateways=gateways)
        assert str(peer_of(plan_of(facts=facts), "bl-2-1").endpoint[0]) == endpoint


def test_another_gateway_of_the_same_family_makes_no_peer_anew():
    first, second = (
        peer_of(plan_of(facts=with_addresses(2, GLOBAL, gateways=(g,))), "bl-2-1")
        for g in ("fe80::1", "fe80::2")
    )
    assert first is second


def test_a_peer_without_an_uplink_is_not_on_its_planes():
    plan = plan_of()
    assert Key(Kind.PEER, ("bl-1-2", ex.KEY_B)) not in plan
    assert peer_of(plan, "bl-1-1", ex.KEY_B).endpoint is None


def test_both_ends_agree_about_a_plane():
    """Ports, marks and allowed addresses of (l, r) here are those of (r, l) there."""
    here = plan_of()
    there_intent = ex.gateway(1)
    there = plan_of(there_intent, ex.attached(there_intent))
    device = here[Key(Kind.WIREGUARD, ("bl-1-2",))]
    assert device == Wireguard(ex.KEY_A, ex.BRANCH.listen_port_base + 18, uplink_mark(Slot(1)))
    _, port = peer_of(here, "bl-1-2").endpoint
    assert there[Key(Kind.WIREGUARD, ("bl-2-1",))].listen_port == port
    probe = next(k.ident[1] for k in there if k.kind is Kind.ADDRESS and k.ident[0] == "bl-2-1")
    assert ip_network("fd12:3456:789a:21::3/128") in peer_of(here, "bl-1-2").allowed_ips
    assert probe == "fd12:3456:789a:21::ea60/128"


def test_an_uplink_without_carrier_keeps_only_the_unreachable_end_of_its_table():
    facts = {**ex.BRANCH_FACTS, Slot(1): replace(ex.BRANCH_FACTS[Slot(1)], has_carrier=False)}
    plan = plan_of(facts=facts)
    table = [
        k.ident[1] for k in plan if k.kind is Kind.ROUTE and k.ident[0] == uplink_table(Slot(1))
    ]
    assert sorted(table) == ["0.0.0.0/0", "::/0"]
    assert Key(Kind.ROUTE, (MAIN_TABLE, "0.0.0.0/0", 100)) not in plan
    assert Key(Kind.ROUTE, (MAIN_TABLE, "0.0.0.0/0", 101)) in plan


def test_a_gateway_outside_every_network_is_on_link():
    route = plan_of()[Key(Kind.ROUTE, (uplink_table(Slot(2)), "0.0.0.0/0", 100))]
    assert route == Route(device="wwan0", gateway=ip_address("100.64.0.1"), on_link=True)


def test_a_router_advertised_gateway_replaces_none_configured():
    facts = with_addresses(2, "2001:db8:7::9/64")
    facts[Slot(2)] = replace(facts[Slot(2)], gateways=(ip_address("fe80::99"),))
    key = Key(Kind.ROUTE, (uplink_table(Slot(2)), "::/0", 100))
    assert plan_of(facts=facts)[key].gateway == ip_address("fe80::99")


def test_missing_devices_leave_the_rest_working():
    plan = plan_of(facts=NO_FACTS, absent={"lan0"})
    named = {k.ident[0] for k in plan if k.kind in (Kind.ADDRESS, Kind.LINK)}
    assert not named & {"lan0", "eth0", "wwan0"}
    assert all("lan0" not in k.ident[0] for k in plan if k.kind is Kind.SYSCTL)
    text = plan[Key(Kind.FILTER, ("inet", "branchline"))].text
    assert 'devices = { "bl-1-1"' in text
    assert 'set lans {\n    type ifname\n    elements = { "lan0" }' in text
    assert Key(Kind.DEVICE, ("bl-2-2",)) in plan


def test_a_lease_changes_neither_the_firewall_nor_the_steering():
    before, after = plan_of(), plan_of(facts=with_addresses(2, "100.64.1.1/32"))
    kinds = {op.key.kind for op in diff(after, before)}
    assert kinds <= {Kind.ROUTE, Kind.PEER}
    assert all(op.key.ident[0] == uplink_table(Slot(2)) or op.key.ident[0] == MAIN_TABLE
               for op in diff(after, before) if op.key.kind is Kind.ROUTE)  # fmt: skip


def test_every_prefix_of_every_site_fails_closed():
    plan = plan_of(steering=Steering())
    for peer in ex.BRANCH.peers:
        for prefix in peer.prefixes:
            assert plan[Key(Kind.ROUTE, (BACKSTOP_TABLE, str(prefix), 100))] == Route()
            assert Key(Kind.ROUTE, (class_table(3), str(prefix), 100)) not in plan


def test_a_class_without_carriers_is_closed_but_an_undecided_one_is_not():
    plan = plan_of()
    assert plan[Key(Kind.ROUTE, (class_table(1), "192.168.2.0/24", 100))] == Route()
    assert Key(Kind.ROUTE, (class_table(2), "192.168.2.0/24", 100)) not in plan


def test_management_addresses_are_reached_in_the_default_class_only():
    plan = plan_of()
    management = "fd12:3456:789a:ffff::3/128"
    tables = {k.ident[0] for k in plan if k.kind is Kind.ROUTE and k.ident[1] == management}
    assert tables == {class_table(3), BACKSTOP_TABLE}


def test_steering_of_what_the_intent_does_not_have_is_left_out():
    gone = ex.path("gone", 1, 1)
    strange = ex.path("hq", 7, 7)
    steering = Steering(
        {
            (ex.VOICE, gone.site): ex.carried(gone),
            (ex.VOICE, ex.HQ): ex.carried(strange),
        },
        {Plane(Slot(7), Slot(7)): Plane(Slot(1), Slot(1))},
    )
    plan = plan_of(steering=steering)
    assert plan[Key(Kind.ROUTE, (class_table(1), "192.168.3.0/24", 100))] == Route()
    ways_out = exits(ex.BRANCH, ex.BRANCH_FACTS)
    hops = 2 * len(planes(ex.BRANCH)) + len(ways_out)
    assert sum(k.kind is Kind.NEXTHOP for k in plan) == hops


def test_a_preshared_key_is_known_by_its_digest():
    plan = plan_of(preshared=ex.PRESHARED)
    device = plane_device(Plane(Slot(1), Slot(1)))
    assert peer_of(plan, device, ex.KEY_B).preshared == "0a1b2c3d"
    assert peer_of(plan, device).preshared is None


def test_what_is_kept_between_plans_is_never_stale():
    """Each plan anew, in any order, is what a fresh copy of the same intent gives."""
    moved = Steering(dict(ex.BRANCH_STEERING.assignments) | {(ex.VOICE, ex.HQ): ex.carried()})
    cases = [
        {},
        {"steering": moved},
        {"facts": with_addresses(2, "192.0.2.99/24")},
        {"absent": {"lan0"}},
        {"preshared": ex.PRESHARED},
        {"facts": NO_FACTS},
        {"intent": replace(ex.BRANCH, peers=ex.BRANCH.peers[:1])},
    ]
    for case in (*cases, *reversed(cases)):
        fresh = {**case, "intent": replace(case.get("intent", ex.BRANCH))}
        assert plan_of(**case) == plan_of(**fresh)


def test_a_plan_that_is_only_looked_at_pushes_nothing_out():
    key = Key(Kind.ROUTE, (class_table(1), "192.168.3.0/24", 100))
    before = plan_of()
    for _ in range(3):
        candidate = replace(ex.BRANCH)
        assert plan_of(candidate, is_kept=False) == before
        assert plan_of(candidate, is_kept=False)[key] is not plan_of(candidate, is_kept=False)[key]
    again = plan_of()
    assert all(again[key] is item for key, item in before.items() if key.kind is Kind.PEER)
    assert again[key] is before[key]
