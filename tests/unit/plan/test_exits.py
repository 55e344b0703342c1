"""Ways out as kernel objects, and the marks of the flows on them."""

from dataclasses import replace
from ipaddress import ip_address

from appliance.config.addressing import UPLINK_MARK_MASK, uplink_mark
from appliance.config.fields import MAX_SLOT
from appliance.config.intent import Internet
from appliance.contract.ids import Slot
from appliance.plan.exits import exit_items, exit_key, exits, flow_marks, forbidden_marks
from appliance.plan.plan import Nexthop
from tests.unit.plan import examples as ex


def test_each_gateway_is_a_nexthop_object():
    found = exit_items(ex.BRANCH, ex.BRANCH_FACTS)
    assert found[exit_key(Slot(1), 4)] == Nexthop(4, "eth0", ip_address("203.0.113.1"))
    assert found[exit_key(Slot(1), 6)] == Nexthop(6, "eth0", ip_address("fe80::1"))
    far = Nexthop(4, "wwan0", ip_address("100.64.0.1"), on_link=True)
    assert found[exit_key(Slot(2), 4)] == far
    assert exit_key(Slot(2), 6) not in found


def test_exits_are_those_that_have_an_object():
    assert exits(ex.BRANCH, ex.BRANCH_FACTS) == {(1, 4), (1, 6), (2, 4)}
    unplugged = {**ex.BRANCH_FACTS, Slot(1): replace(ex.BRANCH_FACTS[Slot(1)], has_carrier=False)}
    assert exits(ex.BRANCH, unplugged) == {(2, 4)}
    assert exits(ex.BRANCH, {}) == frozenset()


def test_marks_of_some_classes_and_of_all():
    assert flow_marks(ex.BRANCH, Slot(2), (ex.VOICE, ex.DEFAULT)) == (
        (0x12000000, 0xFF000000),
        (0x32000000, 0xFF000000),
    )
    everyone = (ex.VOICE, ex.BULK, ex.DEFAULT)
    assert flow_marks(ex.BRANCH, Slot(2), everyone) == ((0x02000000, 0x0F000000),)
    assert flow_marks(ex.BRANCH, Slot(2), ()) == ()


def test_marks_of_flows_that_the_rules_let_out_no_more():
    everything = [(uplink_mark(Slot(n)), UPLINK_MARK_MASK) for n in range(3, MAX_SLOT + 1)]
    assert forbidden_marks(ex.BRANCH) == tuple(everything)
    voice = replace(ex.BRANCH.policies[0], metered=False)
    bulk = replace(ex.BRANCH.policies[1], internet=Internet.NONE)
    strict = replace(ex.BRANCH, policies=(voice, bulk, ex.BRANCH.policies[2]))
    some = [(0x21000000, 0xFF000000), (0x12000000, 0xFF000000), (0x22000000, 0xFF000000)]
    assert forbidden_marks(strict) == (*some, *everything)
