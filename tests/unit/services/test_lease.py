"""What a server says and what we take for a fact."""

from ipaddress import ip_address, ip_interface

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.services.lease import (
    LARGEST_MESSAGE,
    HookError,
    Lease4,
    Lease6,
    LeaseFacts,
    Router,
    lease4_of,
    lease6_of,
    parse_message,
    routers_of,
)
from tests.unit.services.hook import ADVERT, BOUND, BOUND6, hook_file

# All messages were written 1000 s after boot; they are read 10 s later, when our clock says 50.
NOW, UPTIME = 50.0, 1010.0


def lease4(**changes: str) -> Lease4 | None:
    return lease4_of(parse_message(hook_file(BOUND | changes)), NOW, UPTIME)


def routers(**changes: str) -> tuple[Router, ...]:
    return routers_of(parse_message(hook_file(ADVERT | changes)), NOW, UPTIME)


def lease6(**changes: str) -> Lease6 | None:
    return lease6_of(parse_message(hook_file(BOUND6 | changes)), NOW, UPTIME)


def test_a_lease_is_read_with_its_age() -> None:
    assert lease4() == Lease4(
        address=ip_interface("198.51.100.65/24"),
        routers=(ip_address("198.51.100.1"),),
        dns=(ip_address("198.51.100.53"), ip_address("192.0.2.53")),
        mtu=1480,
        ends_s=NOW - 10 + 120,
    )


def test_a_router_is_read_with_its_age_at_the_hook_and_since() -> None:
    assert routers() == (
        Router(
            address=ip_address("fe80::58ae:a5ff:fe74:c809"),
            preference=1,
            mtu=1400,
            ends_s=NOW - 10 - 2 + 12,
        ),
    )


def test_a_dhcpv6_lease_is_read() -> None:
    assert lease6() == Lease6(
        addresses=(ip_address("2001:db8:1::1c9"),),
        dns=(ip_address("2001:db8::53"),),
        ends_s=NOW - 10 + 300,
    )


@pytest.mark.parametrize("reason", ["EXPIRE", "NAK", "STOP", "RELEASE", "FAIL", "", "bound"])
def test_other_reasons_tell_that_there_is_no_lease(reason: str) -> None:
    assert lease4(reason=reason) is None
    assert lease6(reason=reason) is None


def test_a_lease_may_be_for_ever() -> None:
    lease = lease4(new_dhcp_lease_time="4294967295")
    assert lease is not None
    assert lease.ends_s is None
    assert LeaseFacts(lease4=lease).at(1e9).lease4 == lease


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",
        "127.0.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "1.2.3",
        "x",
        "",
        "$(id)",
        "2001:db8::1",
    ],
)
def test_what_no_host_can_have_is_no_lease(address: str) -> None:
    with pytest.raises(HookError):
        lease4(new_ip_address=address)


@pytest.mark.parametrize("length", ["0", "33", "-1", "²", "", "24 ", "1" * 50])
def test_a_network_that_cannot_be_is_no_lease(length: str) -> None:
    with pytest.raises(HookError):
        lease4(new_subnet_cidr=length)


def test_a_router_that_the_kernel_would_refuse_is_passed_over() -> None:
    """Itself, the network, its broadcast address, nobody's address and nonsense."""
    lease = lease4(
        new_routers="198.51.100.65 198.51.100.0 198.51.100.255 0.0.0.0 junk "
        "203.0.113.9 198.51.100.1"
    )
    assert lease is not None
    assert [str(r) for r in lease.routers] == ["203.0.113.9", "198.51.100.1"]


def test_a_wrong_dns_server_or_mtu_does_not_cost_the_lease() -> None:
    lease = lease4(new_domain_name_servers="0.0.0.0 192.0.2.53", new_interface_mtu="67")
    assert lease is not None
    assert ([str(d) for d in lease.dns], lease.mtu) == (["192.0.2.53"], None)


