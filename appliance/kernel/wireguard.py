"""WireGuard devices and their peers over generic netlink (linux/wireguard.h).

Keys go from memory to the kernel and nowhere else: no command line, no file, no program. Thousands
of peers travel in a few messages.
"""

import errno
import socket
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
)
from itertools import islice

from appliance import clock
from appliance.config.intent import Address, Network
from appliance.kernel.keys import KEY_SIZE, Keys, digest
from appliance.kernel.netlink import (
    Netlink,
    attribute,
    attribute_u32,
    attributes,
    elements,
    message,
    nested,
    text,
)
from appliance.plan.plan import (
    HEARD_S,
    Change,
    Delete,
    Item,
    Key,
    Kind,
    Op,
    Wireguard,
    WireguardPeer,
)

_NETLINK_GENERIC = 16
_CONTROL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 0x10, 3, 1, 2
_GENERIC = struct.Struct("=BBxx")  # command, version
_VERSION = 1
_GET, _SET = 0, 1
_IFNAME, _PRIVATE_KEY, _PUBLIC_KEY, _LISTEN_PORT, _FWMARK, _PEERS = 2, 3, 4, 6, 7, 8
_P_PUBLIC_KEY, _P_PRESHARED, _P_FLAGS, _P_ENDPOINT, _P_KEEPALIVE = 1, 2, 3, 4, 5
_P_HANDSHAKE, _P_ALLOWED = 6, 9
_A_FAMILY, _A_ADDRESS, _A_MASK = 1, 2, 3
_REMOVE, _REPLACE_ALLOWED, _UPDATE_ONLY = 1, 2, 4
_U16 = struct.Struct("=H")
_U32 = struct.Struct("=I")
_SECONDS = struct.Struct("=q8x")  # of struct __kernel_timespec, since 1970; 0 is never
_NO_KEY = bytes(KEY_SIZE)
_CHUNK = 48_000  # octets of peers in a message: an attribute holds 65,535 at most
_MOST_ALLOWED = 1000  # in a piece of a peer: 40 octets each, of IPv6
_MOST_AT_ONCE = 64  # messages: what the socket's buffer takes


class WireguardNetlink:
    """Configures and lists WireGuard devices."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._netlink = Netlink(_NETLINK_GENERIC)
        self._family: int | None = None

    def use_keys(self, keys: Keys) -> None:
        """Configure with these keys from now on."""
        self._keys = keys

    def close(self) -> None:
        self._netlink.close()

    def apply(self, ops: Sequence[Op]) -> tuple[Op, int, str] | None:
        """Carry out operations on devices and peers; the first refused with errno, or None.

        A port may be that of another device of ours which is about to leave it: one that is new
        listens anywhere at first, and all change their ports together. So those are tried again.
        """
        while True:
            taken: list[Op] = []
            for op, code, detail in self._refused(ops):
                if code != errno.EADDRINUSE:
                    return op, code, detail
                taken.append(op)
            if not taken:
                return None
            if len(taken) == len(ops):
                return taken[0], errno.EADDRINUSE, _taken(taken[0].item)
            ops = taken

    def _refused(self, ops: Sequence[Op]) -> Iterator[tuple[Op, int, str]]:
        messages = self._messages(ops)
        while pending := list(islice(messages, _MOST_AT_ONCE)):
            for refusal in self._netlink.send([whole for _, whole in pending]):
                op = pending[refusal.place][0]
                if not (isinstance(op, Delete) and refusal.errno == errno.ENODEV):
                    yield op, refusal.errno, refusal.detail

    def observe(self, device: str) -> Iterator[tuple[Key, Item]]:
        """A device, unless it has no key yet, and its peers."""
        found: dict[str, WireguardPeer] = {}
        now_s = clock.wall_ns() // 10**9
        request = _GENERIC.pack(_GET, _VERSION) + text(_IFNAME, device)
        for part in self._netlink.dump(self._id(), request):
            for payload in part:
                seen = attributes(payload, _GENERIC.size)
                if (public := seen.get(_PUBLIC_KEY)) is not None:
                    (port,) = _U16.unpack(seen[_LISTEN_PORT])
                    (mark,) = _U32.unpack(seen[_FWMARK])
                    yield (
                        Key(Kind.WIREGUARD, (device,)),
                        Wireguard(b64encode(public).decode(), port, mark),
                    )
                for _, each in elements(seen.get(_PEERS, b"")):
                    name, peer = _decode_peer(each, now_s)
                    if name in found:  # goes on in the next message
                        peer = _joined(found[name], peer)
                    found[name] = peer
        for name, peer in found.items():
            yield Key(Kind.PEER, (device, name)), peer

    def _messages(self, ops: Sequence[Op]) -> Iterator[tuple[Op, bytes]]:
        """Each message with the first operation that it stands for."""
        first: Op | None = None
        device = ""
        peers: list[bytes] = []
        size = 0
        for op in ops:
            name = str(op.key.ident[0])
            is_peer = op.key.kind is Kind.PEER
            for piece in self._peer(op) if is_peer else (self._device(op),):
                if first and not (is_peer and name == device and size + len(piece) <= _CHUNK):
                    yield first, self._set(device, nested(_PEERS, *peers))
                    first = None
                if not is_peer:
                    yield op, self._set(name, piece)
                    continue
                if first is None:
                    first, device, peers, size = op, name, [], 0
                peers.append(piece)
                size += len(piece)
        if first:
            yield first, self._set(device, nested(_PEERS, *peers))

    def _set(self, device: str, body: bytes) -> bytes:
        return message(self._id(), 0, _GENERIC.pack(_SET, _VERSION) + text(_IFNAME, device) + body)

    def _device(self, op: Op) -> bytes:
        if not isinstance(op.item, Wireguard):
            raise ValueError(op.key.kind)
        if isinstance(op, Delete):
            return (
                attribute(_PRIVATE_KEY, _NO_KEY)
                + attribute(_LISTEN_PORT, _U16.pack(0))
                + attribute_u32(_FWMARK, 0)
            )
        if op.item.public_key != self._keys.public:
            raise ValueError("the plan is for another key")  # noqa: EM101
        return (
            attribute(_PRIVATE_KEY, self._keys.private)
            + attribute(_LISTEN_PORT, _U16.pack(op.item.listen_port))
            + attribute_u32(_FWMARK, op.item.fwmark)
        )

    def _peer(self, op: Op) -> Iterator[bytes]:
        """A peer in pieces that an attribute can hold: the later ones add allowed addresses."""
        public = attribute(_P_PUBLIC_KEY, b64decode(str(op.key.ident[1])))
        peer = op.item
        if not isinstance(peer, WireguardPeer):
            raise ValueError(op.key.kind)
        if isinstance(op, Delete):
            yield nested(0, public, attribute_u32(_P_FLAGS, _REMOVE))
            return
        before = op.before if isinstance(op, Change) else None
        old = before.allowed_ips if isinstance(before, WireguardPeer) else None
        parts = [public]
        if old is None or not old <= peer.allowed_ips:
            # Replacing drops packets for a moment, so only when something has to go.
            parts.append(attribute_u32(_P_FLAGS, _REPLACE_ALLOWED))
            old = frozenset()
        preshared = _NO_KEY if peer.preshared is None else self._keys.preshared[peer.preshared]
        parts.append(attribute(_P_PRESHARED, preshared))
        if peer.endpoint is not None:
            parts.append(attribute(_P_ENDPOINT, _sockaddr(*peer.endpoint)))
        parts.append(attribute(_P_KEEPALIVE, _U16.pack(peer.keepalive_s)))
        added = [_allowed(network) for network in peer.allowed_ips - old]
        if added:
            parts.append(nested(_P_ALLOWED, *added[:_MOST_ALLOWED]))
        yield nested(0, *parts)
        # A piece whose predecessor was refused must not make a peer without a preshared key.
        head = public + attribute_u32(_P_FLAGS, _UPDATE_ONLY)
        for start in range(_MOST_ALLOWED, len(added), _MOST_ALLOWED):
            yield nested(0, head, nested(_P_ALLOWED, *added[start : start + _MOST_ALLOWED]))

    def _id(self) -> int:
        """The family's number. Asking for it loads the module."""
        if self._family is None:
            request = _GENERIC.pack(_GET_FAMILY, _VERSION) + text(_FAMILY_NAME, "wireguard")
            ((payload, code),) = self._netlink.ask([message(_CONTROL, 0, request)])
            if code:
                raise OSError(code, "WireGuard: the kernel does not have it")
            self._family = _U16.unpack(attributes(payload, _GENERIC.size)[_FAMILY_ID])[0]
        return self._family


