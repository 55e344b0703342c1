"""A recording decided again: what moved, and what would have moved under another configuration.

Both runs see the same events. A class toward a site is carried somewhere at every moment; where
the two runs differ is told as intervals, with the sentence of each side that led there.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import click

from appliance.cli import words
from appliance.config.intent import Intent
from appliance.contract.ids import ClassName, SiteName
from appliance.core.actions import MoveClass
from appliance.core.codec import decode_event
from appliance.core.events import Event
from appliance.core.replay import replay_events
from appliance.core.steering import Assignment
from appliance.telemetry.recording import Recording

Place = tuple[ClassName, SiteName]


@dataclass(frozen=True, slots=True)
class Decided:
    """A move, at so many seconds after the beginning of the recording."""

    at_s: float
    move: MoveClass


@dataclass(frozen=True, slots=True)
class Difference:
    """From `at_s` on, for `lasts_s`, the two runs carry a class differently.

    A side is None when that run has not decided about the class yet, or does not have it.
    """

    at_s: float
    lasts_s: float
    place: Place
    recorded: MoveClass | None
    other: MoveClass | None


@dataclass(frozen=True, slots=True)
class Story:
    """What a recording decides. `differences` is None without another configuration."""

    seconds: float
    events: int
    gaps: int
    moves: tuple[Decided, ...]
    differences: tuple[Difference, ...] | None


def decide_again(recording: Recording, other: Intent | None) -> Story:
    """Raises RecordingError, and OSError when the files cannot be read."""
    lines: Iterable[bytes] = recording.lines()
    if other is not None:
        lines = list(lines)  # both runs see the same, though the recorder goes on with its files
    span = _Span()
    moves = tuple(_moves(lines, None, span))
    differences = None
    if other is not None:
        differences = tuple(differ(moves, _moves(lines, other, _Span()), span.seconds))
    return Story(span.seconds, span.events, recording.gaps, moves, differences)


@dataclass(slots=True)
class _Span:
    """What is known of events when they have gone by: decoded, all of them would fill a box."""

    events: int = 0
    began: float = 0.0
    ended: float = 0.0

    @property
    def seconds(self) -> float:
        return self.ended - self.began

    def pass_by(self, events: Iterable[tuple[float, Event]]) -> Iterator[tuple[float, Event]]:
        for now, event in events:
            if not self.events:
                self.began = now
            self.ended = now
            self.events += 1
            yield now, event


def _moves(lines: Iterable[bytes], other: Intent | None, span: _Span) -> Iterator[Decided]:
    events = span.pass_by(map(decode_event, lines))
    for now, actions in replay_events(events, other):
        for action in actions:
            if isinstance(action, MoveClass):
                yield Decided(now - span.began, action)


def differ(
    recorded: Iterable[Decided], others: Iterable[Decided], until_s: float
) -> Iterator[Difference]:
    """Where two runs carry a class differently, in order of time. Pure."""
    sides: dict[Place, list[MoveClass | None]] = {}
    since: dict[Place, float] = {}
    found: list[Difference] = []

    def settle(place: Place, at_s: float) -> None:
        """The interval that began at the last move of either side ends here."""
        first, second = sides.get(place, [None, None])
        began = since.get(place, 0.0)
        if at_s > began and _goes(first) != _goes(second):
            found.append(Difference(began, at_s - began, place, first, second))
        since[place] = at_s

    steps = [(d.at_s, 0, d.move) for d in recorded] + [(d.at_s, 1, d.move) for d in others]
    for at_s, side, move in sorted(steps, key=lambda step: step[:2]):
        place = (move.class_name, move.site)
        settle(place, at_s)
        sides.setdefault(place, [None, None])[side] = move
    for place in list(sides):
        settle(place, until_s)
    yield from sorted(found, key=lambda one: (one.at_s, one.place))


def _goes(move: MoveClass | None) -> Assignment | None:
    return None if move is None else move.after


def show(story: Story) -> None:
    """Print it for people."""
    what = f"{words.count(story.events, 'event')} over {words.duration(story.seconds)}"
    click.echo(f"{what}, {words.count(len(story.moves), 'move')}")
    if story.gaps:
        click.echo(f"{words.count(story.gaps, 'gap')} in the recording: decisions may differ there")
    if story.differences is None:
        for decided in story.moves:
            click.echo(f"{_at(decided.at_s)}  {decided.move.reason} [{_cause(decided.move)}]")
        return
    if not story.differences:
        click.echo("the other configuration decides the same")
    for difference in story.differences:
        class_name, site = difference.place
        click.echo(
            f"{_at(difference.at_s)}  {class_name} to {site} differs for"
            f" {words.duration(difference.lasts_s)}"
        )
        click.echo(f"    recorded: {_side(difference.recorded)}")
        click.echo(f"    other:    {_side(difference.other)}")


def as_json(story: Story) -> dict[str, Any]:
    """The same for programs."""
    return {
        "seconds": story.seconds,
        "events": story.events,
        "gaps": story.gaps,
        "moves": [{"at_s": decided.at_s, **_told(decided.move)} for decided in story.moves],
        "differences": story.differences
        and [
            {
                "at_s": one.at_s,
                "lasts_s": one.lasts_s,
                "class_name": one.place[0],
                "site": one.place[1],
                "recorded": one.recorded and _told(one.recorded),
                "other": one.other and _told(one.other),
            }
            for one in story.differences
        ],
    }


def _told(move: MoveClass) -> dict[str, Any]:
    return {
        "class_name": move.class_name,
        "site": move.site,
        "carriers": [{"path": str(c.path), "weight": c.weight} for c in move.after.carriers],
        "cause": move.cause.value,
        "is_voluntary": move.is_voluntary,
        "reason": move.reason,
    }


def _side(move: MoveClass | None) -> str:
    if move is None:
        return "nothing decided"
    over = " + ".join(str(c.path.plane) for c in move.after.carriers) or words.DISCARDED
    return f"{over} [{_cause(move)}] {move.reason}"


def _cause(move: MoveClass) -> str:
    return words.CAUSES[move.cause.value]


def _at(seconds: float) -> str:
    return f"+{seconds:9.3f} s"
