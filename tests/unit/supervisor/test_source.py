"""What a box tells of its decisions: every move is recorded, and `why` has an answer for each."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from appliance.api.source import HistoryQuery
from appliance.contract.ids import PathId
from appliance.contract.status import ConfigStatus, Reloaded
from appliance.core.codec import encode_event
from appliance.core.decide import initial_state
from appliance.core.events import IntentChanged, UplinkChanged
from appliance.stamp.reflector import SessionReflector
from appliance.stamp.sender import SessionSender
from appliance.supervisor import source as module
from appliance.supervisor.engine import Engine
from appliance.supervisor.source import Source
from appliance.supervisor.warnings import Warnings
from appliance.telemetry.recorder import Recorder
from tests.unit.core.examples import facts, intent, peer, uplink

SITES = 100


class _Prober:
    """Where a box without sockets sends what the core asks of its prober."""

    def verify(self, path: PathId, alternative: PathId | None) -> None: ...
    def set_interval(self, path: PathId, interval_s: float) -> None: ...


def _hub() -> Engine:
    """A hub that knows its uplinks and whose classes have their first paths."""
    engine = Engine(
        initial_state(),
        prober=_Prober(),
        steer=lambda _ops: None,
        is_in_force=lambda: True,
        on_drift=lambda: pytest.fail("nothing drifts"),
    )
    engine.handle(IntentChanged(intent(peers=[peer(f"s{n}", n + 2) for n in range(SITES)])))
    return engine


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
    assert {(m.class_name, m.site) for m in history.moves} == {
        (name, f"s{n}") for name in ("voice", "default") for n in range(SITES)
    }
    for move in history.moves:
        assert (move.cause, move.after[0].path) == ("uplink-down", f"{move.site}/2-1")
        why = source.why(move.class_name, move.site)  # type: ignore[arg-type]
        assert (why.reason, why.cause, why.carriers) == (move.reason, move.cause, move.after)
        assert [each.path for each in why.candidates if each.carries] == [f"{move.site}/2-1"]
    evidence = [move.evidence for move in history.moves if move.evidence]
    assert 8 <= len(evidence) < len(history.moves) / 2
    assert all(len(candidates) == 4 for candidates in evidence)
    logged = [record.message for record in caplog.records]
    assert 16 <= logged.count("moved") < len(history.moves)
    assert 0 < logged.count("more than the log takes") <= logged.count("moved")

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
    recorder = Recorder(tmp_path, "run", encode_event, lambda trouble: pytest.fail(str(trouble)))
    reflector = SessionReflector(key=bytes(range(32)), session_rate=1, session_burst=1)
    box = SimpleNamespace(
        engine=engine,
        warnings=Warnings(),
        reconciler=SimpleNamespace(ops={}, ops_failed=0),
        prober=SimpleNamespace(sent=0, answered=0),
        reflection=SimpleNamespace(reflector=reflector),
    )
    config = ConfigStatus("hub.yaml", "0" * 12, 0.0)
    source = Source(box, recorder, tmp_path, config, _reload)  # type: ignore[arg-type]
    ours = SessionSender(1, key=bytes(range(32)))
    theirs = SessionSender(2, key=bytes(32))
    for packet in (b"short", theirs.probe(1), theirs.probe(2), *(ours.probe(n) for n in range(4))):
        reflector.reflect(packet, b"somebody", 10, 10, 64)
    counters = source.status().counters
    assert counters.probes_refused == {"malformed": 1, "forged": 2, "limited": 3}
    assert counters.probes_reflected == 1
    engine.close()
