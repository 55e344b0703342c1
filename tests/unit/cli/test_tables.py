"""Where the tables go: coloured and as wide as the terminal, or plain and whole in a file."""

import io
import os
import pty
import re
from collections.abc import Iterator
from typing import TextIO

import pytest

from appliance.cli import tables

WARNING = {"severity": "critical", "since": 0.0, "text": "Uplink modem has no carrier. " * 12}


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """A real terminal of 80 columns: what it shows can be read at the descriptor."""
    shown, typed = pty.openpty()
    with os.fdopen(typed, "w") as file:
        yield shown, file
    os.close(shown)


def _printed(terminal: tuple[int, TextIO]) -> str:
    shown, file = terminal
    tables.show_warnings(tables.console(file), [WARNING], 60.0)
    file.flush()
    return os.read(shown, 65536).decode()


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")


def test_a_terminal_gets_colours_and_folded_lines(terminal: tuple[int, TextIO]) -> None:
    printed = _printed(terminal)
    assert "\x1b[31mcritical" in printed  # red
    lines = re.sub(r"\x1b\[[0-9;]*m", "", printed).splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) > 3


def test_colours_can_be_switched_off(
    terminal: tuple[int, TextIO], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[31m" not in _printed(terminal)


def test_a_file_gets_no_colours() -> None:
    file = io.StringIO()
    tables.show_warnings(tables.console(file), [WARNING], 60.0)
    assert "\x1b" not in file.getvalue()
    assert "critical" in file.getvalue()


def test_text_is_never_taken_for_markup() -> None:
    file = io.StringIO()
    warning = WARNING | {"text": "[red]not red[/red] [/] :boom:"}
    tables.show_warnings(tables.console(file), [warning], 60.0)
    assert "[red]not red[/red] [/] :boom:" in file.getvalue()
