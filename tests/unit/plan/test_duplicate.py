from dataclasses import replace

from appliance.config.intent import without_copies
from appliance.core.steering import Steering
from appliance.plan.adopt import steering_from
from appliance.plan.compile import compile_plan
from appliance.plan.duplicate import duplicating_items
from appliance.plan.filter import render_filter
from appliance.plan.plan import Copy, Key, Kind, Once
from tests.unit.plan import examples as ex

TWICE, STEERING = ex.TWICE, ex.TWICE_STEERING


def copies(intent, steering) -> dict[tuple[str | int, ...], Copy]:
    found = duplicating_items(intent, steering)
    return {key.ident: item for key, item in found.items() if isinstance(item, Copy)}


def gateway(seconds: dict[int, tuple[int, int] | None], count: int = 5):
    """A gateway whose voice goes over 1-1, and copies over 2-2 but for these sites."""
    intent = ex.gateway(count)
    policies = tuple(replace(p, mode=TWICE.policies[0].mode) for p in intent.policies[:1])
    intent = replace(intent, policies=policies + intent.policies[1:])
    assignments = {}
    for peer in intent.peers:
        to = seconds.get(peer.site_id, (2, 2))
        second = ex.path(peer.name, *to) if to else None
        assignments[ex.VOICE, peer.name] = replace(
            ex.carried(ex.path(peer.name, 1, 1)), second=second
        )
    return intent, Steering(assignments)


def test_nothing_is_planned_while_no_policy_duplicates() -> None:
    assert duplicating_items(ex.BRANCH, STEERING) == {}


def test_every_plane_lets_packets_in_once() -> None:
    found = duplicating_items(TWICE, STEERING)
    planes = {f"bl-{x}-{y}" for x in (1, 2) for y in (1, 2)}
    assert {k.ident[0] for k, i in found.items() if isinstance(i, Once)} == planes
    assert {k.ident[0] for k in found if k.kind is Kind.CLSACT} == planes


def test_one_filter_serves_all_sites_with_the_same_two_planes() -> None:
    intent, steering = gateway({})
    assert copies(intent, steering) == {("bl-1-1", 1, 0): Copy("bl-2-2", "all")}


def test_sites_that_differ_are_excepted_with_their_prefixes() -> None:
    intent, steering = gateway({2: (2, 1), 4: None})
    found = copies(intent, steering)
    assert {ident: item.to for ident, item in found.items()} == {
        ("bl-1-1", 1, 0): "bl-2-2",
        ("bl-1-1", 1, 2): "bl-2-1",
        ("bl-1-1", 1, 4): None,
    }
    assert found["bl-1-1", 1, 2].prefixes == ("10.0.2.0/24",)
    other = replace(intent.peers[1], prefixes=intent.peers[2].prefixes)
    moved = replace(intent, peers=(intent.peers[0], other, *intent.peers[2:]))
    assert copies(moved, steering)["bl-1-1", 1, 2] != found["bl-1-1", 1, 2]


def test_while_most_sites_have_no_second_plane_only_the_others_are_named() -> None:
    intent, steering = gateway({1: None, 2: None, 3: None})
    assert {ident[2] for ident in copies(intent, steering)} == {4, 5}


def test_a_restart_finds_each_second_plane_again() -> None:
    for seconds in ({}, {2: (2, 1), 4: None}, {1: None, 2: None, 3: None}):
        intent, steering = gateway(seconds)
        plan = compile_plan(intent, ex.attached(intent), steering, ex.KEY_HQ)
        assert steering_from(intent, plan).assignments == steering.assignments


def test_what_somebody_made_something_else_is_not_found() -> None:
    plan = dict(compile_plan(TWICE, ex.BRANCH_FACTS, STEERING, ex.KEY_A))
    for key in [k for k, i in plan.items() if isinstance(i, Copy)]:
        plan[key] = Copy("*", "")
    plan[Key(Kind.COPY, ("eth0", 99, 7))] = Copy("bl-2-2", "all")
    assert steering_from(TWICE, plan).assignments[ex.VOICE, ex.HQ].second is None


def test_packets_that_are_copied_take_no_fast_path() -> None:
    assert "flow add" in render_filter(ex.BRANCH).text
    assert "mark and 0xf0000000 != { 0x10000000 } flow add @fast" in render_filter(TWICE).text


def test_a_box_that_cannot_has_mode_single_instead() -> None:
    assert without_copies(ex.BRANCH) is ex.BRANCH
    assert without_copies(TWICE) == ex.BRANCH
