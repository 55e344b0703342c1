"""Asks targets outside the tunnels whether an uplink works. It reports; it judges nothing.

Every socket is bound to the uplink's device and bears the uplink's mark, so that policy routing
sends the question out of this uplink and no other, and one target can serve every uplink.

No code waits for a single target. Sockets report when they are ready and one timer closes the
round, so a target that hangs costs its own answer and nothing else. Answers that arrived while our
loop stood still are read before the timer runs (the event loop handles sockets first), so a stall
of ours is never taken for silence of theirs.
"""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from appliance.config.intent import Target, TargetKind
from appliance.probing import dns, echo
from appliance.probing.quorum import Outcome

TIMEOUT_S = 2.0
DNS_PORT = 53
_LARGEST = 2048
_READS = 64  # packets looked at per wake-up; a flood must not keep the loop

# Linux values that the socket module does not name.
_SO_MARK = 36
_SOL_RAW, _ICMP_FILTER = 255, 1
_ICMP6_FILTER = 1


class Probe(Protocol):
    """One question on its way. `ready` says what came of it, or None while nothing has."""

    target: Target
    sock: socket.socket
    awaits_write: bool

    def ready(self) -> Outcome | None: ...


class EchoProbe:
    """An ICMP or ICMPv6 echo request by a raw socket, which needs CAP_NET_RAW.

    Ping sockets would need net.ipv4.ping_group_range opened to our group.
    """

    awaits_write = False

    def __init__(self, target: Target, device: str, mark: int) -> None:
        self.target = target
        self._version = target.address.version
        self._ident = int.from_bytes(os.urandom(2))
        self._token = os.urandom(8)
        protocol = socket.IPPROTO_ICMP if self._version == 4 else socket.IPPROTO_ICMPV6
        self.sock = _bound(target, socket.SOCK_RAW, protocol, device, mark)
        with _closing_on_error(self.sock):
            # Let nothing but echo replies through: a set bit blocks a type.
            if self._version == 4:
                mask = struct.pack("=I", ~(1 << echo.REPLY_V4) & 0xFFFFFFFF)
                self.sock.setsockopt(_SOL_RAW, _ICMP_FILTER, mask)
            else:
                words = [0xFFFFFFFF] * 8
                words[echo.REPLY_V6 >> 5] &= ~(1 << (echo.REPLY_V6 & 31))
                self.sock.setsockopt(
                    socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *words)
                )
            self.sock.connect(_destination(target, 0, device))
            self.sock.send(echo.encode_request(self._version, self._ident, self._token))

    def ready(self) -> Outcome | None:
        for data in _received(self.sock):
            if isinstance(data, OSError):
                return _failed(self.target, data)
            if echo.is_reply(data, self._version, self._ident, self._token):
                return Outcome(self.target, is_answered=True)
        return None


class DnsProbe:
    """A DNS query over UDP."""

    awaits_write = False

    def __init__(self, target: Target, device: str, mark: int) -> None:
        self.target = target
        self._name = target.query or "."
        self._ident = int.from_bytes(os.urandom(2))
        query = dns.encode_query(self._ident, self._name)
        self.sock = _bound(target, socket.SOCK_DGRAM, 0, device, mark)
        with _closing_on_error(self.sock):
            self.sock.connect(_destination(target, target.port or DNS_PORT, device))
            self.sock.send(query)

    def ready(self) -> Outcome | None:
        for data in _received(self.sock):
            if isinstance(data, OSError):
                return _failed(self.target, data)
            code = dns.answer_code(data, self._ident, self._name)
            if code is not None and dns.is_proof(code):
                return Outcome(self.target, is_answered=True)
            if code is not None:
                name = dns.NAMES_OF_CODES.get(code, f"code {code}")
                return Outcome(self.target, is_answered=False, detail=f"said {name}")
        return None


class ConnectProbe:
    """A TCP connection that is made and closed, without a word."""

    awaits_write = True

    def __init__(self, target: Target, device: str, mark: int) -> None:
        self.target = target
        self.sock = _bound(target, socket.SOCK_STREAM, 0, device, mark)
        with _closing_on_error(self.sock):
            code = self.sock.connect_ex(_destination(target, target.port or 0, device))
            if code not in (0, errno.EINPROGRESS):
                raise OSError(code, os.strerror(code))

    def ready(self) -> Outcome | None:
        code = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            return _failed(self.target, OSError(code, os.strerror(code)))
        return Outcome(self.target, is_answered=True)


