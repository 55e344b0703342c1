"""What the documents say against the code: each names what the other has."""

import ast
import asyncio
import re
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from appliance.api.problems import PROBLEM_KINDS
from appliance.cli.main import UNREACHABLE, main
from appliance.config.addressing import (
    DEVICE_PREFIX,
    NFT_TABLE,
    ROUTE_PROTOCOL,
)
from appliance.plan.compile import compile_plan
from appliance.plan.plan import Kind
from appliance.telemetry.recorder import EVENTS_OCTETS, MOVES_OCTETS, SAMPLES_PER_S
from tests.unit.api.scripted import STATUS
from tests.unit.plan import examples as ex
from tests.unit.telemetry.test_metrics import rendered

ROOT = Path(__file__).parents[3]
OPERATIONS = (ROOT / "docs" / "OPERATIONS.md").read_text()
ERRORS = (ROOT / "docs" / "ERRORS.md").read_text()


@pytest.mark.parametrize("name", main.commands)
def test_every_command_and_option_is_explained(name: str) -> None:
    heading = next(h for h in OPERATIONS.splitlines() if h.startswith(f"### `branchline {name}"))
    for parameter in main.commands[name].params:
        shown = parameter.opts[0] if isinstance(parameter, click.Option) else parameter.metavar
        assert (shown or str(parameter.name).upper()) in heading


def test_every_command_that_is_explained_exists() -> None:
    named = set(re.findall(r"`(?:sudo )?branchline (?:--\S+ \S+ )*([a-z]+)", OPERATIONS + ERRORS))
    assert named <= set(main.commands)


def test_every_command_asks_the_supervisor_but_those_that_are_said_not_to(tmp_path: Path) -> None:
    sentence = OPERATIONS.partition("All commands but ")[2].partition(" ask the running")[0]
    alone = set(re.findall(r"`([a-z]+)`", sentence))
    assert alone < set(main.commands)
    for name in set(main.commands) - alone:
        needed = [each for each in main.commands[name].params if each.required]
        words = [
            word
            for each in needed
            for word in (["x"] if isinstance(each, click.Argument) else [each.opts[0], "x"])
        ]
        result = CliRunner().invoke(main, ["--state-dir", str(tmp_path), name, *words])
        assert result.exit_code == UNREACHABLE, name


def test_what_status_prints_is_what_it_prints() -> None:
    shown = OPERATIONS.partition("### `branchline status")[2].split("```")[1].splitlines()
    printed = (ROOT / "tests" / "golden" / "cli_status.txt").read_text().splitlines()
    assert [line for line in shown if line and line not in (*printed, "...")] == []


def test_the_error_that_the_manual_of_the_configuration_shows_is_printed(tmp_path: Path) -> None:
    manual = (ROOT / "docs" / "CONFIGURATION.md").read_text()
    text = (ROOT / "examples" / "branch.yaml").read_text()
    file = tmp_path / "branch.yaml"
    file.write_text(text.replace("gateway: [203.0.113.1,", "gateway: [203.0.113.99,"))
    result = CliRunner().invoke(main, ["validate", str(file)])
    assert f"    {result.stderr.splitlines()[0].removeprefix(f'{tmp_path}/')}\n" in manual


def _warning_codes() -> set[str]:
    """The first argument of every call of a function `warn`, and of every WarningStatus.

    It is said where it is raised; who only passes one on calls it `code`.
    """
    found = set()
    for path in (ROOT / "appliance").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                first = node.args[0]
                if name in ("warn", "WarningStatus", "RaiseWarning"):
                    if isinstance(first, ast.Constant):
                        found.add(str(first.value))
                    else:
                        assert isinstance(first, ast.Name), (path, node.lineno)
                        assert first.id == "code", (path, node.lineno)
    return found


def test_every_warning_is_explained() -> None:
    section = OPERATIONS.partition("## Warnings")[2].partition("\n## ")[0]
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE))
    assert explained == _warning_codes()
    assert "sla-unmet" in explained
    assert explained == explained & set(re.findall(r"`([a-z-]+)`", ERRORS))


def test_every_problem_of_the_api_is_listed() -> None:
    section = ERRORS.partition("## What the API answers")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z-]+)` \| (\d+) \| (.+) \| (.+) \|$", section, re.MULTILINE)
    assert rows == [
        (kind, str(each.status), each.title, each.next_step) for kind, each in PROBLEM_KINDS.items()
    ]


def test_every_problem_of_the_api_is_answered_by_somebody() -> None:
    code = "".join(
        path.read_text()
        for path in (ROOT / "appliance" / "api").glob("*.py")
        if path.name not in ("problems.py", "openapi.py", "routes.py")
    )
    assert [kind for kind in PROBLEM_KINDS if f"Kind.{kind.name}" not in code] == []


def test_every_metric_that_is_named_exists() -> None:
    metrics = asyncio.run(rendered(STATUS))
    for name in set(re.findall(r"branchline_[a-z_]+", OPERATIONS + ERRORS)) - {"branchline_"}:
        assert re.search(rf"^{name}[ {{]", metrics, re.MULTILINE), name


def test_the_marks_that_it_removes_by_are_ours() -> None:
    section = OPERATIONS.partition("## Taking it off a box")[2]
    assert f"grep '^{DEVICE_PREFIX}'" in section
    assert f"nft delete table inet {NFT_TABLE}" in section
    assert set(re.findall(r"proto (\d+)", section)) == {str(ROUTE_PROTOCOL)}
    bounds = re.search(r"\$1 >= (\d+) && \$1 <= (\d+)", section)
    assert bounds is not None
    plan = compile_plan(ex.BRANCH, ex.BRANCH_FACTS, ex.BRANCH_STEERING, ex.KEY_A)
    ours = [key.ident[1] for key in plan if key.kind is Kind.RULE]
    assert int(bounds[1]) <= min(ours) < max(ours) <= int(bounds[2])
    bounds = re.search(r"seq (\d+) (\d+)", section)
    assert bounds is not None
    assert bounds.start() < section.index("ip link delete")  # else an uplink is cut off
    filters = [key.ident[2] for key in plan if key.kind is Kind.REDIRECT]
    assert (int(bounds[1]), int(bounds[2])) == (min(filters), max(filters))


def test_the_bounds_of_the_recorder_are_true() -> None:
    assert re.search(rf"moves-\*.jsonl.*\| {MOVES_OCTETS >> 20} MiB \|", OPERATIONS)
    assert re.search(rf"events-\*.jsonl.*\| {EVENTS_OCTETS >> 20} MiB \|", OPERATIONS)
    assert f"beyond {SAMPLES_PER_S:.0f} a second" in OPERATIONS


def test_what_is_linked_exists() -> None:
    for text in (OPERATIONS, ERRORS):
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (ROOT / "docs" / target).exists(), target
