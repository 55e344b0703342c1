"""What must hold between keys: names, references, counts, classes and policies."""

import pytest

from appliance.config.intent import learned_domains
from appliance.config.load import parse_config
from tests.unit.config.files import KEYS, SOUND, changed, problems_of


def _said(text: str, own_public_key: str | None = None) -> list[str]:
    return [
        f"{problem.pointer}: {problem.message} ({problem.hint})"
        for problem in problems_of(text, own_public_key)
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "name: branch-b",
            "name: cloud",
            "/peers/1/name: the same as /peers/0/name "
            "(every site of the fleet has a name of its own)",
        ),
        (
            "name: cloud",
            "name: branch-a",
            "/peers/0/name: the same as /site/name (every site of the fleet has a name of its own)",
        ),
        (
            "name: cloud",
            "name: internet",
            "/peers/0/name: `internet` is where what goes to no site goes (another name)",
        ),
        (
            "id: 3",
            "id: 2",
            "/peers/1/id: the same as /peers/0/id (every site of the fleet has an id of its own)",
        ),
        (
            "id: 3",
            "id: 1",
            "/peers/1/id: the same as /site/id (every site of the fleet has an id of its own)",
        ),
        (
            KEYS[1],
            KEYS[0],
            "/peers/1/public_key: the same as /peers/0/public_key "
            "(every site has a key of its own, made at the site)",
        ),
        (
            "name: lte,",
            "name: fibre, label: lte,",
            "/uplinks/1/name: the same as /uplinks/0/name (choose another name)",
        ),
        (
            "  - {name: office, device: lan0,",
            "  - {name: office, device: lan1, address: 192.168.9.1/24}\n"
            "  - {name: office, device: lan0,",
            "/lans/1/name: the same as /lans/0/name (choose another name)",
        ),
        (
            "classes:\n",
            "classes:\n  - {name: voice, match: [{dscp: cs5}]}\n",
            "/classes/1/name: the same as /classes/0/name (choose another name)",
        ),
        (
            "    tiers: [fibre, lte]\n",
            "    tiers: [fibre, lte]\n    when: impaired\n",
            "/policies/0/when: only mode `duplicate` sends anything twice "
            "(add `mode: duplicate`, or leave it out)",
        ),
        (
            "    tiers: [fibre, lte]\n",
            "    tiers: [fibre]\n    mode: bond\n",
            "/policies/0/mode: mode `bond` needs the rates of uplink `fibre` "
            "(add `shaping` to fibre)",
        ),
        (
            "policies:\n",
            "policies:\n  - {class: voice}\n",
            "/policies/1/class: the same as /policies/0/class "
            "(a class has one policy: join the two)",
        ),
        (
            "device: wwan0",
            "device: eth0",
            "/uplinks/1/device: the same as /uplinks/0/device "
            "(every uplink and every LAN has a device of its own)",
        ),
        (
            "device: lan0",
            "device: eth0",
            "/lans/0/device: the same as /uplinks/0/device "
            "(every uplink and every LAN has a device of its own)",
        ),
        (
            "device: wwan0,",
            "device: wwan0, slot: 1,",
            "/uplinks/1/slot: slot 1 is taken by /uplinks/0 "
            "(where no slot is written, it is the position; give each its own)",
        ),
        (
            "{label: lte}]",
            "{label: lte, slot: 1}]",
            "/peers/1/uplinks/1/slot: slot 1 is taken by /peers/1/uplinks/0 "
            "(where no slot is written, it is the position; give each its own)",
        ),
        (
            "    match: [{dscp: ef}]\n",
            "    match: [{dscp: ef}]\n  - {name: bulk, slot: 1, match: [{dscp: le}]}\n",
            "/classes/1/slot: slot 1 is taken by /classes/0 "
            "(where no slot is written, it is the position; give each its own)",
        ),
        (
            "dns 192.0.2.53 example.net, ",
            "",
            "/uplinks/0/health/targets: 2 of at least 3 targets "
            "(one host that is down must not condemn the line)",
        ),
        (
            "quorum: 2",
            "quorum: 4",
            "/uplinks/0/health/quorum: more than the number of targets, 3 "
            "(lower it, or add targets)",
        ),
        (
            "targets: [icmp 192.0.2.1,",
            "targets: [icmp 192.0.2.1, icmp 192.0.2.1,",
            "/uplinks/0/health/targets/1: the same as /uplinks/0/health/targets/0 "
            "(a target counts once)",
        ),
        (
            "classes:\n",
            "classes:\n  - {name: default, match: [{dscp: cs5}]}\n",
            "/classes/0/name: `default` is the class of all other flows "
            "(it exists always and comes last: leave it out and give it a policy)",
        ),
        (
            "[{dscp: ef}]",
            "[{dscp: ef}, {}]",
            "/classes/0/match/1: takes every flow, so that no later class gets any "
            "(state a condition; what no class takes is in `default`)",
        ),
        (
            "[{dscp: ef}]",
            '[{from: [0.0.0.0/0, "::/0"]}]',
            "/classes/0/match/0: takes every flow, so that no later class gets any "
            "(state a condition; what no class takes is in `default`)",
        ),
        (
            "[{dscp: ef}]",
            "[{from: 192.0.2.0/24, to: 2001:db8::/32}]",
            "/classes/0/match/0: takes nothing: IPv4 and IPv6 in one match (split it into two)",
        ),
        (
            "[{dscp: ef}]",
            "[{protocol: icmp, to: 2001:db8::/32}]",
            "/classes/0/match/0: takes nothing: IPv4 and IPv6 in one match (split it into two)",
        ),
        (
            "[{dscp: ef}]",
            "[{dscp: ef}, {dscp: 46}]",
            "/classes/0/match/1: takes nothing: the same as /classes/0/match/0 "
            "(the first class that fits takes a flow)",
        ),
        (
            "[{dscp: ef}]",
            "[{ports: 53}]",
            "/classes/0/match/0/ports: only tcp, udp and sctp have ports "
            "(add `protocol: tcp`, `udp`, `sctp` or several of them, and no other)",
        ),
        (
            "[{dscp: ef}]",
            "[{protocol: [udp, esp], ports: 53}]",
            "/classes/0/match/0/ports: only tcp, udp and sctp have ports "
            "(add `protocol: tcp`, `udp`, `sctp` or several of them, and no other)",
        ),
        (
            "[{dscp: ef}]",
            "[{lan: ofice}]",
            "/classes/0/match/0/lan: there is no LAN `ofice` (did you mean `office`?)",
        ),
        (
            "[{dscp: ef}]",
            '[{lan: [office, guests], device: "02:00:5e:10:00:01"}]',
            "/classes/0/match/0/lan/1: there is no LAN `guests` (one of: office)",
        ),
        (
            "[{dscp: ef}]",
            "[{application: rdpp}]",
            "/classes/0/match/0/application: there is no application `rdpp` (did you mean `rdp`?)",
        ),
        (
            "[{dscp: ef}]",
            "[{application: [sip, rdp], protocol: udp, ports: 5060}]",
            "/classes/0/match/0/application/1: takes nothing of `rdp` "
            "(the other conditions exclude it: leave it or them out)",
        ),
        (
            "probing: {interval: 50 ms}",
            'dns: {servers: [192.0.2.53, "2001:db8::53", 192.0.2.53]}',
            "/dns/servers/2: the same as /dns/servers/0 (a server stands in the list once)",
        ),
        (
            "probing: {interval: 50 ms}",
            f"dns: {{servers: [{', '.join(f'192.0.2.{n}' for n in range(9))}]}}",
            "/dns/servers/8: more than 8 name servers (leave some out)",
        ),
        (
            "classes:\n",
            "applications: [{name: till}]\nclasses:\n",
            "/applications/0: nothing says how it is known (add `match` or `domains`)",
        ),
        (
            "classes:\n",
            "applications: [{name: till, match: [{}]}]\nclasses:\n",
            "/applications/0/match/0: takes every flow, so that no later class gets any "
            "(state a condition; what no class takes is in `default`)",
        ),
        (
            "classes:\n",
            "applications: [{name: till, match: [{protocol: icmp, ports: 1}]}]\nclasses:\n",
            "/applications/0/match/0/ports: only tcp, udp and sctp have ports "
            "(add `protocol: tcp`, `udp`, `sctp` or several of them, and no other)",
        ),
        (
            "classes:\n",
            "applications:\n"
            "  - {name: till, domains: [a.example.net]}\n"
            "  - {name: till, domains: [b.example.net]}\n"
            "classes:\n",
            "/applications/1/name: the same as /applications/0/name (join the two)",
        ),
        (
            "class: voice",
            "class: voise",
            "/policies/0/class: there is no class `voise` (did you mean `voice`?)",
        ),
        (
            "tiers: [fibre, lte]",
            "tiers: [fiber, lte]",
            "/policies/0/tiers/0: no uplink of this box or of a peer has the label `fiber` "
            "(did you mean `fibre`?)",
        ),
        (
            "tiers: [fibre, lte]",
            "tiers: [transit]",
            "/policies/0/tiers: no uplink of this box may carry the class: all labels are of peers "
            "(add one of: fibre, lte)",
        ),
        (
            "tiers: [fibre, lte]",
            "tiers: [[fibre, lte], fibre]",
            "/policies/0/tiers/1: the same as /policies/0/tiers/0/0 (a label stands in one tier)",
        ),
        (
            "tiers: [fibre, lte]",
            "tiers: [lte]\n    metered: false",
            "/policies/0/metered: no uplink may carry the class: all are metered "
            "(add a label to the tiers, or leave it out)",
        ),
        (
            "interval: 50 ms",
            "interval: 2 s, idle_interval: 1 s",
            "/probing/idle_interval: 1 s is shorter than `interval` (at least 2 s)",
        ),
        (
            "interval: 50 ms",
            "metered_interval: 20 ms",
            "/probing/metered_interval: 20 ms is shorter than `interval` (at least 50 ms)",
        ),
        (
            "interval: 50 ms",
            "port: 52075",
            "/probing/port: the tunnels listen on 51837 to 52075 (choose a port outside of these)",
        ),
    ],
)
def test_a_fault_is_named(old: str, new: str, said: str) -> None:
    assert _said(changed(old, new)) == [said]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: lte,", "name: lte, label: fibre, slot: 15,"),
        ("tiers: [fibre, lte]", "tiers: [[fibre, lte]]"),
        ("tiers: [fibre, lte]", "tiers: [fibre, transit]"),
        ("tiers: [fibre, lte]", "tiers: [[fibre], [lte]]\n    metered: false"),
        ("    tiers: [fibre, lte]\n", "    metered: false\n"),
        ("[{dscp: ef}]", "[{protocol: [icmp, icmpv6], to: 2001:db8::/32}]"),
        ("[{dscp: ef}]", "[{protocol: [icmp, udp], to: 2001:db8::/32}]"),
        ("[{dscp: ef}]", '[{from: [0.0.0.0/0, "::/0"], dscp: ef}]'),
        ("[{dscp: ef}]", "[{from: 0.0.0.0/0}]"),
        ("[{dscp: ef}]", "[{from: [192.0.2.0/24, 2001:db8::/32], to: 2001:db8::/32}]"),
        ("[{dscp: ef}]", "[{protocol: [tcp, udp, sctp], ports: [53, 80-90]}]"),
        ("[{dscp: ef}]", "[{lan: office}]"),
        ("[{dscp: ef}]", '[{device: "02:00:5e:10:00:01"}]'),
        ("[{dscp: ef}]", "[{application: [rdp, teams]}]"),
        ("class: voice", "class: default"),
        ("interval: 50 ms", "interval: 2 s"),
        ("interval: 50 ms", "interval: 2 s, idle_interval: 2 s, metered_interval: 2 s"),
        ("interval: 50 ms", "port: 52076"),
        ("interval: 50 ms", "port: 51820"),
        ("quorum: 2", "quorum: 3"),
    ],
)
def test_what_is_no_fault(old: str, new: str) -> None:
    text = changed(old, new)
    if "label: fibre" in new:
        text = changed("tiers: [fibre, lte]", "tiers: [fibre]", text)
    parse_config(text, "box.yaml")


