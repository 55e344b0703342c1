"""Collect the scenario files `lab_*.py` of this folder: every story is one test.

All selected stories share the guests of lab/share.py, started when the first of them is run.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab.boot import Story
from lab.console import render
from lab.scenario import find_stories
from lab.share import GuestError, SharedGuests


class StoryError(Exception):
    """What the story said, and which of it was not true."""


class StoryItem(pytest.Item):
    """One story as a test."""

    story: Story

    def runtest(self) -> None:
        events = _guests(self.session).wait(self.story)
        told = "\n".join(line for event in events for line in render(event))
        self.add_report_section("call", "story", told)
        for event in events:
            if event["event"] == "record":
                self.user_properties.append((event["name"], f"{event['value']} {event['unit']}"))
        if not events[-1]["ok"]:
            raise StoryError(told)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> str:
        if isinstance(excinfo.value, StoryError | GuestError):
            return str(excinfo.value)
        return str(super().repr_failure(excinfo, style))

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.path.stem}::{self.name}"


class ScenarioFile(pytest.File):
    def collect(self) -> Iterator[StoryItem]:
        for story in find_stories(self.path):
            item = StoryItem.from_parent(self, name=story.function)
            item.story = story
            yield item


_GUESTS = pytest.StashKey[SharedGuests]()


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> ScenarioFile | None:
    if file_path.name.startswith("lab_") and file_path.suffix == ".py":
        return ScenarioFile.from_parent(parent, path=file_path)
    return None


def _guests(session: pytest.Session) -> SharedGuests:
    if _GUESTS not in session.stash:
        stories = [item.story for item in session.items if isinstance(item, StoryItem)]
        session.stash[_GUESTS] = SharedGuests(stories)
    return session.stash[_GUESTS]
