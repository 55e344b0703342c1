"""What must hold between addresses and prefixes."""

import pytest

from appliance.config.load import parse_config
from tests.unit.config.files import SOUND, changed, problems_of


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            'gateway: [203.0.113.1, "fe80::1"]',
            'gateway: [203.0.113.33, "fe80::1"]',
            "/uplinks/0/gateway/0: 203.0.113.33 is not in the uplink's network "
            "(the uplink has 203.0.113.0/28)",
        ),
        (
            'gateway: [203.0.113.1, "fe80::1"]',
            "gateway: [203.0.113.2]",
            "/uplinks/0/gateway/0: 203.0.113.2 is the box itself "
            "(give the address of the next router)",
        ),
        (
            'address: [203.0.113.2/28, "2001:db8:1::2/64"]',
            "address: [203.0.113.2/28]",
            "/uplinks/0/gateway/1: the uplink has no IPv6 address (add one, or leave this out)",
        ),
        (
            'gateway: [203.0.113.1, "fe80::1"]',
            "gateway: 2001:db8:2::1",
            "/uplinks/0/gateway: 2001:db8:2::1 is not in the uplink's network "
            "(the uplink has 2001:db8:1::/64)",
        ),
        (
            'gateway: [203.0.113.1, "fe80::1"]',
            "gateway: [203.0.113.1, 203.0.113.3]",
            "/uplinks/0/gateway/1: a second IPv4 address (at most one of each family)",
        ),
        (
            '    gateway: [203.0.113.1, "fe80::1"]\n',
            "",
            "/uplinks/0: `gateway` is missing (static addresses need the provider's gateway)",
        ),
        (
            "address: dhcp,",
            "address: dhcp, gateway: 192.0.2.1,",
            "/uplinks/1/gateway: a gateway beside `address: dhcp` "
            "(leave it out: the lease or the router advertisement names the gateway)",
        ),
        (
            "address: dhcp,",
            "address: [dhcp, 192.0.2.9/24],",
            "/uplinks/1/address: dhcp beside other addresses "
            "(either the word dhcp alone, or addresses)",
        ),
        (
            "endpoint: 198.51.100.9",
            "endpoint: [198.51.100.9, 198.51.100.10]",
            "/peers/1/uplinks/0/endpoint/1: a second IPv4 address (at most one of each family)",
        ),
        (
            "endpoint: 198.51.100.9",
            "endpoint: 203.0.113.2",
            "/peers/1/uplinks/0/endpoint: 203.0.113.2 is this box: /uplinks/0/address/0 "
            "(give the address of the other site)",
        ),
        (
            "endpoint: 198.51.100.9",
            "endpoint: 198.51.100.1",
            "/peers/1/uplinks/0/endpoint: 198.51.100.1 with slot 1 is the same as "
            "/peers/0/uplinks/0/endpoint/0 (two sites behind one address need other slots)",
        ),
        (
            "prefixes: [192.168.3.0/24]",
            "prefixes: [192.168.2.128/25]",
            "/peers/1/prefixes/0: 192.168.2.128/25 overlaps 192.168.2.0/24 of /peers/0/prefixes/0 "
            "(an address lies in one place: narrow one of the two)",
        ),
        (
            "prefixes: [192.168.3.0/24]",
            "prefixes: [192.168.0.0/16]",
            "/peers/1/prefixes/0: 192.168.0.0/16 overlaps 192.168.1.0/24 of /lans/0/address/0 "
            "(an address lies in one place: narrow one of the two)",
        ),
        (
            "prefixes: [192.168.3.0/24]",
            "prefixes: [192.168.3.0/24, 192.168.3.0/24]",
            "/peers/1/prefixes/1: 192.168.3.0/24 overlaps 192.168.3.0/24 of /peers/1/prefixes/0 "
            "(an address lies in one place: narrow one of the two)",
        ),
        (
            "prefixes: [192.168.3.0/24]",
            "prefixes: [203.0.113.0/26]",
            "/peers/1/prefixes/0: 203.0.113.0/26 overlaps 203.0.113.0/28 of /uplinks/0/address/0 "
            "(an address lies in one place: narrow one of the two)",
        ),
        (
            "prefixes: [192.168.3.0/24]",
            "prefixes: [fd12:3456::/32]",
            "/peers/1/prefixes/0: fd12:3456::/32 overlaps fd12:3456:789a::/48 of /fleet/overlay "
            "(an address lies in one place: narrow one of the two)",
        ),
        (
            "address: 192.168.1.1/24",
            "address: 203.0.113.3/24",
            "/lans/0/address: 203.0.113.0/24 overlaps 203.0.113.0/28 of /uplinks/0/address/0 "
            "(an address lies in one place: narrow one of the two)",
        ),
        (
            "lans:\n",
            "lans:\n  - {name: guests, device: lan1, address: 192.168.1.2/25}\n",
            "/lans/1/address: 192.168.1.0/24 overlaps 192.168.1.0/25 of /lans/0/address/0 "
            "(an address lies in one place: narrow one of the two)",
        ),
    ],
)
def test_a_fault_is_named(old: str, new: str, said: str) -> None:
    problems = problems_of(changed(old, new))
    assert [f"{each.pointer}: {each.message} ({each.hint})" for each in problems] == [said]


def test_a_target_of_a_family_without_address_could_never_answer() -> None:
    text = changed("icmp 192.0.2.1,", '"icmp 2001:db8::1",')
    parse_config(text, "box.yaml")
    text = changed('[203.0.113.2/28, "2001:db8:1::2/64"]', "[203.0.113.2/28]", text)
    text = changed('[203.0.113.1, "fe80::1"]', "[203.0.113.1]", text)
    (problem,) = problems_of(text)
    assert problem.pointer == "/uplinks/0/health/targets/0"
    assert problem.message == "the uplink has no IPv6 address"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('gateway: [203.0.113.1, "fe80::1"]', "gateway: [203.0.113.1, 2001:db8:1::1]"),
        ('gateway: [203.0.113.1, "fe80::1"]', "gateway: 203.0.113.1"),
        ("address: dhcp,", "address: 203.0.113.3/28, gateway: 203.0.113.1,"),
        ("address: 192.168.1.1/24", "address: [192.168.1.1/24, 192.168.1.2/24]"),
        ("{label: lte}", "{label: lte, endpoint: 198.51.100.9}"),
        ("fibre, endpoint: 198.51.100.9", "fibre, slot: 3, endpoint: 198.51.100.1"),
        ("prefixes: [192.168.3.0/24]", "prefixes: [192.168.0.0/24, 192.168.4.0/22]"),
        ("prefixes: [192.168.3.0/24]", "prefixes: []"),
    ],
)
def test_what_is_no_fault(old: str, new: str) -> None:
    parse_config(changed(old, new), "box.yaml")


def test_one_wide_prefix_is_blamed_once() -> None:
    text = changed("prefixes: [192.168.3.0/24]", "prefixes: [192.0.0.0/8]")
    (problem,) = problems_of(text)
    assert problem.pointer == "/peers/1/prefixes/0"
    assert SOUND.splitlines()[problem.line - 1].strip().startswith("prefixes: [192.168.3")
