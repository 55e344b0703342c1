"""The prober against the real reflector over loopback sockets. Waits on conditions only."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from ipaddress import IPv6Address
from socket import if_nametoindex
from typing import Any

import pytest

from appliance import clock
from appliance.contract.ids import PathId, Plane, SiteName, Slot
from appliance.core.events import (
    AnswerLate,
    AnswerReturned,
    Event,
    FarEndReported,
    LoopStalled,
    PathMtuChanged,
    PathsSampled,
    ProbeOverdue,
    TrafficSampled,
)
from appliance.probing.paths import BURST, Measured, PathProber, Traced, _Path
from appliance.probing.reflect import Reflection
from appliance.probing.side import SideSession
from appliance.probing.sockets import BATCH, Packet, ProbeSocket, endpoint, pktinfo
from appliance.stamp.sample import Sample
from appliance.stamp.sender import SessionSender
from appliance.stamp.tlv import DIRECT_MEASUREMENT

PATIENCE_S = 20.0
HQ = SiteName("hq")
ONE, TWO = Plane(Slot(1), Slot(1)), Plane(Slot(2), Slot(2))

KEY = b"0123456789abcdef"
LOOPBACK = IPv6Address("::1")
END = pktinfo(LOOPBACK, if_nametoindex("lo"))


class Bench:
    """A prober with two paths to one far end, which can be silenced per plane."""

    def __init__(self, key: bytes | None = None) -> None:
        self.events: list[Event] = []
        self.changed = asyncio.Event()
        epoch_ns = clock.wall_ns() - clock.monotonic_ns()
        self.far_counts: tuple[int, int] | None = None
        self.own_count: int | None = None
        self.reflection = Reflection(
            epoch_ns=epoch_ns,
            key=key,
            counters_of=lambda _source, _ssid: self.far_counts,
        )
        self.reflection.serve(ProbeSocket())
        self.reflection.follow([END])
        assert self.reflection.port is not None
        self.far = Measured(END, endpoint(LOOPBACK, self.reflection.port), 1420, "wan0")
        self.deaf = ProbeSocket()  # reads nothing, answers nothing
        self.prober = PathProber(
            self.emit,
            socket=ProbeSocket(),
            epoch_ns=epoch_ns,
            key=key,
            count_sent=lambda _path: self.own_count,
        )
        self.measured = {PathId(HQ, p): self.far for p in (ONE, TWO)}
        self.prober.measure(self.measured)
        for plane in (ONE, TWO):
            self.prober.set_interval(PathId(HQ, plane), 0.02)

    def emit(self, event: Event) -> None:
        self.events.append(event)
        self.changed.set()

    def silence(self, plane: Plane) -> None:
        """Let what is sent on a plane go astray from now on."""
        entry = self.prober._paths[PathId(HQ, plane)]
        entry.destination = endpoint(LOOPBACK, self.deaf.port)

    def restore(self, plane: Plane) -> None:
        self.prober._paths[PathId(HQ, plane)].destination = self.far.destination

    def of(self, kind: type[Any], plane: Plane = ONE) -> list[Any]:
        if kind is PathsSampled:
            return [
                sample
                for event in self.events
                if isinstance(event, PathsSampled)
                for path, sample in event.samples
                if path.plane == plane
            ]
        return [e for e in self.events if isinstance(e, kind) and e.path.plane == plane]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def close(self) -> None:
        self.prober.close()
        self.reflection.close()
        self.deaf.close()


@pytest.fixture(params=[None, KEY], ids=["unauthenticated", "authenticated"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    made = Bench(request.param)
    with contextlib.closing(made):
        yield made


async def test_a_path_that_answers_is_sampled(bench: Bench) -> None:
    await bench.until(lambda: len(bench.of(PathsSampled)) >= 3)
    samples = bench.of(PathsSampled)
    assert sum(s.answered for s in samples) >= 10
    assert min(s.delay_us for s in samples) < 1_000_000  # one may have met a busy machine
    assert bench.reflection.reflector.counters.forged == 0


async def test_silence_is_told_and_so_is_the_return(bench: Bench) -> None:
    await bench.until(lambda: len(bench.of(PathsSampled)) >= 2)
    bench.silence(ONE)
    await bench.until(lambda: any(e.unanswered >= 3 for e in bench.of(ProbeOverdue)))
    await bench.until(lambda: bool(bench.of(AnswerLate)))
    newest = bench.of(ProbeOverdue)[-1]
    assert newest.uplink_answered_age_s > newest.sent_age_s
    assert not [e for e in bench.of(ProbeOverdue, TWO) if e.unanswered >= 3]
    bench.restore(ONE)
    bench.prober._paths[PathId(HQ, ONE)].sample_due_ns = 1 << 62  # as at a slow pace
    await bench.until(lambda: any(e.consecutive >= 5 for e in bench.of(AnswerReturned)))
    assert all(e.sent_age_s > 0 for e in bench.of(AnswerReturned))
    have = len(bench.of(PathsSampled))
    await bench.until(lambda: len(bench.of(PathsSampled)) > have)


async def test_the_far_end_tells_over_another_path_what_it_did_not_get(bench: Bench) -> None:
    await bench.until(lambda: len(bench.of(PathsSampled)) >= 2)
    bench.silence(ONE)
    await bench.until(lambda: bool(bench.of(ProbeOverdue)))
    before = bench.prober.sent
    bench.prober.verify(PathId(HQ, ONE), PathId(HQ, TWO))
    assert bench.prober.sent == before + BURST + 1  # one looks at the other path
    await bench.until(lambda: bool(bench.of(FarEndReported)))
    report = bench.of(FarEndReported)[0]
    assert report.received == 0
    assert report.sent >= BURST + 1  # it was asked when all of the burst should have arrived


async def test_nobody_is_asked_what_arrived_while_the_way_forth_is_unknown(bench: Bench) -> None:
    await bench.until(lambda: len(bench.of(PathsSampled)) >= 2)
    bench.silence(ONE)
    bench.prober._paths[PathId(HQ, ONE)].session.forward_ns = None
    bench.prober.verify(PathId(HQ, ONE), PathId(HQ, TWO))
    await bench.until(lambda: any(e.unanswered > BURST for e in bench.of(ProbeOverdue)))
    assert not bench.of(FarEndReported)


async def test_a_question_about_a_path_that_is_gone_is_not_asked(bench: Bench) -> None:
    await bench.until(lambda: len(bench.of(PathsSampled)) >= 2)
    bench.silence(ONE)
    bench.prober.verify(PathId(HQ, ONE), PathId(HQ, TWO))
    bench.prober.measure({PathId(HQ, TWO): bench.far})
    have = len(bench.of(PathsSampled, TWO))
    await bench.until(lambda: len(bench.of(PathsSampled, TWO)) > have + 1)
    assert not bench.of(FarEndReported)


async def test_padded_probes_settle_on_the_device_mtu_and_say_so_once(bench: Bench) -> None:
    await bench.until(lambda: bool(bench.of(PathMtuChanged)))
    assert [e.mtu for e in bench.of(PathMtuChanged)] == [1420]


async def test_a_slow_path_confirms_its_mtu_with_every_fifth_probe(bench: Bench) -> None:
    await bench.until(lambda: bool(bench.of(PathMtuChanged)))
    entry = bench.prober._paths[PathId(HQ, ONE)]
    sizes = []
    for n in range(10):  # each so late that a confirmation is due
        entry.side.padded_sizes.clear()
        entry.session.probe(bench.prober._now())
        bench.prober._search_mtu(entry, bench.prober._now() + (n + 1) * 60_000_000_000)
        sizes += entry.side.padded_sizes.values()
    assert sizes == [1420, 1420]


async def test_a_slow_path_whose_mtu_dropped_is_not_left_to_its_pace(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.until(lambda: bool(bench.of(PathMtuChanged)))
    receive = bench.prober._receive

    def receive_small(entry: _Path, ssid: int, octets: bytes, received: int) -> None:
        if len(octets) < 1000:
            receive(entry, ssid, octets, received)

    bench.prober._receive = receive_small  # type: ignore[method-assign]
    entry = bench.prober._paths[PathId(HQ, ONE)]
    monkeypatch.setattr("appliance.probing.paths.CONFIRM_PROBES", 1)
    bench.prober.set_interval(PathId(HQ, ONE), 10)  # left to it, it would take 20 s and more
    entry.side.mtu._due_ns = 0
    bench.prober._search_mtu(entry, bench.prober._now())
    bench.prober._flush()
    bench.prober._watch(entry)
    bench.prober._arm()
    await bench.until(lambda: bench.of(PathMtuChanged)[-1].mtu == 1280)


async def test_real_traffic_is_compared_between_both_ends(bench: Bench) -> None:
    bench.own_count, bench.far_counts = 1000, (1000, 0)
    await bench.until(lambda: bench.prober._paths[PathId(HQ, ONE)].side.compared is not None)
    bench.own_count, bench.far_counts = 1200, (1190, 0)
    await bench.until(lambda: bool(bench.of(TrafficSampled)))
    assert sum(e.lost for e in bench.of(TrafficSampled)) == 10


@pytest.mark.parametrize("count", [0, 1000, (1 << 32) - 1, 1 << 32, (1 << 32) + 1000])
async def test_an_idle_path_is_not_asked_about_again(bench: Bench, count: int) -> None:
    """Counters of the kernel go on where those of a Direct Measurement begin anew."""
    entry = bench.prober._paths[PathId(HQ, ONE)]
    bench.own_count, bench.far_counts = count, (count % (1 << 32), 0)
    await bench.until(lambda: entry.side.compared is not None)
    assert entry.side.ask_traffic(bench.prober._now(), count) is None
    assert entry.side.ask_traffic(bench.prober._now(), count + 1) is not None


async def test_what_an_end_dropped_itself_is_no_loss(bench: Bench) -> None:
    entry = bench.prober._paths[PathId(HQ, ONE)]
    bench.own_count, bench.far_counts = 1000, (1000, 0)
    await bench.until(lambda: entry.side.compared is not None)
    for own, far in ((None, (1000, 0)), (1200, None)):  # one of them cannot tell
        bench.own_count, bench.far_counts = own, far
        await bench.until(lambda: entry.side.compared is None)
        bench.own_count, bench.far_counts = 1300, (1100, 0)
        await bench.until(lambda: entry.side.compared is not None)
    assert not [e for e in bench.of(TrafficSampled) if e.lost]


def test_packets_counted_early_at_the_far_end_are_no_later_loss() -> None:
    side = SideSession(PathId(HQ, ONE), None, 1420, 0)
    told: list[Event] = []
    for sent, received in ((0, 0), (40, 42), (80, 80), (120, 121), (160, 157), (200, 199)):
        told += side._compare(DIRECT_MEASUREMENT.pack(sent, received, 0))
    assert [e.lost for e in told if isinstance(e, TrafficSampled)] == [0, 0, 0, 3, 0]


async def test_a_changed_set_of_paths_keeps_the_sessions_that_stay(bench: Bench) -> None:
    await bench.until(lambda: bool(bench.of(PathsSampled)))
    kept = bench.prober._paths[PathId(HQ, ONE)]
    bench.prober.measure({PathId(HQ, ONE): bench.far})
    assert bench.prober._paths == {PathId(HQ, ONE): kept}
    have = len(bench.of(PathsSampled))
    await bench.until(lambda: len(bench.of(PathsSampled)) > have)


async def test_a_pace_set_before_the_path_is_opened_holds_and_courtesy_too(bench: Bench) -> None:
    late = PathId(SiteName("late"), ONE)
    bench.prober.set_interval(late, 0.02)
    bench.prober.measure({late: replace(bench.far, is_second=True)})
    opened = clock.monotonic()

    def samples() -> list[Sample]:
        events = [e for e in bench.events if isinstance(e, PathsSampled)]
        return [s for e in events for p, s in e.samples if p == late]

    await bench.until(lambda: bool(samples()))
    assert clock.monotonic() - opened >= 0.3
    await bench.until(lambda: len(samples()) >= 2)
    assert samples()[1].answered >= 3  # at 20 ms; at the pace of an idle path there would be one


async def test_two_ends_with_the_same_clock_never_probe_a_slow_path_at_once(bench: Bench) -> None:
    names = [PathId(SiteName(f"s{n}"), ONE) for n in range(50)]
    dues = []
    for is_second in (False, True):
        bench.prober.measure({})
        bench.prober.measure({p: replace(bench.far, is_second=is_second) for p in names})
        entries = [bench.prober._paths[name] for name in names]
        dues.append([bench.prober._next_due(entry, 0) % entry.interval_ns for entry in entries])
    apart = [abs(one - other) for one, other in zip(*dues, strict=True)]
    assert min(apart) > 400_000_000
    assert max(apart) < 600_000_000


class EarlyLoop:
    """Timers come two milliseconds before their time, as they may by rounding, only less so."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def call_at(self, when: float, callback: Callable[[], object]) -> asyncio.TimerHandle:
        return self._loop.call_at(when - 0.002, callback)


