"""The socket: who may open it, what a killed supervisor left behind, what stays at the end."""

import os
import socket
import stat
from collections import Counter
from pathlib import Path

import pytest

from appliance.api.listen import serve
from tests.unit.api.running import running
from tests.unit.api.scripted import ScriptedSource


def test_only_the_service_and_its_group_may_open_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with running(ScriptedSource(), tmp_path) as server:
            mode = server.path.stat().st_mode
            assert stat.S_ISSOCK(mode)
            assert stat.S_IMODE(mode) == 0o660
            assert [path.name for path in tmp_path.iterdir()] == ["api.sock"]
    finally:
        os.umask(before)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_supervisor_left_is_replaced(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "api.sock"))
    with running(ScriptedSource(), tmp_path) as server:
        assert server.get("/v1/healthz").status == 200


def test_the_socket_of_a_successor_stays(tmp_path: Path) -> None:
    with running(ScriptedSource(), tmp_path):
        (tmp_path / "api.sock").unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(str(tmp_path / "api.sock"))
    assert (tmp_path / "api.sock").exists()


async def test_a_path_that_is_too_long_is_said_so(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 108) / "api.sock"
    with pytest.raises(OSError, match="at most 107 octets; use a shorter directory"):
        async with serve(ScriptedSource(), path):
            pass


async def test_a_directory_that_is_missing_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with serve(ScriptedSource(), tmp_path / "none" / "api.sock"):
            pass


def _listening() -> Counter[int]:
    """How many sockets of each family this process listens on."""
    families: Counter[int] = Counter()
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            with socket.socket(fileno=os.dup(int(descriptor.name))) as one:
                if one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    families[one.family] += 1
        except OSError:  # no socket, or the descriptor of the directory that was read
            continue
    return families


async def test_the_api_is_never_on_the_network(tmp_path: Path) -> None:
    before = _listening()
    async with serve(ScriptedSource(), tmp_path / "api.sock"):
        assert _listening() - before == {socket.AF_UNIX: 1}
