"""A match that names applications becomes a rule for each way to know one of them."""

from ipaddress import ip_network

import pytest

from appliance.config import intent
from appliance.config.intent import Protocol
from appliance.config.rules import rules_of
from appliance.config.schema import Application, Match

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


def test_domains_alone_give_no_rule_yet() -> None:
    assert rules(application=["names", "till", "till"]) == rules(application="till")