def _taken(item: Item) -> str:
    if not isinstance(item, Wireguard):
        return ""
    return f"UDP port {item.listen_port} is another program's: `ss -ulpn` shows whose"


@lru_cache(maxsize=8192)
def _allowed(network: Network) -> bytes:
    """Kept, because every plane allows the same prefixes."""
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    return nested(
        0,
        attribute(_A_FAMILY, _U16.pack(family)),
        attribute(_A_ADDRESS, network.network_address.packed),
        attribute(_A_MASK, bytes([network.prefixlen])),
    )


def _sockaddr(host: Address, port: int) -> bytes:
    if host.version == 4:
        return struct.pack("=H", socket.AF_INET) + struct.pack(">H4s8x", port, host.packed)
    return struct.pack("=H", socket.AF_INET6) + struct.pack(">HI16sI", port, 0, host.packed, 0)


def _decode_peer(data: bytes, now_s: int = 0) -> tuple[str, WireguardPeer]:
    seen = attributes(data)
    allowed = frozenset(_decode_allowed(a) for _, a in elements(seen.get(_P_ALLOWED, b"")))
    preshared = seen.get(_P_PRESHARED, _NO_KEY)
    return b64encode(seen[_P_PUBLIC_KEY]).decode(), WireguardPeer(
        _decode_endpoint(seen.get(_P_ENDPOINT, b"")),
        allowed,
        _U16.unpack(seen.get(_P_KEEPALIVE, b"\0\0"))[0],
        None if preshared == _NO_KEY else digest(preshared),
        is_heard=_is_recent(seen.get(_P_HANDSHAKE), now_s),
    )


def _is_recent(handshake: bytes | None, now_s: int) -> bool:
    """The kernel tells the time of a handshake by the wall clock."""
    at_s: int = _SECONDS.unpack(handshake)[0] if handshake else 0
    return at_s != 0 and now_s - at_s <= HEARD_S


@lru_cache(maxsize=8192)
def _decode_allowed(data: bytes) -> Network:
    seen = attributes(data)
    packed, size = seen[_A_ADDRESS], seen[_A_MASK][0]
    return IPv4Network((packed, size)) if len(packed) == 4 else IPv6Network((packed, size))


def _decode_endpoint(data: bytes) -> tuple[Address, int] | None:
    if len(data) < 16:
        return None
    (port,) = struct.unpack_from(">H", data, 2)
    if len(data) < 28:
        return IPv4Address(data[4:8]), port
    return IPv6Address(data[8:24]), port


def _joined(first: WireguardPeer, more: WireguardPeer) -> WireguardPeer:
    return replace(first, allowed_ips=first.allowed_ips | more.allowed_ips)
