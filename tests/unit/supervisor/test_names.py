"""The name server is started, told whom to ask, and ended. The lab has the real dnsmasq."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance import clock
from appliance.contract.ids import Slot
from appliance.kernel.fake import FakeKernel
from appliance.services.child import read_record
from appliance.supervisor import names
from appliance.supervisor.names import NameServer, NotHereError, _is_alive
from tests.unit.plan.examples import BRANCH
from tests.unit.services.test_child import running, until
from tests.unit.services.test_dnsmasq import PROVIDER, asking, working

ASKING = replace(asking(), name_servers=())
# Stands for dnsmasq: says what it reads, at the start and at each SIGHUP.
SCRIPT = """#!/bin/sh
file="$(sed -n s/servers-file=//p "${2#--conf-file=}")"
seen="$(dirname "$file")/seen"
trap 'cat "$file" >> "$seen"' HUP
cat "$file" >> "$seen"
while :; do sleep 0.02; done
"""


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "dnsmasq"
    script.write_text(SCRIPT)
    script.chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 0)  # else it is run with few rights of ours
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    yield tmp_path / "seen"
    if left := pid(tmp_path):  # it outlives whoever started it, and so a test that fails
        os.kill(left, signal.SIGKILL)


def made(directory: Path, told: list[str | None], kernel: FakeKernel | None = None) -> NameServer:
    return NameServer(kernel or FakeKernel(), directory, lambda: 0.0, told.append)


def read(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def pid(directory: Path) -> int:
    record = read_record(directory / "dns.child")
    return record.pid if record else 0


async def test_it_is_told_whom_to_ask_and_ends_when_nobody_asks(tmp_path, program) -> None:
    told: list[str | None] = []
    server = made(tmp_path, told)
    device = BRANCH.uplinks[0].device
    async with running(server):
        assert not list(tmp_path.glob("dns.*"))
        server.want(ASKING, {Slot(1): working(PROVIDER)})
        whom = f"server=198.51.100.53@{device}\n"
        await until(lambda: read(program) == whom, "it is started and knows whom to ask")
        first = pid(tmp_path)
        program.unlink()
        server.want(ASKING, {Slot(1): working()})
        await until(lambda: program.exists(), "it reads whom to ask again")
        assert read(program) == ""
        assert pid(tmp_path) == first
        lan = replace(ASKING.lans[0], addresses=ASKING.lans[0].addresses[:1])
        program.unlink()
        server.want(replace(ASKING, lans=(lan,)), {Slot(1): working(PROVIDER)})
        await until(lambda: program.exists(), "another configuration is another one")
        assert pid(tmp_path) != first
        server.want(BRANCH, {})
        await until(lambda: not pid(tmp_path), "it is ended")
    assert set(told) == {None}


async def test_the_next_supervisor_adopts_it(tmp_path, program) -> None:
    for _ in range(2):
        server = made(tmp_path, [])
        server.want(ASKING, {Slot(1): working(PROVIDER)})
        async with running(server):
            await until(lambda: program.exists(), "it runs")
            first = pid(tmp_path)
            program.unlink()
    assert pid(tmp_path) == first
    server = made(tmp_path, [])
    async with running(server):
        await until(lambda: not pid(tmp_path), "one that nobody wants any more is ended")


async def test_what_is_in_the_way_is_told_and_tried_again(tmp_path, program, monkeypatch) -> None:
    monkeypatch.setattr(names, "RETRY_S", 0.01)
    told: list[str | None] = []
    server = made(tmp_path, told)
    (tmp_path / "dns.servers").mkdir()
    server.want(ASKING, {Slot(1): working(PROVIDER)})
    async with running(server):
        await until(lambda: told, "it is told")
        assert told[-1] == "whom to ask cannot be written: Is a directory"
        await until(lambda: pid(tmp_path), "it runs all the same")
        assert told[-1] == "whom to ask cannot be written: Is a directory"
        (tmp_path / "dns.servers").rmdir()
        await until(lambda: (tmp_path / "dns.servers").exists(), "it is written")
        await until(lambda: told[-1] is None, "all is well")
        server.want(BRANCH, {})
        await until(lambda: not pid(tmp_path), "it is ended")


async def test_a_dnsmasq_that_is_not_installed_is_told(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(names, "RETRY_S", 0.01)
    monkeypatch.setenv("PATH", str(tmp_path))
    told: list[str | None] = []
    server = made(tmp_path, told)
    server.want(ASKING, {})
    async with running(server):
        await until(lambda: told, "it is told")
    assert told[0] == "dnsmasq is not there: install dnsmasq-base"
    assert not pid(tmp_path)


async def test_one_set_of_each_pair_is_emptied_by_turns(tmp_path, monkeypatch) -> None:
    now = 3599.0
    monkeypatch.setattr(clock, "monotonic", lambda: now)
    slept: list[float] = []
    kernel = FakeKernel()
    kernel.learned = {"names_x_4a": {PROVIDER}, "names_x_4b": {PROVIDER}}
    seen = []

    async def sleep(seconds: float) -> None:
        nonlocal now
        seen.append({name for name, held in kernel.learned.items() if held})
        kernel.learned = {name: {PROVIDER} for name in kernel.learned}
        slept.append(seconds)
        now += seconds
        if len(slept) == 4:
            raise asyncio.CancelledError

    monkeypatch.setattr(asyncio, "sleep", sleep)
    server = made(tmp_path, [], kernel)
    server.want(ASKING, {})
    with contextlib.suppress(asyncio.CancelledError):
        await server._empty_by_turns()
    assert slept == [1.0, 3600.0, 3600.0, 3600.0]
    assert seen[1:] == [{"names_x_4a"}, {"names_x_4b"}, {"names_x_4a"}]


async def test_silence_is_a_sign_of_death_and_absence_is_not(monkeypatch) -> None:
    monkeypatch.setattr(names, "ANSWER_S", 0.05)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        port = mute.getsockname()[1]
        monkeypatch.setattr(names, "PORT", port)
        assert not await _is_alive("127.0.0.1", 1)
    assert await _is_alive("127.0.0.1", 2) is None  # nobody listens
    with pytest.raises(NotHereError):
        await _is_alive("192.0.2.1", 3)


def test_three_questions_without_an_answer_are_told_until_one_is_answered(tmp_path) -> None:
    for what in (None, False):
        told: list[str | None] = []
        server = made(tmp_path, told)
        for _ in range(2):
            server._heard(what)
        assert not told
        server._heard(what)
        assert told == ["dnsmasq does not answer; what it says of that is in the log"]
        assert server._is_hung(1) == (what is False)
        server._heard(what)
        server._heard(True)
        assert told[1:] == [None]


async def test_a_table_that_is_loaded_anew_has_it_forget_its_cache(tmp_path, program) -> None:
    server = made(tmp_path, [])
    server.want(ASKING, {Slot(1): working(PROVIDER)})
    async with running(server):
        await until(lambda: read(program), "it runs")
        program.unlink()
        server.tables_are(1)
        await until(lambda: read(program), "it reads again")
        program.unlink()
        server.tables_are(1)
        server.want(BRANCH, {})
        await until(lambda: not pid(tmp_path), "it is ended")
    assert not program.exists()


def test_it_is_hung_after_three_questions_in_a_row(tmp_path) -> None:
    server = made(tmp_path, [])
    server._silent = 2
    assert not server._is_hung(1)
    server._silent = 3
    assert server._is_hung(1)
    assert not server._is_hung(1)  # its successor begins anew
