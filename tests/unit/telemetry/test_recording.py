"""Reading recordings: whatever stands in the files, no error but the declared one."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.contract.codec import encode
from appliance.contract.decision import Move
from appliance.telemetry.recording import NotARecording, open_recording, read_history
from tests.unit.api.scripted import MOVE

ABOUT = {"run": "a", "wall": 0.0, "now": 0.0, "preamble": 1}


def _write(path: Path, lines: Sequence[object]) -> None:
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("".join(f"{text}\n" for text in texts))


def _moves(directory: Path, *counts: int) -> list[Move]:
    """Files of so many moves each; the moves."""
    moves = [replace(MOVE, at=float(number)) for number in range(sum(counts))]
    rest = iter(moves)
    for number, count in enumerate(counts):
        lines = [encode(next(rest)).decode() for _ in range(count)]
        _write(directory / f"moves-{number:08}.jsonl", lines)
    return moves


@pytest.mark.parametrize("counts", [(7,), (3, 4), (1, 1, 5), (4, 0, 3)])
@pytest.mark.parametrize("limit", [1, 3, 6, 7, 8])
def test_the_newest_moves_of_all_files(tmp_path: Path, counts: tuple[int, ...], limit: int) -> None:
    moves = _moves(tmp_path, *counts)
    history = read_history(tmp_path, limit)
    assert list(history.moves) == moves[-limit:]
    assert history.is_complete == (limit >= 7)


def test_only_the_wanted_count(tmp_path: Path) -> None:
    moves = _moves(tmp_path, 5, 5)
    history = read_history(tmp_path, 2, lambda move: move.at % 2 == 0)
    assert [move.at for move in history.moves] == [6.0, 8.0]
    assert not history.is_complete
    assert read_history(tmp_path, 10, lambda move: move.at == 3).moves == (moves[3],)


@pytest.mark.parametrize("written", range(8))
@pytest.mark.parametrize("taken", range(5))
@pytest.mark.parametrize("limit", [1, 2, 6, 7, 8])
def test_unwritten_moves_are_the_newest_and_told_once(
    tmp_path: Path, written: int, taken: int, limit: int
) -> None:
    moves = _moves(tmp_path, 7)
    (tmp_path / "moves-00000000.jsonl").unlink()
    _write(tmp_path / "moves-00000001.jsonl", [encode(move).decode() for move in moves[:written]])
    first = min(written, 7 - taken)
    history = read_history(tmp_path, limit, unwritten=moves[first:])
    assert list(history.moves) == moves[-limit:]
    assert history.is_complete == (limit >= 7)


def test_damaged_lines_are_left_out(tmp_path: Path) -> None:
    good = encode(MOVE).decode()
    _write(tmp_path / "moves-00000001.jsonl", ["", "{", "[]", "null", "\x00", good, good[:-9]])
    assert read_history(tmp_path, 10).moves == (MOVE,)


def test_no_directory_is_an_empty_history(tmp_path: Path) -> None:
    assert read_history(tmp_path / "none", 10).moves == ()


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["not json"],
        ["[]"],
        [ABOUT | {"preamble": -1}],
        [ABOUT | {"preamble": "1"}],
        [ABOUT | {"run": None}],
        ["[" * 100_000],
        ["x" * (2 << 20)],
    ],
)
def test_what_is_no_recording_is_said_so(tmp_path: Path, lines: Sequence[object]) -> None:
    path = tmp_path / "events-00000001.jsonl"
    _write(path, lines)
    for where in (path, tmp_path):
        with pytest.raises(NotARecording, match="holds no recorded events"):
            open_recording(where)


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_would_never_end_or_begin_is_not_read(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    path = tmp_path / "events-00000001.jsonl"
    make(path)
    with pytest.raises(NotARecording, match=r"events-00000001.jsonl is no regular file"):
        open_recording(path)
    with pytest.raises(NotARecording, match="holds no recorded events"):
        open_recording(tmp_path)


def test_the_last_run_of_a_directory(tmp_path: Path) -> None:
    for number, run in enumerate("aabb"):
        lines = [ABOUT | {"run": run}, f"preamble {number}", f"event {number}"]
        _write(tmp_path / f"events-{number:08}.jsonl", lines)
    assert list(open_recording(tmp_path).lines()) == [b"preamble 2", b"event 2", b"event 3"]


@given(octets=st.binary(max_size=300))
def test_any_octets_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, octets: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "moves-00000001.jsonl"
    path.write_bytes(octets)
    assert read_history(path.parent, 10).moves == ()
    with pytest.raises(NotARecording):
        open_recording(path)