async def test_a_timer_that_comes_early_is_armed_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.until(lambda: bool(bench.of(PathsSampled)))
    monkeypatch.setattr(bench.prober, "_loop", EarlyLoop())
    have = len(bench.of(PathsSampled))
    await bench.until(lambda: len(bench.of(PathsSampled)) > have + 1)


async def test_a_plane_that_was_made_anew_begins_new_sessions(bench: Bench) -> None:
    await bench.until(lambda: bool(bench.of(PathsSampled)))
    elsewhere = replace(bench.far, pktinfo=pktinfo(LOOPBACK, 0))  # any device
    for another in (elsewhere, replace(elsewhere, line="wan1")):
        before = bench.prober._paths[PathId(HQ, ONE)]
        bench.prober.measure({PathId(HQ, ONE): another})
        assert bench.prober._paths[PathId(HQ, ONE)] is not before


async def test_answers_that_come_in_at_another_end_are_not_believed(bench: Bench) -> None:
    await bench.until(lambda: bool(bench.of(PathsSampled)))
    bench.prober._paths[PathId(HQ, ONE)].pktinfo = pktinfo(LOOPBACK, 0)  # leaves, but not as ours
    await bench.until(lambda: any(e.unanswered >= 3 for e in bench.of(ProbeOverdue)))
    assert not [e for e in bench.of(ProbeOverdue, TWO) if e.unanswered >= 3]


