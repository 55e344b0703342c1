import pytest

from lab.boot import Event
from lab.console import render, show

BEGIN: Event = {"event": "story_begin", "t": 0.0, "story": "x"}
TRUE: Event = {
    "event": "story_end", "t": 2.0, "story": "x", "ok": True, "error": None, "virtual_s": 2.0,
}  # fmt: skip


def test_events_as_lines() -> None:
    assert render({"event": "say", "t": 1.5, "text": "hello"}) == ["    1.500  hello"]
    assert render({"event": "check", "t": 1, "ok": False, "text": "a"}) == ["    1.000  FAIL  a"]
    record: Event = {
        "event": "record", "t": 1, "name": "lost", "value": 3, "unit": "packets",
        "params": {"pps": 200},
    }  # fmt: skip
    assert render(record) == ["    1.000  lost = 3 packets  (pps=200)"]
    assert render({"event": "guest_failed", "t": 0, "text": "a\nb"}) == ["!! a", "!! b"]
    assert render({"event": "end", "t": 0}) == []


def test_all_stories_must_come_true(capsys: pytest.CaptureFixture[str]) -> None:
    assert show([BEGIN, TRUE], 1)
    assert not show([BEGIN, {**TRUE, "ok": False, "error": "no"}], 1)
    assert not show([BEGIN, TRUE], 2)
    assert not show([BEGIN, TRUE, {"event": "guest_failed", "t": 0, "text": "oops"}], 1)
    assert "1 of 2 stories came true" in capsys.readouterr().out