def test_a_label_is_metered_when_all_its_uplinks_are() -> None:
    text = changed("name: lte,", "name: lte, label: fibre,")
    text = changed("tiers: [fibre, lte]", "tiers: [fibre]\n    metered: false", text)
    parse_config(text, "box.yaml")
    text = changed("device: eth0", "device: eth0\n    metered: true", text)
    assert [problem.pointer for problem in problems_of(text)] == ["/policies/0/metered"]


def test_each_line_of_a_bond_needs_its_rates() -> None:
    shaping = "shaping: {up: 20 Mbit/s, down: 90 Mbit/s}"
    bond = changed("    tiers: [fibre, lte]\n", "    mode: bond\n")
    tiers = changed("    mode: bond\n", "    mode: bond\n    tiers: [lte]\n", bond)
    both = [
        "/policies/0/mode: mode `bond` needs the rates of uplink `fibre` (add `shaping` to fibre)",
        "/policies/0/mode: mode `bond` needs the rates of uplink `lte` (add `shaping` to lte)",
    ]
    assert _said(bond) == both
    assert _said(tiers) == both[1:]
    for text in (bond, tiers):
        assert _said(changed("device: eth0", f"device: eth0\n    {shaping}", text)) == both[1:]
    shaped = changed("metered: true", f"metered: true, {shaping}", tiers)
    parse_config(shaped, "box.yaml")
    labelled = changed(
        "name: lte,", "name: lte, label: fibre,", changed("[lte]", "[fibre]", shaped)
    )
    assert _said(labelled) == both[:1]