async def test_probes_that_come_in_elsewhere_than_on_a_plane_are_not_answered(bench: Bench) -> None:
    await bench.until(lambda: bool(bench.of(PathsSampled)))
    bench.reflection.follow([])
    await bench.until(lambda: any(e.unanswered >= 3 for e in bench.of(ProbeOverdue, TWO)))


async def test_another_key_is_used_from_both_ends_on(bench: Bench) -> None:
    await bench.until(lambda: bool(bench.of(PathsSampled)))
    bench.prober.use_key(b"another key of 32 octets, or so.")
    bench.prober.measure(bench.measured)
    await bench.until(lambda: any(e.unanswered >= 3 for e in bench.of(ProbeOverdue)))
    bench.reflection.use_key(b"another key of 32 octets, or so.")
    await bench.until(lambda: bool(bench.of(AnswerReturned)))
    have, forged = len(bench.of(PathsSampled)), bench.reflection.reflector.counters.forged
    await bench.until(lambda: len(bench.of(PathsSampled)) > have)
    assert bench.reflection.reflector.counters.forged == forged


async def test_the_return_of_a_path_is_told_though_its_session_is_another_one(bench: Bench) -> None:
    """Whoever heard that it fails would wait for ever: nothing is missing of the new session."""
    await bench.until(lambda: bool(bench.of(PathsSampled)))
    bench.silence(ONE)
    await bench.until(lambda: bool(bench.of(ProbeOverdue)))
    key = b"another key of 32 octets, or so."
    bench.reflection.use_key(key)
    bench.prober.use_key(key)
    bench.events.clear()
    bench.prober.measure(bench.measured)
    await bench.until(lambda: any(e.consecutive >= 5 for e in bench.of(AnswerReturned)))
    assert not bench.of(AnswerReturned, TWO)