def test_lists_are_bounded() -> None:
    lease = lease4(new_routers=" ".join(f"203.0.113.{n}" for n in range(1, 200)))
    assert lease is not None
    assert len(lease.routers) == 16


def test_a_router_with_no_lifetime_is_no_default_router() -> None:
    assert routers(nd1_lifetime="0") == ()


def test_routers_are_ordered_by_preference() -> None:
    others: dict[str, str] = {}
    for n, flags in ((2, ""), (3, "h")):
        for name, value in ADVERT.items():
            if name.startswith("nd1_"):
                others[name.replace("nd1_", f"nd{n}_")] = value
        others |= {f"nd{n}_from": f"fe80::{n}", f"nd{n}_flags": flags}
    found = routers(nd1_flags="l", **others)
    assert [str(r.address) for r in found] == [
        "fe80::3",
        "fe80::2",
        "fe80::58ae:a5ff:fe74:c809",
    ]


@pytest.mark.parametrize("source", ["2001:db8::1", "::", "ff02::1", "fe80::1/64", "198.51.100.1"])
def test_a_router_speaks_from_its_link_local_address(source: str) -> None:
    with pytest.raises(HookError):
        routers(nd1_from=source)


def test_facts_run_out_whoever_should_have_said_so() -> None:
    facts = LeaseFacts(lease4(), routers(), lease6())
    assert facts.next_end_s == NOW
    assert [str(g) for g in facts.gateways] == ["198.51.100.1", "fe80::58ae:a5ff:fe74:c809"]
    assert facts.at(NOW - 1) == facts
    assert facts.at(NOW).gateways == (ip_address("198.51.100.1"),)
    assert facts.at(NOW + 110).lease4 is None
    assert facts.at(NOW + 290) == LeaseFacts()
    assert LeaseFacts().next_end_s is None


def test_a_value_cannot_pretend_to_be_another_variable() -> None:
    lease = lease4(new_domain_name="x\nnew_ip_address=192.0.2.66\nreason=BOUND")
    assert lease is not None
    assert str(lease.address) == "198.51.100.65/24"
    # Nor can one that comes later in the environment replace our own head.
    assert parse_message(hook_file(BOUND) + b"branchline_boot=other\0").boot == "b00t"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        hook_file(BOUND)[:-1],
        b"reason=BOUND\0",
        hook_file({"branchline_uptime": "soon", "branchline_boot": "b", "reason": "BOUND"}),
        hook_file({"branchline_uptime": "nan", "branchline_boot": "b", "reason": "BOUND"}),
        hook_file({"branchline_uptime": "-1", "branchline_boot": "b", "reason": "BOUND"}),
        hook_file(BOUND) + b"x=y\0" * 600,
        hook_file(BOUND | {"x": "y" * LARGEST_MESSAGE}),
    ],
)
def test_what_our_hook_does_not_write_is_refused(data: bytes) -> None:
    with pytest.raises(HookError):
        parse_message(data)


NAMES = st.sampled_from(sorted({*BOUND, *ADVERT, *BOUND6}))
VALUES = st.sampled_from(
    ["", "0", "1", "24", "65536", "4294967295", "-1", "BOUND", "ROUTERADVERT", "fe80::1", "x\0y=z"]
) | st.text(max_size=20)


@given(st.sampled_from([BOUND, ADVERT, BOUND6]), st.dictionaries(NAMES, VALUES, max_size=6))
def test_any_change_of_a_message_is_facts_or_a_refusal(
    base: dict[str, str], changes: dict[str, str]
) -> None:
    try:
        message = parse_message(hook_file(base | changes))
        lease = lease4_of(message, NOW, UPTIME)
        found = routers_of(message, NOW, UPTIME)
        LeaseFacts(lease, found, lease6_of(message, NOW, UPTIME)).at(NOW)
    except HookError:
        return
    for router in found:
        assert router.address.is_link_local
    if lease is not None:
        assert lease.address.ip not in lease.routers
