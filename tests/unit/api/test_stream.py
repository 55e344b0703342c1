"""Server-sent events: the status, then every change; no listener holds up the supervisor."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.api import stream
from appliance.api.feed import BACKLOG, Told
from appliance.contract.codec import encode
from appliance.contract.status import Change
from tests.unit.api.running import Server, running
from tests.unit.api.scripted import MOVE, NOW, STATUS, ScriptedSource


class Listener:
    """A client of /v1/events that reads one event at a time."""

    def __init__(self, server: Server) -> None:
        self._socket = server.connect()
        self._socket.sendall(b"GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
        self._file = self._socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers = dict(self._header() for _ in iter(self._peek_header, b""))

    def _peek_header(self) -> bytes:
        self._line = self._file.readline().rstrip()
        return self._line

    def _header(self) -> tuple[str, str]:
        name, _, value = self._line.decode().partition(": ")
        return name, value

    def _chunk(self) -> bytes:
        size = int(self._file.readline(), 16)
        body = self._file.read(size)
        self._file.readline()
        return body

    def event(self) -> tuple[str, Any] | str | None:
        """The next event's name and data, a comment, or None at the end."""
        text = ""
        while not text.endswith("\n\n"):  # a long event comes in many chunks
            chunk = self._chunk().decode()
            if not chunk:
                assert not text
                return None
            text += chunk
        if text.startswith(":"):
            return text
        name, data = text.rstrip("\n").split("\n")
        return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    def close(self) -> None:
        self._file.close()
        self._socket.close()


@pytest.fixture
def listener(server: Server) -> Iterator[Listener]:
    listener = Listener(server)
    yield listener
    listener.close()


def test_the_status_comes_first_and_then_the_changes(
    server: Server, source: ScriptedSource, listener: Listener
) -> None:
    assert listener.headers["Content-Type"] == "text/event-stream"
    first = listener.event()
    assert isinstance(first, tuple)
    assert first[0] == "status"
    assert first[1]["site"] == STATUS.site
    server.call(source.feed.publish, Told(encode(Change(NOW, moves=(MOVE,)))))
    server.call(source.feed.publish, Told(encode(Change(NOW + 1, warnings=()))))
    second, third = listener.event(), listener.event()
    assert isinstance(second, tuple)
    assert isinstance(third, tuple)
    assert (second[0], second[1]["moves"][0]["reason"]) == ("change", MOVE.reason)
    assert (third[1]["at"], third[1]["warnings"]) == (NOW + 1, [])
    server.call(source.feed.publish, Told(encode(STATUS), "status"))
    fourth = listener.event()
    assert isinstance(fourth, tuple)
    assert fourth == first


def test_the_stream_ends_when_the_feed_does(
    server: Server, source: ScriptedSource, listener: Listener
) -> None:
    listener.event()
    server.call(source.feed.close)
    assert listener.event() is None


def test_a_listener_that_does_not_read_is_told_that_it_missed_something(
    server: Server, source: ScriptedSource, listener: Listener
) -> None:
    listener.event()
    large = Told(encode(Change(NOW, moves=(MOVE,) * 250)))  # more than the socket holds
    for _ in range(BACKLOG + 20):
        server.call(source.feed.publish, large)
    server.get("/v1/healthz")  # others are served meanwhile
    events = list(iter(listener.event, None))
    assert 0 < len(events) <= BACKLOG + 20
    assert events[-1] == ("overrun", {})
    assert not source.feed.has_listeners


def test_a_silent_stream_shows_that_it_lives(
    source: ScriptedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "KEEPALIVE_S", 0.02)
    with running(source, tmp_path) as server:
        listener = Listener(server)
        listener.event()
        assert [listener.event(), listener.event()] == [": still here\n\n"] * 2
        server.call(source.feed.publish, Told(encode(Change(NOW))))
        while isinstance(event := listener.event(), str):
            pass
        assert isinstance(event, tuple)
        assert event[0] == "change"
        listener.close()


def test_a_listener_that_leaves_is_forgotten(
    source: ScriptedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "KEEPALIVE_S", 0.02)
    with running(source, tmp_path) as server:
        Listener(server).close()
        while source.feed.has_listeners:
            server.get("/v1/healthz")


def test_a_listener_that_stops_reading_is_cut_off(
    source: ScriptedSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "WRITE_TIMEOUT_S", 0.05)
    with running(source, tmp_path) as server:
        listener = Listener(server)
        listener.event()
        server.call(source.feed.publish, Told(encode(Change(NOW, moves=(MOVE,) * 5000))))
        while source.feed.has_listeners:
            server.get("/v1/healthz")
        listener.close()


def test_streams_are_bounded(server: Server) -> None:
    listeners = [Listener(server) for _ in range(stream.STREAMS_AT_MOST)]
    refused = server.get("/v1/events")
    assert refused.status == 503
    assert refused.json()["type"] == "/v1/problems/too-many-streams"
    for listener in listeners:
        listener.close()


def test_the_server_stops_while_somebody_listens(source: ScriptedSource, tmp_path: Path) -> None:
    with running(source, tmp_path) as server:
        listener = Listener(server)
        listener.event()
    assert listener.event() is None
    listener.close()
