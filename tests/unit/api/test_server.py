"""Every operation of the API, asked of a real server; every error says what to do next."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.api.problems import PROBLEM_KINDS, DiskHangsError
from appliance.api.requests import BODY_OCTETS
from appliance.api.routes import ROUTES
from appliance.api.source import FlowQuery
from appliance.contract.codec import decode
from appliance.contract.decision import Classified, Flows, History, Why
from appliance.contract.ids import ClassName, SiteName
from appliance.contract.status import Status
from tests.unit.api.running import Answer, Server, running
from tests.unit.api.scripted import (
    CLASSIFIED,
    FLOWS,
    MOVE,
    NOW,
    PLAN,
    REFUSED,
    STATUS,
    WHY,
    ScriptedSource,
)

CONFIG = (Path(__file__).parents[3] / "examples" / "branch.yaml").read_bytes()
YAML = {"Content_Type": "application/yaml"}


def _is_problem(answer: Answer, kind: str) -> bool:
    """A problem of this kind, whose type can be looked up and which says what to do."""
    assert answer.headers["Content-Type"] == "application/problem+json"
    details = answer.json()
    assert details["next_step"]
    assert details["status"] == answer.status == PROBLEM_KINDS[kind].status
    return bool(details["type"] == f"/v1/problems/{kind}")


def test_the_status_is_what_the_source_says(server: Server) -> None:
    assert decode(Status, server.get("/v1/status").body) == STATUS


@pytest.mark.parametrize(
    ("address", "names"),
    [
        ("/v1/uplinks", [{"name": "fibre"}, {"name": "modem"}]),
        ("/v1/paths", [{"path": "hq/1-1"}, {"path": "hq/2-1"}]),
        ("/v1/paths?site=hq", [{"path": "hq/1-1"}, {"path": "hq/2-1"}]),
        ("/v1/paths?site=dc", []),
        ("/v1/classes?class=voice", [{"class_name": "voice"}]),
        ("/v1/classes?class=voice&site=dc", []),
        ("/v1/warnings", [{"code": "uplink-down"}]),
    ],
)
def test_rows_are_a_part_of_the_status(
    server: Server, address: str, names: list[dict[str, str]]
) -> None:
    rows = server.get(address).json()
    assert [{key: row[key] for key in name} for row, name in zip(rows, names, strict=True)] == names


def test_classify_names_the_class_of_a_flow(server: Server) -> None:
    flow = "/v1/classify?from=192.0.2.9&to=198.51.100.7"
    answer = server.get(f"{flow}&protocol=udp&port=5060&dscp=ef&lan=office")
    assert decode(Classified, answer.body) == CLASSIFIED
    assert _is_problem(server.get(f"{flow}&lan=mars"), "unknown-name")
    for wrong in ("port=0", "port=x", "dscp=64", "protocol=gre", "protocol=tcp", "device=02:00"):
        assert _is_problem(server.get(f"{flow}&{wrong}"), "bad-request"), wrong
    for missing in ("from=192.0.2.9", "to=192.0.2.9", "from=host&to=192.0.2.9", ""):
        assert _is_problem(server.get(f"/v1/classify?{missing}"), "bad-request"), missing


def test_flows_are_told_as_many_as_asked_for(server: Server, source: ScriptedSource) -> None:
    assert decode(Flows, server.get("/v1/flows").body) == FLOWS
    one = decode(Flows, server.get("/v1/flows?limit=1&class=bulk").body)
    assert one.flows == FLOWS.flows[:1]
    assert source.flow_queries == [FlowQuery(50, None), FlowQuery(1, ClassName("bulk"))]
    for wrong in ("limit=0", "limit=1001", "site=hq"):
        assert _is_problem(server.get(f"/v1/flows?{wrong}"), "bad-request"), wrong


def test_why_names_the_candidates(server: Server) -> None:
    assert decode(Why, server.get("/v1/why/voice/hq").body) == WHY
    assert _is_problem(server.get("/v1/why/voice/mars"), "unknown-name")


def test_history_passes_the_question_on(server: Server, source: ScriptedSource) -> None:
    answer = server.get(f"/v1/history?limit=1&class=voice&site=hq&since={NOW - 100}")
    assert decode(History, answer.body) == History((MOVE,), is_complete=False)
    assert source.queries[0].limit == 1
    assert source.queries[0].class_name == ClassName("voice")
    assert source.queries[0].site == SiteName("hq")
    assert source.queries[0].since == NOW - 100


def test_the_plan_whole_and_what_is_outstanding(server: Server) -> None:
    assert server.get("/v1/plan").json() == {"commands": list(PLAN), "is_dry_run": False}
    assert server.get("/v1/plan?dry_run=true").json()["commands"] == list(PLAN[1:])


def test_the_plan_of_another_configuration(server: Server, source: ScriptedSource) -> None:
    answer = server.ask("POST", "/v1/plan?dry_run=true", CONFIG, **YAML)
    assert answer.json() == {"commands": list(PLAN[1:]), "is_dry_run": True}
    assert source.candidates[0].site == "branch-a"


def test_a_valid_configuration_is_summed_up(server: Server) -> None:
    summary = server.ask("POST", "/v1/config/validate", CONFIG, **YAML).json()
    assert summary["site"] == "branch-a"
    assert summary["uplinks"] >= 2


def test_a_configuration_with_errors_is_refused_with_all_of_them(server: Server) -> None:
    answer = server.ask("POST", "/v1/config/validate", b"version: 1\nsite: 3\nlnas: []\n", **YAML)
    assert _is_problem(answer, "config-refused")
    errors = answer.json()["errors"]
    assert len(errors) >= 2
    assert {"pointer", "line", "column", "message", "hint"} == set(errors[0])


def test_a_reload(server: Server, source: ScriptedSource) -> None:
    assert server.ask("POST", "/v1/reload").json() == {
        "digest": "0badc0ffee11",
        "is_changed": True,
    }
    source.refusal = REFUSED
    answer = server.ask("POST", "/v1/reload")
    assert _is_problem(answer, "config-refused")
    assert answer.json()["errors"][0]["hint"] == "is it plugged in?"


def test_the_health_check_fails_until_the_supervisor_runs(
    server: Server, source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(ScriptedSource, "status")  # a hub's whole status is dear
    assert server.get("/v1/healthz").json() == {"stage": "running", "uptime_s": 90061.0}
    source.now_status = replace(STATUS, stage="starting")
    assert _is_problem(server.get("/v1/healthz"), "not-ready")


def test_metrics(server: Server) -> None:
    answer = server.get("/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"branchline_path_delay_seconds{" in answer.body


@pytest.mark.parametrize("kind", PROBLEM_KINDS)
def test_the_type_of_a_problem_can_be_looked_up(server: Server, kind: str) -> None:
    assert server.get(f"/v1/problems/{kind}").json()["title"] == PROBLEM_KINDS[kind].title
    assert _is_problem(server.get("/v1/problems/none"), "not-found")


@pytest.mark.parametrize(
    ("method", "address", "kind"),
    [
        ("GET", "/", "not-found"),
        ("GET", "/v1/statu", "not-found"),
        ("GET", "/v1/why/voice", "not-found"),
        ("DELETE", "/v1/status", "method-not-allowed"),
        ("HEAD", "/v1/nothing", "not-found"),
        ("GET", "/v1/status?verbose=1", "bad-request"),
        ("GET", "/v1/paths?site=a&site=b", "bad-request"),
        ("GET", "/v1/paths?site=", "bad-request"),
        ("GET", "/v1/paths?site=" + "a" * 65, "bad-request"),
        ("GET", "/v1/paths?site=%ff", "bad-request"),
        ("GET", "/v1/history?limit=0", "bad-request"),
        ("GET", "/v1/history?limit=10001", "bad-request"),
        ("GET", "/v1/history?limit=1e3", "bad-request"),
        ("GET", "/v1/history?since=nan", "bad-request"),
        ("GET", "/v1/history?since=inf", "bad-request"),
        ("GET", "/v1/plan?dry_run=1", "bad-request"),
        ("GET", "/v1/plan?" + "&".join(f"p{n}=1" for n in range(50)), "bad-request"),
    ],
)
def test_a_wrong_request_is_told_so(server: Server, method: str, address: str, kind: str) -> None:
    answer = server.ask(method, address)
    if method == "HEAD":
        assert answer.status == PROBLEM_KINDS[kind].status
    else:
        assert _is_problem(answer, kind)


def test_a_wrong_method_is_told_the_right_ones(server: Server) -> None:
    assert server.ask("DELETE", "/v1/plan").headers["Allow"] == "GET,POST"


@pytest.mark.parametrize(
    ("body", "headers", "kind"),
    [
        (b"x" * (BODY_OCTETS + 1), YAML, "too-large"),
        (b"version: 1", {"Content_Type": "image/png"}, "unsupported-media-type"),
        (b"version: 1", {}, "unsupported-media-type"),
        (b"\x1f\x8b", {**YAML, "Content_Encoding": "gzip"}, "unsupported-media-type"),
        (b"\xff\xfe", YAML, "bad-request"),
    ],
)
def test_a_wrong_body_is_told_so(
    server: Server, body: bytes, headers: dict[str, str], kind: str
) -> None:
    assert _is_problem(server.ask("POST", "/v1/config/validate", body, **headers), kind)


def test_a_body_without_a_length_is_bounded_too(server: Server) -> None:
    pieces = iter([b"#" * 65536] * 17)
    answer = server.ask("POST", "/v1/config/validate", pieces, **YAML)
    assert _is_problem(answer, "too-large")


def test_a_source_that_fails_is_logged_and_answered(
    server: Server, source: ScriptedSource, caplog: pytest.LogCaptureFixture
) -> None:
    source.now_status = None  # type: ignore[assignment]
    with caplog.at_level(logging.ERROR):
        assert _is_problem(server.get("/v1/paths"), "internal")
    assert "request failed" in caplog.text
    assert _is_problem(server.get("/v1/problems/none"), "not-found")  # it still answers


def test_a_source_that_hangs_is_given_up(
    source: ScriptedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forever() -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(source, "reload", forever)
    hasty = tuple(replace(route, timeout_s=route.timeout_s and 0.05) for route in ROUTES)
    monkeypatch.setattr("appliance.api.server.ROUTES", hasty)
    with running(source, tmp_path) as server:
        assert _is_problem(server.ask("POST", "/v1/reload"), "timed-out")


def test_no_operation_waits_for_ever_but_the_stream() -> None:
    assert {route.operation for route in ROUTES if route.timeout_s is None} == {"events"}


@pytest.mark.parametrize(
    "asked", ["flows?class=mars", "classes?class=mars", "classes?site=mars", "paths?site=mars"]
)
def test_a_filter_by_a_name_that_is_not_configured_is_told(server: Server, asked: str) -> None:
    answer = server.get(f"/v1/{asked}")
    assert answer.status == 404
    assert _is_problem(answer, "unknown-name")
    assert "the configuration has" in answer.json()["detail"]


def test_a_disk_that_hangs_is_told(
    server: Server, source: ScriptedSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def history(_: object) -> None:
        raise DiskHangsError("the disk of the recordings does not answer")  # noqa: EM101

    monkeypatch.setattr(source, "history", history)
    answer = server.get("/v1/history")
    assert answer.status == 503
    assert _is_problem(answer, "disk-hangs")
    assert answer.json()["detail"] == "The disk of the recordings does not answer."
