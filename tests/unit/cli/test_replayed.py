"""Where two runs of the same events differ, as intervals."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.cli.replayed import Decided, Difference, Story, decide_again, differ
from appliance.config.load import parse_config
from appliance.contract.ids import ClassName, PathId, Plane, SiteName, Slot
from appliance.core.actions import Cause, MoveClass
from appliance.core.steering import Assignment, Carrier
from appliance.telemetry.recording import open_recording
from tests.unit.cli.recorded import config, write_recording

END = 100.0
PLACES = [(ClassName("voice"), SiteName("hq")), (ClassName("bulk"), SiteName("hq"))]


def _move(place: int, slot: int) -> MoveClass:
    class_name, site = PLACES[place]
    after = Assignment((Carrier(PathId(site, Plane(Slot(slot), Slot(1)))),))
    return MoveClass(class_name, site, Assignment(), after, Cause.INITIAL, "because")


def _decided(*moves: tuple[float, int, int]) -> list[Decided]:
    """(time, place, slot) each."""
    return [Decided(at_s, _move(place, slot)) for at_s, place, slot in moves]


moves = st.lists(
    st.tuples(st.sampled_from([0.0, 1.0, 2.0, 5.0, 9.0]), st.integers(0, 1), st.integers(1, 2)),
    max_size=6,
).map(sorted)


@pytest.mark.parametrize("other", [None, "1 %", "20 %"])
def test_a_gap_counts_once_however_many_runs_there_are(tmp_path: Path, other: str | None) -> None:
    path = tmp_path / "events-00000001.jsonl"
    write_recording(path)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, b'{"gap": 7}\n', b'{"gap": 1}\n']))
    intent = None if other is None else parse_config(config(other), "other.yaml")
    story = decide_again(open_recording(path), intent)
    assert (story.events, story.gaps) == (len(lines) - 1, 2)
    assert story.seconds == 1599 / 4
    assert len(story.moves) > 2
    assert bool(story.differences) == (other == "20 %")


def test_a_recording_without_events_decides_nothing(tmp_path: Path) -> None:
    path = tmp_path / "events-00000001.jsonl"
    path.write_text('{"run": "a", "wall": 1750000000.0, "now": 100.0, "preamble": 0}\n')
    assert decide_again(open_recording(path), None) == Story(0.0, 0, 0, (), None)


def test_an_interval_has_both_sides_and_its_length() -> None:
    recorded = _decided((0, 0, 1), (30, 0, 2), (70, 0, 1))
    found = list(differ(recorded, _decided((0, 0, 1)), END))
    assert found == [Difference(30, 40, PLACES[0], _move(0, 2), _move(0, 1))]


def test_a_difference_lasts_to_the_end_when_nothing_ends_it() -> None:
    found = list(differ(_decided((0, 0, 1)), _decided((0, 0, 1), (60, 0, 2)), END))
    assert [(one.at_s, one.lasts_s) for one in found] == [(60, 40)]


def test_a_run_that_has_no_such_class_differs() -> None:
    (found,) = differ(_decided((10, 1, 1)), [], END)
    assert (found.recorded, found.other) == (_move(1, 1), None)
    assert (found.at_s, found.lasts_s) == (10, 90)


@given(run=moves)
def test_a_run_does_not_differ_from_itself(run: list[tuple[float, int, int]]) -> None:
    assert list(differ(_decided(*run), _decided(*run), END)) == []


@given(first=moves, second=moves)
def test_intervals_cover_exactly_the_moments_that_differ(
    first: list[tuple[float, int, int]], second: list[tuple[float, int, int]]
) -> None:
    """Checked against looking at every moment between two moves."""
    found = list(differ(_decided(*first), _decided(*second), END))
    for place in (0, 1):
        for moment in (0.5, 1.5, 3.0, 7.0, 50.0):
            sides = [
                next(
                    (slot for at, where, slot in reversed(run) if where == place and at <= moment),
                    0,
                )
                for run in (first, second)
            ]
            covers = [
                one
                for one in found
                if one.place == PLACES[place] and one.at_s <= moment < one.at_s + one.lasts_s
            ]
            assert len(covers) == (sides[0] != sides[1])