async def test_a_path_that_has_returned_does_not_fail_in_its_next_session(bench: Bench) -> None:
    """A return would be told of what was never gone."""
    path, one = PathId(HQ, ONE), {PathId(HQ, ONE): bench.far}
    await bench.until(lambda: bool(bench.of(PathsSampled)))
    bench.silence(ONE)
    await bench.until(lambda: bool(bench.of(ProbeOverdue)))
    bench.prober.measure({})
    bench.prober.measure(one)
    assert bench.prober._paths[path].is_failing
    await bench.until(lambda: not bench.prober._paths[path].is_failing)
    bench.prober.measure({})
    bench.prober.measure(one)
    assert not bench.prober._paths[path].is_failing


async def test_a_flood_of_packets_does_not_keep_silence_from_being_told(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.until(lambda: len(bench.of(PathsSampled)) >= 2)
    flood = [Packet(b"no answer of ours", b"somebody", END, 0, 64, 0)] * BATCH
    monkeypatch.setattr(bench.prober._socket, "receive", lambda: flood)
    bench.events.clear()
    await bench.until(lambda: any(e.unanswered >= 3 for e in bench.of(ProbeOverdue)))
    # To read for long is no stall of the loop, for which missing answers would be forgiven.
    stalls = [e for e in bench.events if isinstance(e, LoopStalled)]
    assert len(stalls) < len(bench.of(ProbeOverdue))


async def test_a_stall_is_forgiven_although_much_waits_to_be_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.until(lambda: len(bench.of(PathsSampled)) >= 2)
    shifts: list[int] = []
    judge = SessionSender.handle_timer

    def watched(session: SessionSender, now: int, shift: int = 0) -> tuple[tuple[int, int], ...]:
        shifts.append(shift)
        return judge(session, now, shift)

    flood = [Packet(b"no answer of ours", b"somebody", END, 0, 64, 0)] * BATCH
    waiting = [flood] * 40  # more than is read at a time
    receive = bench.prober._socket.receive
    monkeypatch.setattr(SessionSender, "handle_timer", watched)
    monkeypatch.setattr("appliance.probing.paths.PATIENCE_NS", 60_000_000_000)  # on a busy machine
    monkeypatch.setattr(
        bench.prober._socket, "receive", lambda: waiting.pop() if waiting else receive()
    )
    session = bench.prober._paths[PathId(HQ, ONE)].session
    bench.silence(ONE)
    while not session.is_awaiting:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)
    shifts.clear()
    time.sleep(0.15)  # noqa: ASYNC251 - the loop is to stand still
    await bench.until(lambda: bool(shifts))
    assert not waiting
    assert shifts[0] > 100_000_000


