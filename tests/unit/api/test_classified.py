"""What is told of a flow."""

from dataclasses import replace

import pytest

from appliance.api.classified import classified
from appliance.api.problems import UnknownName
from appliance.config.flow import parse_flow
from appliance.contract.decision import Classified
from tests.unit.plan.examples import BRANCH

BULK = replace(BRANCH.classes[1], set_dscp=8)
UNTRUSTED = replace(
    BRANCH,
    lans=(replace(BRANCH.lans[0], trust_dscp=False),),
    classes=(BRANCH.classes[0], BULK, BRANCH.default_class),
)


def test_a_flow_out_of_a_lan_to_another_site() -> None:
    told = classified(UNTRUSTED, parse_flow("192.0.2.9", "192.168.2.9", port=873, dscp="ef"))
    assert told == Classified("bulk", "", "office", 0, 8, "branch-b", ())


def test_a_flow_from_another_site_to_the_internet_or_a_lan() -> None:
    told = classified(UNTRUSTED, parse_flow("192.168.2.9", "198.51.100.7", dscp="ef"))
    assert told == Classified("voice", "", None, 46, None, "internet", ())
    here = classified(UNTRUSTED, parse_flow("192.168.2.9", "192.0.2.9", dscp="ef"))
    assert here.site is None


def test_what_no_match_takes() -> None:
    told = classified(BRANCH, parse_flow("192.0.2.9", "192.168.3.9", port=80))
    assert (told.class_name, told.rule, told.site) == ("default", "no match takes it", "hq")


def test_a_lan_that_is_not_there() -> None:
    flow = parse_flow("192.0.2.9", "192.168.3.9", lan="guests")
    with pytest.raises(UnknownName, match="There is no LAN 'guests'; there is office"):
        classified(BRANCH, flow)
    assert classified(BRANCH, replace(flow, lan="office")).lan == "office"
