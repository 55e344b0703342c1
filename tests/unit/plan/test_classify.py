"""Matches become conditions that nft reads."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from appliance.config.intent import Match, Protocol
from appliance.plan.classify import (
    render_classes,
    render_hellos,
    render_learned,
    render_match,
)
from appliance.plan.filter import render_filter
from tests.unit.plan.examples import BRANCH

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
        (
            Match(domains=("example.net",), protocols=(Protocol.UDP,)),
            [
                f"meta nfproto {proto} ct original {word} daddr @names_3daab7cf_{half} "
                "meta l4proto { udp }"
                for proto, word, version in (("ipv4", "ip", 4), ("ipv6", "ip6", 6))
                for half in (f"{version}a", f"{version}b")
            ],
        ),
        (Match(sources=(V4,), destinations=(V6,)), []),
        (Match(), [""]),
    ],
)
def test_conditions(match, conditions):
    assert list(render_match(match, {"office": "lan0", "guests": "lan1"})) == conditions


def test_each_list_of_domains_has_a_pair_of_sets_for_each_family():
    lan = replace(BRANCH.lans[0], dns=True)
    voice = replace(
        BRANCH.classes[0],
        matches=(Match(domains=("example.net",)), Match(domains=("example.net",))),
    )
    intent = replace(BRANCH, lans=(lan,), classes=(voice, *BRANCH.classes[1:]))
    lines = list(render_learned(intent))
    assert [line for line in lines if "{" in line] == [
        f"set names_3daab7cf_{half} {{" for half in ("4a", "4b", "6a", "6b")
    ]
    assert lines.count("  type ipv4_addr") == lines.count("  type ipv6_addr") == 2
    assert all(line in render_filter(intent).text for line in lines)


def knowing(*matches):
    voice = replace(BRANCH.classes[0], matches=matches)
    return replace(BRANCH, classes=(voice, *BRANCH.classes[1:]))


def test_without_rules_by_name_nothing_is_copied_and_the_fast_path_begins_at_once():
    assert list(render_hellos(BRANCH)) == []
    assert "log group" not in render_filter(BRANCH).text
    assert "ct packets" not in render_filter(BRANCH).text


@pytest.mark.parametrize(
    ("matches", "ports"),
    [
        ((Match(domains=("example.net",)),), "{ 443 }"),
        (
            (
                Match(domains=("example.net",), ports=((8443, 8443), (440, 445))),
                Match(domains=("example.com",)),
                Match(domains=("example.org",), protocols=(Protocol.TCP,), ports=((446, 450),)),
                Match(ports=((1, 9),)),
            ),
            "{ 440-450, 8443 }",
        ),
        ((Match(domains=("example.net",), protocols=(Protocol.UDP,), ports=((1, 9),)),), None),
    ],
)
def test_the_first_packets_to_the_ports_of_rules_by_name_are_copied(matches, ports):
    intent = knowing(*matches)
    lines = [line.strip() for line in render_hellos(intent)]
    lines = "\n".join(render_hellos(intent)).splitlines()
    assert lines == hellos(ports, has_quic=True)
    text = render_filter(intent).text
    assert all(line in text for line in lines)
    (fast,) = [line for line in text.splitlines() if "flow add" in line]
    assert "{ tcp, udp } ct packets != 1-48 flow" in fast


def test_quic_is_copied_where_a_rule_may_take_it():
    intent = knowing(Match(domains=("example.net",), protocols=(Protocol.TCP,)))
    assert list(render_hellos(intent)) == hellos("{ 443 }", has_quic=False)


def hellos(ports, *, has_quic):
    """All lines, to be read: what each of them lets by is in no test but here and in the lab."""
    found = ["limit hellos {", "  rate 1000/second burst 1000 packets", "}"]
    for version, of in ((4, "ipv4_addr"), (6, "ipv6_addr")):
        found += [f"set hellos_{version} {{", f"  type {of}", "  size 16384"]
        found += ["  flags dynamic,timeout", "  timeout 10s", "}"]
    found += [
        "chain hellos {",
        "  type filter hook prerouting priority -160; policy accept;",
        "  iifname @inside ct direction original ct original packets 1-16 goto hello",
        "}",
        "chain hello {",
    ]
    if ports:
        with_data = "tcp flags & (syn | fin | rst) == 0x0 meta length != { 40, 52, 60, 72 }"
        fast_open = "tcp flags & (syn | ack | rst) == syn meta length > 120"
        found += [f"  tcp dport {ports} {each} goto hello_tcp" for each in (with_data, fast_open)]
    if has_quic:
        version = "@th,72,32 { 0x00000001, 0x6b3343cf }"
        found += [f"  meta l4proto udp @th,64,8 & 0xc0 == 0xc0 {version} goto hello_udp"]
    found += ["}"]
    for protocol, octets in (("tcp", 16504), ("udp", 2048)):
        rate = "limit rate over 200/second burst 200 packets"
        found += [
            f"chain hello_{protocol} {{",
            f"  update @hellos_4 {{ ip saddr {rate} }} return",
            f"  update @hellos_6 {{ ip6 saddr {rate} }} return",
            f'  limit name "hellos" log group 177 snaplen {octets} queue-threshold 1',
            "}",
        ]
    return found


def test_without_anybody_who_asks_no_rule_looks_for_learned_addresses():
    rules = [
        line for line in render_classes(knowing(Match(domains=("example.net",)))) if "@" in line
    ]
    assert not [line for line in rules if "@names" in line]
