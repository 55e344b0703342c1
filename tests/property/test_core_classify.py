"""What is told of a flow is what the kernel is told to do: the nftables text, read word by word."""

import re
from dataclasses import replace
from ipaddress import ip_address, ip_network
from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config.flow import WITH_PORTS, Flow
from appliance.config.intent import Intent, Lan, Match, Protocol, TrafficClass
from appliance.contract.ids import ClassName, SiteName
from appliance.core.classify import Sites, classify
from appliance.plan.classify import render_classes
from tests.unit.plan.examples import BRANCH

MACS = ("02:00:5e:10:00:01", "02:00:5e:10:00:02")
HOSTS = {4: ("192.0.2.1", "192.0.2.200", "198.51.100.1"), 6: ("2001:db8::1", "2001:db8:1::1")}
NETWORKS = ["192.0.2.0/25", "192.0.2.0/24", "0.0.0.0/0", "2001:db8::/48", "::/0", "198.51.100.1/32"]
DEVICE_OF = {"office": "lan0", "guests": "lan1"}
LANS = (Lan("office", "lan0", ()), Lan("guests", "lan1", (), trust_dscp=False))


def some(values):
    return st.lists(st.sampled_from(values), min_size=1, max_size=2, unique=True).map(tuple)


networks = some(list(map(ip_network, NETWORKS)))
CONDITIONS = {
    "dscp": some([0, 8, 46]),
    "protocols": some(list(Protocol)),
    "ports": some([(1, 10), (5, 5), (10, 65535)]),
    "sources": networks,
    "destinations": networks,
    "lans": some(["office", "guests"]),
    "devices": some(MACS),
}


@st.composite
def matches(draw) -> Match:
    """With one or two conditions: more would hardly ever hold together."""
    keys = draw(st.lists(st.sampled_from(list(CONDITIONS)), min_size=1, max_size=2, unique=True))
    stated = {key: draw(CONDITIONS[key]) for key in keys}
    return replace(Match(is_shipped=draw(st.booleans())), **stated)


@st.composite
def intents(draw) -> Intent:
    taken = draw(st.lists(st.lists(matches(), min_size=1, max_size=3), max_size=3))
    classes = [
        TrafficClass(ClassName(f"c{index}"), index, tuple(each))
        for index, each in enumerate(taken, start=1)
    ]
    return replace(BRANCH, lans=LANS, classes=(*classes, TrafficClass(ClassName("rest"), 15, ())))


@st.composite
def flows(draw) -> Flow:
    family = draw(st.sampled_from([4, 6]))
    protocol = draw(st.sampled_from([None, *Protocol, Protocol.TCP, Protocol.UDP]))
    return Flow(
        ip_address(draw(st.sampled_from(HOSTS[family]))),
        ip_address(draw(st.sampled_from(HOSTS[family]))),
        protocol,
        draw(st.sampled_from([1, 5, 10, 11])) if protocol in WITH_PORTS else None,
        draw(st.sampled_from([0, 8, 46])),
        draw(st.sampled_from([None, *DEVICE_OF])),
        draw(st.sampled_from([None, *MACS])),
    )


def by_text(intent: Intent, flow: Flow) -> int:
    """The number of the class by the rules of the chain, in their order."""
    chain = "\n".join(render_classes(intent)).rpartition("vmap")[2].partition("\n}")[0]
    for line in chain.splitlines()[1:]:
        conditions, goto, rest = line.strip().partition("goto class_")
        assert goto
        if holds(conditions, flow):
            return int(rest.split()[0])
    msg = "the chain ends without a class"
    raise AssertionError(msg)


def holds(conditions: str, flow: Flow) -> bool:
    """Does a rule's text hold? Every word of it must be understood."""
    word = "ip" if flow.source.version == 4 else "ip6"
    dscp = 0 if flow.lan == "guests" else flow.dscp  # the chain `untrusted` has been before
    protocol = {"icmpv6": "ipv6-icmp"}.get(str(flow.protocol), flow.protocol)

    def is_in(address, kind, listed):
        return kind == word and any(address in ip_network(each) for each in listed.split(", "))

    def is_port(listed):
        ranges = [list(map(int, each.split("-"))) for each in listed.split(", ")]
        return flow.port is not None and any(r[0] <= flow.port <= r[-1] for r in ranges)

    grammar = {
        r"meta nfproto ipv([46])": lambda version: int(version) == flow.source.version,
        r"(ip6?) dscp { (.*?) }": lambda kind, v: kind == word and f"{dscp:#04x}" in v.split(", "),
        r"ct original (ip6?) saddr { (.*?) }": lambda *words: is_in(flow.source, *words),
        r"ct original (ip6?) daddr { (.*?) }": lambda *words: is_in(flow.destination, *words),
        r"iifname { (.*?) }": lambda v: f'"{DEVICE_OF.get(flow.lan or "")}"' in v.split(", "),
        r"ether saddr { (.*?) }": lambda v: flow.device in v.split(", "),
        r"meta l4proto { (.*?) }": lambda v: protocol in v.split(", "),
        r"ct original proto-dst { (.*?) }": is_port,
    }
    verdicts = []
    for pattern, judge in grammar.items():
        verdicts += [judge(*words.groups()) for words in re.finditer(pattern, conditions)]
        conditions = re.sub(pattern, "", conditions)
    assert conditions.strip() == ""
    return all(verdicts)


@settings(max_examples=400)
@given(intents(), flows())
def test_the_class_is_the_one_of_the_text(intent: Intent, flow: Flow) -> None:
    assert classify(intent, flow).traffic_class.index == by_text(intent, flow)


@given(st.lists(st.tuples(st.sampled_from(NETWORKS), st.integers(0, 3)), max_size=6))
def test_an_address_is_behind_the_site_of_the_longest_prefix(told: list[tuple[str, int]]) -> None:
    told = list(dict(told).items())  # two sites never have the same one
    peers = tuple(
        replace(BRANCH.peers[0], name=SiteName(f"s{number}"), prefixes=(ip_network(prefix),))
        for prefix, number in told
    )
    sites = Sites(replace(BRANCH, peers=peers))
    for host in map(ip_address, chain(*HOSTS.values())):
        holding = [(p.prefixes[0].prefixlen, p.name) for p in peers if host in p.prefixes[0]]
        assert sites.of(host) == max(holding, default=(0, None))[1]
