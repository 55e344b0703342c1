"""The rates of a line: given, or learned between two."""

import pytest

from appliance.config.intent import Shaping
from appliance.config.load import parse_config
from appliance.config.scalars import parse_rate, render_rate
from tests.unit.config.files import SOUND, changed, problems_of

UPLINK = "device: eth0"


def shaped(shaping: str) -> str:
    return changed(UPLINK, f"{UPLINK}\n    shaping: {shaping}")


def read(shaping: str) -> Shaping | None:
    return parse_config(shaped(shaping), "box.yaml").uplinks[0].shaping


def test_a_rate_is_given_or_learned_between_two() -> None:
    found = read("{up: {min: 2 Mbit/s, max: 30 Mbit/s}, down: 95 Mbit/s, overhead: 30}")
    assert found == Shaping(30_000_000, 95_000_000, 30, up_least_bps=2_000_000)
    assert found.bounds("up") == (2_000_000, 30_000_000)
    assert found.bounds("down") == (95_000_000, 95_000_000)
    assert found.is_learned("up")
    assert not found.is_learned("down")


def test_equal_bounds_are_a_rate() -> None:
    same = "{min: 20 Mbit/s, max: 20 Mbit/s}"
    assert read(f"{{up: {same}, down: {same}}}") == Shaping(20_000_000, 20_000_000)
    assert parse_config(SOUND, "box.yaml").uplinks[0].shaping is None


@pytest.mark.parametrize(
    ("shaping", "said"),
    [
        (
            "{up: {min: 30 Mbit/s, max: 2 Mbit/s}, down: 95 Mbit/s}",
            "/uplinks/0/shaping/up/min: 30 Mbit/s is more than `max` (at most 2 Mbit/s)",
        ),
        (
            "{up: {min: 2 Mbit/s}, down: 95 Mbit/s}",
            "/uplinks/0/shaping/up: `max` is missing (as in `max: 60 Mbit/s`)",
        ),
        (
            "{up: fast, down: 95 Mbit/s}",
            '/uplinks/0/shaping/up: "fast" is no rate '
            "(a number and kbit/s, Mbit/s or Gbit/s: 20 Mbit/s)",
        ),
        (
            "{up: [1 Mbit/s, 2 Mbit/s], down: 95 Mbit/s}",
            "/uplinks/0/shaping/up: a list is no rate "
            "(a number and kbit/s, Mbit/s or Gbit/s: 20 Mbit/s)",
        ),
        (
            "{up: {min: 2 Mbit/s, most: 9 Mbit/s, max: 8 Mbit/s}, down: 95 Mbit/s}",
            '/uplinks/0/shaping/up/most: unknown key "most" (leave it out)',
        ),
        (
            "{up: {min: 1 kbit/s, max: 8 Mbit/s}, down: 95 Mbit/s}",
            '/uplinks/0/shaping/up/min: "1 kbit/s" is out of range (from 100 kbit/s to 10 Gbit/s)',
        ),
    ],
)
def test_what_is_wrong_is_told(shaping: str, said: str) -> None:
    (problem,) = problems_of(shaped(shaping))
    assert f"{problem.pointer}: {problem.message} ({problem.hint})" == said


@pytest.mark.parametrize("text", ["2 Mbit/s", "512 kbit/s", "10 Gbit/s", "0.001 kbit/s"])
def test_a_rate_is_written_as_it_would_be_read(text: str) -> None:
    assert render_rate(parse_rate(text)) == text
