"""Order and tolerance of the difference."""

from dataclasses import replace
from ipaddress import ip_address

from appliance.plan.compile import compile_plan
from appliance.plan.diff import diff, is_met
from appliance.plan.plan import Add, Change, Delete, Device, Filter, Key, Kind, Sysctl
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
