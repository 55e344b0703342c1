"""Whole files of commands, compared with what was reviewed by a person.

To accept a change: `python -m tests.unit.plan.test_text`, then read the difference.
"""

from collections.abc import Iterable
from pathlib import Path

import pytest

from appliance.core.steering import Steering
from appliance.plan.compile import compile_plan
from appliance.plan.diff import diff
from appliance.plan.plan import Add, Change, Delete, Key, Kind, Op, Rule
from appliance.plan.steer import Steerer
from appliance.plan.text import render_op
from tests.unit.plan import examples as ex

GOLDEN = Path(__file__).parents[2] / "golden"


def rendered(ops: Iterable[Op], *, full: bool = False) -> str:
    return "".join(f"{render_op(op, full=full)}\n" for op in ops)


def branch() -> str:
    plan = compile_plan(
        ex.BRANCH, ex.BRANCH_FACTS, ex.BRANCH_STEERING, ex.KEY_A, preshared=ex.PRESHARED
    )
    return rendered(diff(plan, {}), full=True)


def gateway() -> str:
    intent = ex.gateway(2)
    plan = compile_plan(intent, ex.attached(intent), ex.first_paths(intent), ex.KEY_HQ)
    return rendered(diff(plan, {}), full=True)


def teardown() -> str:
    intent = ex.gateway(1)
    plan = compile_plan(intent, ex.attached(intent), ex.first_paths(intent), ex.KEY_HQ)
    return rendered(diff({}, plan))


def move() -> str:
    after = dict(ex.BRANCH_STEERING.assignments)
    after[ex.VOICE, ex.HQ] = ex.carried(ex.path("hq", 2, 1))
    after[ex.VOICE, ex.BRANCH_B] = ex.carried(ex.path("branch-b", 2, 1))
    return rendered(Steerer(ex.BRANCH).ops(ex.BRANCH_STEERING, Steering(after)))


def duplicate() -> str:
    """What duplicating adds to a plan, and what it takes to end it."""
    before = compile_plan(ex.BRANCH, ex.BRANCH_FACTS, ex.TWICE_STEERING, ex.KEY_A)
    after = compile_plan(ex.TWICE, ex.BRANCH_FACTS, ex.TWICE_STEERING, ex.KEY_A)
    return rendered(diff(after, before)) + rendered(diff(before, after))


def bond() -> str:
    """The same of bonding."""
    before = compile_plan(ex.BRANCH, ex.BRANCH_FACTS, ex.BONDED_STEERING, ex.KEY_A)
    after = compile_plan(ex.BONDED, ex.BRANCH_FACTS, ex.BONDED_STEERING, ex.KEY_A)
    return rendered(diff(after, before)) + rendered(diff(before, after))


CASES = {
    "branch": branch,
    "gateway": gateway,
    "teardown": teardown,
    "move": move,
    "duplicate": duplicate,
    "bond": bond,
}


@pytest.mark.parametrize("name", CASES)
def test_commands_are_the_reviewed_ones(name):
    assert CASES[name]() == (GOLDEN / f"plan_{name}.txt").read_text()


def test_a_changed_rule_is_there_before_the_old_one_goes():
    key = Key(Kind.RULE, (4, 20001))
    text = render_op(Change(key, Rule(7, 1, 1), Rule(8, 1, 1)))
    assert [line.split()[3] for line in text.splitlines()] == ["add", "del"]


def test_no_verb_is_missing():
    """Every kind of object has a command for every operation, and none is empty."""
    plan = {
        **compile_plan(ex.BONDED, ex.BRANCH_FACTS, ex.BONDED_STEERING, ex.KEY_A),
        **compile_plan(ex.TWICE, ex.BRANCH_FACTS, ex.TWICE_STEERING, ex.KEY_A),
    }
    assert {key.kind for key in plan} == set(Kind)
    for key, item in plan.items():
        for op in (Add(key, item), Change(key, item, item), Delete(key, item)):
            assert render_op(op).strip()


if __name__ == "__main__":
    for case, render in CASES.items():
        (GOLDEN / f"plan_{case}.txt").write_text(render())
