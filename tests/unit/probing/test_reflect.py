"""Who answers a probe: the kernel where it can, and the supervisor what is left."""

import asyncio
import contextlib
from collections.abc import Iterator
from ipaddress import IPv6Address
from socket import AF_INET6, SOCK_DGRAM, if_nametoindex, socket
from typing import Any

import pytest

from appliance import clock
from appliance.kernel.reflector import Counted, Settings
from appliance.probing.reflect import Reflection
from appliance.probing.sockets import ProbeSocket, pktinfo
from appliance.stamp.packet import PTP_FORMAT, pack_sender
from appliance.stamp.tlv import Type, decode_path_report, encode_path_report, find

KEY = b"0123456789abcdef"
LOOPBACK = IPv6Address("::1")
LO = if_nametoindex("lo")
END = pktinfo(LOOPBACK, LO)


class Kernel:
    """What `KernelReflector` does, in memory."""

    loaded: list["Kernel"]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ends: dict[int, bytes] = {}
        self.asked: list[tuple[IPv6Address, int, int]] = []
        self.is_closed = False

    def follow(self, ends: dict[int, bytes]) -> None:
        self.ends = ends

    def counted(self, source: IPv6Address, port: int, ssid: int) -> tuple[int, int]:
        self.asked.append((source, port, ssid))
        return 70, 71

    def totals(self) -> Counted:
        return Counted(100, 20, 3)

    def close(self) -> None:
        self.is_closed = True


class Bench:
    def __init__(self, **settings: Any) -> None:
        self.kernels: list[Kernel] = []
        self.reflection = Reflection(
            epoch_ns=clock.wall_ns() - clock.monotonic_ns(), kernel=self.load, **settings
        )
        self.reflection.serve(ProbeSocket())
        self.reflection.follow([END])
        self.sender = socket(AF_INET6, SOCK_DGRAM)
        self.sender.setblocking(False)

    def load(self, settings: Settings) -> Any:
        self.kernels.append(Kernel(settings))
        return self.kernels[-1]

    async def ask(self, packet: bytes) -> bytes:
        loop = asyncio.get_running_loop()
        await loop.sock_sendto(self.sender, packet, ("::1", self.reflection.port))
        async with asyncio.timeout(20):
            return await loop.sock_recv(self.sender, 2048)

    def close(self) -> None:
        self.reflection.close()
        self.sender.close()


@pytest.fixture
async def bench() -> Iterator[Bench]:
    made = Bench()
    with contextlib.closing(made):
        yield made


def probe(sequence: int, tlvs: bytes = b"") -> bytes:
    return pack_sender((sequence, 5, 6, PTP_FORMAT | 1, 0x12)) + tlvs


async def test_the_kernel_is_told_where_to_answer_and_how_often(bench: Bench) -> None:
    (kernel,) = bench.kernels
    assert kernel.ends == {LO: LOOPBACK.packed}
    assert kernel.settings.port == bench.reflection.port
    assert kernel.settings.gap_ns == 2_000_000
    bench.reflection.follow([])
    assert kernel.ends == {}
    bench.reflection.follow([END])
    assert kernel.ends == {LO: LOOPBACK.packed}
    assert bench.kernels == [kernel]


async def test_a_path_report_tells_what_the_kernel_counted(bench: Bench) -> None:
    answer = await bench.ask(probe(9, encode_path_report([0x21])))
    value = find(answer[44:], Type.PATH_REPORT)
    assert value is not None
    assert decode_path_report(value) == ((0x21, 70, 71),)
    port = bench.sender.getsockname()[1]
    assert bench.kernels[0].asked == [(IPv6Address("::21:0:0:0:1"), port, 0x21)]


async def test_counters_are_those_of_both(bench: Bench) -> None:
    await bench.ask(probe(0))
    counters = bench.reflection.counters
    assert (counters.reflected, counters.malformed, counters.limited) == (101, 20, 3)
    bench.reflection.use_key(KEY)
    assert bench.reflection.counters.reflected == 101  # of a kernel that is not asked any more


async def test_sealed_probes_are_answered_by_the_supervisor_alone(caplog) -> None:
    caplog.set_level("INFO")
    bench = Bench(key=KEY)
    with contextlib.closing(bench):
        assert bench.kernels == []
        bench.reflection.use_key(None)
        assert len(bench.kernels) == 1
        bench.reflection.use_key(KEY)
        assert bench.kernels[0].is_closed
    who = [r.message.split()[1] for r in caplog.records]
    assert who == ["supervisor", "kernel", "supervisor"]


async def test_a_kernel_that_will_not_have_it_is_done_without(caplog) -> None:
    def refuse(_settings: Settings) -> Any:
        raise OSError(1, "not permitted")

    caplog.set_level("INFO")
    reflection = Reflection(epoch_ns=0, kernel=refuse)
    reflection.serve(ProbeSocket())
    reflection.follow([END])
    reflection.follow([END])  # it is not asked again
    assert [r.message for r in caplog.records] == ["the supervisor answers probes"]
    assert reflection.counters.reflected == 0
    reflection.close()
