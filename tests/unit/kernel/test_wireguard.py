"""Peers as generic netlink says them, without a kernel to hear it."""

import sys
from base64 import b64decode, b64encode
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from appliance.kernel import wireguard
from appliance.kernel.keys import Keys, digest
from appliance.kernel.netlink import attribute, attributes, elements, messages
from appliance.plan.plan import Add, Change, Delete, Key, Kind, Wireguard, WireguardPeer
from tests.unit.plan import examples as ex

SHARED = bytes(range(32))
KEYS = Keys(ex.KEY_A, {}, bytes(32), {digest(SHARED): SHARED})
PEER = WireguardPeer(
    (ip_address("2001:db8::1"), 51837),
    frozenset({ip_network("192.0.2.0/24"), ip_network("fd00::/64")}),
    25,
    digest(SHARED),
)
REMOVE, REPLACE_ALLOWED, UPDATE_ONLY = 1, 2, 4


class Heard:
    """Keeps what is sent instead of a socket."""

    def __init__(self, _family):
        self.batches = []

    def send(self, batch):
        self.batches.append(batch)
        return ()


@pytest.fixture
def said(monkeypatch):
    monkeypatch.setattr(wireguard, "Netlink", Heard)
    monkeypatch.setattr(wireguard.WireguardNetlink, "_id", lambda _: 40)
    speaker = wireguard.WireguardNetlink(KEYS)

    def say(*ops):
        assert speaker.apply(ops) is None
        found = []
        for batch in speaker._netlink.batches:
            assert sum(map(len, batch)) < 4 << 20  # the socket's buffer
            for data in batch:
                ((_, _, _, payload),) = messages(data)
                found.append(attributes(payload, 4))
        speaker._netlink.batches.clear()
        return found

    return say


def key(number=1, device="bl-1-1"):
    return Key(Kind.PEER, (device, ex.KEY_B if number == 1 else ex.KEY_HQ))


def peers(device):
    return [attributes(data) for _, data in elements(device[8])]


@pytest.mark.parametrize(
    "peer",
    [PEER, replace(PEER, endpoint=(ip_address("192.0.2.9"), 1)), replace(PEER, preshared=None)],
)
def test_a_peer_reads_back_as_it_was_said(said, peer):
    (device,) = said(Add(key(), peer))
    ((_, data),) = elements(device[8])
    assert wireguard._decode_peer(data) == (ex.KEY_B, peer)


@pytest.mark.parametrize(
    ("at_s", "is_heard"), [(0, False), (819, False), (820, True), (1000, True), (1060, True)]
)
def test_a_peer_is_heard_while_its_last_handshake_is_young(said, at_s, is_heard):
    """However far the wall clock was set back: a handshake is not of the future."""
    (device,) = said(Add(key(), PEER))
    ((_, data),) = elements(device[8])
    data += attribute(6, at_s.to_bytes(8, sys.byteorder) + bytes(8))
    _, peer = wireguard._decode_peer(data, 1000)
    assert (peer, peer.is_heard) == (PEER, is_heard)


def test_an_unknown_endpoint_is_left_alone(said):
    (device,) = said(Change(key(), PEER, replace(PEER, endpoint=None)))
    assert 4 not in peers(device)[0]


def test_allowed_addresses_are_replaced_only_when_one_has_to_go(said):
    fewer = replace(PEER, allowed_ips=frozenset(list(PEER.allowed_ips)[:1]))
    for before, after, flags in (
        (PEER, PEER, None),
        (fewer, PEER, None),
        (PEER, fewer, REPLACE_ALLOWED),
    ):
        (device,) = said(Change(key(), before, after))
        found = peers(device)[0].get(3)
        assert (found and int.from_bytes(found, "little")) == flags


def test_a_peer_is_removed_by_its_key_alone(said):
    (device,) = said(Delete(key(), PEER))
    assert peers(device) == [{1: b64decode(ex.KEY_B), 3: REMOVE.to_bytes(4, "little")}]


def test_peers_of_one_device_travel_together_in_bounded_messages(said):
    many = [
        Add(Key(Kind.PEER, ("bl-1-1", f"{n:043}=")), replace(PEER, allowed_ips=PEER.allowed_ips))
        for n in range(600)
    ]
    found = said(*many, Add(key(2, "bl-1-2"), PEER))
    assert [d[2] for d in found] == [b"bl-1-1\0"] * (len(found) - 1) + [b"bl-1-2\0"]
    assert sum(len(peers(d)) for d in found) == 601
    assert 2 < len(found) < 10
    assert all(len(d[8]) < 65_500 for d in found)


def prefixes(count):
    half = count // 2
    return frozenset(
        [ip_network(f"10.{n >> 8}.{n & 255}.0/24") for n in range(half)]
        + [ip_network(f"fd00:0:0:{n:x}::/64") for n in range(count - half)]
    )


def as_the_kernel_joins(found):
    """Peers by key; a later element adds its allowed addresses to the first one."""
    joined = {}
    for _, data in (element for device in found for element in elements(device[8])):
        name, peer = wireguard._decode_peer(data)
        seen = attributes(data)
        if name in joined:
            assert set(seen) == {1, 3, 9}
            assert seen[3] == UPDATE_ONLY.to_bytes(4, "little")
            peer = wireguard._joined(joined[name], peer)
        joined[name] = peer
    return joined


@pytest.mark.parametrize(
    ("count", "each"),
    [(1, 999), (1, 1000), (1, 1001), (1, 3000), (2, 1200), (3, 20_000), (5, 30_000)],
)
def test_however_many_prefixes_a_peer_has_each_message_is_bounded(said, count, each):
    whole = replace(PEER, allowed_ips=prefixes(each))
    keys = [b64encode(bytes([n] * 32)).decode() for n in range(count)]
    found = said(*(Add(Key(Kind.PEER, ("bl-1-1", name)), whole) for name in keys))
    assert all(len(device[8]) <= 48_000 for device in found)
    assert as_the_kernel_joins(found) == dict.fromkeys(keys, whole)


@pytest.mark.parametrize(("before", "flags"), [(10, None), (4000, REPLACE_ALLOWED)])
def test_only_the_first_piece_of_a_change_replaces(said, before, flags):
    few, whole = (replace(PEER, allowed_ips=prefixes(n)) for n in (before, 3000))
    found = [peer for device in said(Change(key(), few, whole)) for peer in peers(device)]
    assert [p.get(3) and int.from_bytes(p[3], "little") for p in found] == [
        flags,
        UPDATE_ONLY,
        UPDATE_ONLY,
    ]


def test_a_device_gets_its_key_port_and_mark(said):
    item = Wireguard(ex.KEY_A, 51837, 0x01000000)
    (device,) = said(Add(Key(Kind.WIREGUARD, ("bl-1-1",)), item))
    assert device[3] == bytes(32)
    assert int.from_bytes(device[6], "little") == 51837
    assert int.from_bytes(device[7], "little") == 0x01000000


def test_a_plan_for_another_key_is_our_own_mistake(said):
    with pytest.raises(ValueError, match="another key"):
        said(Add(Key(Kind.WIREGUARD, ("bl-1-1",)), Wireguard(ex.KEY_B, 1, 1)))
