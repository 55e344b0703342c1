import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import boot
from lab.boot import GuestOptions, find_oops, run_packed
from lab.image import Image

QUIET = "lab: runner ended with 0\n[   4.2] reboot: Power down\n"
STEP_S = 10.0


def test_an_oops_is_shown_from_its_first_line_on() -> None:
    console = "boot\nBUG: kernel NULL pointer dereference\nOops: 0002\nKernel panic - not syncing\n"
    assert find_oops(console) == console.removeprefix("boot\n")


def test_a_quiet_console_has_none() -> None:
    assert find_oops(QUIET) == ""


class Guest:
    """A guest that reports one event in each ten seconds, and the time that it lives in."""

    def __init__(self, directory: Path, events: Iterator[str]) -> None:
        self.now = 0.0
        self._results, self._events = directory / "results.jsonl", events
        (directory / "console.log").touch()

    def monotonic(self) -> float:
        return self.now

    def sleep(self, _: float) -> None:
        self.now += STEP_S

    def __call__(self, *_: Any, **__: Any) -> "Guest":
        return self

    def __enter__(self) -> "Guest":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def kill(self) -> None:
        pass

    def poll(self) -> int | None:
        event = next(self._events, None)
        if event is None:
            return 0
        with self._results.open("a") as stream:
            stream.write(json.dumps({"event": event}) + "\n")
        return None


@pytest.mark.parametrize(("limit_s", "ends_with"), [(45, "end"), (25, "guest_failed")])
def test_each_story_has_the_time_not_all_of_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit_s: float, ends_with: str
) -> None:
    """A story takes 40 s: it begins, says two things and ends."""
    story = ("story_begin", "say", "say", "story_end")
    guest = Guest(tmp_path, iter([*story, *story, *story, "end"]))
    monkeypatch.setattr(boot, "time", guest)
    monkeypatch.setattr(boot.subprocess, "Popen", guest)
    monkeypatch.setattr(boot, "_new_run_directory", lambda: tmp_path)
    image = Image(tmp_path / "kernel", tmp_path / "root")
    events = list(run_packed(tmp_path / "initrd", image, GuestOptions(timeout_s=limit_s)))
    assert events[-1]["event"] == ends_with