def open_probe(target: Target, device: str, mark: int) -> Probe:
    """Ask. Raises OSError when the question cannot leave, ValueError when it makes no sense."""
    match target.kind:
        case TargetKind.ICMP:
            return EchoProbe(target, device, mark)
        case TargetKind.DNS:
            return DnsProbe(target, device, mark)
        case TargetKind.TCP:
            return ConnectProbe(target, device, mark)


async def ask(
    targets: Sequence[Target],
    device: str,
    mark: int,
    enough: int | None = None,
    *,
    timeout_s: float = TIMEOUT_S,
) -> tuple[Outcome, ...]:
    """One question to each target; outcomes in the order of `targets` after at most `timeout_s`.

    When so many have answered as are `enough`, if a number is given, the others are not waited for.
    """
    loop = asyncio.get_running_loop()
    outcomes: dict[int, Outcome] = {}
    probes: dict[int, Probe] = {}
    asked_s: dict[int, float] = {}
    settled = loop.create_future()

    def settle(index: int, outcome: Outcome) -> None:
        outcomes[index] = outcome
        probe = probes.pop(index, None)
        if probe is not None:
            _forget(loop, probe)
        answered = sum(o.is_answered for o in outcomes.values())
        if len(outcomes) == len(targets) or answered == enough:
            close()

    def ready(index: int) -> None:
        outcome = probes[index].ready()
        if outcome is not None:
            took_us = round((loop.time() - asked_s[index]) * 1e6)
            settle(index, replace(outcome, delay_us=took_us if outcome.is_answered else None))

    def close() -> None:
        if not settled.done():
            settled.set_result(None)

    for index, target in enumerate(targets):
        try:
            probe = open_probe(target, device, mark)
        except (OSError, ValueError) as error:
            settle(index, _failed(target, error))
            continue
        probes[index] = probe
        asked_s[index] = loop.time()
        watch = loop.add_writer if probe.awaits_write else loop.add_reader
        watch(probe.sock, ready, index)
    timer = loop.call_later(timeout_s, close)
    try:
        if targets:
            await settled
    finally:
        timer.cancel()
        for probe in probes.values():
            _forget(loop, probe)
    answered = sum(o.is_answered for o in outcomes.values())
    silent = "not waited for" if answered == enough else f"no answer within {timeout_s:g} s"
    return tuple(
        outcomes.get(i) or Outcome(t, is_answered=False, detail=silent)
        for i, t in enumerate(targets)
    )


def _bound(target: Target, kind: int, protocol: int, device: str, mark: int) -> socket.socket:
    family = socket.AF_INET if target.address.version == 4 else socket.AF_INET6
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    with _closing_on_error(sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
        if mark:  # 0 is what a socket has anyway, and setting even that needs CAP_NET_ADMIN
            sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
    return sock


class _closing_on_error:  # noqa: N801 - reads as a statement, like contextlib.closing
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self._sock.close()


def _destination(
    target: Target, port: int, device: str
) -> tuple[str, int] | tuple[str, int, int, int]:
    address = str(target.address)
    if target.address.version == 4:
        return address, port
    scope = socket.if_nametoindex(device) if target.address.is_link_local else 0
    return address, port, 0, scope


def _received(sock: socket.socket) -> list[bytes | OSError]:
    """What waits in the socket; an ICMP error that came back ends the list."""
    waiting: list[bytes | OSError] = []
    for _ in range(_READS):
        try:
            waiting.append(sock.recv(_LARGEST))
        except BlockingIOError:
            break
        except OSError as error:
            waiting.append(error)
            break
    return waiting


def _failed(target: Target, error: OSError | ValueError) -> Outcome:
    text = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)
    return Outcome(target, is_answered=False, detail=text[:1].lower() + text[1:])


def _forget(loop: asyncio.AbstractEventLoop, probe: Probe) -> None:
    forget = loop.remove_writer if probe.awaits_write else loop.remove_reader
    forget(probe.sock)
    probe.sock.close()
