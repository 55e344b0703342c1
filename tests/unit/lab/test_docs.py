"""docs/LAB.md shows the example that is tested, and names only what exists."""

import inspect
import re
from pathlib import Path

import pytest

from lab.machine import Daemon, Machine
from lab.sessions import TcpSessions
from lab.stream import Stream
from lab.supervisor import Supervisor
from lab.topology import Lab, Line, Site, Uplink

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "LAB.md").read_text()
CLASSES = {c.__name__: c for c in (Lab, Machine, Site, Stream, Supervisor, TcpSessions, Uplink)}
CALL = re.compile(r"`((?:[A-Z]\w+\.)?[a-z_]\w*)(?:\(([^()`]*)\))?`")


def _documented() -> list[tuple[str, str, str | None]]:
    """(class, member, parameters) of every first table column below "## API"."""
    found = []
    owner = ""
    for line in PAGE.partition("## API")[2].partition("## How it works")[0].splitlines():
        if line.startswith("### "):
            owner = re.findall(r"`(\w+)`", line)[0]
        elif line.startswith("| `"):
            for name, parameters in CALL.findall(line.split("|")[1]):
                class_name, _, member = name.rpartition(".")
                found.append((class_name or owner, member, parameters or None))
    return found


def test_the_example_is_the_tested_file() -> None:
    example = PAGE.partition("```python\n")[2].partition("```")[0]
    assert example == (ROOT / "tests/lab/lab_example.py").read_text()


@pytest.mark.parametrize(("owner", "member", "parameters"), _documented())
def test_a_documented_member_exists(owner: str, member: str, parameters: str | None) -> None:
    source = inspect.getsource(CLASSES[owner])
    found = getattr(CLASSES[owner], member, None)
    assert found is not None or f"self.{member} = " in source or f"self.{member}: " in source
    if parameters and re.fullmatch(r"[a-z_0-9, ]+", parameters):
        assert found is not None
        assert set(parameters.split(", ")) <= set(inspect.signature(found).parameters)


def test_the_page_names_every_public_member() -> None:
    named = {(owner, member) for owner, member, _ in _documented()}
    internal = {("Lab", "add"), ("Lab", "close"), ("Machine", "destroy"), ("Machine", "enter")}
    internal |= {("Supervisor", "wait_ready"), ("Supervisor", "socket")}
    public = {
        (name, member)
        for name, owner in CLASSES.items()
        for member in vars(owner)
        if not member.startswith("_")
    }
    assert public - named - internal == set()


def test_the_page_names_every_property_of_a_line_and_of_a_daemon() -> None:
    for name in inspect.signature(Line).parameters:
        assert name in PAGE
    for name in ("is_running", "output", "cpu_s", "rss_mib", "send", "stop", "kill"):
        assert hasattr(Daemon, name)
        assert name in PAGE
