"""Numbers, times and states as people read them."""

import pytest

from appliance.cli import words
from appliance.core.actions import Cause

NOON = 1_750_000_000.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-0.3, "0.0 s"),
        (0.04, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (3659, "1 h"),
        (18_720, "5 h 12 min"),
        (86_400, "1 d"),
        (357_000, "4 d 3 h"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(None, "-"), (0, "0.0 %"), (0.003, "0.3 %"), (0.0996, "10.0 %"), (1, "100 %")],
)
def test_a_ratio(ratio: float | None, text: str) -> None:
    assert words.percent(ratio) == text


@pytest.mark.parametrize(
    ("bps", "text"),
    [
        (None, "-"),
        (0, "0 bit/s"),
        (999, "999 bit/s"),
        (4200, "4.2 kbit/s"),
        (18_400_000, "18 Mbit/s"),
        (1_250_000_000, "1.2 Gbit/s"),
    ],
)
def test_a_rate(bps: int | None, text: str) -> None:
    assert words.rate(bps) == text


def test_what_is_not_measured_is_no_number() -> None:
    unknown = (words.milliseconds(None), words.mos(None), words.ago(None), words.since(None, NOON))
    assert set(unknown) == {words.NOTHING}
    assert words.yes_or_no(None) == words.NOTHING


def test_a_moment_has_its_date_only_when_it_is_another_day() -> None:
    assert len(words.moment(NOON, NOON + 1)) == len("12:00:00")
    assert len(words.moment(NOON - 86_400, NOON)) == len("2025-01-01 12:00:00")


def test_carriers_by_share() -> None:
    fibre = {"path": "hq/1-1", "uplinks": "fibre - fibre", "weight": 3}
    lte = {"path": "hq/2-1", "uplinks": "lte - fibre", "weight": 1}
    assert words.carriers([]) == "discarded"
    assert words.carriers([fibre]) == "fibre - fibre (1-1)"
    assert words.carriers([fibre, lte]) == "fibre - fibre (1-1) 75 % + lte - fibre (2-1) 25 %"


def test_every_cause_has_words() -> None:
    assert set(words.CAUSES) == {cause.value for cause in Cause}


def test_counts() -> None:
    assert words.count(1, "path") == "1 path"
    assert words.count(0, "class", "classes") == "0 classes"
