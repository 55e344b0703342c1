"""Which class takes a flow, and by which rule."""

from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from appliance.config.addressing import learned_set
from appliance.config.flow import Flow
from appliance.config.intent import Match, Protocol, TrafficClass
from appliance.config.load import parse_config
from appliance.core.classify import Sites, classify, holds, lan_of
from tests.flows import FLOWS, NAMES, flow
from tests.unit.config.files import SOUND, changed
from tests.unit.plan.examples import BRANCH, VOICE

MAC = "02:00:5e:10:00:01"
FLOW = Flow(
    ip_address("192.0.2.9"),
    ip_address("198.51.100.7"),
    Protocol.TCP,
    873,
    dscp=46,
    lan="office",
    device=MAC,
)


@pytest.mark.parametrize(
    ("match", "other"),
    [
        (Match(dscp=(34, 46)), {"dscp": 0}),
        (Match(lans=("guests", "office")), {"lan": "till"}),
        (Match(lans=("office",)), {"lan": None}),
        (Match(devices=(MAC,)), {"device": None}),
        (Match(protocols=(Protocol.TCP,)), {"protocol": Protocol.UDP}),
        (Match(protocols=(Protocol.TCP,)), {"protocol": None}),
        (Match(ports=((1, 2), (800, 900))), {"port": 901}),
        (Match(ports=((1, 2), (800, 900))), {"port": 799}),
        (Match(ports=((800, 900),)), {"protocol": Protocol.ESP, "port": None}),
        (Match(sources=(ip_network("192.0.2.0/24"),)), {"source": ip_address("192.0.3.1")}),
        (
            Match(destinations=(ip_network("::/0"), ip_network("198.51.100.7/32"))),
            {"destination": ip_address("198.51.100.8")},
        ),
    ],
)
def test_a_condition_holds_or_does_not(match: Match, other: dict) -> None:
    assert holds(match, FLOW)
    assert not holds(match, replace(FLOW, **other))


@pytest.mark.parametrize(
    ("change", "is_known"),
    [
        ({}, False),
        ({"name": "example.net"}, True),
        ({"name": "deep.www.example.net"}, True),
        ({"name": "notexample.net"}, False),
        ({"name": "net"}, False),
        ({"learned": frozenset({learned_set(("example.net", "example.com"))})}, True),
        ({"learned": frozenset({learned_set(("example.net",))})}, False),  # of another match
    ],
)
def test_a_flow_is_known_by_its_name_or_by_what_was_told_of_its_address(
    change: dict, is_known: bool
) -> None:
    match = Match(domains=("example.net", "example.com"))
    assert holds(match, replace(FLOW, **change)) == is_known


def test_conditions_of_one_match_hold_together() -> None:
    match = Match(dscp=(46,), protocols=(Protocol.UDP,))
    assert not holds(match, FLOW)
    assert holds(Match(), FLOW)


def test_the_first_class_that_fits_takes_it() -> None:
    found = classify(BRANCH, FLOW)
    assert (found.traffic_class.name, found.match) == ("voice", BRANCH.classes[0].matches[0])
    found = classify(BRANCH, replace(FLOW, dscp=0))
    assert found.traffic_class.name == "bulk"
    found = classify(BRANCH, replace(FLOW, dscp=0, port=80))
    assert (found.traffic_class.name, found.match) == ("default", None)


def test_what_is_shipped_comes_after_what_is_written() -> None:
    first, second = (
        TrafficClass(name, index, (Match(ports=((873, 873),), is_shipped=index == 1),))
        for index, name in enumerate(("voice", "bulk"), start=1)
    )
    intent = replace(BRANCH, classes=(first, second, BRANCH.default_class))
    assert classify(intent, FLOW).traffic_class is second


def test_a_dscp_from_a_lan_that_is_not_trusted_counts_for_nothing() -> None:
    lan = replace(BRANCH.lans[0], trust_dscp=False)
    intent = replace(BRANCH, lans=(lan,))
    assert classify(intent, FLOW).traffic_class.name == "bulk"
    assert classify(intent, replace(FLOW, lan=None)).traffic_class.name == "voice"
    by_zero = TrafficClass(VOICE, 1, (Match(dscp=(0,)),))
    intent = replace(intent, classes=(by_zero, BRANCH.default_class))
    assert classify(intent, FLOW).traffic_class is by_zero


def test_the_lan_follows_from_the_address() -> None:
    assert lan_of(BRANCH, ip_address("192.0.2.77")) == "office"
    assert lan_of(BRANCH, ip_address("2001:db8:10::77")) == "office"
    assert lan_of(BRANCH, ip_address("192.168.3.1")) is None


def test_the_site_follows_from_the_address() -> None:
    assert Sites(BRANCH).of(ip_address("192.168.2.9")) == "branch-b"
    assert Sites(BRANCH).of(ip_address("2001:db8:3::9")) == "hq"
    assert Sites(BRANCH).of(ip_address("198.51.100.7")) is None


@pytest.mark.parametrize(("name", "class_name", "protocol", "to", "port"), FLOWS)
def test_an_application_that_is_named_is_found(
    name: str, class_name: str, protocol: str, to: str, port: int | None
) -> None:
    text = changed("[{dscp: ef}]", f"[{{dscp: ef}}, {{application: {name}}}]", SOUND)
    found = classify(parse_config(text, "box.yaml"), flow(protocol, to, port))
    assert found.traffic_class.name == "voice"
    assert found.match is not None
    assert found.match.rule == f"match 2, application {name}"


@pytest.mark.parametrize(("name", "class_name", "asked"), NAMES)
def test_by_default_an_application_is_known_by_its_domains(
    name: str, class_name: str, asked: str
) -> None:
    text = changed("classes:\n  - name: voice\n    match: [{dscp: ef}]\n", "", SOUND)
    text = changed("  - class: voice\n    tiers", "  - class: realtime\n    tiers", text)
    text = changed("address: 192.168.1.1/24}", "address: 192.168.1.1/24, dns: true}", text)
    called = replace(flow("tcp", "198.51.100.7", 443), name=asked)
    found = classify(parse_config(text, "box.yaml"), called)
    assert found.traffic_class.name == class_name
    if class_name != "default":
        assert found.match is not None
        assert found.match.rule == f"by default, application {name}"
