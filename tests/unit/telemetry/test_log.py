"""Log lines: JSON, one a line, with the fields that the call named."""

import io
import json
import logging
import os
from collections.abc import Iterator

import pytest

from appliance.telemetry.log import set_up


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """What is logged; the logging of the test run is put back afterwards."""
    root = logging.getLogger()
    before = root.handlers[:], root.level, logging.raiseExceptions
    stream = io.StringIO()
    set_up(stream=stream)
    yield stream
    root.handlers[:], level, logging.raiseExceptions = before
    root.setLevel(level)


def test_a_line_has_the_message_and_its_fields(stream: io.StringIO) -> None:
    logging.getLogger("appliance.x").info("moved", extra={"class": "voice", "sites": ("hq", 3)})
    line = json.loads(stream.getvalue())
    assert line.pop("at").endswith("Z")
    assert line == {
        "level": "info",
        "from": "appliance.x",
        "message": "moved",
        "class": "voice",
        "sites": ["hq", 3],
    }


def test_what_is_not_json_becomes_text_and_lines_stay_whole(stream: io.StringIO) -> None:
    logging.getLogger("x").warning("odd", extra={"object": {1, 2}.__class__, "text": "a\nb\x1b[0m"})
    assert stream.getvalue().count("\n") == 1
    assert json.loads(stream.getvalue())["text"] == "a\nb\x1b[0m"
    assert "\x1b" not in stream.getvalue()


def test_an_exception_is_part_of_its_line(stream: io.StringIO) -> None:
    try:
        int("x")
    except ValueError:
        logging.getLogger("x").exception("failed")
    assert "invalid literal" in json.loads(stream.getvalue())["exception"]
    assert stream.getvalue().count("\n") == 1


def test_ticks_are_not_logged_unless_asked_for(stream: io.StringIO) -> None:
    logging.getLogger("x").debug("tick")
    assert stream.getvalue() == ""
    set_up(is_verbose=True, stream=stream)
    logging.getLogger("x").debug("tick")
    assert json.loads(stream.getvalue())["level"] == "debug"


@pytest.mark.usefixtures("stream")
def test_journald_is_told_the_priority(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("journal") / "stream"
    with path.open("w") as journal:
        status = os.fstat(journal.fileno())
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        set_up(stream=journal)
        logging.getLogger("x").error("refused")
    assert path.read_text().startswith('<3>{"at"')
