"""Matches become conditions that nft reads."""

from ipaddress import ip_network

import pytest

from appliance.config.intent import Match, Protocol
from appliance.plan.classify import render_match

V4, V6 = ip_network("192.0.2.0/24"), ip_network("2001:db8::/32")


@pytest.mark.parametrize(
    ("match", "conditions"),
    [
        (
            Match(dscp=(46, 34)),
            [
                "meta nfproto ipv4 ip dscp { 0x2e, 0x22 }",
                "meta nfproto ipv6 ip6 dscp { 0x2e, 0x22 }",
            ],
        ),
        (
            Match(ports=((53, 53),)),
            ["meta l4proto { tcp, udp, sctp } ct original proto-dst { 53 }"],
        ),
        (Match(protocols=(Protocol.ICMPV6,)), ["meta l4proto { ipv6-icmp }"]),
        (
            Match(protocols=(Protocol.UDP,), ports=((1, 9),), sources=(V4,), destinations=(V4, V6)),
            [
                "meta nfproto ipv4 ct original ip saddr { 192.0.2.0/24 } "
                "ct original ip daddr { 192.0.2.0/24 } "
                "meta l4proto { udp } ct original proto-dst { 1-9 }"
            ],
        ),
        (
            Match(lans=("office", "guests"), devices=("02:00:5e:10:00:01",)),
            ['iifname { "lan0", "lan1" } ether saddr { 02:00:5e:10:00:01 }'],
        ),
        (
            Match(dscp=(0,), lans=("guests",), protocols=(Protocol.ESP,)),
            [
                'meta nfproto ipv4 ip dscp { 0x00 } iifname { "lan1" } meta l4proto { esp }',
                'meta nfproto ipv6 ip6 dscp { 0x00 } iifname { "lan1" } meta l4proto { esp }',
            ],
        ),
        (Match(sources=(V4,), destinations=(V6,)), []),
        (Match(), [""]),
    ],
)
def test_conditions(match, conditions):
    assert list(render_match(match, {"office": "lan0", "guests": "lan1"})) == conditions
