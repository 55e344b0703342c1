"""Copies of packets come in, and flows are in the class of the name that they call."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from appliance.config.intent import Intent, Internet, Match, Protocol
from appliance.kernel.conntrack import FlowKey
from appliance.kernel.fake import FakeKernel
from appliance.kernel.kernel import KernelError
from appliance.kernel.nflog import LoggedPacket
from appliance.supervisor import server_names
from appliance.supervisor.server_names import ServerNames
from tests.hellos import datagrams, quic_client, ssl_stream, tcp, udp
from tests.unit.plan.examples import BRANCH, FIBRE, LTE
from tests.unit.supervisor.living import StubbornKernel, life, running, until, write

HQ_HOST, OUTSIDE = "192.168.3.9", "198.51.100.7"
DEFAULT_MARK, VOICE_MARK, BULK_MARK = 0xF0000000, 0x10000000, 0x20000000
MAC = "02:00:5e:10:00:01"


def knowing(*matches: Match, name: str = "voice", internet: Internet = Internet.LOCAL) -> Intent:
    """The branch with a class that takes flows by these matches."""
    known = [replace(c, matches=matches) if c.name == name else c for c in BRANCH.classes]
    policies = [
        replace(p, internet=internet) if p.class_name == name else p for p in BRANCH.policies
    ]
    return replace(BRANCH, classes=tuple(known), policies=tuple(policies))


VOICE = knowing(Match(domains=("example.com",)))


def hello(
    to: str = HQ_HOST, name: str = "www.example.com", source: str = "192.0.2.9"
) -> tuple[FlowKey, bytes]:
    """A flow and the packet with its ClientHello."""
    flow = FlowKey(6, ip_address(source), 40000, ip_address(to), 443)
    octets = tcp(1, ssl_stream(name), source=source, destination=to)
    return flow, octets


@asynccontextmanager
async def reading(
    kernel: FakeKernel, intent: Intent
) -> AsyncIterator[tuple[ServerNames, list[str | None]]]:
    """Names are read while this lasts; what was warned of."""
    told: list[str | None] = []
    names = ServerNames(kernel, told.append)
    names.want(intent)
    task = asyncio.ensure_future(names.run())
    try:
        yield names, told
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def taken(
    kernel: FakeKernel, octets: bytes, device: str = "lan0", sender: str | None = MAC
) -> None:
    kernel.logged.put_nowait((LoggedPacket(octets, device, sender),))
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("intent", "to", "mark", "joined"),
    [
        (VOICE, HQ_HOST, DEFAULT_MARK, VOICE_MARK),
        (VOICE, HQ_HOST, BULK_MARK | 0x42, VOICE_MARK | 0x42),  # bits of others stay
        (VOICE, HQ_HOST, VOICE_MARK, VOICE_MARK),
        (VOICE, OUTSIDE, DEFAULT_MARK | 0x01000000, VOICE_MARK | 0x01000000),
        (VOICE, OUTSIDE, DEFAULT_MARK, DEFAULT_MARK),  # it left through a gateway
        (
            knowing(Match(domains=("example.com",)), internet=Internet.GATEWAY),
            OUTSIDE,
            DEFAULT_MARK,
            VOICE_MARK,
        ),
        (
            knowing(Match(domains=("example.com",)), internet=Internet.GATEWAY),
            OUTSIDE,
            DEFAULT_MARK | 0x01000000,
            DEFAULT_MARK | 0x01000000,
        ),
        (
            knowing(Match(domains=("example.com",)), internet=Internet.NONE),
            OUTSIDE,
            DEFAULT_MARK | 0x01000000,
            VOICE_MARK | 0x01000000,  # where `leave` ends it
        ),
        (knowing(Match(domains=("example.net",))), HQ_HOST, DEFAULT_MARK, DEFAULT_MARK),
        # A rule before it takes the flow by other things: it has that class already.
        (
            knowing(Match(ports=((443, 443),)), Match(domains=("example.com",))),
            HQ_HOST,
            DEFAULT_MARK,
            DEFAULT_MARK,
        ),
        (
            knowing(Match(domains=("example.com",), lans=("office",), devices=(MAC,))),
            HQ_HOST,
            DEFAULT_MARK,
            VOICE_MARK,
        ),
        (
            knowing(Match(domains=("example.com",), lans=("guests",))),
            HQ_HOST,
            DEFAULT_MARK,
            DEFAULT_MARK,
        ),
        (
            knowing(Match(domains=("example.com",), protocols=(Protocol.UDP,))),
            HQ_HOST,
            DEFAULT_MARK,
            DEFAULT_MARK,
        ),
    ],
)
async def test_a_flow_joins_the_class_of_its_name(
    intent: Intent, to: str, mark: int, joined: int
) -> None:
    kernel = FakeKernel()
    flow, octets = hello(to)
    kernel.marks[flow] = mark
    async with reading(kernel, intent) as (names, told):
        await taken(kernel, octets)
        assert kernel.marks == {flow: joined}
        assert names.name_of(flow) == "www.example.com"
        assert set(told) == {None}


async def test_what_comes_through_a_tunnel_is_of_no_lan_and_no_device() -> None:
    kernel = FakeKernel()
    flow, octets = hello("192.0.2.9", source="192.168.3.9")
    kernel.marks[flow] = DEFAULT_MARK
    near = knowing(Match(domains=("example.com",), devices=(MAC,)))
    async with reading(kernel, near):
        await taken(kernel, octets, "bl-1-1")
        assert kernel.marks == {flow: DEFAULT_MARK}
    async with reading(kernel, VOICE):
        await taken(kernel, octets, "bl-1-1")
        assert kernel.marks == {flow: VOICE_MARK}


async def test_a_copy_that_comes_before_its_flow_waits_for_it_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_names, "AGAIN_S", 0.001)
    kernel = FakeKernel()
    flow, octets = hello()
    async with reading(kernel, VOICE):
        await taken(kernel, octets)
        kernel.marks[flow] = DEFAULT_MARK
        await until(lambda: kernel.marks[flow] == VOICE_MARK)


async def test_of_a_flow_that_never_was_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_names, "AGAIN_S", 0.001)
    kernel = FakeKernel()
    asked: list[FlowKey] = []

    def mark_of(flow: FlowKey) -> None:
        asked.append(flow)

    monkeypatch.setattr(kernel, "mark_of", mark_of)
    flow, octets = hello()
    async with reading(kernel, VOICE):
        await taken(kernel, octets)
        await asyncio.sleep(0.05)
    assert asked == [flow, flow]


async def test_a_class_that_is_gone_meanwhile_is_joined_by_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_names, "AGAIN_S", 0.001)
    kernel = FakeKernel()
    flow, octets = hello()
    async with reading(kernel, VOICE) as (names, _):
        await taken(kernel, octets)
        names.want(replace(VOICE, classes=VOICE.classes[1:], policies=VOICE.policies[1:]))
        kernel.marks[flow] = DEFAULT_MARK
        await asyncio.sleep(0.05)
    assert kernel.marks == {flow: DEFAULT_MARK}


async def test_only_so_many_names_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_names, "MOST_REMEMBERED", 2)
    kernel = FakeKernel()
    flows = [hello(f"192.168.3.{n}") for n in (1, 2, 3)]
    async with reading(kernel, VOICE) as (names, _):
        for _, octets in flows:
            await taken(kernel, octets)
        assert [names.name_of(flow) for flow, _ in flows] == [None, *["www.example.com"] * 2]


async def test_nothing_is_followed_before_a_rule_goes_by_names() -> None:
    kernel = FakeKernel()
    flow, octets = hello()
    kernel.marks[flow] = DEFAULT_MARK
    async with reading(kernel, BRANCH) as (names, told):
        await taken(kernel, octets)
        assert told == []
        assert kernel.logged.qsize() == 1
        names.want(VOICE)
        for _ in range(5):
            await asyncio.sleep(0)
        assert kernel.marks == {flow: VOICE_MARK}


async def test_what_fails_is_told_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_names, "RETRY_S", 0.001)
    kernel = FakeKernel()
    follow, failures = kernel.follow_logged, [KernelError(None, 16, "the group is taken")]

    async def follow_logged() -> AsyncGenerator[tuple[LoggedPacket, ...]]:
        if failures:
            raise failures.pop()
        async for each in follow():
            yield each

    monkeypatch.setattr(kernel, "follow_logged", follow_logged)
    flow, octets = hello()
    kernel.marks[flow] = DEFAULT_MARK
    async with reading(kernel, VOICE) as (_, told):
        await taken(kernel, octets)
        await until(lambda: kernel.marks[flow] == VOICE_MARK)
    assert told[0] == "the group is taken"
    assert told[-1] is None


async def test_a_mark_that_cannot_be_set_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = FakeKernel()
    first, second = hello(), hello("192.168.3.10")
    kernel.marks.update({first[0]: DEFAULT_MARK, second[0]: DEFAULT_MARK})
    mark_flow, failures = kernel.mark_flow, [KernelError(None, 105, "no room")]

    def fails_once(flow: FlowKey, mark: int, mask: int) -> None:
        if failures:
            raise failures.pop()
        mark_flow(flow, mark, mask)

    monkeypatch.setattr(kernel, "mark_flow", fails_once)
    async with reading(kernel, VOICE):
        await taken(kernel, first[1])
        await taken(kernel, second[1])
    assert list(kernel.marks.values()) == [DEFAULT_MARK, VOICE_MARK]


async def test_a_flow_of_the_fast_path_stays_in_its_class() -> None:
    kernel = FakeKernel()
    flow, octets = hello()
    kernel.marks[flow] = DEFAULT_MARK
    kernel.offloaded.add(flow)
    async with reading(kernel, VOICE):
        await taken(kernel, octets)
    assert kernel.marks == {flow: DEFAULT_MARK}


async def test_metered_uplinks_carry_what_may_go_by_them() -> None:
    """The branch's second uplink is metered."""
    for is_allowed, joined in ((True, VOICE_MARK), (False, DEFAULT_MARK)):
        policies = [
            replace(p, metered=is_allowed, tiers=((FIBRE,), (LTE,)))
            if p.class_name == "voice"
            else p
            for p in VOICE.policies
        ]
        kernel = FakeKernel()
        flow, octets = hello(OUTSIDE)
        kernel.marks[flow] = DEFAULT_MARK | 0x02000000
        async with reading(kernel, replace(VOICE, policies=tuple(policies))):
            await taken(kernel, octets)
        assert kernel.marks == {flow: joined | 0x02000000}


