"""The locks follow pyproject.toml: what is asked for is pinned, and the product gets no more."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def asked_for(*groups: list[str]) -> set[str]:
    names = (re.match(r"[\w.-]+", line) for group in groups for line in group)
    return {name[0] for name in names if name} - {"branchline"}


def locked(name: str) -> dict[str, int]:
    """Names in a lock, and how many hashes each has."""
    entries = re.split(r"^(?=\w)", (ROOT / "requirements" / f"{name}.lock").read_text(), flags=re.M)
    return {entry.partition("==")[0]: entry.count("--hash=") for entry in entries if entry}


@pytest.mark.parametrize(
    ("lock", "groups"),
    [
        ("run", [PROJECT["dependencies"]]),
        ("lab", [PROJECT["dependencies"], EXTRAS["lab"]]),
        ("dev", [PROJECT["dependencies"], EXTRAS["lab"], EXTRAS["dev"]]),
    ],
)
def test_a_lock_pins_by_hash_what_is_asked_for(lock: str, groups: list[list[str]]) -> None:
    found = locked(lock)
    assert asked_for(*groups) - set(found) == set()
    assert all(found.values())


def test_the_product_installs_nothing_that_only_stories_and_tests_use() -> None:
    assert asked_for(EXTRAS["lab"], EXTRAS["dev"]) & set(locked("run")) == set()
    assert asked_for(EXTRAS["dev"]) & set(locked("lab")) == set()


def commands(manual: str, program: str) -> list[str]:
    """The lines of a manual's blocks that run a program while Branchline is installed."""
    lines = (line.strip().partition("  #")[0] for line in (ROOT / manual).read_text().splitlines())
    return [
        line.rstrip() for line in lines if re.match(rf"(/opt/branchline/bin/)?{program} ", line)
    ]


@pytest.mark.parametrize("program", ["apt-get install", "python3 -m venv", "pip install", "ln"])
def test_both_manuals_install_in_the_same_way(program: str) -> None:
    found = commands("README.md", program)
    assert found
    assert found == commands("docs/OPERATIONS.md", program)


def test_nothing_is_installed_from_elsewhere_without_its_hash() -> None:
    for line in commands("README.md", "pip install"):
        # Isolated, a build would fetch what it needs by itself.
        assert "--require-hashes -r" in line or "--no-deps --no-build-isolation ." in line
    assert "setuptools" in locked("build")


def test_a_virtual_environment_can_be_made_on_debian() -> None:
    (line,) = commands("README.md", "apt-get install")
    assert "python3-venv" in line.split()
