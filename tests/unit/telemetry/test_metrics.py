"""Metrics of the scripted status, read back by the parser that Prometheus users have."""

import asyncio
from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance.contract.status import Status
from appliance.telemetry.metrics import render_metrics
from tests.unit.api.scripted import STATUS


async def rendered(status: Status) -> str:
    return b"".join([piece async for piece in render_metrics(status)]).decode()


def _samples(status: Status) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    found: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
    for family in text_string_to_metric_families(asyncio.run(rendered(status))):
        for sample in family.samples:
            key = sample.name, frozenset(sample.labels.items())
            assert key not in found
            found[key] = sample.value
    return found


def _value(name: str, **labels: str) -> float | None:
    return _samples(STATUS).get((f"branchline_{name}", frozenset(labels.items())))


FIBRE = {"site": "hq", "plane": "1-1", "uplinks": "fibre - fibre"}
LTE = {"site": "hq", "plane": "2-1", "uplinks": "lte - fibre"}


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("info", {"site": "branch-a", "version": "0.1.0"}, 1),
        ("path_delay_seconds", FIBRE, 0.0201),
        ("path_jitter_seconds", FIBRE, 0.0006),
        ("path_loss_ratio", FIBRE, 0.031),
        ("path_mos", FIBRE, 3.52),
        ("path_mtu_bytes", FIBRE, 1420),
        ("path_up", FIBRE, 1),
        ("path_up", LTE, 0),
        ("path_delay_seconds", LTE, None),
        ("uplink_state", {"uplink": "modem", "label": "lte", "state": "down"}, 1),
        ("class_carrier_weight", {"class": "bulk", "site": "hq", "path": "hq/1-1"}, 3),
        ("class_meets_sla", {"class": "default", "site": "hq"}, 0),
        ("class_meets_sla", {"class": "bulk", "site": "hq"}, None),
        ("moves_total", {"cause": "sla-violated"}, 1),
        ("ops_total", {"kind": "route"}, 12),
        ("probes_sent_total", {}, 500),
        ("probes_refused_total", {"why": "forged"}, 7),
        ("loop_late_max_seconds", {}, 0.004),
        ("warning", {"code": "uplink-down", "subject": "modem", "severity": "critical"}, 1),
        ("recorder_up", {}, 1),
    ],
)
def test_a_measure_of_the_status(name: str, labels: dict[str, str], value: float | None) -> None:
    assert _value(name, **labels) == value


def test_a_recorder_in_trouble_is_down() -> None:
    status = replace(STATUS, recorder=replace(STATUS.recorder, trouble="disk full", dropped=7))
    samples = _samples(status)
    assert samples["branchline_recorder_up", frozenset()] == 0
    assert samples["branchline_recorder_dropped_total", frozenset()] == 7


def test_a_name_may_hold_any_character() -> None:
    odd = replace(STATUS.uplinks[0], label='a"b\\c\nd')
    samples = _samples(replace(STATUS, uplinks=(odd,)))
    labels = frozenset({"uplink": "fibre", "label": 'a"b\\c\nd', "state": "up"}.items())
    assert samples["branchline_uplink_state", labels] == 1


def test_the_memory_of_the_process_is_told() -> None:
    assert (_samples(STATUS)["process_resident_memory_bytes", frozenset()]) > 1 << 20