async def test_a_dscp_goes_before_a_name() -> None:
    """The packet's is 46: a rule that takes that has taken the flow already."""
    kernel = FakeKernel()
    flow, octets = hello()
    kernel.marks[flow] = DEFAULT_MARK
    async with reading(kernel, knowing(Match(dscp=(46,)), Match(domains=("example.com",)))):
        await taken(kernel, octets)
        assert kernel.marks == {flow: DEFAULT_MARK}


async def test_another_configuration_counts_at_once() -> None:
    """Its domains, its LANs and its sites."""
    kernel = FakeKernel()
    moved = replace(BRANCH.lans[0], name="guests", device="lan9")
    in_guests = knowing(Match(domains=("example.com",), lans=("guests",)))
    elsewhere = replace(BRANCH.peers[0], prefixes=(ip_network("198.51.100.0/24"),))
    async with reading(kernel, knowing(Match(domains=("example.net",)))) as (names, _):
        for intent, to, device in (
            (replace(in_guests, lans=(moved,)), HQ_HOST, "lan9"),
            # To a site any way will do, and outside it has left through a gateway.
            (replace(VOICE, peers=(elsewhere, *BRANCH.peers[1:])), OUTSIDE, "lan0"),
        ):
            names.want(intent)
            flow, octets = hello(to)
            kernel.marks = {flow: DEFAULT_MARK}
            await taken(kernel, octets, device)
            assert kernel.marks == {flow: VOICE_MARK}


