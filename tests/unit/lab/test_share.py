from pathlib import Path

import pytest

from lab.boot import Story
from lab.share import load_durations, split

FILE = Path("/lab_x.py")


def _stories(*names: str) -> list[Story]:
    return [Story(FILE, name) for name in names]


def test_shares_take_about_as_long_as_each_other_and_keep_the_order() -> None:
    stories = _stories("a", "b", "c", "d")
    durations = {f"lab_x.py::{n}": s for n, s in zip("abcd", (10, 60, 20, 35), strict=True)}
    shares = split(stories, durations, 2)
    assert [[s.function for s in share] for share in shares] == [["b"], ["a", "c", "d"]]


def test_a_story_that_never_ran_counts_too() -> None:
    shares = split(_stories("a", "b"), {}, 2)
    assert [len(share) for share in shares] == [1, 1]


def test_no_guest_without_a_story() -> None:
    assert len(split(_stories("a"), {}, 2)) == 1


@pytest.mark.parametrize("text", ["", "{", None])
def test_durations_that_cannot_be_read_are_none(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "durations.json"
    if text is not None:
        path.write_text(text)
    assert load_durations(path) == {}
