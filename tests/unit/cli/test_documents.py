"""docs/OPERATIONS.md and docs/ERRORS.md against the code: each names what the other has."""

import ast
import re
from pathlib import Path

import click
import pytest

from appliance.cli.main import main
from appliance.config.addressing import (
    DEVICE_PREFIX,
    NFT_TABLE,
    ROUTE_PROTOCOL,
    RULE_PRIORITY_FIRST,
    RULE_PRIORITY_LAST,
)
from appliance.telemetry.metrics import render_metrics
from appliance.telemetry.recorder import EVENTS_OCTETS, MOVES_OCTETS, SAMPLES_PER_S
from tests.unit.api.scripted import STATUS

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


def _warning_codes() -> set[str]:
    """The first argument of every call of a function `warn`, and of every WarningStatus."""
    found = set()
    for path in (ROOT / "appliance").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and node.args:
                name = getattr(node.func, "attr", getattr(node.func, "id", ""))
                first = node.args[0]
                if name in ("warn", "WarningStatus", "RaiseWarning") and isinstance(
                    first, ast.Constant
                ):
                    found.add(str(first.value))
    return found


def test_every_warning_is_explained() -> None:
    section = OPERATIONS.partition("## Warnings")[2].partition("\n## ")[0]
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", section, re.MULTILINE))
    assert explained == _warning_codes()
    assert "sla-unmet" in explained


def test_every_metric_that_is_named_exists() -> None:
    metrics = render_metrics(STATUS).decode()
    for name in set(re.findall(r"branchline_[a-z_]+", OPERATIONS + ERRORS)) - {"branchline_"}:
        assert re.search(rf"^{name}[ {{]", metrics, re.MULTILINE), name


def test_the_marks_that_it_removes_by_are_ours() -> None:
    section = OPERATIONS.partition("## Taking it off a box")[2]
    assert f"grep '^{DEVICE_PREFIX}'" in section
    assert f"nft delete table inet {NFT_TABLE}" in section
    assert set(re.findall(r"proto (\d+)", section)) == {str(ROUTE_PROTOCOL)}
    assert f"$1 >= {RULE_PRIORITY_FIRST} && $1 <= {RULE_PRIORITY_LAST}" in section


def test_the_bounds_of_the_recorder_are_true() -> None:
    assert re.search(rf"moves-\*.jsonl.*\| {MOVES_OCTETS >> 20} MiB \|", OPERATIONS)
    assert re.search(rf"events-\*.jsonl.*\| {EVENTS_OCTETS >> 20} MiB \|", OPERATIONS)
    assert f"beyond {SAMPLES_PER_S:.0f} a second" in OPERATIONS


def test_what_is_linked_exists() -> None:
    for text in (OPERATIONS, ERRORS):
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (ROOT / "docs" / target).exists(), target
