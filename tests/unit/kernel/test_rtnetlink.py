"""Messages as pyroute2, which shares no code with us, reads them."""

import struct
from ipaddress import ip_address, ip_interface

import pytest
from pyroute2.netlink.rtnl.fibmsg import fibmsg
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg
from pyroute2.netlink.rtnl.tcmsg import tcmsg

from appliance.config.addressing import ROUTE_PROTOCOL
from appliance.kernel.listing import nexthop
from appliance.kernel.netlink import attributes
from appliance.kernel.rtnetlink import encode
from appliance.plan.hierarchy import nodes
from appliance.plan.overlay import DUMMY4
from appliance.plan.plan import (
    Add,
    Change,
    Delete,
    Device,
    DeviceAddress,
    Key,
    Kind,
    Link,
    Nexthop,
    Route,
    Rule,
    Shaper,
    Share,
    Sysctl,
)

REPLACE, CREATE_NEW = 0x100, 0x600


@pytest.fixture(autouse=True)
def numbers(monkeypatch):
    monkeypatch.setattr("socket.if_nametoindex", lambda name: {"eth0": 7, "bl-x": 8}[name])


def read(kind, data):
    message = kind(data)
    message.decode()
    assert message["header"]["length"] == len(data)
    return message


def route(item, prefix="192.0.2.0/24", verb=Add):
    key = Key(Kind.ROUTE, (0xB1000101, prefix, 100))
    ops = {Add: Add(key, item), Change: Change(key, item, item), Delete: Delete(key, item)}
    (data,) = encode(ops[verb])
    return read(rtmsg, data)


@pytest.mark.parametrize(
    ("prefix", "family"), [("192.0.2.0/24", 2), ("2001:db8::/32", 10), ("0.0.0.0/0", 2)]
)
@pytest.mark.parametrize(("mtu", "source"), [(None, None), (1380, "192.0.2.1")])
def test_a_route_by_nexthop_id(prefix, family, mtu, source):
    if family == 10 and source is not None:
        source = "2001:db8::1"
    made = Route(nexthop=11, mtu=mtu, source=ip_address(source) if source else None)
    message = route(made, prefix)
    assert message["header"]["type"] == 24
    assert (message["family"], message["dst_len"]) == (family, int(prefix.split("/")[1]))
    assert (message["proto"], message["type"]) == (ROUTE_PROTOCOL, 1)
    assert message.get_attr("RTA_TABLE") == 0xB1000101
    assert message.get_attr("RTA_PRIORITY") == 100
    # RTA_NH_ID, which pyroute2 0.9 does not know: it tells the type and length only.
    unknown = dict(message["attrs"])["UNKNOWN"]
    assert unknown["header"] == {"length": 8, "type": 30}
    assert message.get_attr("RTA_DST") == prefix.split("/")[0]
    assert message.get_attr("RTA_PREFSRC") == source
    metrics = message.get_attr("RTA_METRICS")
    assert (metrics.get_attr("RTAX_MTU") if metrics else None) == mtu


def test_what_is_there_is_replaced_and_what_is_new_must_not_be_there():
    assert route(Route(nexthop=11))["header"]["flags"] & 0x700 == CREATE_NEW
    assert route(Route(nexthop=11), verb=Change)["header"]["flags"] & 0x700 == REPLACE
    assert route(Route(nexthop=11), verb=Delete)["header"]["type"] == 25


@pytest.mark.parametrize(
    ("made", "kind", "scope", "flags", "device", "gateway"),
    [
        (Route(), 7, 0, 0, None, None),
        (Route(device="eth0"), 1, 253, 0, 7, None),
        (Route(device="eth0", gateway=ip_address("192.0.2.9")), 1, 0, 0, 7, "192.0.2.9"),
        (
            Route(device="eth0", gateway=ip_address("192.0.2.9"), on_link=True),
            1,
            0,
            4,
            7,
            "192.0.2.9",
        ),
    ],
)
def test_plain_routes(made, kind, scope, flags, device, gateway):
    message = route(made)
    assert (message["type"], message["scope"], message["flags"]) == (kind, scope, flags)
    assert message.get_attr("RTA_OIF") == device
    assert message.get_attr("RTA_GATEWAY") == gateway