async def test_a_stall_is_noticed_while_much_waits_to_be_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deadlines wait for what is read in several turns: a stall between two of these is one."""
    await bench.until(lambda: len(bench.of(PathsSampled)) >= 2)
    flood = [Packet(b"no answer of ours", b"somebody", END, 0, 64, 0)] * BATCH
    waiting = [flood] * 200
    receive = bench.prober._socket.receive
    monkeypatch.setattr("appliance.probing.paths.PATIENCE_NS", 60_000_000_000)
    monkeypatch.setattr(
        bench.prober._socket, "receive", lambda: waiting.pop() if waiting else receive()
    )
    while not bench.prober._behind_ns:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0)
    bench.events.clear()
    time.sleep(0.15)  # noqa: ASYNC251 - the loop is to stand still
    await bench.until(lambda: not waiting)
    stalls = [event.late_s for event in bench.events if isinstance(event, LoopStalled)]
    assert max(stalls) > 0.1


async def test_a_late_answer_is_told_also_of_a_path_that_answers_in_time_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.until(lambda: bool(bench.of(PathsSampled)))
    prober = bench.prober
    entry = prober._paths[PathId(HQ, ONE)]
    kept: list[Packet] = []
    is_over = False
    receive = prober._socket.receive

    def late() -> list[Packet]:
        """One answer of the path is kept until it is over."""
        packets = list(receive())
        if is_over:
            return [*packets, *(kept.pop() for _ in kept[:])]
        for packet in packets:
            ssid = int.from_bytes(packet[0][prober._ssid_at : prober._ssid_at + 2])
            if not kept and prober._by_answer.get((packet[1], ssid)) is entry:
                kept.append(packet)
                packets.remove(packet)
                break
        return packets

    monkeypatch.setattr(prober._socket, "receive", late)
    await bench.until(lambda: entry.is_failing)
    await bench.until(lambda: not entry.is_failing)
    bench.events.clear()
    is_over = True
    await bench.until(lambda: bool(bench.of(AnswerReturned)))
    told = bench.of(AnswerReturned)
    assert [each.is_late for each in told] == [True]
    assert 0.02 < told[0].sent_age_s < 3


async def test_each_probe_of_a_traced_path_is_told_once(bench: Bench) -> None:
    one, two = PathId(HQ, ONE), PathId(HQ, TWO)
    assert bench.prober.take_traces() == {}
    began_s = clock.monotonic()
    bench.prober.trace(frozenset({one}))
    told: list[Traced] = []
    while len(told) < 10:
        have = len(bench.events)
        await bench.until(lambda: len(bench.events) > have)  # noqa: B023
        found = bench.prober.take_traces()
        assert set(found) <= {one}
        told += found.get(one, ())
    assert bench.prober.pace(one) == 0.02
    sent = [each.sent for each in told]
    assert sorted(set(sent)) == sent
    assert began_s - 1 < sent[0] < sent[-1] < clock.monotonic()
    assert all(0 <= each.forward_us <= each.delay_us for each in told)  # the clocks are the same
    bench.prober.measure({one: bench.far, two: replace(bench.far, is_second=True)})
    bench.prober.trace(frozenset({two}))  # the session of which has begun anew
    have = len(bench.of(PathsSampled, TWO))
    await bench.until(lambda: len(bench.of(PathsSampled, TWO)) > have)
    assert set(bench.prober.take_traces()) == {two}
