"""Asking the supervisor on this box, with the standard library only: the commands start quickly."""

import json
import socket
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

TIMEOUT_S = 130.0  # longer than the server's own longest
ANSWER_OCTETS = 256 << 20  # a hub's status has some megabytes


class Unreachable(Exception):  # noqa: N818 - says how the supervisor is
    """No supervisor answers on the socket. The text says what to do."""


class Refused(Exception):  # noqa: N818 - says what became of the request
    """The supervisor answered with problem details (RFC 9457)."""

    def __init__(self, details: dict[str, Any]) -> None:
        super().__init__(f"{details.get('title', 'refused')}: {details.get('detail', '')}")
        self.next_step = str(details.get("next_step", ""))
        self.errors: list[dict[str, Any]] = details.get("errors", [])


class Client:
    """Requests to the API at a socket. Every method raises Unreachable or Refused."""

    def __init__(self, socket_path: Path, *, timeout_s: float = TIMEOUT_S) -> None:
        self._path = socket_path
        self._timeout_s = timeout_s

    def get(self, *parts: str, **query: object) -> Any:
        """The JSON at /v1/PARTS?QUERY. Parameters that are None are left out."""
        return self._ask("GET", _address(parts, query))

    def post(self, *parts: str, config: bytes | None = None, **query: object) -> Any:
        return self._ask("POST", _address(parts, query), config)

    def _ask(self, method: str, address: str, body: bytes | None = None) -> Any:
        headers = {} if body is None else {"Content-Type": "application/yaml"}
        connection = _UnixConnection(self._path, self._timeout_s)
        try:
            connection.request(method, address, body, headers)
            response = connection.getresponse()
            answer = response.read(ANSWER_OCTETS)
        except (OSError, HTTPException) as error:
            raise Unreachable(_what_to_do(self._path, error)) from error
        finally:
            connection.close()
        if response.status >= 400:
            raise Refused(_details(response, answer))
        try:
            return json.loads(answer)
        except ValueError as error:  # cut short, or somebody else's
            raise Unreachable(_what_to_do(self._path, error)) from error


class _UnixConnection(HTTPConnection):
    def __init__(self, path: Path, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _address(parts: tuple[str, ...], query: dict[str, object]) -> str:
    given = {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in query.items()
        if value is not None
    }
    address = "/v1/" + "/".join(quote(part, safe="") for part in parts)
    return f"{address}?{urlencode(given)}" if given else address


def _details(response: HTTPResponse, answer: bytes) -> dict[str, Any]:
    try:
        details = json.loads(answer)
    except ValueError:
        details = None
    if isinstance(details, dict):
        return details
    return {"title": f"HTTP status {response.status}", "detail": response.reason}


def _what_to_do(path: Path, error: Exception) -> str:
    match error:
        case FileNotFoundError() | ConnectionRefusedError():
            return (
                f"no supervisor answers at {path}. Is it running? Start it with"
                " `systemctl start branchline`, or by hand with `branchline run --config FILE`."
                " Does it keep its state elsewhere? Say where with --state-dir and --run-dir, as it"
                " was told."
            )
        case PermissionError():
            return (
                f"you may not open {path}: use sudo, or join the group of the service:"
                " `sudo usermod -aG branchline $USER`, and sign in again."
            )
        case TimeoutError():
            return (
                f"the supervisor at {path} does not answer. See its log:"
                " `journalctl -u branchline`; forwarding goes on without it."
            )
        case _:
            return f"talking to the supervisor at {path} failed: {error}. Try again."
