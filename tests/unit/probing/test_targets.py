"""Questions over real sockets on the loopback device. Echo needs root: see tests/lab."""

import asyncio
import contextlib
import gc
import socket
import struct
from collections.abc import AsyncIterator, Iterator
from ipaddress import ip_address
from typing import cast

import pytest

from appliance import clock
from appliance.config.intent import Target, TargetKind
from appliance.probing.targets import ask

LOCALHOST = ip_address("127.0.0.1")


def tcp(port: int) -> Target:
    return Target(TargetKind.TCP, LOCALHOST, port)


@contextlib.contextmanager
def listener(*, hangs: bool = False) -> Iterator[int]:
    """A TCP port that takes connections, or one whose queue is full, so that SYNs are dropped."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0 if hangs else 8)
        port = server.getsockname()[1]
        for _ in range(2 if hangs else 0):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        yield port


class Server(asyncio.DatagramProtocol):
    """A DNS server that gives the answers of a script and then falls silent."""

    def __init__(self, *codes: int) -> None:
        self.codes = list(codes)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if self.codes:
            # A stranger's answer first: it must be passed over.
            stranger = bytes((data[0] ^ 1, data[1])) + data[2:]
            self.transport.sendto(stranger, addr)
            flags = struct.pack(">H", 0x8180 | self.codes.pop(0))
            self.transport.sendto(data[:2] + flags + data[4:], addr)


@contextlib.asynccontextmanager
async def dns_server(*codes: int) -> AsyncIterator[Target]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(
        lambda: Server(*codes), local_addr=("127.0.0.1", 0)
    )
    try:
        port = transport.get_extra_info("sockname")[1]
        yield Target(TargetKind.DNS, LOCALHOST, port, "example.net")
    finally:
        transport.close()


async def test_those_who_answer_count_and_one_that_hangs_costs_only_itself() -> None:
    with listener() as open_port, listener(hangs=True) as hanging:
        async with dns_server(0) as dns:
            targets = (tcp(hanging), tcp(open_port), dns)
            started = clock.monotonic()
            outcomes = await ask(targets, "lo", 0, timeout_s=0.3)
            took = clock.monotonic() - started
    assert [o.target for o in outcomes] == list(targets)
    assert [o.is_answered for o in outcomes] == [False, True, True]
    assert outcomes[0].detail == "no answer within 0.3 s"
    assert outcomes[0].delay_us is None
    assert all(0 < o.delay_us < took * 1e6 for o in outcomes[1:])
    assert 0.29 < took < 1.0


async def test_a_round_ends_with_its_last_answer() -> None:
    with listener() as port:
        started = clock.monotonic()
        outcomes = await ask((tcp(port), tcp(port)), "lo", 0, timeout_s=30)
        assert clock.monotonic() - started < 5
    assert all(o.is_answered for o in outcomes)


async def test_a_round_ends_when_enough_have_answered() -> None:
    with listener() as port, listener(hangs=True) as hanging:
        targets = (tcp(hanging), tcp(port), tcp(port))
        started = clock.monotonic()
        outcomes = await ask(targets, "lo", 0, enough=2, timeout_s=30)
        assert clock.monotonic() - started < 5
    assert [o.is_answered for o in outcomes] == [False, True, True]
    assert outcomes[0].detail == "not waited for"


async def test_why_there_was_no_answer_is_said() -> None:
    with listener() as port:
        pass  # closed again: nobody listens there
    async with dns_server(2, 5) as dns:
        outcomes = await ask((tcp(port), dns, dns), "lo", 0, timeout_s=2)
    assert [o.is_answered for o in outcomes] == [False] * 3
    assert outcomes[0].detail == "connection refused"
    assert {o.detail for o in outcomes[1:]} == {"said SERVFAIL", "said REFUSED"}


async def test_a_name_that_does_not_exist_is_an_answer() -> None:
    async with dns_server(3) as dns:
        (outcome,) = await ask((dns,), "lo", 0)
    assert outcome.is_answered


async def test_a_question_that_cannot_leave_is_unanswered_at_once() -> None:
    async with dns_server() as dns:
        nonsense = Target(TargetKind.DNS, LOCALHOST, 53, "a..b")
        outcomes = await ask((tcp(1), dns, nonsense), "no-such-device", 0, timeout_s=30)
    assert not any(o.is_answered for o in outcomes)
    assert outcomes[0].detail == "no such device"
    assert "label" in outcomes[2].detail


async def test_answers_that_came_while_the_loop_stood_still_count() -> None:
    """The timer is due too when the loop comes back, and must not win over the socket."""
    with listener() as port:
        round_ = asyncio.ensure_future(ask((tcp(port),), "lo", 0, timeout_s=0.05))
        await asyncio.sleep(0)  # the question leaves, and its answer is there at once
        stalled_until = clock.monotonic() + 0.2
        while clock.monotonic() < stalled_until:
            pass
        (outcome,) = await round_
    assert outcome.is_answered


async def test_no_socket_outlives_its_round() -> None:
    with listener(hangs=True) as port:
        round_ = asyncio.ensure_future(ask((tcp(port),), "lo", 0, timeout_s=30))
        await asyncio.sleep(0.01)
        round_.cancel()
        with pytest.raises(asyncio.CancelledError):
            await round_
    gc.collect()  # an unclosed socket is a ResourceWarning, which fails the test


async def test_nobody_to_ask_is_no_round() -> None:
    assert await ask((), "lo", 0) == ()
