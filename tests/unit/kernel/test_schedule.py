import os

import pytest

from appliance.kernel import schedule


def test_a_slice_changes_neither_policy_nor_niceness() -> None:
    before = os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)
    schedule.let_others_interrupt()
    assert (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0)) == before


def test_on_an_unknown_machine_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule.platform, "machine", lambda: "pdp11")
    monkeypatch.setattr(schedule.ctypes, "CDLL", lambda *_, **__: pytest.fail("it was called"))
    schedule.let_others_interrupt()