async def test_a_warning_ends_with_the_last_rule_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_names, "RETRY_S", 0.001)
    kernel, tries = FakeKernel(), 0

    async def follow_logged() -> AsyncGenerator[tuple[LoggedPacket, ...]]:
        nonlocal tries
        tries += 1
        raise KernelError(None, 1, "another program reads it")
        yield ()

    monkeypatch.setattr(kernel, "follow_logged", follow_logged)
    async with reading(kernel, VOICE) as (names, told):
        await until(lambda: tries >= 3)
        assert told[-1] == "another program reads it"
        names.want(BRANCH)
        assert told[-1] is None
        await asyncio.sleep(0.05)
        so_far = tries
        await asyncio.sleep(0.05)
        assert tries == so_far
        assert told[-1] is None


@pytest.mark.parametrize("error", [None, ImportError("no cryptography"), OSError(5, "disk")])
async def test_without_ciphers_tls_is_read(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load() -> None:
        if error is not None:
            raise error

    monkeypatch.setattr(server_names, "load", load)
    kernel = FakeKernel()
    flow, octets = hello()
    quic = FlowKey(17, ip_address("192.0.2.9"), 40000, ip_address(HQ_HOST), 443)
    kernel.marks = {flow: DEFAULT_MARK, quic: DEFAULT_MARK}
    (datagram, *_) = datagrams(quic_client())
    async with reading(kernel, VOICE):
        await asyncio.sleep(0.1)  # the thread is done
        await taken(kernel, octets)
        await taken(kernel, udp(datagram, source="192.0.2.9", destination=HQ_HOST))
    by_quic = VOICE_MARK if error is None else DEFAULT_MARK
    assert kernel.marks == {flow: VOICE_MARK, quic: by_quic}


async def test_a_box_reads_names_from_its_start_and_by_the_configuration_of_now(
    tmp_path: Path,
) -> None:
    kernel = StubbornKernel()
    calling = "classes: [{{name: calls, match: [{{domain: {}}}]}}]\n"
    write(tmp_path, more=calling.format("example.com"))
    lived = life(tmp_path, kernel)
    async with running(lived):
        for port, domain in enumerate(("example.com", "example.net"), start=1000):
            if domain == "example.net":
                write(tmp_path, more=calling.format(domain))
                await lived.reload()
            for name, mark in (("www.example.com", 0), ("www.example.net", 1)):
                to = f"192.0.2.{port - 990 + mark}"
                flow, octets = hello(to, name)
                kernel.marks[flow] = DEFAULT_MARK
                kernel.logged.put_nowait((LoggedPacket(octets, "lan0", None),))
                await until(lambda flow=flow: lived._box.server_names.name_of(flow) is not None)
                wanted = VOICE_MARK if name.endswith(domain) else DEFAULT_MARK
                assert kernel.marks[flow] == wanted, (domain, name)
