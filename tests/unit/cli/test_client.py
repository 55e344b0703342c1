"""The client: whatever the other end does, an error that says what to do."""

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from appliance.cli.client import Client, Refused, Unreachable
from tests.unit.api.running import running
from tests.unit.api.scripted import ScriptedSource


@contextmanager
def _answering(path: Path, answer: bytes | None) -> Iterator[None]:
    """Something at the socket that answers one request with these octets, or never."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(65536)
                if answer is None:
                    client.recv(1)  # until the client gives up
                else:
                    client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(10)


def test_an_answer(tmp_path: Path) -> None:
    with running(ScriptedSource(), tmp_path) as server:
        assert Client(server.path).get("healthz")["stage"] == "running"
        assert Client(server.path).post("reload")["is_changed"] is True


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "failed"),
        (b"SSH-2.0-other\r\n", "failed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "failed"),
    ],
)
def test_something_else_at_the_socket(tmp_path: Path, answer: bytes, text: str) -> None:
    path = tmp_path / "api.sock"
    with _answering(path, answer), pytest.raises(Unreachable, match=text):
        Client(path).get("status")


def test_an_error_that_is_no_problem_details(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    answer = b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno"
    with _answering(path, answer), pytest.raises(Refused, match="HTTP status 502: Bad Gateway"):
        Client(path).get("status")


def test_a_supervisor_that_hangs(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with _answering(path, None), pytest.raises(Unreachable, match="does not answer"):
        Client(path, timeout_s=0.05).get("status")


def test_no_supervisor(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    with pytest.raises(Unreachable, match="Is it running"):
        Client(path).get("status")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(Unreachable, match="Is it running"):
        Client(path).get("status")


def test_a_socket_that_may_not_be_opened(tmp_path: Path) -> None:
    with running(ScriptedSource(), tmp_path) as server:
        server.path.chmod(0)
        own = os.geteuid()
        try:
            if own == 0:
                os.seteuid(65534)  # to root nothing is forbidden
            with pytest.raises(Unreachable, match="use sudo, or join the group"):
                Client(server.path).get("status")
        finally:
            os.seteuid(own)
