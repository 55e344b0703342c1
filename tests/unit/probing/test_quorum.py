"""The judgement of rounds: what condemns an uplink, what does not, and how long either takes."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.config.intent import Target, TargetKind
from appliance.probing.quorum import FALL, RISE, Health, Outcome, count, judge

ICMP = Target(TargetKind.ICMP, ip_address("192.0.2.1"))
ICMP_2 = Target(TargetKind.ICMP, ip_address("192.0.2.2"))
DNS = Target(TargetKind.DNS, ip_address("192.0.2.53"), 53, "example.net")
TCP = Target(TargetKind.TCP, ip_address("2001:db8::80"), 443)


def outcomes(*targets: Target, silent: tuple[Target, ...] = ()) -> list[Outcome]:
    return [Outcome(t, t not in silent, "" if t not in silent else "timed out") for t in targets]


def test_one_silent_target_never_condemns_an_uplink() -> None:
    for target in (ICMP, DNS, TCP):
        counted = count(outcomes(ICMP, DNS, TCP, silent=(target,)), 2)
        assert counted.is_good
        assert (counted.answered, counted.asked) == (2, 3)


def test_the_evidence_names_the_silent_targets_and_why() -> None:
    counted = count(outcomes(ICMP, DNS, TCP, silent=(DNS,)), 1)
    assert counted.evidence == "2 of 3 targets answered; 192.0.2.53 (dns) did not: timed out"
    assert count(outcomes(ICMP, DNS, TCP), 3).evidence == "3 of 3 targets answered"


def test_silence_of_all_is_bad() -> None:
    counted = count(outcomes(ICMP, DNS, TCP, silent=(ICMP, DNS, TCP)), 1)
    assert (counted.answered, counted.is_good) == (0, False)


def test_filtered_icmp_is_no_verdict() -> None:
    counted = count(outcomes(ICMP, ICMP_2, DNS, silent=(ICMP, ICMP_2)), 2)
    assert counted.is_good
    assert counted.evidence.endswith("ICMP seems to be filtered and is not counted")


@pytest.mark.parametrize(
    "silent",
    [
        pytest.param((ICMP, ICMP_2, DNS), id="something else is silent too"),
        pytest.param((DNS, TCP), id="only ICMP answers"),
        pytest.param((ICMP, DNS), id="ICMP works"),
    ],
)
def test_a_quorum_that_is_missed_is_bad(silent: tuple[Target, ...]) -> None:
    assert not count(outcomes(ICMP, ICMP_2, DNS, TCP, silent=silent), 3).is_good


def test_icmp_alone_that_is_silent_is_bad() -> None:
    assert not count(outcomes(ICMP, ICMP_2, silent=(ICMP, ICMP_2)), 1).is_good


KINDS = st.sampled_from((ICMP, ICMP_2, DNS, TCP))


@given(st.lists(st.tuples(KINDS, st.booleans()), min_size=1, max_size=6), st.data())
def test_an_answer_more_never_makes_a_round_worse_unless_icmp_explains_it(
    asked: list[tuple[Target, bool]], data: st.DataObject
) -> None:
    quorum = data.draw(st.integers(1, len(asked)))
    results = [Outcome(t, is_answered) for t, is_answered in asked]
    counted = count(results, quorum)
    if counted.answered >= quorum:
        assert counted.is_good
    if counted.answered == 0:
        assert not counted.is_good
    if counted.is_good and counted.answered < quorum:
        assert {o.target.kind for o in results if not o.is_answered} == {TargetKind.ICMP}
        assert {o.target.kind for o in results if o.is_answered} <= {
            TargetKind.DNS,
            TargetKind.TCP,
        }


UNKNOWN = Health()


def verdicts(*rounds: bool, start: Health = UNKNOWN) -> list[bool | None]:
    health, seen = start, []
    for is_good in rounds:
        health = judge(health, is_good)
        seen.append(health.is_healthy)
    return seen


def test_the_first_good_round_is_a_verdict_and_the_first_bad_one_is_not() -> None:
    assert verdicts(True) == [True]
    assert verdicts(*[False] * FALL) == [None] * (FALL - 1) + [False]
    assert verdicts(False, True) == [None, True]


def test_a_healthy_uplink_falls_after_consecutive_bad_rounds_only() -> None:
    assert verdicts(*[False] * FALL, start=Health(True)) == [True] * (FALL - 1) + [False]
    assert verdicts(False, False, True, False, False, start=Health(True)) == [True] * 5


def test_an_unhealthy_uplink_rises_after_consecutive_good_rounds_only() -> None:
    assert verdicts(*[True] * RISE, start=Health(False)) == [False] * (RISE - 1) + [True]
    assert verdicts(True, True, False, True, True, start=Health(False)) == [False] * 5


def test_doubt_ends_with_the_verdict() -> None:
    assert Health().is_in_doubt
    assert judge(Health(True), False).is_in_doubt
    assert not judge(Health(False), False).is_in_doubt


@given(st.lists(st.booleans(), max_size=40))
def test_no_run_of_equal_rounds_leaves_the_verdict_wrong_for_good(rounds: list[bool]) -> None:
    health = Health()
    for is_good in rounds:
        health = judge(health, is_good)
    for end in (True, False):
        settled = health
        for _ in range(max(RISE, FALL)):
            settled = judge(settled, end)
        assert settled == Health(end)
