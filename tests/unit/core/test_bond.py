"""Which paths carry single flows together, and transcripts of a class in mode `bond`."""

import re
from collections.abc import Iterable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from appliance.config.intent import Internet, Sla
from appliance.contract.ids import INTERNET, Plane, Slot
from appliance.core.actions import Cause, MoveClass
from appliance.core.bond import near, together
from appliance.core.estimate import Estimate
from appliance.core.events import IntentChanged, SteeringAdopted
from appliance.core.layout import Candidate, lay_out
from appliance.core.selection import Standing, stand
from appliance.core.state import Liveness, PathState
from appliance.core.steering import Assignment, Carrier
from appliance.core.verdict import MEETS
from appliance.core.why import explain
from appliance.stamp.sample import Sample
from tests.unit.core.box import GOOD, LOSSY, SLOW, Box
from tests.unit.core.examples import (
    DSL,
    FIBRE,
    HQ,
    LTE,
    VOICE,
    VOICE_POLICY,
    Mode,
    intent,
    path,
    peer,
    policy,
    uplink,
)

ALL = "1-1 1-2 2-1 2-2"


def plane(name: str) -> Plane:
    local, remote = map(int, name.split("-"))
    return Plane(Slot(local), Slot(remote))


def standing(
    name: str,
    *,
    metered: bool = False,
    delay_ms: float = 0,
    rates: tuple[int | None, int | None] = (None, None),
) -> Standing:
    """A path that is up; its delay is not known where it is 0."""
    found = plane(name)
    measured = Estimate(answered=100 if delay_ms else 0, long_delay_us=delay_ms * 1000)
    path_state = PathState(found, Liveness.UP, verdicts=(MEETS,), estimate=measured)
    candidate = Candidate(found, 0, metered, 1, name, *rates)
    return stand(candidate, path_state, MEETS, is_attached=True)


def delayed(by_ms: int) -> Sample:
    us = by_ms * 1000
    return GOOD._replace(delay_us=us, delay_min_us=us - 500, delay_max_us=us + 500)


def chosen(names: str, held: str = "", metered: str = "") -> str:
    standings = [standing(name, metered=name in metered.split()) for name in names.split()]
    found = together(standings, {plane(name) for name in held.split()})
    return " ".join(str(s.candidate.plane) for s in found)


def lines(planes: Iterable[Plane]) -> set[tuple[str, int]]:
    return {end for p in planes for end in (("here", p.local), ("there", p.remote))}


# -- together -----------------------------------------------------------------------------------


def test_paths_that_share_no_uplink_come_first_and_are_enough() -> None:
    assert chosen(ALL) == "1-1 2-2"
    assert chosen("1-1 1-2 1-3 2-1 2-2 2-3 3-1 3-2 3-3") == "1-1 2-2 3-3"


def test_where_one_end_has_fewer_uplinks_each_of_the_other_adds_a_line() -> None:
    assert chosen("1-1 2-1 3-1") == "1-1 2-1 3-1"
    assert chosen("1-1 1-2 1-3") == "1-1 1-2 1-3"
    assert chosen("1-1 1-2 2-1 2-2 3-1 3-2") == "1-1 2-2 3-1"


def test_the_best_path_steps_aside_where_two_others_take_more_lines() -> None:
    assert chosen("1-1 1-2 2-1") == "2-1 1-2"
    assert chosen("1-1 1-2 2-1", held="1-1") == "2-1 1-2"
    assert chosen("1-2 1-1 2-2", held="1-2") == "2-2 1-1"


def test_what_carries_it_already_is_preferred_to_what_is_better() -> None:
    assert chosen(ALL, held="1-2 2-1") == "1-2 2-1"
    assert chosen(ALL, held="2-2", metered="2-2") == "2-2 1-1"
    assert chosen("1-1 2-1 2-2", held="1-1 2-2") == "1-1 2-2"
    assert chosen(ALL, held="3-3") == "1-1 2-2"


def test_the_better_path_comes_first_whatever_the_order_of_visiting() -> None:
    assert chosen(ALL, metered="1-1") == "1-2 2-1"
    assert chosen("2-2 2-1 1-2 1-1") == "1-1 2-2"


names = st.builds("{}-{}".format, st.integers(1, 4), st.integers(1, 4))


