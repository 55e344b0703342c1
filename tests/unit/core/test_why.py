import pytest

from appliance.contract.ids import ClassName, SiteName
from appliance.core.actions import Cause
from appliance.core.decide import decide, initial_state
from appliance.core.events import IntentChanged, PathMtuChanged, UplinkChanged
from appliance.core.state import Liveness
from appliance.core.why import Explanation, explain
from tests.unit.core.box import LOSSY, Box, named
from tests.unit.core.examples import (
    HQ,
    VOICE,
    VOICE_POLICY,
    facts,
    intent,
    peer,
    policy,
    uplink,
)

UPLINKS = (uplink(1, "fibre"), uplink(2, "dsl"), uplink(3, "lte", metered=True))
ONE_FAR = (peer("hq", 3, ("cable",)),)


@pytest.fixture
def box() -> Box:
    voice = policy(VOICE_POLICY, metered=False)
    return Box(intent(uplinks=UPLINKS, peers=ONE_FAR, voice=voice))


def why(box: Box) -> Explanation:
    return explain(box.state, VOICE, HQ)


def table(explanation: Explanation) -> dict[str, tuple[str, tuple[str, ...]]]:
    return {str(c.path.plane): (c.verdict, c.remarks) for c in explanation.candidates}


def test_a_brownout_is_explained_with_numbers_and_limits(box) -> None:
    box.wait(70)
    box.wait(5, but={"hq/1-1": LOSSY})
    found = why(box)
    assert [str(c.path.plane) for c in found.carriers] == ["2-1"]
    assert found.cause is Cause.SLA_VIOLATED
    assert found.reason.startswith("voice to hq leaves fibre (1-1): loss 10 % over")
    assert found.policy == (
        "fibre, then dsl, then lte; loss at most 1 %; delay at most 60 ms; best effort; "
        "never metered"
    )
    best, *_ = found.candidates
    assert (best.name, best.is_carrying, best.verdict, best.tier) == ("dsl (2-1)", True, "meets", 1)
    assert best.delay_us == pytest.approx(20_000, rel=0.02)
    assert best.mos == pytest.approx(4.39, abs=0.02)
    rows = table(found)
    verdict, (remark, *_) = rows["1-1"]
    assert verdict == "violates"
    assert remark.startswith("loss 10 % over")
    assert rows["3-1"] == ("not-permitted", ("metered, and the policy never uses that",))


def test_what_waits_for_its_hold_time_says_for_how_long(box) -> None:
    box.wait(70)
    box.kill("hq/1-1")
    box.wait(3, but={"hq/1-1": None})
    box.revive("hq/1-1")
    assert table(why(box))["1-1"] == ("meets", ("answers again, not yet for long enough",))
    box.wait(20)
    verdict, (remark,) = table(why(box))["1-1"]
    assert (verdict, remark) == ("meets", "clean for 20 s of 60 s")
    box.wait(45)
    assert table(why(box))["1-1"] == ("meets", ())


def test_what_is_dead_says_why(box) -> None:
    box.wait(5)
    box.kill("hq/1-1")
    box.tell(UplinkChanged(facts(2, carrier=False)))
    rows = table(why(box))
    assert rows["1-1"] == ("unusable", ("down, 4 probes in a row unanswered",))
    assert rows["2-1"] == ("unusable", ("its uplink has no carrier",))


def test_what_was_never_measured_shows_no_numbers(box) -> None:
    first, *_ = why(box).candidates
    assert (first.verdict, first.liveness) == ("unmeasured", Liveness.UNKNOWN)
    assert first.delay_us is first.loss_ratio is first.mos is first.jitter_us is None
    assert first.remarks == ("never answered",)


def test_before_anything_was_decided_it_says_so() -> None:
    state, _ = decide(initial_state(), IntentChanged(intent()), 0.0)
    found = explain(state, VOICE, HQ)
    assert "the uplinks are not known" in found.reason
    assert (found.cause, found.since, found.carriers) == (None, None, ())


def test_what_nothing_can_carry_yet_says_why() -> None:
    found = explain(Box(attached=[]).state, VOICE, HQ)
    assert (found.cause, found.since, found.carriers) == (None, None, ())
    assert "fibre to cable (1-1): its uplink has no carrier" in found.reason


def test_a_class_with_no_permitted_path_at_all() -> None:
    box = Box(intent(voice=policy(VOICE_POLICY, tiers=())))
    found = explain(box.state, VOICE, HQ)
    assert found.reason == "voice to hq is discarded, as its policy says: no path is permitted"
    assert {c.verdict for c in found.candidates} == {"not-permitted"}
    assert {c.remarks for c in found.candidates} == {("in no tier of the policy",)}


@pytest.mark.parametrize(("name", "site"), [("nope", "hq"), ("voice", "nowhere")])
def test_names_that_do_not_exist(box, name, site) -> None:
    with pytest.raises(KeyError):
        explain(box.state, ClassName(name), SiteName(site))


def test_explaining_changes_nothing(box) -> None:
    box.tell(PathMtuChanged(named("hq/1-1"), 1300))
    before = repr(box.state)
    why(box)
    assert repr(box.state) == before
