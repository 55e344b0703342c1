import json
from pathlib import Path
from typing import Any

import pytest

from tests.bench import results
from tests.bench.__main__ import ORDER, _story_of, chosen
from tests.bench.measure import percentile, record
from tests.bench.targets import TARGETS, target

FOLDER = Path(results.__file__).parent


def event(name: str, value: float, **params: Any) -> dict[str, Any]:
    return {"name": name, "value": value, "unit": "s", "params": params}


def entry(name: str, value: float, **params: Any) -> results.Entry:
    return results.make_entry(event(name, value, **params), "lab_x.py::story", {"seed": 1})


def test_every_benchmark_has_a_scenario_and_a_place_in_the_order() -> None:
    assert {t.bench for t in TARGETS} == set(ORDER)
    for bench in ORDER:
        assert (FOLDER / f"lab_{bench}.py").exists()


def test_every_target_is_recorded_by_its_scenario() -> None:
    for each in TARGETS:
        text = (FOLDER / f"lab_{each.bench}.py").read_text()
        stem = each.name.replace("20ms", "{interval_ms}ms").replace("50ms", "{interval_ms}ms")
        assert f'"{stem}"' in text, each.name


@pytest.mark.parametrize(
    ("name", "value", "verdict"),
    [
        ("goodput_ratio", 0.95, True),
        ("goodput_ratio", 0.9499, False),
        ("hub_cold_apply_s", 15.0, True),
        ("hub_cold_apply_s", 15.1, False),
        ("hub_cold_apply_s", float("nan"), False),
        ("sigkill_lost", 1, False),
    ],
)
def test_limits_hold_on_their_own_side(name: str, value: float, verdict: bool) -> None:
    assert target(name).is_met(value) is verdict


class Recorded:
    """What a lab does with a number: it hands out an event."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []

    def record(self, name: str, value: float, unit: str, **params: Any) -> None:
        self.events.append({"name": name, "value": value, "unit": unit, "params": params})


@pytest.mark.parametrize(("value", "verdict"), [(61, False), (60, True)])
def test_a_side_condition_can_miss_a_target(value: float, verdict: bool) -> None:
    lab: Any = Recorded()
    side = {"what": "longest", "value": value, "unit": "ms", "limit": 60}
    record(lab, "flapping_moves_per_min", 0, "moves", samples=[0], also=[side], dead_s=60)
    made = results.make_entry(lab.events[0], "lab_x.py::story", {})
    assert made["conditions"] == {"dead_s": 60}
    assert results.is_met(target("flapping_moves_per_min"), made) is verdict


def test_what_a_story_says_of_the_guest_and_the_rest_are_told_apart() -> None:
    made = entry("x", 2.0, samples=[1, 3], conditions={"a": 1}, guest={"kernel": "6.12"}, peer=None)
    assert made["samples"] == [1, 3]
    assert made["conditions"] == {"a": 1}
    assert made["lab"] == {"seed": 1, "kernel": "6.12"}


def test_new_results_replace_those_of_the_same_name_only(tmp_path: Path) -> None:
    results.store("sigkill", [entry("sigkill_ops", 3), entry("sigkill_lost", 1)], tmp_path)
    results.store("sigkill", [entry("sigkill_ops", 0)], tmp_path)
    listed = json.loads((tmp_path / "sigkill.json").read_text())
    assert [(e["name"], e["value"]) for e in listed] == [("sigkill_lost", 1), ("sigkill_ops", 0)]


def test_tables_say_what_was_missed_and_what_was_not_measured(tmp_path: Path) -> None:
    results.store("sigkill", [entry("sigkill_ops", 0), entry("sigkill_lost", 2)], tmp_path)
    rows = results.rows(tmp_path)
    verdicts = {row.target.name: row.verdict for row in rows}
    assert verdicts["sigkill_ops"] == "met"
    assert verdicts["sigkill_lost"] == "MISSED"
    assert verdicts["hub_rss_mib"] == "not measured"
    for table in (results.text_table(rows), results.markdown_table(rows)):
        assert all(each.name in table for each in TARGETS)
        assert "MISSED" in table


def test_a_document_is_rewritten_between_its_markers_only() -> None:
    document = f"before\n{results.BEGIN}\nold\n{results.END}\nafter\n"
    assert results.rewrite(document, "new") == document.replace("old", "new")
    with pytest.raises(ValueError, match="no <!--"):
        results.rewrite("nothing", "new")


def test_names_of_benchmarks_and_of_numbers_choose() -> None:
    assert chosen(["sigkill_ops"]) == [("sigkill", frozenset({"sigkill_ops"}))]
    assert chosen(["sigkill"]) == [("sigkill", frozenset({"sigkill_ops", "sigkill_lost"}))]
    assert [bench for bench, _ in chosen([])] == list(ORDER)
    with pytest.raises(KeyError, match="nonsense"):
        chosen(["nonsense"])


def test_percentiles_are_samples() -> None:
    samples = [float(n) for n in range(1, 21)]
    assert percentile(samples, 0.95) == 19
    assert percentile(samples, 0.5) == 10
    assert percentile([7.0], 0.95) == 7


def test_a_number_is_measured_by_the_story_that_is_named_after_it() -> None:
    hub = ["story_cold_apply", "story", "story_uplink_death"]
    assert _story_of("hub_cold_apply_s", "hub", hub) == "story_cold_apply"
    assert _story_of("hub_rss_mib", "hub", hub) == "story"
    assert _story_of("hub_uplink_death_ms", "hub", hub) == "story_uplink_death"
    brownout = ["story_delay", "story_loss", "story_loss_traffic"]
    assert _story_of("brownout_loss_traffic_p95_s", "brownout", brownout) == brownout[2]
