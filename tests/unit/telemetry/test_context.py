"""What a preamble holds: all that a core remembers, and nothing of what is no more."""

from dataclasses import replace

from appliance.contract.ids import ClassName, SiteName, Slot
from appliance.core.events import (
    IntentChanged,
    LoopStalled,
    SteeringAdopted,
    UplinkChanged,
    UplinkFacts,
    UplinkProbed,
)
from appliance.telemetry.context import Context
from tests.unit.telemetry.test_recorder import ACTION, CLOUD, FIBRE, INTENT, LTE, VOICE, _on


def test_before_an_intent_there_is_nothing_to_go_on_from() -> None:
    context = Context()
    context.see(UplinkChanged(UplinkFacts(Slot(1))))
    assert context.events() == []


def test_a_site_that_was_configured_away_is_left_out() -> None:
    context = Context()
    context.see(INTENT)
    context.see(SteeringAdopted(((VOICE, CLOUD, _on(FIBRE)),)))
    context.see_move(replace(ACTION, class_name=ClassName("bulk"), site=SiteName("branch-b")))
    others = tuple(peer for peer in INTENT.intent.peers if peer.name != CLOUD)
    smaller = IntentChanged(replace(INTENT.intent, peers=others))
    context.see(smaller)
    adopted = SteeringAdopted(((ClassName("bulk"), SiteName("branch-b"), _on(LTE)),))
    assert context.events() == [smaller, adopted]


def test_the_last_of_each_kind_counts() -> None:
    context = Context()
    context.see(INTENT)
    for answered in (0, 2):
        context.see(UplinkProbed(Slot(1), answered, 3, answered > 1, "evidence"))
    context.see(LoopStalled(1.0))
    probed = UplinkProbed(Slot(1), 2, 3, is_healthy=True, evidence="evidence")
    assert context.events() == [INTENT, SteeringAdopted(), probed]


def test_a_copy_stays_as_it_was() -> None:
    context = Context()
    context.see(INTENT)
    copy = context.copy()
    context.see_move(ACTION)
    context.see(UplinkChanged(UplinkFacts(Slot(1))))
    assert copy.events() == [INTENT, SteeringAdopted()]
