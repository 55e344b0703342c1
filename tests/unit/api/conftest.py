"""A real API server on a Unix socket, which tells what it is told to."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.api.running import Server, running
from tests.unit.api.scripted import ScriptedSource


@pytest.fixture
def source() -> ScriptedSource:
    return ScriptedSource()


@pytest.fixture
def server(source: ScriptedSource, tmp_path: Path) -> Iterator[Server]:
    with running(source, tmp_path) as server:
        yield server
