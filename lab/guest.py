"""The guest's only job: run the stories named in the plan, one after the other, and report.

`/opt/branchline/plan.json` (written by lab/boot.py): {"seed": N, "is_warm": true, "stories":
[{"id", "file", "function"}]}. Runs as root in the guest, never on a person's machine.
"""

import compileall
import contextlib
import importlib.util
import io
import json
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import TypedDict

from lab import warm
from lab.machine import prepare_guest
from lab.report import Report
from lab.topology import Lab, StoryError

PLAN = Path("/opt/branchline/plan.json")
PRODUCT = Path("/opt/branchline/appliance")
COMMAND = "branchline"
RESULTS = Path("/dev/ttyS1")
_LOG_TAIL = 12_000


class StoryPlan(TypedDict):
    id: str
    file: str
    function: str


class Plan(TypedDict):
    seed: int
    is_warm: bool
    stories: list[StoryPlan]


class _Told(io.TextIOBase):
    """Standard output of a story: what it prints is told like `lab.say`."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            self._report.say(line)
        return len(text)


def load_scenario(path: Path) -> ModuleType:
    """Import a scenario file by its path."""
    spec = importlib.util.spec_from_file_location(f"scenario_{path.stem}", path)
    if spec is None or spec.loader is None:
        message = f"{path} is not a Python file"
        raise ImportError(message)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def run_story(report: Report, story: StoryPlan, seed: int) -> None:
    """Run one story in a fresh world and report how it ended."""
    error: str | None = None
    lab: Lab | None = None
    report.begin(story["id"])
    try:
        scenario = load_scenario(Path(story["file"]))
        function: Callable[[Lab], None] = getattr(scenario, story["function"])
        warm.start_cold(getattr(scenario, "COLD_STARTS", False))
        lab = Lab(report, seed=seed)
        with contextlib.redirect_stdout(_Told(report)):
            function(lab)
    except StoryError as failure:
        error = str(failure)
    except Exception:  # noqa: BLE001 - whatever a story does, the next one must run
        error = traceback.format_exc()
    if lab is not None:
        if error or report.failures:
            for name, text in lab.logs().items():
                report.emit("log", name=name, text=text[-_LOG_TAIL:])
        try:
            lab.close()
        except Exception:  # noqa: BLE001 - a world that cannot be taken down is the story's failure
            error = f"{error or ''}\n{traceback.format_exc()}"
    report.end(story["id"], error)


def main() -> None:
    plan: Plan = json.loads(PLAN.read_text())
    prepare_guest()
    # As any installation does: else the first supervisor of a guest would compile itself.
    compileall.compile_dir(PRODUCT, quiet=2)
    if plan["is_warm"]:
        warm.offer(COMMAND, PRODUCT.name)
    with RESULTS.open("w", encoding="utf-8") as stream:
        report = Report(stream)
        for story in plan["stories"]:
            run_story(report, story, plan["seed"])
        report.emit("end")


if __name__ == "__main__":
    main()