def test_the_own_key_as_a_peer_is_found_when_it_is_known() -> None:
    assert _said(SOUND, KEYS[1]) == [
        "/peers/1/public_key: the key of this box itself (ask the other site for its public key)"
    ]


def test_more_uplinks_than_slots() -> None:
    more = "".join(f"  - {{name: u{n}, device: d{n}, address: dhcp}}\n" for n in range(13))
    parse_config(changed("lans:\n", more + "lans:\n"), "box.yaml")
    more += "  - {name: u13, device: d13, address: dhcp}\n"
    assert _said(changed("lans:\n", more + "lans:\n")) == [
        "/uplinks/15: more than 15 uplinks (there are 15 slots)"
    ]


def test_more_uplinks_of_a_peer_than_slots() -> None:
    more = ", ".join("{label: lte}" for _ in range(15))
    assert _said(changed("{label: lte}]", more + "]")) == [
        "/peers/1/uplinks/15: more than 15 uplinks (there are 15 slots)"
    ]


def test_more_classes_than_marks() -> None:
    more = "".join(f"  - {{name: c{n}, match: [{{dscp: {n}}}]}}\n" for n in range(13))
    parse_config(changed("policies:\n", more + "policies:\n"), "box.yaml")
    more += "  - {name: c13, match: [{dscp: 13}]}\n"
    assert _said(changed("policies:\n", more + "policies:\n")) == [
        "/classes/14: more than 14 classes (there are 14 slots)"
    ]


