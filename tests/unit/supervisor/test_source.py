"""What a box tells of its decisions: every move is recorded, and `why` has an answer for each."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from ipaddress import ip_address
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import cast

import pytest
from prometheus_client.metrics_core import GaugeMetricFamily

from appliance import turns
from appliance.api.problems import DiskHangsError, UnknownName
from appliance.api.source import FlowQuery, HistoryQuery
from appliance.config.flow import parse_flow
from appliance.config.intent import Intent
from appliance.contract.codec import decode
from appliance.contract.ids import INTERNET, ClassName, PathId, SiteName
from appliance.contract.problem import ConfigProblem
from appliance.contract.status import Change, ConfigStatus, Reloaded, Status
from appliance.core.codec import encode_event
from appliance.core.decide import initial_state
from appliance.core.events import IntentChanged, PathsSampled, UplinkChanged
from appliance.core.steering import Steering
from appliance.kernel.conntrack import TrackedFlow
from appliance.kernel.fake import FakeKernel
from appliance.kernel.kernel import Kernel
from appliance.plan.breakout import NO_EXITS
from appliance.plan.compile import compile_plan
from appliance.plan.plan import SHARED, Add, Key, Observed, Plan
from appliance.plan.text import render_op
from appliance.stamp.reflector import SessionReflector
from appliance.stamp.sender import SessionSender
from appliance.supervisor import report
from appliance.supervisor import source as module
from appliance.supervisor.disk import Disk
from appliance.supervisor.engine import Engine
from appliance.supervisor.reconciler import Reconciler
from appliance.supervisor.source import Source
from appliance.supervisor.warnings import Warnings
from appliance.telemetry.recorder import Recorder
from appliance.turns import TURN, encode_in_turns
from tests.unit.core.box import GOOD, named
from tests.unit.core.examples import facts, intent, peer, uplink
from tests.unit.plan.examples import KEY_A, attached, first_paths, gateway
from tests.unit.supervisor.counted import Turns

SITES = 100
REFLECTOR = SessionReflector()


class _Prober:
    """Where a box without sockets sends what the core asks of its prober."""

    def verify(self, path: PathId, alternative: PathId | None) -> None: ...
    def set_interval(self, path: PathId, interval_s: float) -> None: ...


def _hub(sites: int = SITES) -> Engine:
    """A hub with its configuration."""
    engine = Engine(
        initial_state(),
        prober=_Prober(),
        steer=lambda _ops: None,
        end_flows=lambda _action: None,
        ask_targets=lambda _slot: None,
        exits=lambda _state: NO_EXITS,
        is_in_force=lambda: True,
        on_drift=lambda: pytest.fail("nothing drifts"),
    )
    engine.handle(IntentChanged(intent(peers=[peer(f"s{n}", n + 2) for n in range(sites)])))
    return engine


def _source(engine: Engine, directory: Path, reflector: SessionReflector = REFLECTOR) -> Source:
    """All that it takes to tell the whole status."""
    recorder = Recorder(directory, "run", encode_event, lambda trouble: pytest.fail(str(trouble)))
    box = SimpleNamespace(
        engine=engine,
        warnings=Warnings(),
        reconciler=SimpleNamespace(ops=Counter(), ops_failed=0),
        rates=SimpleNamespace(ops=Counter(), lines={}),
        prober=SimpleNamespace(sent=0, answered=0),
        server_names=SimpleNamespace(name_of=lambda _flow: None),
        reflection=SimpleNamespace(counters=reflector.counters),
    )
    config = ConfigStatus("hub.yaml", "0" * 12, 0.0)
    return Source(box, recorder, directory, config, _reload)  # type: ignore[arg-type]


async def _reload() -> Reloaded:
    raise NotImplementedError


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not is_so():  # noqa: ASYNC110 - nobody tells when a core has nothing more to do
            await asyncio.sleep(0.01)


async def test_of_very_many_moves_at_once_each_keeps_its_reason_and_a_few_their_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    monkeypatch.setattr(module, "EVIDENCE_PER_S", 8.0)
    monkeypatch.setattr("appliance.supervisor.engine.LOGGED_PER_S", 16.0)
    monkeypatch.setattr("appliance.telemetry.recorder.FLUSH_S", 0.01)
    engine = _hub()
    recorder = Recorder(tmp_path, "run", encode_event, lambda trouble: pytest.fail(str(trouble)))
    writing = asyncio.ensure_future(recorder.run())
    for slot in (1, 2):
        engine.handle(UplinkChanged(facts(slot)))
    await _until(lambda: not engine.state.pending and engine.state.is_settled)
    box = SimpleNamespace(engine=engine, warnings=Warnings())
    config = ConfigStatus("hub.yaml", "0" * 12, 0.0)
    source = Source(box, recorder, tmp_path, config, _reload)  # type: ignore[arg-type]

    engine.handle(UplinkChanged(facts(1, carrier=False)))
    await _until(lambda: not engine.state.pending)
    at_once = await source.history(HistoryQuery(limit=10 * SITES))
    await _until(lambda: not recorder.is_waiting)
    history = await source.history(HistoryQuery(limit=10 * SITES))
    assert at_once == history
    everywhere = [*(f"s{n}" for n in range(SITES)), INTERNET]
    assert {(m.class_name, m.site) for m in history.moves} == {
        (name, site) for name in ("voice", "default") for site in everywhere
    }
    for move in history.moves:
        way = "2-0" if move.site == INTERNET else "2-1"
        assert (move.cause, move.after[0].path) == ("uplink-down", f"{move.site}/{way}")
        why = source.why(move.class_name, move.site)  # type: ignore[arg-type]
        assert (why.reason, why.cause, why.carriers) == (move.reason, move.cause, move.after)
        assert [each.path for each in why.candidates if each.carries] == [f"{move.site}/{way}"]
    evidence = [move.evidence for move in history.moves if move.evidence]
    assert 8 <= len(evidence) < len(history.moves) / 2
    assert all(len(candidates) in (2, 4) for candidates in evidence)
    logged = [record.message for record in caplog.records]
    assert 16 <= logged.count("moved") < len(history.moves)
    assert 0 < logged.count("more than the log takes") <= logged.count("moved")

    told = await source.classify(parse_flow("192.0.2.9", "10.0.3.9"))
    assert (told.class_name, told.site) == ("default", "s1")
    assert [each.path for each in told.carriers] == ["s1/2-1"]
    away = await source.classify(parse_flow("192.0.2.9", "198.51.100.7"))
    assert (away.site, [each.uplinks for each in away.carriers]) == ("internet", ["dsl"])
    assert (await source.classify(parse_flow("192.0.2.9", "192.0.2.7"))).carriers == ()

    ours = [uplink(1, "cable"), uplink(2, "dsl")]
    peers = engine.state.intent.peers
    engine.handle(IntentChanged(intent(uplinks=ours, peers=peers)))
    why = source.why(move.class_name, move.site)  # type: ignore[arg-type]
    assert {each.uplinks.split(" - ")[0] for each in why.candidates} == {"cable", "dsl"}

    writing.cancel()
    await asyncio.wait([writing])
    engine.close()


async def test_probes_that_deserve_no_answer_are_counted_by_why(tmp_path: Path) -> None:
    engine = _hub()
    reflector = SessionReflector(key=bytes(range(32)), session_rate=1, session_burst=1)
    source = _source(engine, tmp_path, reflector)
    ours = SessionSender(1, key=bytes(range(32)))
    theirs = SessionSender(2, key=bytes(32))
    for packet in (b"short", theirs.probe(1), theirs.probe(2), *(ours.probe(n) for n in range(4))):
        reflector.reflect(packet, b"somebody", 10, 10, 64)
    counters = (await source.status()).counters
    assert counters.probes_refused == {"malformed": 1, "forged": 2, "limited": 3}
    assert counters.probes_reflected == 1
    engine.close()


async def _told(pieces: AsyncIterator[bytes] | Awaitable[AsyncIterator[bytes]]) -> None:
    async for piece in pieces if isinstance(pieces, AsyncIterator) else await pieces:
        assert len(piece) < TURN * 1000


async def test_a_hub_tells_a_slice_of_its_rows_between_two_turns_of_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = 1000
    monkeypatch.setattr(module, "FEED_S", 0.01)
    counted = Turns(
        monkeypatch,
        *((report, name) for name in ("PathStatus", "ClassStatus", "WarningStatus")),
        (turns, "encode"),
        (GaugeMetricFamily, "add_metric"),
    )
    engine = _hub(sites)
    source = _source(engine, tmp_path)
    for slot in (1, 2):
        engine.handle(UplinkChanged(facts(slot)))
    await _until(lambda: not engine.state.pending and engine.state.is_settled)

    status = await counted.run(source.status())
    assert counted.done == {"PathStatus": 4 * sites, "ClassStatus": 2 * (sites + 1)}
    assert counted.most == {"PathStatus": TURN, "ClassStatus": TURN}

    await counted.run(_told(encode_in_turns(status)))
    assert counted.done["encode"] > 6 * sites
    assert counted.most["encode"] <= TURN + 20  # the few parts that are no rows

    await counted.run(_told(source.metrics()))
    assert counted.done["add_metric"] > 6 * sites
    assert max(counted.most.values()) == TURN

    changes = source.subscribe()
    telling = asyncio.ensure_future(source.run())
    engine.handle(UplinkChanged(facts(1, carrier=False)))
    paths: set[str] = set()
    classes: set[str] = set()

    async def listen() -> None:
        async for told in changes:
            change = decode(Change, told.data)
            paths.update(row.path for row in change.paths)
            classes.update(row.site for row in change.classes if row.carriers[0].path[-3] == "2")
            assert len(change.paths) + len(change.classes) <= TURN
            if len(paths) == 4 * sites and len(classes) == sites + 1:
                return

    async with asyncio.timeout(120):  # a guard, and no measure
        await counted.run(listen())
    assert max(counted.most["PathStatus"], counted.most["ClassStatus"]) <= TURN
    telling.cancel()
    await asyncio.wait([telling])
    engine.close()


async def _nothing() -> bool:
    return False


@pytest.mark.parametrize("is_candidate", [False, True])
@pytest.mark.parametrize("dry_run", [False, True])
async def test_a_hubs_plan_is_told_a_slice_between_two_turns_of_the_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_candidate: bool, dry_run: bool
) -> None:
    hub = gateway(100)
    plan = compile_plan(hub, attached(hub), first_paths(hub), KEY_A)
    missing = {key: item for key, item in plan.items() if key.kind not in SHARED}
    told = missing if dry_run else plan
    expected = tuple(render_op(Add(key, told[key])) for key in sorted(told))
    candidates = []

    async def plan_of(candidate: Intent) -> Plan:
        candidates.append(candidate)
        return plan

    async def observe(wanted: Collection[Key]) -> Observed:
        return {key: plan[key] for key in wanted if key.kind in SHARED}

    counted = Turns(monkeypatch, (module, "render_op"))
    engine = _hub(1)
    source = _source(engine, tmp_path)
    source._box.plan = lambda: plan  # type: ignore[method-assign]
    source._box.plan_of = plan_of  # type: ignore[method-assign]
    kernel = cast("Kernel", SimpleNamespace(observe=observe))
    source._box.reconciler = Reconciler(kernel, dict, Steering, _nothing)
    asked = source.plan_text(dry_run=dry_run, candidate=hub if is_candidate else None)
    assert await counted.run(asked) == expected
    assert counted.done == {"render_op": len(expected)}
    assert counted.most == {"render_op": TURN}
    assert candidates == [hub] * is_candidate
    engine.close()


async def test_a_row_is_told_when_something_happened_to_it_not_when_it_grew_older(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEED_S", 0.01)
    engine = _hub(10)
    source = _source(engine, tmp_path)
    for slot in (1, 2):
        engine.handle(UplinkChanged(facts(slot)))
    await _until(lambda: not engine.state.pending and engine.state.is_settled)
    changes = source.subscribe()
    telling = asyncio.ensure_future(source.run())
    async with asyncio.timeout(20):
        first, second, third = [decode(Change, (await anext(changes)).data) for _ in range(3)]
        assert [row.slot for row in first.uplinks] == [1, 2]
        assert len({row.path for row in second.paths}) == 40
        assert len({(row.class_name, row.site) for row in third.classes}) == 22
        for names in (["s1/1-1", "s2/1-1"], ["s3/2-2"]):
            engine.handle(PathsSampled(tuple((named(name), GOOD) for name in names)))
            told = [decode(Change, (await anext(changes)).data)]
            while not told[-1].paths:  # that a class meets its SLA is known with the first sample
                told.append(decode(Change, (await anext(changes)).data))
            assert [(row.path, row.delay_us) for row in told[-1].paths] == [
                (name, 19_500) for name in names
            ]
            assert not any(change.uplinks for change in told)
        moved = engine.state.sites[SiteName("s1")].classes
        engine.handle(UplinkChanged(facts(1, carrier=False)))
        await _until(lambda: not engine.state.pending)
        assert engine.state.sites[SiteName("s1")].classes != moved
        classes: set[tuple[str, str]] = set()
        while len(classes) < 22:
            change = decode(Change, (await anext(changes)).data)
            classes |= {(row.class_name, row.site) for row in change.classes if row.carriers}
    telling.cancel()
    await asyncio.wait([telling])
    engine.close()


async def test_live_flows_are_told_with_what_carries_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.supervisor.flows.INTERVAL_S", 0.01)
    monkeypatch.setattr("appliance.supervisor.flows.MOST_LOOKED_AT", 2)
    engine = _hub(2)
    for slot in (1, 2):
        engine.handle(UplinkChanged(facts(slot)))
    await _until(lambda: not engine.state.pending and engine.state.is_settled)
    source = _source(engine, tmp_path)
    kernel = FakeKernel()
    source._box.kernel = kernel  # type: ignore[assignment]
    ends = ip_address("192.0.2.9"), ip_address("10.0.3.9")
    call = TrackedFlow(1, 17, *ends, 40000, 5060, 0x10000000, 10, 10, is_offloaded=False)
    copy = TrackedFlow(2, 6, *ends, 40001, 873, 0x20000000, 900, 9, is_offloaded=True)
    kernel.flows = [call, copy]
    told = await source.flows(FlowQuery())
    assert (told.count, told.is_complete) == (2, True)
    assert {f.class_name for f in told.flows} == {"voice", "default"}
    assert all([c.path for c in flow.carriers] == ["s1/1-1"] for flow in told.flows)
    assert {flow.sent_bps for flow in told.flows} == {0}
    kernel.flows.append(copy)
    told = await source.flows(FlowQuery(limit=1, class_name=ClassName("voice")))
    assert [f.port for f in told.flows] == [5060]
    assert (told.count, told.is_complete) == (1, False)
    engine.close()


async def test_a_disk_that_hangs_keeps_history_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers, source = Event(), _source(_hub(1), tmp_path)
    monkeypatch.setattr(module, "read_history", lambda *_: answers.wait())
    monkeypatch.setattr(source, "_disk", Disk("recordings", wait_s=0.01))
    asked = [asyncio.ensure_future(source.history(HistoryQuery())) for _ in range(40)]
    try:
        async with asyncio.timeout(20):
            told = await asyncio.gather(*asked, return_exceptions=True)
            assert all(isinstance(each, DiskHangsError) for each in told)
            assert await asyncio.to_thread(int) == 0  # as the kernel is served
    finally:
        answers.set()
        await asyncio.gather(*asked, return_exceptions=True)


async def test_what_another_configuration_or_stage_changes_is_told_as_a_whole_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEED_S", 0.01)
    engine = _hub(3)
    source = _source(engine, tmp_path)
    for slot in (1, 2):
        engine.handle(UplinkChanged(facts(slot)))
    changes = source.subscribe()
    telling = asyncio.ensure_future(source.run())

    async def status() -> Status:
        async for told in changes:
            if told.event == "status":
                return decode(Status, told.data)
        raise EOFError

    async with asyncio.timeout(20):
        while not decode(Change, (await anext(changes)).data).classes:
            pass
        source.stage = "running"
        told = await status()
        assert (told.stage, len(told.paths)) == ("running", 12)
        source.config = ConfigStatus("hub.yaml", "1" * 12, 1.0)
        engine.handle(IntentChanged(intent(peers=[peer("s0", 2)])))
        told = await status()
        assert told.config.digest == "1" * 12
        assert {row.site for row in told.paths} == {"s0"}
        assert {row.site for row in told.classes} == {"s0", INTERNET}
        refused = (ConfigProblem("/uplinks", 1, 1, "wrong", ""),)
        source.config = ConfigStatus("hub.yaml", "1" * 12, 1.0, refused)
        assert (await status()).config.refused == refused
        assert decode(Change, (await anext(changes)).data).warnings is not None
    telling.cancel()
    await asyncio.wait([telling])
    engine.close()


async def test_names_that_are_not_configured_are_told_with_those_that_are(tmp_path: Path) -> None:
    source = _source(_hub(2), tmp_path)
    source.look_up(None, None)
    for site in ("s0", "s1", INTERNET):
        source.look_up(ClassName("voice"), SiteName(site))
    with pytest.raises(UnknownName, match="no class 'mars': the configuration has default, voice"):
        source.look_up(ClassName("mars"), None)
    with pytest.raises(UnknownName, match="no site 'mars': the configuration has internet, s0, s1"):
        source.look_up(None, SiteName("mars"))
