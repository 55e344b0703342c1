"""Rates out of two readings, and what is told of a flow."""

from dataclasses import replace
from ipaddress import ip_address

import pytest

from appliance.config.intent import Match
from appliance.contract.decision import CarrierStatus, FlowStatus
from appliance.core.classify import Sites
from appliance.kernel.conntrack import FlowKey, TrackedFlow
from appliance.supervisor.flows import rated, status_of
from tests.unit.plan.examples import BRANCH, BULK, VOICE

CALL = TrackedFlow(
    7,
    17,
    ip_address("192.0.2.9"),
    ip_address("192.168.3.9"),
    40000,
    5060,
    0x10000000,
    1000,
    500,
    is_offloaded=False,
)
COPY = replace(CALL, ident=8, protocol=6, port=873, mark=0x20000000, is_offloaded=True)
SITES = Sites(BRANCH)
CARRIER = CarrierStatus("hq/1-1", "fibre - fibre")


def told(before: list[TrackedFlow], after: list[TrackedFlow], class_name=None) -> list:
    rows = rated(BRANCH, before, after, 2.0, class_name)
    return [(row.flow.ident, row.sent_bps, row.received_bps) for row in rows]


def test_rates_are_of_the_time_between_and_the_fastest_comes_first() -> None:
    after = [replace(CALL, sent=2000, received=600), replace(COPY, sent=9000)]
    assert told([COPY, CALL], after) == [(8, 32_000, 0), (7, 4000, 400)]


def test_a_flow_that_is_new_began_in_between() -> None:
    assert told([], [CALL]) == [(7, 4000, 2000)]
    assert told([replace(CALL, port=5061, sent=900)], [CALL]) == [(7, 4000, 2000)]


def test_without_counting_there_are_no_rates() -> None:
    nothing = replace(CALL, sent=None, received=None)
    assert told([nothing], [nothing]) == [(7, None, None)]
    assert told([nothing], [CALL]) == [(7, None, None)]  # switched on in between
    assert told([CALL], [replace(CALL, sent=0)]) == [(7, 0, 0)]  # begun anew


def test_one_class_alone_and_no_class_that_is_gone() -> None:
    gone = replace(CALL, ident=9, mark=0x90000000)
    assert [row[0] for row in told([], [CALL, COPY, gone])] == [7, 8]
    assert [row[0] for row in told([], [CALL, COPY, gone], BULK)] == [8]


def test_all_that_is_told_of_a_flow() -> None:
    (row,) = rated(BRANCH, [], [CALL], 2.0, None)
    asked = []

    def carriers(*of: str) -> tuple[CarrierStatus, ...]:
        asked.append(of)
        return (CARRIER,)

    assert status_of(BRANCH, SITES, row, carriers) == FlowStatus(
        protocol="udp",
        source="192.0.2.9",
        source_port=40000,
        destination="192.168.3.9",
        port=5060,
        class_name="voice",
        rule="",
        site="hq",
        carriers=(CARRIER,),
        sent_bps=4000,
        received_bps=2000,
        is_fast=False,
    )
    assert asked == [(VOICE, "hq")]


def test_a_flow_from_another_site_goes_by_that_site_and_one_to_nowhere_by_none() -> None:
    back = replace(CALL, source=CALL.destination, destination=CALL.source)
    away = replace(CALL, destination=ip_address("198.51.100.7"), protocol=47)
    rows = rated(BRANCH, [], [back, away], 2.0, None)
    here, there = (status_of(BRANCH, SITES, row, lambda *_: (CARRIER,)) for row in rows)
    assert (here.site, here.carriers) == ("hq", (CARRIER,))
    assert (there.site, there.carriers, there.protocol) == (None, (), "47")


def test_a_flow_that_left_for_the_internet_is_told_by_its_own_uplink() -> None:
    away = replace(CALL, destination=ip_address("198.51.100.7"), mark=0x12000000)
    (row,) = rated(BRANCH, [], [away], 2.0, None)
    told = status_of(BRANCH, SITES, row, lambda *_: (CARRIER,))  # that carries its class by now
    assert (told.site, told.carriers) == ("internet", (CarrierStatus("internet/2-0", "lte"),))


@pytest.mark.parametrize(("port", "rule"), [(5060, "by port"), (9, "by mark")])
def test_the_rule_is_the_first_that_what_is_known_allows(port: int, rule: str) -> None:
    mark, by_port = BRANCH.classes[0].matches[:2]
    both = replace(
        BRANCH.classes[0], matches=(replace(by_port, rule="by port"), replace(mark, rule="by mark"))
    )
    intent = replace(BRANCH, classes=(both, *BRANCH.classes[1:]))
    (row,) = rated(intent, [], [replace(CALL, port=port)], 2.0, None)
    assert status_of(intent, SITES, row, lambda *_: ()).rule == rule


@pytest.mark.parametrize(
    ("name", "rule"), [("www.example.com", "match 7"), (None, "no match takes it")]
)
def test_the_rule_is_that_of_the_name_it_calls(name: str | None, rule: str) -> None:
    known = replace(BRANCH.classes[0], matches=(Match(domains=("example.com",), rule="match 7"),))
    intent = replace(BRANCH, classes=(known, *BRANCH.classes[1:]))
    (row,) = rated(intent, [], [CALL], 2.0, None)
    assert CALL.key == FlowKey(17, CALL.source, 40000, CALL.destination, 5060)
    assert status_of(intent, SITES, row, lambda *_: (), server_name=name).rule == rule
