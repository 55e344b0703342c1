"""Order and tolerance of the difference."""

from dataclasses import fields, replace
from ipaddress import ip_address, ip_network

import pytest

from appliance.plan.compile import compile_plan
from appliance.plan.diff import diff, is_met, ops_for, unmet
from appliance.plan.plan import (
    Add,
    Change,
    Delete,
    Device,
    Filter,
    Key,
    Kind,
    Nexthop,
    Sysctl,
    WireguardPeer,
)
from tests.unit.plan import examples as ex

PLAN = compile_plan(ex.BRANCH, ex.BRANCH_FACTS, ex.BRANCH_STEERING, ex.KEY_A)


def test_what_is_added_comes_in_the_order_of_the_kinds_and_goes_backwards():
    added = [op.key.kind for op in diff(PLAN, {})]
    removed = [op.key.kind for op in diff({}, PLAN)]
    assert added == sorted(added)
    assert removed == sorted(removed, reverse=True)


def test_additions_and_changes_come_before_deletions():
    other = {Key(Kind.RULE, (4, 20999)): next(i for k, i in PLAN.items() if k.kind is Kind.RULE)}
    ops = diff(PLAN, other)
    assert isinstance(ops[-1], Delete)
    assert all(isinstance(op, Add) for op in ops[:-1])


def test_a_learned_endpoint_is_left_alone_and_a_planned_one_is_not():
    planned = PLAN[Key(Kind.PEER, ("bl-2-2", ex.KEY_HQ))]
    assert planned.endpoint is None
    elsewhere = (ip_address("198.51.100.77"), 4500)
    assert is_met(planned, replace(planned, endpoint=elsewhere))
    assert not is_met(planned, replace(planned, endpoint=elsewhere, keepalive_s=9))
    called = PLAN[Key(Kind.PEER, ("bl-1-1", ex.KEY_HQ))]
    assert not is_met(called, replace(called, endpoint=elsewhere))


def test_a_peer_that_is_heard_from_elsewhere_stays_there_until_it_is_silent_or_called_elsewhere():
    key = Key(Kind.PEER, ("bl-1-1", ex.KEY_HQ))
    called = PLAN[key]
    roamed = replace(called, endpoint=(ip_address("198.51.100.77"), 4500), is_heard=True)
    silent = replace(roamed, is_heard=False)
    before = replace(called, endpoint=(ip_address("198.51.100.99"), 4500))
    plan = {key: called}
    assert diff(plan, {key: roamed}) == diff(plan, {key: roamed}, plan) == ()
    assert diff(plan, {key: silent}, plan) == (Change(key, silent, called),)
    for other in (before, replace(called, endpoint=None)):
        assert diff(plan, {key: roamed}, {key: other}) == (Change(key, roamed, called),)


def test_a_change_of_a_peer_that_roams_leaves_its_endpoint_alone():
    key = Key(Kind.PEER, ("bl-1-1", ex.KEY_HQ))
    roamed = replace(PLAN[key], endpoint=(ip_address("198.51.100.77"), 4500), is_heard=True)
    other = replace(PLAN[key], keepalive_s=9)
    (op,) = diff({key: other}, {key: roamed}, PLAN)
    assert op == Change(key, roamed, replace(other, endpoint=None))


ANOTHER = {
    "endpoint": (ip_address("198.51.100.77"), 4500),
    "allowed_ips": frozenset([ip_network("203.0.113.0/24")]),
    "keepalive_s": 9,
    "preshared": "ffffffff",
}


@pytest.mark.parametrize("name", [f.name for f in fields(WireguardPeer) if f.compare])
@pytest.mark.parametrize("device", ["bl-2-2", "bl-1-1"])
def test_a_peer_is_compared_by_all_but_an_endpoint_that_is_learned(name, device):
    planned = PLAN[Key(Kind.PEER, (device, ex.KEY_HQ))]
    is_learned = name == "endpoint" and planned.endpoint is None
    assert is_met(planned, replace(planned, **{name: ANOTHER[name]})) == is_learned
    assert is_met(planned, replace(planned))


def test_a_peer_is_no_other_object():
    planned = PLAN[Key(Kind.PEER, ("bl-2-2", ex.KEY_HQ))]
    assert not is_met(planned, Sysctl("1"))
    assert not is_met(Sysctl("1"), planned)


def test_as_many_objects_as_planned_may_yet_be_others():
    """One is missing, and one is there that nobody wants."""
    here, gone = Key(Kind.NEXTHOP, (1,)), Key(Kind.NEXTHOP, (2,))
    hop = Nexthop(4, "bl-1-1")
    assert diff({here: hop}, {gone: hop}) == (Add(here, hop), Delete(gone, hop))


def test_the_order_in_which_things_are_found_does_not_matter():
    drifted = {key: item for key, item in PLAN.items() if key.kind is not Kind.ROUTE}
    drifted[Key(Kind.FILTER, ("inet", "branchline"))] = Filter("drifted")
    found = [key for key in unmet(PLAN, drifted) if key is not None]
    assert len(list(unmet(PLAN, drifted))) == len(PLAN)
    backwards = dict(reversed(PLAN.items()))
    assert len(found) > 10
    assert ops_for(PLAN, drifted, reversed(found)) == diff(PLAN, drifted)
    assert diff(backwards, dict(reversed(drifted.items()))) == diff(PLAN, drifted)


def test_shared_things_are_never_deleted():
    key = Key(Kind.SYSCTL, ("net/ipv4/conf/eth9/rp_filter",))
    assert diff({}, {key: Sysctl("2")}) == ()


def test_a_device_of_another_type_is_made_anew():
    key = Key(Kind.DEVICE, ("bl-1-1",))
    wrong = Device("dummy", 1420)
    assert diff({key: PLAN[key]}, {key: wrong}) == (Delete(key, wrong), Add(key, PLAN[key]))


def test_a_device_that_is_down_is_changed():
    key = Key(Kind.DEVICE, ("bl-1-1",))
    down = replace(PLAN[key], is_up=False)
    assert diff({key: PLAN[key]}, {key: down}) == (Change(key, down, PLAN[key]),)


def test_filters_are_compared_by_digest():
    key = Key(Kind.FILTER, ("inet", "branchline"))
    digest = PLAN[key].digest
    assert diff({key: PLAN[key]}, {key: Filter(digest)}) == ()
    assert len(diff({key: PLAN[key]}, {key: Filter("drifted")})) == 1


def test_what_goes_with_its_device_is_not_deleted_one_by_one():
    removed = [op.key for op in diff({}, PLAN)]
    assert Key(Kind.DEVICE, ("bl-1-1",)) in removed
    assert not any(k.kind in (Kind.PEER, Kind.WIREGUARD) for k in removed)
    assert Key(Kind.ADDRESS, ("lan0", "192.0.2.1/24")) in removed
