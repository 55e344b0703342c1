"""Run many stories in as few guest boots as the machine can run side by side.

Used by the tests: each one asks for its own story and waits for it. Which guest runs what is
decided by how long every story took the last time.
"""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Condition, Thread

from lab.boot import Event, GuestOptions, Story, run_stories
from lab.console import render
from lab.image import CACHE
from lab.slots import available_slots

DURATIONS = CACHE / "durations.json"
MOST_GUESTS = 2
_UNKNOWN_S = 30.0  # wall time taken for granted for a story that never ran


class GuestError(Exception):
    """A story never ended, because its guest did not. The text says what was seen."""


class SharedGuests:
    """Starts at once; every story runs, whether somebody waits for it or not."""

    def __init__(self, stories: Sequence[Story], options: GuestOptions | None = None) -> None:
        self._options = options or GuestOptions()
        self._changed = Condition()
        self._events: dict[str, list[Event]] = {}  # of the stories that ended
        self._broken: dict[str, str] = {}  # why the others never will
        self._durations = load_durations()
        for share in split(stories, self._durations, min(MOST_GUESTS, available_slots())):
            Thread(target=self._run, args=(share,), daemon=True).start()

    def wait(self, story: Story) -> list[Event]:
        """All events of one story, from `story_begin` to `story_end`. Raises GuestError."""
        with self._changed:
            self._changed.wait_for(lambda: story.id in self._events or story.id in self._broken)
            if story.id in self._events:
                return self._events[story.id]
            raise GuestError(self._broken[story.id])

    def _run(self, stories: Sequence[Story]) -> None:
        """Run these, in another guest from where one ended early: it took its story with it."""
        while stories:
            left = self._run_guest(stories)
            if len(left) == len(stories):
                break
            stories = left

    def _run_guest(self, stories: Sequence[Story]) -> Sequence[Story]:
        """Run these in one guest; those that it did not begin: all when it did not boot."""
        waiting = list(stories)
        begun: Story | None = None
        events: list[Event] = []
        reason = "the guest ended before the story's turn"
        since = time.monotonic()
        try:
            for event in run_stories(stories, self._options):
                if event["event"] == "story_begin":
                    begun, events, since = waiting.pop(0), [], time.monotonic()
                events.append(event)
                if event["event"] == "story_end":
                    self._publish(event["story"], events, time.monotonic() - since)
                    begun, events = None, []  # what follows is no part of the story
                elif event["event"] == "guest_failed":
                    reason = "\n".join(line for each in events for line in render(each))
        except Exception as error:  # noqa: BLE001 - whoever waits must hear of it
            reason = f"{type(error).__name__}: {error}"
        broken = [begun] if begun else waiting if len(waiting) == len(stories) else []
        with self._changed:
            self._broken.update({story.id: reason for story in broken})
            self._changed.notify_all()
        return waiting

    def _publish(self, story: str, events: list[Event], wall_s: float) -> None:
        with self._changed:
            self._events[story] = events
            self._durations[story] = round(wall_s, 1)
            DURATIONS.write_text(json.dumps(self._durations, indent=1, sort_keys=True))
            self._changed.notify_all()


def split(
    stories: Sequence[Story], durations: Mapping[str, float], guests: int
) -> list[list[Story]]:
    """At most that many shares of like duration; the order of the stories is kept in each."""
    shares: list[list[Story]] = [[] for _ in range(guests)]
    loads = [0.0] * guests
    place = {story.id: n for n, story in enumerate(stories)}
    for story in sorted(stories, key=lambda s: -durations.get(s.id, _UNKNOWN_S)):
        least = loads.index(min(loads))
        shares[least].append(story)
        loads[least] += durations.get(story.id, _UNKNOWN_S)
    return [sorted(share, key=lambda s: place[s.id]) for share in shares if share]


def load_durations(path: Path = DURATIONS) -> dict[str, float]:
    """Wall seconds of each story in its last run; empty when there is none."""
    try:
        loaded: dict[str, float] = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return loaded
