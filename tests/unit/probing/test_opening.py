"""How a hub's thousands of paths are opened, in virtual time: far ends that answer, or are slow."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from heapq import heappop, heappush
from ipaddress import IPv6Address

import pytest

from appliance import clock
from appliance.contract.ids import PathId, Plane, SiteName, Slot
from appliance.core.events import Event, PathsSampled, ProbeOverdue
from appliance.probing.paths import MS, OPEN_GAP_NS, OPEN_MOST, Measured, PathProber
from appliance.probing.sockets import BATCH, Outgoing, Packet, endpoint, pktinfo
from appliance.stamp.reflector import SessionReflector
from tests.unit.virtual_time import run

PLANE = Plane(Slot(1), Slot(1))
END = pktinfo(IPv6Address("fd00::1"), 7)
PATIENCE_NS = 499 * MS  # of a first probe
SLOW_S = 4.0  # a hub's pace


class Wire:
    """Answers every probe after `delay_ns`, but none to a far end before the handshake with it.

    All handshakes are made by one processor, ours, and take it `work_ns`.
    """

    def __init__(self, delay_ns: int, work_ns: int = 0) -> None:
        self.delay_ns = delay_ns
        self.work_ns = work_ns
        self.is_cut = False
        self.sent_ns: dict[bytes, int] = {}  # first probe, by far end
        self._reflector = SessionReflector(
            session_rate=100_000, session_burst=100_000, total_rate=10_000_000, total_burst=10**6
        )
        self._free_ns = 0
        self._ready_ns: dict[bytes, int] = {}  # end of the handshake, by far end
        self._answers: list[tuple[int, bytes, bytes]] = []

    def hear(self, ends: Collection[bytes]) -> None:
        pass

    def close(self) -> None:
        pass

    def send(self, packets: Sequence[Outgoing]) -> int:
        now = clock.monotonic_ns()
        for octets, destination, _ in packets:
            if destination not in self.sent_ns:
                self.sent_ns[destination] = now
                self._free_ns = max(self._free_ns, now) + self.work_ns
                self._ready_ns[destination] = self._free_ns
            if self.is_cut:
                continue
            at = self.delay_ns + max(self._ready_ns[destination], now)
            answer = self._reflector.reflect(octets, destination, now, now, 64)
            assert answer is not None
            heappush(self._answers, (at, answer, destination))
        return len(packets)

    def receive(self) -> list[Packet]:
        found = []
        while self._answers and self._answers[0][0] <= clock.monotonic_ns() and len(found) < BATCH:
            at, octets, source = heappop(self._answers)
            found.append(Packet(octets, source, END, at, 64, 0))
        return found


def hub(wire: Wire, sites: int, work: Callable[[PathProber], Awaitable[None]]) -> list[Event]:
    """Open one path to each site at a slow pace, and see what is told meanwhile."""
    told: list[Event] = []

    async def main() -> None:
        patched = pytest.MonkeyPatch()
        loop = asyncio.get_running_loop()
        patched.setattr(clock, "monotonic_ns", lambda: round(loop.time() * 1e9))
        prober = PathProber(told.append, socket=wire, epoch_ns=0)  # type: ignore[arg-type]
        paths = [PathId(SiteName(f"s{n}"), PLANE) for n in range(sites)]
        for path in paths:
            prober.set_interval(path, SLOW_S)
        prober.measure(
            {
                path: Measured(END, endpoint(IPv6Address(f"fd00::1:{n:x}"), 862), 1420, "wan0")
                for n, path in enumerate(paths)
            }
        )
        await work(prober)
        prober.close()
        patched.undo()

    run(main())
    return told


def test_paths_that_answer_are_opened_one_after_the_other() -> None:
    wire = Wire(20 * MS)
    hub(wire, 200, lambda _: asyncio.sleep(5))
    times = sorted(wire.sent_ns.values())
    assert len(times) == 200
    assert times[-1] - times[0] <= 201 * OPEN_GAP_NS


def test_no_more_are_opened_than_are_answered_in_time() -> None:
    wire = Wire(20 * MS, work_ns=2 * OPEN_GAP_NS)
    told = hub(wire, 200, lambda _: asyncio.sleep(3))
    assert len(wire.sent_ns) == 200
    assert not [event for event in told if isinstance(event, ProbeOverdue)]


def test_far_ends_that_are_dead_do_not_keep_the_others_from_being_opened() -> None:
    wire = Wire(20 * MS)
    wire.is_cut = True
    hub(wire, 200, lambda _: asyncio.sleep(5))
    times = sorted(wire.sent_ns.values())
    assert len(times) == 200
    for first, last in zip(times, times[OPEN_MOST:], strict=False):
        assert last - first >= PATIENCE_NS


def test_paths_that_were_verified_before_they_were_opened_take_no_room() -> None:
    wire = Wire(20 * MS)
    wire.is_cut = True

    async def work(prober: PathProber) -> None:
        await asyncio.sleep(0.4)
        wire.is_cut = False
        for entry in tuple(prober._unopened)[-40:]:
            prober.verify(entry.path, None)
        await asyncio.sleep(10)
        assert not prober._unopened
        assert not prober._opening

    hub(wire, 200, work)


def test_paths_that_are_gone_before_they_were_opened_make_room() -> None:
    wire = Wire(20 * MS)
    wire.is_cut = True
    more = Measured(END, endpoint(IPv6Address("fd00::2:1"), 862), 1420, "wan0")

    async def work(prober: PathProber) -> None:
        await asyncio.sleep(0.4)
        prober.measure({PathId(SiteName("new"), PLANE): more})
        await asyncio.sleep(0.1)
        assert more.destination in wire.sent_ns

    hub(wire, 200, work)


def test_a_first_answer_is_told_at_once_whatever_the_pace() -> None:
    """Who waits for a path must not wait for its next probe, or for a whole interval of them."""
    told = hub(Wire(300 * MS), 40, lambda _: asyncio.sleep(1.5))
    sampled = {p for e in told if isinstance(e, PathsSampled) for p, _ in e.samples}
    assert len(sampled) == 40