def close(
    delays: dict[str, float],
    held: str = "",
    up: dict[int, int] | None = None,
    down: dict[int, int] | None = None,
) -> str:
    """The planes whose round trips go together: milliseconds, and rates of slots at both ends."""
    standings = [
        standing(name, delay_ms=delay, rates=((up or {}).get(p.local), (down or {}).get(p.remote)))
        for name, delay in delays.items()
        for p in [plane(name)]
    ]
    found = near(standings, {plane(name) for name in held.split()})
    return " ".join(str(s.candidate.plane) for s in found)


def test_round_trips_go_together_up_to_three_times_the_quickest_or_four_where_they_do() -> None:
    assert close({"1-1": 20, "2-2": 60}) == "1-1 2-2"
    assert close({"1-1": 20, "2-2": 61}) == "1-1"
    assert close({"1-1": 61, "2-2": 20}) == "2-2"
    assert close({"1-1": 20, "2-2": 79}, held="1-1 2-2") == "1-1 2-2"
    assert close({"1-1": 20, "2-2": 81}, held="1-1 2-2") == "1-1"


def test_of_lines_too_far_apart_those_that_carry_most_are_taken_or_else_the_quickest() -> None:
    delays = {"1-1": 10, "2-2": 50, "3-3": 60}
    assert close(delays) == "1-1"
    assert close(delays, up={1: 15, 2: 10, 3: 10}) == "2-2 3-3"
    assert close(delays, up={1: 20, 2: 10, 3: 10}) == "1-1"
    assert close({"1-1": 10, "1-2": 60}, up={1: 1000}, down={1: 1, 2: 500}) == "1-2"
    assert close({"1-1": 10, "1-2": 60}, up={1: 1000}, down={1: 1}) == "1-2"


def test_paths_over_one_line_carry_no_more_than_that() -> None:
    delays = {"1-1": 10, "1-2": 11, "2-1": 33, "2-2": 60}
    assert close(delays, up={1: 10, 2: 10}) == "1-2 2-1"
    assert close({**delays, "2-1": 40}, up={1: 10, 2: 10}) == "1-1 1-2"


def test_a_quick_line_does_not_keep_others_together_that_are_too_far_from_it() -> None:
    up = {1: 10, 2: 10, 3: 10}
    for delays in ({"1-1": 10, "2-2": 31, "3-3": 40}, {"1-1": 10, "2-2": 35, "3-3": 100}):
        assert close(delays, up=up) == "2-2 3-3"
        assert close(delays, up=up, held="2-2 3-3") == "2-2 3-3"


def test_a_path_that_is_not_measured_yet_may_be_near() -> None:
    assert close({"1-1": 20, "2-2": 0}) == "1-1 2-2"
    assert close({"1-1": 20, "2-2": 0, "3-3": 100}) == "1-1 2-2"
    assert close({}) == ""


slots = st.dictionaries(st.integers(1, 4), st.integers(1, 9))


@given(st.dictionaries(names, st.integers(0, 500), min_size=1, max_size=9), slots, slots)
def test_what_goes_together_goes_on_together(delays, up, down) -> None:
    first = close(delays, up=up, down=down)
    assert close(delays, first, up, down) == first
    known = [delays[name] for name in first.split() if delays[name]]
    assert not known or max(known) <= 3 * min(known)


def test_one_path_is_a_bond_by_itself_and_none_is_none() -> None:
    assert chosen("2-1") == "2-1"
    assert chosen("") == ""


@given(st.sets(names), st.sets(names), st.randoms())
def test_as_many_as_can_be_share_no_line_and_each_adds_one(found, held, rnd) -> None:
    order = sorted(found)
    rnd.shuffle(order)
    first = chosen(" ".join(order), held=" ".join(held))
    assert first == chosen(" ".join(sorted(found)), held=" ".join(held))
    members = [plane(name) for name in first.split()]
    for place, member in enumerate(members):
        assert lines([member]) - lines(members[:place])
    assert lines(members) == lines(map(plane, found))
    assert most_apart(members) == most_apart([plane(name) for name in found])
    assert set(chosen(" ".join(order), held=first).split()) == set(first.split())


def most_apart(planes: list[Plane]) -> int:
    """How many of these share no line, at most."""
    if not planes:
        return 0
    first, rest = planes[0], planes[1:]
    apart = [p for p in rest if not lines([p]) & lines([first])]
    return max(1 + most_apart(apart), most_apart(rest))


# -- transcripts --------------------------------------------------------------------------------

BOND = policy(VOICE_POLICY, mode=Mode.BOND, tiers=((FIBRE, DSL), (LTE,)))
SHARE = policy(BOND, mode=Mode.SHARE)


def box(voice=BOND, **more) -> Box:
    """Fibre (1) and dsl (2) at both ends: four paths."""
    adopted = more.pop("adopted", None)
    return Box(intent(voice=voice, **more), adopted=adopted)