def test_only_our_own_routes_are_deleted():
    for item in (Route(), Route(nexthop=3), Route(device="eth0")):
        assert route(item, verb=Delete)["proto"] == ROUTE_PROTOCOL


def test_an_address_bears_our_mark():
    key = Key(Kind.ADDRESS, ("eth0", "192.0.2.1/24"))
    (data,) = encode(Add(key, DeviceAddress(ip_interface("192.0.2.1/24"))))
    message = read(ifaddrmsg, data)
    assert (message["prefixlen"], message["index"]) == (24, 7)
    assert message.get_attr("IFA_LOCAL") == "192.0.2.1"
    assert message.get_attr("IFA_BROADCAST") == "192.0.2.255"
    assert message.get_attr("IFA_PROTO") == ROUTE_PROTOCOL
    assert message.get_attr("IFA_FLAGS") is None


def test_an_address_that_nobody_else_can_have_is_used_at_once():
    key = Key(Kind.ADDRESS, ("bl-x", "fd00::1/128"))
    (data,) = encode(Add(key, DeviceAddress(ip_interface("fd00::1/128"))))
    assert read(ifaddrmsg, data).get_attr("IFA_FLAGS") == 0x02  # IFA_F_NODAD


def test_the_dummy_address_of_planes_is_no_source_of_packets():
    key = Key(Kind.ADDRESS, ("bl-x", str(DUMMY4)))
    (data,) = encode(Add(key, DeviceAddress(DUMMY4)))
    assert read(ifaddrmsg, data)["scope"] == 253  # RT_SCOPE_LINK


def test_a_changed_rule_is_added_before_the_old_one_is_deleted():
    key = Key(Kind.RULE, (6, 20101))
    change = Change(key, Rule(1, 0x10000000, 0xF0000000), Rule(2, 0x20000000, 0xF0000000))
    first, second = (read(fibmsg, data) for data in encode(change))
    assert (first["header"]["type"], second["header"]["type"]) == (32, 33)
    assert (first.get_attr("FRA_TABLE"), second.get_attr("FRA_TABLE")) == (2, 1)
    for message in (first, second):
        assert message["family"] == 10
        assert message.get_attr("FRA_PROTOCOL") == ROUTE_PROTOCOL
        assert message.get_attr("FRA_FWMASK") == 0xF0000000


def test_a_rule_that_asks_a_table_without_its_default_routes():
    key = Key(Kind.RULE, (4, 20250))
    for item, prefix in ((Rule(254), None), (Rule(254, is_specific=True), 0)):
        (data,) = encode(Add(key, item))
        assert read(fibmsg, data).get_attr("FRA_SUPPRESS_PREFIXLEN") == prefix


@pytest.mark.parametrize("gateway", ["203.0.113.1", "fe80::1"])
def test_a_nexthop_object_with_a_gateway(gateway):
    address = ip_address(gateway)
    item = Nexthop(address.version, "eth0", address, on_link=address.version == 4)
    (data,) = encode(Add(Key(Kind.NEXTHOP, (0x0B000020,)), item))
    head = struct.pack("=BBBxI", {4: 2, 6: 10}[address.version], 0, ROUTE_PROTOCOL, 4)
    if address.version == 6:
        head = struct.pack("=BBBxI", 10, 0, ROUTE_PROTOCOL, 0)
    assert data[16:24] == head
    assert attributes(data, 24) == {
        1: struct.pack("=I", 0x0B000020),
        5: struct.pack("=I", 7),
        6: address.packed,
    }
    assert nexthop(data[16:], {7: "eth0"}) == (Key(Kind.NEXTHOP, (0x0B000020,)), item)


