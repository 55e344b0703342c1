from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lab import share
from lab.boot import Event, GuestOptions, Story
from lab.share import GuestError, SharedGuests, load_durations, split

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


def test_a_story_that_takes_its_guest_with_it_takes_no_other_story(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boots = []

    def run(stories: Sequence[Story], _: GuestOptions) -> Iterator[Event]:
        boots.append([story.function for story in stories])
        for story in stories:
            yield {"event": "story_begin", "t": 0.0, "story": story.id}
            if story.function == "hangs":
                yield {"event": "guest_failed", "t": 0.0, "text": "took too long"}
                return
            yield {"event": "story_end", "t": 1.0, "story": story.id, "ok": True}

    monkeypatch.setattr(share, "run_stories", run)
    monkeypatch.setattr(share, "DURATIONS", tmp_path / "durations.json")
    monkeypatch.setattr(share, "available_slots", lambda: 1)
    first, hangs, last = stories = _stories("first", "hangs", "last")
    guests = SharedGuests(stories)
    assert guests.wait(first)[-1]["ok"]
    assert guests.wait(last)[-1]["ok"]
    with pytest.raises(GuestError, match="took too long"):
        guests.wait(hangs)
    assert boots == [["first", "hangs", "last"], ["last"]]


def test_a_guest_that_does_not_boot_is_told_and_not_tried_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(_: Sequence[Story], __: GuestOptions) -> Iterator[Event]:
        yield {"event": "guest_failed", "t": 0.0, "text": "no kernel"}

    monkeypatch.setattr(share, "run_stories", run)
    monkeypatch.setattr(share, "DURATIONS", tmp_path / "durations.json")
    (story,) = stories = _stories("any")
    with pytest.raises(GuestError, match="no kernel"):
        SharedGuests(stories).wait(story)
