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
