"""Versions of the file format: the way up, and the ways out of reach."""

from copy import deepcopy

import pytest

from appliance.config.migrate import MIGRATIONS, Tree, Unsupported, migrate
from appliance.config.schema import VERSION


def _rename_wans(tree: Tree) -> Tree:
    """A made-up version 0, in which uplinks were called wans."""
    return {("uplinks" if key == "wans" else key): value for key, value in tree.items()}


def _add_mark(tree: Tree) -> Tree:
    return {**tree, "mark": "two"}


def test_every_version_before_the_current_one_has_a_migration() -> None:
    assert sorted(MIGRATIONS) == list(range(1, VERSION))


def test_a_document_of_the_current_version_stays_as_it_is() -> None:
    tree: Tree = {"version": VERSION, "site": {"name": "a"}}
    assert migrate(tree) == (tree, [])


def test_migrations_run_in_order_and_leave_the_original_alone() -> None:
    old: Tree = {"version": 0, "wans": [{"name": "fibre"}]}
    before = deepcopy(old)
    new, findings = migrate(old, {0: _rename_wans, 1: _add_mark}, current=2)
    assert new == {"version": 2, "uplinks": [{"name": "fibre"}], "mark": "two"}
    assert findings == []
    assert old == before


def test_a_migration_of_a_later_version_does_not_run() -> None:
    new, _ = migrate({"version": 1}, {0: _rename_wans, 1: _add_mark}, current=2)
    assert new == {"version": 2, "mark": "two"}


@pytest.mark.parametrize(
    ("version", "said"),
    [
        (VERSION + 1, "newer than this release"),
        (10**15, "newer than this release"),
        (0, "there never was a version 0"),
        (-1, "there never was a version -1"),
    ],
)
def test_a_version_out_of_reach_is_refused_with_the_reason(version: int, said: str) -> None:
    with pytest.raises(Unsupported) as caught:
        migrate({"version": version})
    assert said in caught.value.finding.message
    assert caught.value.finding.hint
    assert caught.value.finding.path == ("version",)


def test_without_a_version_the_rest_is_still_judged() -> None:
    tree, (finding,) = migrate({"site": {}})
    assert tree == {"site": {}, "version": VERSION}
    assert finding.message == "`version` is missing"


@pytest.mark.parametrize("version", ["1", True, 1.0, [1]])
def test_a_version_is_a_whole_number(version: str | float | list[int]) -> None:
    tree, (finding,) = migrate({"version": version})  # type: ignore[dict-item]
    assert tree == {"version": VERSION}
    assert finding.path == ("version",)
    assert "must be a number" in finding.message
