"""A match that names applications becomes a rule for each way to know one of them."""

from ipaddress import ip_network

import pytest

from appliance.config import intent
from appliance.config.intent import Protocol, learned_domains
from appliance.config.load import parse_config
from appliance.config.rules import rules_of
from appliance.config.schema import Application, Match
from tests.unit.config.files import changed

TILL = Application.model_validate(
    {
        "name": "till",
        "match": [
            {
                "protocol": ["tcp", "udp"],
                "ports": "8000-8010",
                "to": ["192.0.2.0/24", "2001:db8::/32"],
            },
            {"dscp": "cs5"},
        ],
    }
)
NAMES = {
    "till": TILL,
    "names": Application.model_validate({"name": "names", "domains": ["a.example"]}),
}


def rules(**match: object) -> list[intent.Match]:
    return [rule for _, rule in rules_of(Match.model_validate(match), "match 3", NAMES)]


def test_without_an_application_it_is_what_is_written() -> None:
    mac = "02:00:5e:10:00:01"
    assert rules(dscp="ef", lan="office", device=mac) == [
        intent.Match(dscp=(46,), lans=("office",), devices=(mac,), rule="match 3")
    ]


def test_each_way_to_know_the_application_is_a_rule() -> None:
    first, second = rules(application="till", lan="office")
    assert first == intent.Match(
        protocols=(Protocol.TCP, Protocol.UDP),
        ports=((8000, 8010),),
        destinations=(ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")),
        lans=("office",),
        rule="match 3, application till",
    )
    assert second == intent.Match(dscp=(40,), lans=("office",), rule="match 3, application till")


@pytest.mark.parametrize(
    ("written", "key", "found"),
    [
        ({"protocol": "udp"}, "protocols", [(Protocol.UDP,), (Protocol.UDP,)]),
        (
            {"protocol": "tcp", "ports": ["1-8000", "8009-9000"]},
            "ports",
            [((8000, 8000), (8009, 8010)), ((1, 8000), (8009, 9000))],
        ),
        (
            {"to": ["192.0.2.9/32", "192.0.0.0/16"]},
            "destinations",
            [
                (ip_network("192.0.2.9/32"), ip_network("192.0.2.0/24")),
                (ip_network("192.0.2.9/32"), ip_network("192.0.0.0/16")),
            ],
        ),
        ({"from": "198.51.100.0/24"}, "sources", [(ip_network("198.51.100.0/24"),)] * 2),
        ({"dscp": ["cs5", "df"]}, "dscp", [(40, 0), (40,)]),
    ],
)
def test_conditions_are_joined(written: dict, key: str, found: list) -> None:
    assert [getattr(rule, key) for rule in rules(application="till", **written)] == found


@pytest.mark.parametrize(
    "written",
    [
        {"protocol": "esp"},
        {"protocol": "tcp", "ports": 80},
        {"to": "198.51.100.0/24"},
    ],
)
def test_what_cannot_hold_is_no_rule(written: dict) -> None:
    (left,) = rules(application="till", **written)  # the one by its DSCP
    assert left.dscp == (40,)
    assert rules(application="till", dscp="ef", **written) == []


def test_domains_are_one_more_way_to_know_an_application() -> None:
    by_name, *rest = rules(application=["names", "till", "till"], lan="office")
    assert by_name == intent.Match(
        domains=("a.example",), lans=("office",), rule="match 3, application names"
    )
    assert rest == rules(application="till", lan="office")


@pytest.mark.parametrize(
    ("written", "found"),
    [
        (["a.example"], ("a.example",)),
        (["b.example.net", "deep.a.example"], ("deep.a.example",)),
    ],
)
def test_of_two_domains_the_deeper_one_counts(written: list[str], found: tuple[str, ...]) -> None:
    (rule,) = rules(application="names", domain=written)
    assert rule.domains == found


def test_domains_that_exclude_each_other_are_no_rule() -> None:
    assert rules(application="names", domain="ba.example") == []


@pytest.mark.parametrize(("dns", "count"), [(", dns: true}", 1), ("}", 0)])
def test_addresses_are_learned_where_somebody_asks(dns: str, count: int) -> None:
    text = changed("[{dscp: ef}]", "[{application: zoom}]")
    text = changed("address: 192.168.1.1/24}", f"address: 192.168.1.1/24{dns}", text)
    intent = parse_config(text, "box.yaml")
    found = intent.classes[0].matches
    assert len(learned_domains(intent)) == count
    assert len([match for match in found if match.domains]) == 1  # flows say whom they call
    assert [match for match in found if match.ports]