@pytest.mark.parametrize(
    ("old", "new", "pointer"),
    [
        ("name: fibre\n", "name: Fibre\n", "/uplinks/0/name"),
        ("name: fibre\n", "name: fibre\n    label: *other\n", "/uplinks/0/label"),
        ("name: lte,", "name: lte, slot: 16,", "/uplinks/1/slot"),
        ("- name: voice\n", "- name:\n", "/classes/0/name"),
        ("- name: voice\n", "- name: voice\n    slot: 15\n", "/classes/0/slot"),
        ("[fibre, lte]\n", "[LTE]\n    metered: false\n", "/policies/0/tiers/0"),
        ('[203.0.113.1, "fe80::1"]', "here", "/uplinks/0/gateway"),
        ("interval: 50 ms", "interval: 20 s, idle_interval: 20 ms", "/probing/interval"),
        (
            "{interval: 50 ms}",
            "{port: 51900}\nwireguard: {listen_port_base: 70000}",
            "/wireguard/listen_port_base",
        ),
    ],
)
def test_damage_in_one_part_is_not_blamed_on_another(old: str, new: str, pointer: str) -> None:
    (problem,) = problems_of(changed(old, new))
    assert problem.pointer == pointer


def test_an_application_of_a_damaged_entry_is_not_called_unknown() -> None:
    text = changed("[{dscp: ef}]", "[{application: till}]")
    text = changed("classes:\n", "applications: [{name: Till, domains: [a.b]}]\nclasses:\n", text)
    assert [problem.pointer for problem in problems_of(text)] == ["/applications/0/name"]


