"""Commands that only ask load nothing heavy: on a small box each import is felt."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.api.running import running
from tests.unit.api.scripted import ScriptedSource

ROOT = Path(__file__).parents[3]
HEAVY = ("pydantic", "aiohttp", "asyncio", "yaml", "pyroute2", "prometheus_client", "nacl")
REPORT = """
import sys
from appliance.cli.main import main
try:
    main()
finally:
    loaded = [name for name in {heavy!r} if name in sys.modules]
    print("loaded:", *loaded, file=sys.stderr)
"""


def _heavy_modules_of(*arguments: str) -> list[str]:
    argv = [sys.executable, "-c", REPORT.format(heavy=HEAVY), *arguments]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stderr.splitlines()[-1].removeprefix("loaded:").split()


@pytest.mark.parametrize("arguments", [["status"], ["paths", "--json"], ["why", "voice", "hq"]])
def test_asking_loads_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    with running(ScriptedSource(), tmp_path):
        assert _heavy_modules_of("--run-dir", str(tmp_path), *arguments) == []


def test_help_loads_nothing_heavy() -> None:
    assert _heavy_modules_of("--help") == []
    assert _heavy_modules_of("run", "--help") == []


def test_this_test_can_see_a_heavy_module() -> None:
    assert "pydantic" in _heavy_modules_of("validate", str(ROOT / "examples" / "branch.yaml"))
