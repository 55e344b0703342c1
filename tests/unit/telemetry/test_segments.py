"""Bounded files of lines: what is in them, what goes first, what a crash leaves."""

import os
import shutil
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from appliance.core.codec import MOST_OCTETS
from appliance.telemetry.segments import Segments, files, whole_lines
from tests.unit.telemetry.small_disk import files_of_at_most

New = Callable[..., Segments]


@pytest.fixture
def new() -> Iterator[New]:
    """Makes segments that are closed after the test."""
    made: list[Segments] = []

    def make(directory: Path, **bounds: int) -> Segments:
        made.append(Segments(directory, "events", **bounds))
        return made[-1]

    yield make
    for segments in made:
        segments.close()


def _lines(directory: Path) -> list[bytes]:
    return [line for path in files(directory, "events") for line in whole_lines(path)]


def _line(number: int) -> bytes:
    return b"%09d\n" % number


def test_what_was_appended_is_read_in_order(tmp_path: Path, new: New) -> None:
    segments = new(tmp_path / "new", total_octets=1000)
    segments.append([_line(1), _line(2)])
    segments.append([_line(3)])
    assert _lines(tmp_path / "new") == [b"000000001", b"000000002", b"000000003"]


def test_a_file_that_somebody_removes_is_followed_by_another(tmp_path: Path, new: New) -> None:
    directory = tmp_path / "new"
    segments = new(directory, total_octets=1000)
    segments.append([_line(1)])
    shutil.rmtree(directory)
    segments.append([_line(2)], lambda: [_line(0)])
    segments.append([_line(3)])
    assert _lines(directory) == [b"000000000", b"000000002", b"000000003"]


def test_the_files_never_exceed_their_bound_and_keep_the_newest(tmp_path: Path, new: New) -> None:
    segments = new(tmp_path, total_octets=400, count=4)
    for number in range(1000):
        segments.append([_line(number)])
        assert segments.octets <= 400
    kept = _lines(tmp_path)
    assert kept == [_line(n)[:-1] for n in range(1000 - len(kept), 1000)]
    assert len(kept) >= 30  # three of four files are always full


def test_a_line_that_never_ends_is_given_up_and_so_is_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "events-00000001.jsonl"
    longest = b"x" * MOST_OCTETS
    path.write_bytes(b"first\n" + longest + b"\n" + longest + b"yy\nlast\n")
    lines = list(whole_lines(path))
    assert lines[:2] == [b"first", longest]
    assert lines[2:] == [longest + b"y"]  # longer than an event may be
    with path.open("r+b") as file:
        file.truncate(0)
        file.truncate(1 << 34)  # zeros without end, in a file that takes no room
    assert [len(line) for line in whole_lines(path)] == [MOST_OCTETS + 1]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_has_no_lines(tmp_path: Path, make: Callable[[Path], None]) -> None:
    path = tmp_path / "events-00000001.jsonl"
    make(path)
    assert list(whole_lines(path)) == []


def test_a_batch_larger_than_a_file_gets_its_own(tmp_path: Path, new: New) -> None:
    segments = new(tmp_path, total_octets=400, count=4)
    segments.append([_line(0)])
    segments.append([_line(n) for n in range(1, 31)])
    assert len(_lines(tmp_path)) == 31
    assert segments.octets <= 400


def test_every_file_begins_with_the_head(tmp_path: Path, new: New) -> None:
    segments = new(tmp_path, total_octets=400, count=4)
    heads = count()
    for number in range(25):
        segments.append([_line(number)], lambda: [b"head %d\n" % next(heads)])
    first = [next(whole_lines(path)) for path in files(tmp_path, "events")]
    assert first == [b"head 0", b"head 1", b"head 2"]


def test_another_process_begins_another_file(tmp_path: Path, new: New) -> None:
    new(tmp_path, total_octets=400).append([_line(1)])
    with (tmp_path / "events-00000001.jsonl").open("ab") as file:
        file.write(b"cut sho")
    new(tmp_path, total_octets=400).append([_line(2)])
    assert [path.name for path in files(tmp_path, "events")] == [
        "events-00000001.jsonl",
        "events-00000002.jsonl",
    ]
    assert _lines(tmp_path) == [b"000000001", b"000000002"]


def test_after_a_full_disk_no_line_is_broken(tmp_path: Path, new: New) -> None:
    segments = new(tmp_path, total_octets=400)
    segments.append([_line(0)])
    with files_of_at_most(25):
        segments.append([_line(1)])
        with pytest.raises(OSError, match="too large"):
            segments.append([_line(2)])
    assert files(tmp_path, "events")[0].stat().st_size == 25  # the third line is cut short
    segments.append([_line(9)])
    assert _lines(tmp_path) == [b"000000000", b"000000001", b"000000009"]


def test_a_disk_that_takes_nothing_leaves_no_empty_files(tmp_path: Path, new: New) -> None:
    segments = new(tmp_path, total_octets=400)
    for _ in range(3):
        with files_of_at_most(0), pytest.raises(OSError, match="too large"):
            segments.append([_line(1)])
    assert list(tmp_path.iterdir()) == []


def test_other_files_of_the_directory_are_not_ours(tmp_path: Path, new: New) -> None:
    for name in ("events-1.jsonl", "events-00000001.jsonl.gz", "moves-00000001.jsonl", "notes"):
        (tmp_path / name).write_text("x" * 500)
    new(tmp_path, total_octets=400).append([_line(1)])
    assert _lines(tmp_path) == [b"000000001"]
    assert len(list(tmp_path.iterdir())) == 5


def test_the_files_are_for_the_service_and_its_group_only(tmp_path: Path, new: New) -> None:
    new(tmp_path / "new", total_octets=400).append([_line(1)])
    assert (tmp_path / "new").stat().st_mode & 0o7777 == 0o750
    assert files(tmp_path / "new", "events")[0].stat().st_mode & 0o7777 == 0o640
