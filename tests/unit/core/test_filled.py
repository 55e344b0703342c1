"""Nobody is blamed for a queue of our own, for a while."""

import pytest

from appliance.contract.ids import Slot
from appliance.core.actions import Cause, MoveClass
from appliance.core.events import (
    Event,
    IntentChanged,
    LineFilled,
    LoopStalled,
    ProbeOverdue,
    TrafficSampled,
    UplinkChanged,
    UplinkProbed,
)
from appliance.core.filled import AFTER_S, EXCUSE_S
from tests.unit.core.box import LOSSY, SLOW, Box
from tests.unit.core.examples import HQ, VOICE, facts, intent, path

FIBRE, LTE = Slot(1), Slot(2)
QUEUED = {"hq/1-1": SLOW, "hq/1-2": SLOW}


def started() -> Box:
    box = Box()
    box.wait(5)
    box.actions.clear()
    return box


def moves(box: Box) -> list[MoveClass]:
    return [a for _, a in box.actions if isinstance(a, MoveClass) and a.class_name == VOICE]


def test_a_queue_of_our_own_moves_nothing_and_another_one_does() -> None:
    for is_full, slot in ((True, FIBRE), (False, FIBRE), (True, LTE)):
        box = started()
        box.tell(LineFilled(slot, is_full))
        box.wait(EXCUSE_S - 1, but=QUEUED)
        expected = [] if is_full and slot == FIBRE else [Cause.SLA_VIOLATED]
        assert [m.cause for m in moves(box)] == expected


def test_its_losses_count_as_little_as_its_delay() -> None:
    box = started()
    box.tell(LineFilled(FIBRE, is_full=True))
    box.tell(TrafficSampled(path("hq", 1, 1), 500, 100))
    box.wait(EXCUSE_S - 1, but=dict.fromkeys(QUEUED, LOSSY))
    assert not moves(box)


def test_a_queue_that_stays_is_judged_like_any_other() -> None:
    box = started()
    box.tell(LineFilled(FIBRE, is_full=True))
    box.wait(EXCUSE_S + 2, but=QUEUED)
    assert [m.cause for m in moves(box)] == [Cause.SLA_VIOLATED]


def test_what_was_measured_is_forgotten_before_it_is_judged_again() -> None:
    box = started()
    box.tell(LineFilled(FIBRE, is_full=True))
    box.wait(2, but=QUEUED)
    box.tell(LineFilled(FIBRE, is_full=False))
    box.wait(10)
    assert not moves(box)
    box.tell(LineFilled(FIBRE, is_full=False))  # said twice
    box.wait(AFTER_S + 2, but=QUEUED)
    assert moves(box)


def test_a_line_that_fills_again_and_again_is_excused_for_a_tenth_of_the_time() -> None:
    box = started()
    for _ in range(2):
        box.tell(LineFilled(FIBRE, is_full=True))
        box.wait(3, but=QUEUED)
        box.tell(LineFilled(FIBRE, is_full=False))
    box.wait(AFTER_S + 1, but=QUEUED)
    assert moves(box)
    box.wait(120)
    box.actions.clear()
    box.tell(LineFilled(FIBRE, is_full=True))
    box.wait(EXCUSE_S - 1, but=QUEUED)
    assert not moves(box)


MEANWHILE: tuple[Event, ...] = (
    IntentChanged(intent()),
    UplinkChanged(facts(FIBRE)),
    UplinkProbed(FIBRE, 2, 3, is_healthy=True, evidence="evidence"),
    ProbeOverdue(path("hq", 1, 1), 0.1, 1, 0.2),
    LoopStalled(1.0),
)


@pytest.mark.parametrize("event", MEANWHILE, ids=lambda event: type(event).__name__)
def test_nothing_else_that_happens_to_an_uplink_ends_the_excuse_or_renews_it(event: Event) -> None:
    box = started()
    for _ in range(2):
        box.tell(LineFilled(FIBRE, is_full=True))
        box.tell(event)
        box.wait(EXCUSE_S - 1, but=QUEUED)
        assert not moves(box)
        box.wait(3, but=QUEUED)
        assert moves(box)
        box.tell(LineFilled(FIBRE, is_full=False))
        box.tell(event)
        assert box.state.uplinks[FIBRE].filled.budget.tokens == 0.0
        box.wait(120)
        box.actions.clear()


def test_an_uplink_that_is_condemned_and_acquitted_keeps_the_excuse() -> None:
    box = started()
    box.tell(LineFilled(FIBRE, is_full=True))
    filled = box.state.uplinks[FIBRE].filled
    for count in range(1, 4):
        box.now += 0.02
        for remote in (1, 2):
            box.tell(ProbeOverdue(path("hq", 1, remote), 0.01, count, 1.0))
    assert box.state.uplinks[FIBRE].condemned_at is not None
    assert box.state.uplinks[FIBRE].filled == filled
    box.revive("hq/1-1")
    assert box.state.uplinks[FIBRE].condemned_at is None
    assert box.state.uplinks[FIBRE].filled == filled


def test_an_unknown_uplink_has_no_queue() -> None:
    box = started()
    box.tell(LineFilled(Slot(9), is_full=True))
    assert Slot(9) not in box.state.uplinks
    assert HQ in box.state.sites
