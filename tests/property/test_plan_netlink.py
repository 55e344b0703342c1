"""What we say to the kernel and what we read from it are each other's inverse."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from unittest.mock import patch

from hypothesis import given
from hypothesis import strategies as st

from appliance.kernel import listing, netlink
from appliance.kernel.rtnetlink import encode
from appliance.plan.plan import Add, Key, Kind, Nexthop, NexthopGroup, Route, Rule

NAMES = {7: "eth0", 8: "bl-1-1"}
NUMBERS = {name: number for number, name in NAMES.items()}
u32 = st.integers(1, 2**32 - 1)
mtus = st.one_of(st.none(), st.integers(1280, 9000))


@st.composite
def routes(draw):
    version = draw(st.sampled_from([4, 6]))
    address = st.builds(IPv4Address if version == 4 else IPv6Address, u32)
    network = IPv4Network if version == 4 else IPv6Network
    size = draw(st.integers(0, 32 if version == 4 else 128))
    prefix = str(network((draw(st.integers(0, 2**32 - 1)), size), strict=False))
    key = Key(Kind.ROUTE, (draw(u32), prefix, draw(u32)))
    source = draw(st.one_of(st.none(), address))
    match draw(st.sampled_from(["nexthop", "device", "unreachable"])):
        case "nexthop":
            return key, Route(nexthop=draw(u32), source=source, mtu=draw(mtus))
        case "device":
            gateway = draw(st.one_of(st.none(), address))
            on_link = gateway is not None and draw(st.booleans())
            device = draw(st.sampled_from(sorted(NUMBERS)))
            return key, Route(None, device, gateway, source, draw(mtus), on_link)
        case _:
            return key, Route()


nexthops = st.one_of(
    st.builds(
        lambda ident, family, device: (Key(Kind.NEXTHOP, (ident,)), Nexthop(family, device)),
        u32,
        st.sampled_from([4, 6]),
        st.sampled_from(sorted(NUMBERS)),
    ),
    st.builds(
        lambda ident, members: (Key(Kind.GROUP, (ident,)), NexthopGroup(tuple(sorted(members)))),
        u32,
        st.lists(st.tuples(u32, st.integers(1, 256)), min_size=1, max_size=8),
    ),
)
rules = st.builds(
    lambda family, priority, rule: (Key(Kind.RULE, (family, priority)), rule),
    st.sampled_from([4, 6]),
    u32,
    st.one_of(st.builds(Rule, u32), st.builds(Rule, u32, u32, u32)),
)


def said(key, item):
    with patch("socket.if_nametoindex", NUMBERS.__getitem__):
        (data,) = encode(Add(key, item))
    ((_, _, _, payload),) = netlink.messages(data)
    return payload


@given(routes())
def test_routes(made):
    assert listing.route(said(*made), NAMES) == made


@given(nexthops)
def test_nexthops(made):
    assert listing.nexthop(said(*made), NAMES) == made


@given(rules)
def test_rules(made):
    assert listing.rule(said(*made)) == made


@given(st.binary(max_size=200))
def test_any_bytes_read_as_attributes_without_a_fault(data):
    for kind, payload in netlink.elements(data):
        assert 0 <= kind <= 0x3FFF
        assert len(payload) <= len(data)
    for _, _, _, payload in netlink.messages(data):
        assert len(payload) <= len(data)


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=40)), max_size=8))
def test_attributes_come_back(made):
    data = b"".join(netlink.attribute(kind, payload) for kind, payload in made)
    assert list(netlink.elements(data)) == made
    assert len(data) % 4 == 0