def test_a_lan_of_a_damaged_entry_is_not_called_unknown() -> None:
    text = changed("[{dscp: ef}]", "[{lan: office}]")
    text = changed("name: office", "name: Office", text)
    assert [problem.pointer for problem in problems_of(text)] == ["/lans/0/name"]


def test_a_lan_of_a_box_without_lans_is_unknown() -> None:
    text = changed("[{dscp: ef}]", "[{lan: office}]")
    text = changed("lans:\n  - {name: office, device: lan0, address: 192.168.1.1/24}\n", "", text)
    assert _said(text) == [
        "/classes/0/match/0/lan: there is no LAN `office` (the box has no LANs: leave it out)"
    ]


def test_a_label_of_a_damaged_peer_is_not_called_unknown() -> None:
    text = changed("tiers: [fibre, lte]", "tiers: [fibre, transit]")
    text = changed("id: 2\n", "id: 0\n", text)
    assert [problem.pointer for problem in problems_of(text)] == ["/peers/0/id"]


def test_a_lan_that_asks_needs_somebody_who_knows() -> None:
    static = changed(
        "address: dhcp, metered", "address: 192.0.2.130/28, gateway: 192.0.2.129, metered"
    )
    asking = changed("address: 192.168.1.1/24}", "address: 192.168.1.1/24, dns: true}", static)
    assert _said(asking) == [
        "/lans/0/dns: no name server is known: no uplink is told one by DHCP "
        "(name some under `dns: servers`)"
    ]
    named = changed("probing: {interval: 50 ms}", "dns: {servers: 192.0.2.53}", asking)
    assert parse_config(named, "box.yaml").lans[0].dns


def test_a_name_is_in_few_lists_of_domains() -> None:
    asking = changed("address: 192.168.1.1/24}", "address: 192.168.1.1/24, dns: true}")
    lists = ", ".join(f"{{domain: [a.example.net, b{n}.example.net]}}" for n in range(5))
    few = changed("[{dscp: ef}]", f"[{lists}]", asking)
    assert len(learned_domains(parse_config(few, "box.yaml"))) == 5
    many = changed("[{dscp: ef}]", f"[{lists}, {{domain: example.net}}]", asking)
    assert _said(many) == [
        "/classes/0/match/5: `a.example.net` is in more than 5 different lists of domains "
        "(use the same list where you can)"
    ]
