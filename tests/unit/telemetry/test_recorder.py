"""The recorder: what it keeps can be decided again, whatever happens to the disk or the process."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import IPv4Interface
from pathlib import Path
from threading import Event as Flag
from threading import Timer
from typing import Any

import pytest

from appliance.config.load import load_config
from appliance.contract.ids import ClassName, PathId, Plane, SiteName, Slot
from appliance.core.codec import decode_event, encode_event
from appliance.core.decide import decide, initial_state
from appliance.core.events import (
    DeadlinePassed,
    Event,
    IntentChanged,
    LoopStalled,
    PathsSampled,
    SteeringAdopted,
    UplinkChanged,
    UplinkFacts,
)
from appliance.core.replay import recall
from appliance.core.steering import Assignment, Carrier
from appliance.stamp.sample import Sample
from appliance.telemetry import recorder as module
from appliance.telemetry.recorder import Recorder
from appliance.telemetry.recording import open_recording, read_history
from appliance.telemetry.segments import Segments, files
from tests.unit.api.scripted import MOVE
from tests.unit.telemetry.small_disk import files_of_at_most

INTENT = IntentChanged(load_config(Path(__file__).parents[3] / "examples" / "branch.yaml"))
VOICE, CLOUD = ClassName("voice"), SiteName("cloud")
FIBRE, LTE = Plane(Slot(1), Slot(1)), Plane(Slot(2), Slot(1))


def _on(plane: Plane) -> Assignment:
    return Assignment((Carrier(PathId(CLOUD, plane)),))


STATE = initial_state()
SAMPLED = PathsSampled(((PathId(CLOUD, FIBRE), Sample(sent=10, answered=10)),))


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "FLUSH_S", 0.001)
    monkeypatch.setattr(module, "RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(module, "RETRY_LAST_S", 0.002)


def _new(directory: Path, troubles: list[str | None] | None = None, run: str = "run") -> Recorder:
    told = [] if troubles is None else troubles
    return Recorder(directory, run, encode_event, told.append)


@asynccontextmanager
async def _writing(recorder: Recorder) -> AsyncIterator[Recorder]:
    """The recorder writes while the context lasts."""
    async with asyncio.timeout(20):
        task = asyncio.ensure_future(recorder.run())
        await asyncio.sleep(0)
        try:
            yield recorder
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _until(is_so: Callable[[], bool]) -> None:
    while not is_so():  # noqa: ASYNC110 - bounded by the timeout of `_writing`
        await asyncio.sleep(0.001)


def _octets(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.iterdir())


def _read(path: Path) -> list[tuple[float, Event]]:
    return [decode_event(line) for line in open_recording(path).lines()]


async def test_what_was_recorded_can_be_decided_again(tmp_path: Path) -> None:
    events = [(1.0, INTENT), (1.5, SteeringAdopted()), (2.25, SAMPLED), (3.0, DeadlinePassed())]
    async with _writing(_new(tmp_path)) as recorder:
        for now, event in events:
            recorder.record_event(now, event, STATE)
    assert _read(tmp_path) == events


async def test_a_move_is_told_with_its_evidence(tmp_path: Path) -> None:
    async with _writing(_new(tmp_path)) as recorder:
        recorder.record_move(MOVE)
        await _until(lambda: bool(read_history(tmp_path, 10).moves))
    assert read_history(tmp_path, 10).moves == (MOVE,)


async def test_cancelling_loses_nothing_that_was_recorded_before(tmp_path: Path) -> None:
    async with _writing(_new(tmp_path)) as recorder:
        await asyncio.sleep(0)
        recorder.record_event(1.0, INTENT, STATE)
        recorder.record_move(MOVE)
    assert _read(tmp_path) == [(1.0, INTENT)]
    assert read_history(tmp_path, 10).moves == (MOVE,)


@pytest.mark.parametrize("is_hanging", [False, True])
async def test_the_end_waits_for_a_slow_disk_and_not_for_one_that_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_hanging: bool
) -> None:
    begun, may_end = Flag(), Flag()
    append = Segments.append

    def slowly(segments: Segments, *what: Any) -> None:
        begun.set()
        assert may_end.wait(20)
        append(segments, *what)

    monkeypatch.setattr(module, "END_S", 0.01 if is_hanging else 20)
    monkeypatch.setattr(Segments, "append", slowly)
    async with _writing(_new(tmp_path)) as recorder:
        recorder.record_event(1.0, INTENT, STATE)
        await _until(begun.is_set)
        recorder.record_event(2.0, LoopStalled(0.1), STATE)
        if not is_hanging:
            Timer(0.1, may_end.set).start()
    assert (files(tmp_path, "events") == []) == is_hanging
    may_end.set()
    assert recorder._thread.finish(20)
    assert _read(tmp_path) == [(1.0, INTENT), (2.0, LoopStalled(0.1))]


async def test_the_disk_is_never_used_beyond_the_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVENTS_OCTETS", 40_000)
    monkeypatch.setattr(module, "MOVES_OCTETS", 20_000)
    async with _writing(_new(tmp_path)) as recorder:
        recorder.record_event(0.0, INTENT, STATE)
        for number in range(50):
            for now in range(10):
                recorder.record_event(100.0 * number + 10 * now, SAMPLED, STATE)
            recorder.record_move(replace(MOVE, at=number))
            await _until(lambda: not recorder.is_waiting)
            assert _octets(tmp_path) <= 60_000
        assert recorder.status.octets <= 60_000
    moves = [move.at for move in read_history(tmp_path, 100).moves]
    assert moves == list(range(50 - len(moves), 50))
    assert 5 < len(moves) < 50


async def test_when_the_beginning_is_gone_the_preamble_stands_in_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVENTS_OCTETS", 40_000)
    facts = UplinkFacts(
        Slot(1), has_device=True, has_carrier=True, addresses=(IPv4Interface("192.0.2.1/24"),)
    )
    adopted = SteeringAdopted(((VOICE, CLOUD, _on(LTE)),), ((LTE, FIBRE),))
    state = initial_state()
    async with _writing(_new(tmp_path)) as recorder:
        for event in (INTENT, adopted, UplinkChanged(facts)):
            state, _ = decide(state, event, 0.0)
            recorder.record_event(0.0, event, state)
        for now in range(600):
            recorder.record_event(10.0 + now, SAMPLED, state)
            await _until(lambda: not recorder.is_waiting)
    read, preamble = _read(tmp_path), recall(state)
    assert [event for _, event in read[: len(preamble)]] == preamble
    assert preamble[:2] == [INTENT, adopted]
    assert {type(event) for _, event in read[len(preamble) :]} == {PathsSampled}
    assert [now for now, _ in read] == sorted(now for now, _ in read)  # none is told twice


async def test_too_many_samples_leave_a_gap_but_nothing_else_is_left_out(tmp_path: Path) -> None:
    many = PathsSampled(SAMPLED.samples * 150)
    async with _writing(_new(tmp_path)) as recorder:
        for now in (1000.0, 1000.1, 1000.2):
            recorder.record_event(now, many, STATE)
        recorder.record_event(1000.3, LoopStalled(0.1), STATE)
        recorder.record_event(1001.2, many, STATE)
    recording = open_recording(tmp_path)
    times = [decode_event(line)[0] for line in recording.lines()]
    assert times == [1000.0, 1000.3, 1001.2]
    assert recording.gaps == 1


async def test_a_full_disk_is_told_and_writing_is_tried_again(tmp_path: Path) -> None:
    troubles: list[str | None] = []
    async with _writing(_new(tmp_path, troubles)) as recorder:
        recorder.record_event(1.0, INTENT, STATE)
        await _until(lambda: not recorder.is_waiting)
        with files_of_at_most(0):
            recorder.record_event(2.0, LoopStalled(0.1), STATE)
            recorder.record_move(MOVE)
            await _until(lambda: bool(troubles))
            assert recorder.status.trouble == troubles[0]
            recorder.record_event(3.0, LoopStalled(0.2), STATE)
            await _until(lambda: recorder.status.dropped == 3)
        await _until(lambda: recorder.status.trouble is None)
        recorder.record_event(4.0, LoopStalled(0.3), STATE)
    assert troubles == [f"{tmp_path}: File too large", None]
    recording = open_recording(tmp_path)
    events = [decode_event(line) for line in recording.lines()]
    assert events == [(1.0, INTENT), (4.0, LoopStalled(0.3))]
    assert recording.gaps == 1  # where the disk was full


async def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    troubles: list[str | None] = []
    directory = tmp_path / "file" / "recordings"
    async with _writing(_new(directory, troubles)) as recorder:
        recorder.record_move(MOVE)
        await _until(lambda: bool(troubles))
        (tmp_path / "file").unlink()
        await _until(lambda: recorder.status.trouble is None)
        recorder.record_move(MOVE)
    assert troubles == [f"{directory}: Not a directory", None]
    assert read_history(directory, 10).moves == (MOVE,)


async def test_a_disk_that_hangs_does_not_fill_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_AT_MOST", 5)
    recorder = _new(tmp_path)
    for _ in range(20):
        recorder.record_event(1.0, LoopStalled(0.1), STATE)
        recorder.record_move(MOVE)
    assert recorder.status.dropped == 30
    async with _writing(recorder):
        pass
    assert len(read_history(tmp_path, 100).moves) == 5


async def test_each_run_is_a_recording_of_its_own(tmp_path: Path) -> None:
    for run, now in (("first", 5000.0), ("second", 10.0)):
        async with _writing(_new(tmp_path, run=run)) as recorder:
            recorder.record_event(now, INTENT, STATE)
            recorder.record_move(replace(MOVE, at=now))
    assert _read(tmp_path) == [(10.0, INTENT)]
    assert _read(files(tmp_path, "events")[0]) == [(5000.0, INTENT)]
    assert [move.at for move in read_history(tmp_path, 10).moves] == [5000.0, 10.0]


def test_a_process_that_is_killed_leaves_whole_lines(tmp_path: Path) -> None:
    """SIGKILL while it writes as fast as it can; what is read back has no hole in it."""
    argv = [sys.executable, "-m", "tests.unit.telemetry.endless_writer", str(tmp_path)]
    with subprocess.Popen(argv, cwd=Path(__file__).parents[3]) as writer:
        while len(files(tmp_path, "events")) < 2:
            assert writer.poll() is None
        writer.kill()
    with files(tmp_path, "events")[-1].open("ab") as file:
        file.write(b'{"now": 7.0, "ev')  # what a power cut leaves
    times = [now for now, event in _read(tmp_path) if isinstance(event, LoopStalled)]
    assert len(times) > 1000
    assert times == [times[0] + place for place in range(len(times))]
