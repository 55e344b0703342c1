"""The socket speaks with the kernel that is here: reading needs no privilege."""

import errno
import socket
import struct

import pytest

from appliance.kernel import listing
from appliance.kernel import rtnetlink as rt
from appliance.kernel.facts import FactsReader
from appliance.kernel.netlink import Netlink, collect, message
from appliance.kernel.sysctl import read_sysctl


@pytest.fixture
def netlink():
    opened = Netlink(socket.NETLINK_ROUTE)
    yield opened
    opened.close()


def test_devices_are_listed(netlink):
    request = rt.LINK_HEADER.pack(0, 0, 0, 0, 0)
    names = [listing.link(p).name for p in collect(netlink.dump(rt.GETLINK, request))]
    assert sorted(names) == sorted(name for _, name in socket.if_nameindex())


def test_the_answer_to_one_question(netlink):
    question = message(rt.GETLINK, 0, rt.LINK_HEADER.pack(0, 0, 1, 0, 0))
    nobody = message(rt.GETLINK, 0, rt.LINK_HEADER.pack(0, 0, 0x7FFFFFF0, 0, 0))
    (found, fine), (nothing, code) = netlink.ask([question, nobody])
    assert (listing.link(found).name, fine) == ("lo", 0)
    assert (nothing, code) == (b"", errno.ENODEV)


def test_an_answer_that_never_comes_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("appliance.kernel.netlink.ANSWER_S", 1)
    opened = Netlink(socket.NETLINK_ROUTE)
    question = message(rt.GETLINK, 0, rt.LINK_HEADER.pack(0, 0, 1, 0, 0))
    unasked = question[:6] + struct.pack("=H", 0) + question[8:]  # what is no request is ignored
    with pytest.raises(BlockingIOError):
        opened.ask([unasked])
    ((found, _),) = opened.ask([question])
    assert listing.link(found).name == "lo"
    opened.close()


def test_a_dump_that_is_given_up_keeps_nobody_from_the_next(netlink):
    request = rt.LINK_HEADER.pack(0, 0, 0, 0, 0)
    whole = collect(netlink.dump(rt.GETLINK, request))
    given_up = netlink.dump(rt.GETLINK, request)
    next(given_up)
    given_up.close()
    with pytest.raises(BlockingIOError):
        netlink._socket.recv(1 << 16, socket.MSG_DONTWAIT)  # nothing of it is left
    assert collect(netlink.dump(rt.GETLINK, request)) == whole


def test_numbers_begin_anew_before_they_need_more_than_32_bits(netlink):
    known = message(rt.GETLINK, 0, rt.LINK_HEADER.pack(0, 0, 1, 0, 0))
    unknown = message(0x7F, 0, rt.LINK_HEADER.pack(0, 0, 0, 0, 0))
    for left in range(4):
        netlink._sequence = 0xFFFFFFFF - left
        assert [code for _, code in netlink.ask([known, known])] == [0, 0]
        netlink._sequence = 0xFFFFFFFF - left
        assert [r.place for r in netlink.send([known, unknown, known])] == [1]
        netlink._sequence = 0xFFFFFFFF - left
        assert collect(netlink.dump(rt.GETLINK, rt.LINK_HEADER.pack(0, 0, 0, 0, 0)))


def test_each_refusal_of_a_batch_is_told_with_its_place(netlink):
    """Of messages that the kernel does not know: refused to anybody, done to nobody."""
    unknown = message(0x7F, 0, rt.LINK_HEADER.pack(0, 0, 0, 0, 0))
    known = message(rt.GETLINK, 0, rt.LINK_HEADER.pack(0, 0, 1, 0, 0))
    refused = netlink.send([unknown, known, unknown, known])
    assert [r.place for r in refused] == [0, 2]
    assert {r.errno for r in refused} <= {errno.EOPNOTSUPP, errno.EPERM}
    assert netlink.send([known]) == ()
    assert netlink.send([]) == ()


def test_facts_of_the_loopback_device():
    reader = FactsReader()
    facts = reader.read()["lo"]
    reader.close()
    assert facts.mtu >= 1500
    assert all(not a.is_loopback for a in facts.addresses)  # host scope is no fact about a line


def test_settings_are_read_and_missing_ones_are_none():
    assert read_sysctl("net/ipv4/ip_forward") in ("0", "1")
    assert read_sysctl("net/ipv4/conf/bl-nowhere/rp_filter") is None