def test_a_class_is_carried_by_paths_that_share_no_uplink() -> None:
    b = box()
    b.wait(100)
    assert b.moves() == ["initial 1-1 2-2"]
    b = box(SHARE)
    b.wait(5)
    assert b.carrier() == ALL


def test_a_far_end_with_one_line_is_reached_by_all_of_ours() -> None:
    b = box(peers=[peer("hq", 3, ("cable",))])
    b.wait(5)
    assert b.carrier() == "1-1 2-1"


def test_a_lower_tier_is_no_member() -> None:
    b = box(uplinks=[uplink(1, "fibre"), uplink(2, "dsl"), uplink(3, "lte")])
    b.wait(100)
    assert b.carrier() == "1-1 2-2"
    b.kill(*(f"hq/{x}-{y}" for x in (1, 2) for y in (1, 2)))
    assert b.carrier() == "3-1 3-2"


def test_a_line_that_dies_is_left_at_once_and_taken_again_after_the_hold_time() -> None:
    b = box()
    b.wait(70)
    b.kill("hq/2-1", "hq/2-2")
    assert b.moves()[1] == "path-down 1-1"
    silent = {"hq/2-1": None, "hq/2-2": None}
    b.wait(60, but=silent)
    assert b.moves()[2] == "better-path 1-1 1-2"  # the other line of the far end
    b.revive("hq/2-1", "hq/2-2")
    b.wait(50)
    assert b.carrier() == "1-1 1-2"
    b.wait(20)
    assert b.carrier() == "1-1 2-2"
    assert b.moves()[-1] == "recovered 1-1 2-2"


def test_without_another_line_the_one_that_is_left_carries_alone() -> None:
    b = box(peers=[peer("hq", 3, ("cable",))])
    b.wait(70)
    b.kill("hq/2-1")
    assert b.moves() == ["initial 1-1 2-1", "path-down 1-1"]
    b.wait(5, but={"hq/2-1": None})
    b.revive("hq/2-1")
    b.wait(50)
    assert b.carrier() == "1-1"
    b.wait(20)
    assert b.moves()[2:] == ["recovered 1-1 2-1"]


def test_a_member_that_violates_leaves() -> None:
    for sample in (SLOW, LOSSY):
        b = box(peers=[peer("hq", 3, ("cable",))])
        b.wait(70)
        b.wait(5, but={"hq/1-1": sample})
        assert b.moves()[-1] == "sla-violated 2-1"


def test_what_is_found_bonded_stays() -> None:
    crossed = Assignment((Carrier(path("hq", 1, 2)), Carrier(path("hq", 2, 1))))
    b = box(adopted=SteeringAdopted(((VOICE, HQ, crossed),)))
    b.wait(100)
    assert b.moves() == []
    assert b.carrier() == "1-2 2-1"


def test_what_was_shared_is_bonded_at_once() -> None:
    b = box(SHARE)
    b.wait(100)
    b.tell(IntentChanged(intent(voice=BOND)))
    assert b.carrier() == "1-1 2-2"


def test_two_paths_that_cross_take_over_where_the_straight_one_dies() -> None:
    b = box()
    b.wait(70)
    b.kill("hq/2-2")
    b.wait(70, but={"hq/2-2": None})
    assert b.carrier() == "1-2 2-1"


def test_flows_begin_on_another_line_that_is_far_quicker_once_in_a_hold_time() -> None:
    far = delayed(55)
    b = box(peers=[peer("hq", 3, ("cable",))])
    b.wait(40, but={"hq/1-1": far})
    assert b.moves() == ["initial 1-1 2-1", "better-path 2-1 1-1"]
    (move,) = [a for _, a in b.actions if isinstance(a, MoveClass) and a.cause is Cause.BETTER_PATH]
    assert move.reason == (
        "voice to hq begins its flows on dsl (2-1): it has 0.0 % loss and 20 ms, "
        "fibre (1-1) 0.0 % loss and 54 ms"
    )
    b.wait(20, but={"hq/2-1": far})
    assert len(b.moves()) == 2
    b.wait(100, but={"hq/2-1": far})
    assert b.moves()[2:] == ["better-path 1-1 2-1"]


