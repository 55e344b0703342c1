"""The version is said in two places, which must agree."""

import tomllib
from pathlib import Path

from appliance import __version__


def test_the_package_and_the_project_have_the_same_version() -> None:
    project = Path(__file__).parents[3] / "pyproject.toml"
    assert tomllib.loads(project.read_text())["project"]["version"] == __version__