def test_a_default_route_that_went_with_its_uplink_is_made_anew():
    assert route(Route(nexthop=11), "0.0.0.0/0", Change)["header"]["flags"] & CREATE_NEW == 0x400
    assert route(Route(nexthop=11), verb=Change)["header"]["flags"] & CREATE_NEW == 0


def test_devices():
    key = Key(Kind.DEVICE, ("bl-x",))
    (data,) = encode(Add(key, Device("wireguard", 1420)))
    message = read(ifinfmsg, data)
    assert message.get_attr("IFLA_MTU") == 1420
    assert message.get_attr("IFLA_LINKINFO").get_attr("IFLA_INFO_KIND") == "wireguard"
    assert (message["flags"], message["change"]) == (1, 1)
    (data,) = encode(Change(Key(Kind.LINK, ("eth0",)), Link(is_up=False), Link()))
    message = read(ifinfmsg, data)
    assert message["header"]["flags"] & 0x400 == 0  # never makes one
    assert message.get_attr("IFLA_LINKINFO") is None


def test_what_is_no_matter_of_rtnetlink_is_our_own_mistake():
    with pytest.raises(ValueError, match="2"):
        encode(Add(Key(Kind.SYSCTL, ("x",)), Sysctl("1")))


def test_a_missing_device_is_said(monkeypatch):
    monkeypatch.undo()
    key = Key(Kind.ADDRESS, ("bl-nowhere", "fd00::1/128"))
    with pytest.raises(OSError, match=r"No such device|no interface"):
        encode(Add(key, DeviceAddress(ip_interface("fd00::1/128"))))


def test_the_rate_of_a_shaper_and_nothing_else_of_it_is_changed():
    key, before = Key(Kind.SHAPER, ("bl-x",)), Shaper(8_000_000, 78, is_ingress=False)
    (data,) = encode(Change(key, before, Shaper(10_000_000_000, 78, is_ingress=False)))
    message = read(tcmsg, data)
    assert message["header"]["type"] == 36  # RTM_NEWQDISC
    assert not message["header"]["flags"] & 0xF00  # neither made nor replaced
    assert (message["index"], message["handle"]) == (8, 0xB1 << 16)
    assert message["parent"] == 0xFFFFFFFF
    assert message.get_attr("TCA_KIND") == "cake"
    options = message.get_attr("TCA_OPTIONS")
    assert [name for name, _ in options["attrs"]] == ["TCA_CAKE_BASE_RATE64"]
    assert options.get_attr("TCA_CAKE_BASE_RATE64") == 1_250_000_000


def test_the_rates_of_classes_are_changed_one_message_each():
    key = Key(Kind.SHAPER, ("bl-x",))
    shares = (Share(1, 4_000_000, 8_000_000),)
    before = Shaper(20_000_000, 78, is_ingress=False, shares=shares)
    messages = [read(tcmsg, d) for d in encode(Change(key, before, before))]
    assert [m["handle"] for m in messages] == [0xB1FFFF, 0xB10010, 0xB10001, 0xB1000F]
    assert [m["parent"] for m in messages] == [0xB10000, 0xB1FFFF, 0xB1FFFF, 0xB1FFFF]
    for message, node in zip(messages, nodes(before), strict=True):
        assert message["header"]["type"] == 40  # RTM_NEWTCLASS
        assert not message["header"]["flags"] & 0xF00
        found = message.get_attr("TCA_OPTIONS").get_attr("TCA_HTB_PARMS")
        assert found["rate"] == node.rate_bps // 8
        assert found["ceil"] == node.ceiling_bps // 8
        assert found["rate_overhead"] == found["ceil_overhead"] == 78
        assert found["quantum"] == node.quantum
        assert found["prio"] == node.priority
        sent_ns = 3028 * 8e9 / node.rate_bps  # how long its burst takes
        assert found["buffer"] * 64 == pytest.approx(sent_ns, abs=64)