def test_a_line_whose_delay_is_too_far_from_the_others_leaves_until_it_is_not() -> None:
    b = box(policy(BOND, sla=Sla()), peers=[peer("hq", 3, ("cable",))])
    b.wait(100, but={"hq/2-1": delayed(70)})
    assert b.moves() == ["initial 1-1 2-1"]
    b.wait(60, but={"hq/2-1": delayed(90)})
    assert b.moves()[1:] == ["reordering 1-1"]
    (move,) = [a for _, a in b.actions if isinstance(a, MoveClass) and a.cause is Cause.REORDERING]
    assert not move.is_voluntary
    assert re.fullmatch(
        r"voice to hq drops dsl \(2-1\): a round trip of 8\d ms is too long beside 20 ms of "
        r"fibre \(1-1\) for one flow over all of them; fibre \(1-1\) carries it with .*",
        move.reason,
    )
    b.wait(300, but={"hq/2-1": delayed(65)})
    assert len(b.moves()) == 2
    b.wait(200, but={"hq/2-1": delayed(55)})
    assert b.moves()[2:] == ["better-path 1-1 2-1"]


def test_of_four_paths_both_of_a_line_that_is_too_slow_leave() -> None:
    b = box(policy(BOND, sla=Sla()))
    b.wait(100)
    slow = {"hq/2-1": delayed(90), "hq/2-2": delayed(90)}
    b.wait(60, but=slow)
    assert b.moves() == ["initial 1-1 2-2", "reordering 1-1 1-2"]
    (move,) = [a for _, a in b.actions if isinstance(a, MoveClass) and a.cause is Cause.REORDERING]
    assert " leaves dsl to cable2 (2-2): a round trip of 8" in move.reason
    remarks = {c.name: c.remarks for c in explain(b.state, VOICE, HQ).candidates}
    assert remarks["dsl to cable2 (2-2)"] == (
        "too slow beside the others for one flow over all of them",
    )
    b.wait(200, but=slow)
    assert len(b.moves()) == 2
    b.wait(200)
    assert b.moves()[2:] == ["better-path 1-1 2-2"]
    remarks = {c.name: c.remarks for c in explain(b.state, VOICE, HQ).candidates}
    assert remarks["fibre to cable2 (1-2)"] == ("adds no line to those that carry the class",)


def test_a_moment_of_delay_changes_nothing() -> None:
    b = box(policy(BOND, sla=Sla()), peers=[peer("hq", 3, ("cable",))])
    b.wait(100)
    b.wait(2, but={"hq/2-1": delayed(400)})
    b.wait(100)
    assert b.moves() == ["initial 1-1 2-1"]


def test_when_the_quick_line_dies_the_slow_one_takes_over_and_gives_back_all() -> None:
    b = box(policy(BOND, sla=Sla()), peers=[peer("hq", 3, ("cable",))])
    slow = {"hq/2-1": delayed(200)}
    b.wait(70, but=slow)
    assert b.moves() == ["initial 1-1 2-1", "reordering 1-1"]
    b.kill("hq/1-1")
    assert b.carrier() == "2-1"
    b.wait(5, but={**slow, "hq/1-1": None})
    b.revive("hq/1-1")
    b.wait(50, but=slow)
    assert b.carrier() == "2-1"
    b.wait(20, but=slow)
    assert b.moves()[2:] == ["path-down 2-1", "recovered 1-1"]


def test_a_little_more_delay_does_not_change_where_flows_begin() -> None:
    b = box(peers=[peer("hq", 3, ("cable",))])
    b.wait(200, but={"hq/1-1": GOOD._replace(delay_us=35_000, delay_max_us=36_000)})
    assert b.moves() == ["initial 1-1 2-1"]


def test_a_bond_can_be_shared_instead() -> None:
    b = box()
    b.wait(100)
    b.tell(IntentChanged(intent(voice=SHARE)))
    b.wait(100)
    assert b.carrier() == ALL


def test_toward_the_internet_it_is_shared() -> None:
    shape = lay_out(intent(voice=BOND)).internet
    (plan,) = [each for each in shape.classes if each.name == VOICE]
    assert not plan.is_bonded
    assert not plan.is_single
    b = box()
    b.wait(5)
    held = b.state.internet.site.classes[VOICE].assignment
    assert held.carriers == (Carrier(path(INTERNET, 1, 0)), Carrier(path(INTERNET, 2, 0)))


def test_through_a_gateway_it_is_bonded_as_toward_the_site() -> None:
    through = policy(BOND, internet=Internet.GATEWAY)
    b = Box(replace(intent(voice=through), gateways=(HQ,)))
    b.wait(5)
    held = b.state.internet.site.classes[VOICE].assignment
    assert held.carriers == (Carrier(path("hq", 1, 1)), Carrier(path("hq", 2, 2)))
