"""Every command, run against a real server. What people see is compared with golden files.

`python -m tests.unit.cli.test_commands` writes the golden files anew: read the difference.
"""

import json
import os
import re
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest
from click.testing import CliRunner, Result

from appliance.api.source import FlowQuery, HistoryQuery
from appliance.cli.main import main
from appliance.contract.ids import ClassName, SiteName
from tests.unit.api.running import Server, running
from tests.unit.api.scripted import NOW, REFUSED, STATUS, ScriptedSource
from tests.unit.cli.recorded import config, write_recording

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "tests" / "golden"
EXAMPLE = ROOT / "examples" / "branch.yaml"

ASKING = {
    "status": ["status"],
    "paths": ["paths"],
    "classes": ["classes"],
    "why": ["why", "voice", "hq"],
    "classify": ["classify", "--from", "192.0.2.9", "--to", "198.51.100.7", "--port", "5060"],
    "flows": ["flows"],
    "history": ["history"],
    "plan": ["plan"],
    "plan_dry_run": ["plan", "--dry-run"],
    "reload": ["reload"],
}


def ask(directory: Path, *arguments: str) -> Result:
    """Run a command in this process, at the time and in the zone of the golden files."""
    folders = ("--state-dir", str(directory), "--run-dir", str(directory))
    before = os.environ.get("TZ")
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        with patch("appliance.clock.wall_ns", lambda: int(NOW * 1e9)):
            return CliRunner().invoke(main, [*folders, *arguments], catch_exceptions=False)
    finally:
        os.environ.pop("TZ")
        if before is not None:
            os.environ["TZ"] = before
        time.tzset()


@pytest.fixture
def source() -> ScriptedSource:
    return ScriptedSource()


@pytest.fixture
def server(source: ScriptedSource, tmp_path: Path) -> Iterator[Server]:
    with running(source, tmp_path) as server:
        yield server


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize("name", ASKING)
def test_what_people_see(tmp_path: Path, name: str) -> None:
    result = ask(tmp_path, *ASKING[name])
    assert result.exit_code == 0
    assert result.stdout == (GOLDEN / f"cli_{name}.txt").read_text()


@pytest.mark.parametrize("name", ["status", "paths", "classes", "why", "flows", "history", "plan"])
def test_what_programs_see_is_what_the_api_says(tmp_path: Path, server: Server, name: str) -> None:
    result = ask(tmp_path, *ASKING[name], "--json")
    address = "/".join(ASKING[name])
    assert json.loads(result.stdout) == server.get(f"/v1/{address}").json()


def test_programs_see_what_the_api_says_of_a_flow(tmp_path: Path, server: Server) -> None:
    words = ["--protocol", "udp", "--dscp", "ef", "--lan", "office", "--json"]
    query = "from=192.0.2.9&to=198.51.100.7&port=5060&protocol=udp&dscp=ef&lan=office"
    result = ask(tmp_path, *ASKING["classify"], *words)
    assert json.loads(result.stdout) == server.get(f"/v1/classify?{query}").json()


def test_a_flow_by_a_file_alone(tmp_path: Path) -> None:
    ends = ["--from", "192.168.1.9", "--to", "192.168.3.10", "--config", str(EXAMPLE)]
    result = ask(tmp_path, "classify", *ends, "--protocol", "udp", "--port", "5060")
    assert result.stdout == ("class voice: match 2\ncomes from LAN office, DSCP 0\ngoes to cloud\n")
    result = ask(tmp_path, "classify", *ends, "--dscp", "cs1", "--json")
    assert json.loads(result.stdout)["class_name"] == "bulk"
    for wrong, said in {
        ("--dscp", "eff"): '"eff" names no DSCP\n  next: did you mean `ef`?\n',
        ("--lan", "mars"): "There is no LAN 'mars'; there is office.\n",
    }.items():
        result = ask(tmp_path, "classify", *ends, *wrong)
        assert (result.exit_code, result.stderr) == (1, f"branchline: {said}")
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("version: 1\nlnas: []\n")
    result = ask(tmp_path, "classify", *ends[:4], "--config", str(wrong))
    assert result.exit_code == 1
    assert "/lnas" in result.stderr


@pytest.mark.usefixtures("server")
def test_options_reach_the_supervisor(tmp_path: Path, source: ScriptedSource) -> None:
    assert ask(tmp_path, "flows", "--limit", "1", "--class", "bulk").exit_code == 0
    assert source.flow_queries == [FlowQuery(1, ClassName("bulk"))]
    assert ask(tmp_path, "history", "--limit", "1", "--class", "voice", "--site", "hq").stdout
    assert ask(tmp_path, "history", "--minutes", "2").exit_code == 0
    assert source.queries == [
        HistoryQuery(1, ClassName("voice"), SiteName("hq"), None),
        HistoryQuery(20, None, None, NOW - 120),
    ]
    assert json.loads(ask(tmp_path, "paths", "--site", "dc", "--json").stdout) == []
    rows = json.loads(ask(tmp_path, "classes", "--class", "bulk", "--json").stdout)
    assert [row["class_name"] for row in rows] == ["bulk"]


@pytest.mark.usefixtures("server")
def test_the_plan_of_another_configuration(tmp_path: Path, source: ScriptedSource) -> None:
    assert ask(tmp_path, "plan", "--config", str(EXAMPLE), "--dry-run").exit_code == 0
    assert source.candidates[0].site == "branch-a"
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("version: 1\nlnas: []\n")
    result = ask(tmp_path, "plan", "--config", str(wrong))
    assert result.exit_code == 1
    assert "/lnas" in result.stderr
    assert "next: Mend all that is listed" in result.stderr
    missing = ask(tmp_path, "plan", "--config", str(tmp_path / "none.yaml"))
    assert missing.exit_code == 1
    assert "cannot be read: No such file or directory" in missing.stderr


@pytest.mark.usefixtures("server")
def test_what_is_refused_says_what_to_do_next(tmp_path: Path, source: ScriptedSource) -> None:
    result = ask(tmp_path, "why", "voice", "mars")
    assert result.exit_code == 1
    assert result.stderr == (
        "branchline: No such class or site: There is no class 'voice' toward a site 'mars'.\n"
        "  next: `branchline classes` lists the classes and sites.\n"
    )
    source.refusal = REFUSED
    result = ask(tmp_path, "reload")
    assert result.exit_code == 1
    assert "4:13 /uplinks/0/device: unknown device (is it plugged in?)\n" in result.stderr


@pytest.mark.usefixtures("server")
def test_a_name_of_any_kind_is_passed_on_whole(tmp_path: Path) -> None:
    result = ask(tmp_path, "why", "a/b?c=d#e", "../..")
    assert "There is no class 'a/b?c=d#e' toward a site '../..'" in result.stderr


@pytest.mark.usefixtures("server")
def test_a_box_in_trouble(tmp_path: Path, source: ScriptedSource) -> None:
    config_status = replace(STATUS.config, refused=_refused())
    source.now_status = replace(STATUS, config=config_status, stage="starting", warnings=())
    result = ask(tmp_path, "status")
    assert "a newer one was refused with 1 error: see `branchline validate`" in result.stdout
    assert "no warnings" in result.stdout
    source.moves = ()
    assert ask(tmp_path, "history").stdout == "no moves recorded\n"


def _refused() -> tuple[object, ...]:
    from appliance.api.problems import config_problems

    return config_problems(REFUSED)


def test_nothing_outstanding_is_said_so(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.unit.api.scripted.PLAN", ("one",))
    result = ask(tmp_path, "plan", "--dry-run")
    assert server.path.exists()
    assert result.stdout == ""
    assert "nothing to do: the kernel is as planned" in result.stderr


@pytest.mark.parametrize("name", ASKING)
def test_without_a_supervisor_it_is_said_how_to_start_one(tmp_path: Path, name: str) -> None:
    result = ask(tmp_path, *ASKING[name])
    assert result.exit_code == 3
    assert result.stdout == ""
    assert f"no supervisor answers at {tmp_path}/api.sock. Is it running? Start it with" in (
        result.stderr
    )


def test_a_valid_configuration(tmp_path: Path) -> None:
    result = ask(tmp_path, "validate", str(EXAMPLE))
    assert result.exit_code == 0
    assert result.stdout.startswith(f"{EXAMPLE}: valid. Site branch-a (1): uplinks fibre, lte; ")
    assert json.loads(ask(tmp_path, "validate", str(EXAMPLE), "--json").stdout) == {
        "is_valid": True,
        "site": "branch-a",
        "site_id": 1,
    }


def test_a_configuration_with_errors(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("version: 1\nlnas: []\n")
    result = ask(tmp_path, "validate", str(file))
    assert result.exit_code == 1
    assert f"{file}:2:1 /lnas: " in result.stderr or f"{file}:2:" in result.stderr
    assert result.stderr.splitlines()[-1].startswith(f"{file}: ")
    told = json.loads(ask(tmp_path, "validate", str(file), "--json").stdout)
    assert told["is_valid"] is False
    assert "/lnas" in {error["pointer"] for error in told["errors"]}
    assert ask(tmp_path, "validate", str(tmp_path / "none")).exit_code == 1


def test_diagnostics_with_and_without_a_supervisor(tmp_path: Path, source: ScriptedSource) -> None:
    for name in ("with", "without"):
        output = tmp_path / f"{name}.tar.gz"
        arguments = ["diagnostics", "-o", str(output), "--config", str(EXAMPLE)]
        if name == "with":
            with running(source, tmp_path):
                result = ask(tmp_path, *arguments)
            assert result.stderr == ""
        else:
            result = ask(tmp_path, *arguments)
            assert "The bundle is made without its answers" in result.stderr
        assert result.exit_code == 0
        assert result.stdout.startswith(f"{output}: keys are removed from it")
        assert output.stat().st_size > 500
    again = ask(tmp_path, *arguments)
    assert again.exit_code == 1
    assert "next: Say with --output" in again.stderr


def _recording(directory: Path) -> tuple[Path, Path]:
    """A recording and a more tolerant configuration."""
    directory.mkdir(exist_ok=True)
    write_recording(directory / "events-00000001.jsonl")
    other = directory / "other.yaml"
    other.write_text(config("20 %"))
    return directory, other


def _masked(text: str) -> str:
    """Without the numbers that follow from how quickly the core decides: those are its matter."""
    text = re.sub(r"\d+ events", "N events", text)
    text = re.sub(r"\+ *[1-9]\d*\.\d+ s", "+    T.TTT s", text)
    text = re.sub(r"differs for .*", "differs for T", text)
    text = re.sub(r"clean for \d+ s", "clean for T s", text)
    return re.sub(r"loss [\d.]+ % over \d+ packets", "loss L % over N packets", text)


def test_a_recording_decided_again(tmp_path: Path) -> None:
    recording, other = _recording(tmp_path / "recordings")
    result = ask(tmp_path, "replay", str(recording))
    assert _masked(result.stdout) == (GOLDEN / "cli_replay.txt").read_text()
    one_file = ask(tmp_path, "replay", str(recording / "events-00000001.jsonl"))
    assert one_file.stdout == result.stdout
    differs = ask(tmp_path, "replay", str(recording), "--config", str(other))
    assert _masked(differs.stdout) == (GOLDEN / "cli_replay_other.txt").read_text()


def test_the_same_configuration_decides_the_same(tmp_path: Path) -> None:
    recording, other = _recording(tmp_path / "recordings")
    other.write_text(config())
    result = ask(tmp_path, "replay", str(recording), "--config", str(other))
    assert "the other configuration decides the same\n" in result.stdout
    told = json.loads(
        ask(tmp_path, "replay", str(recording), "--config", str(other), "--json").stdout
    )
    assert told["differences"] == []
    assert len(told["moves"]) > 2


def test_what_is_no_recording_is_said_so(tmp_path: Path) -> None:
    result = ask(tmp_path, "replay", str(EXAMPLE))
    assert result.exit_code == 1
    assert "holds no recorded events" in result.stderr
    broken = tmp_path / "events-00000001.jsonl"
    broken.write_text('{"run": "a", "preamble": 0}\n{"event": "Nonsense", "now": 1}\n')
    result = ask(tmp_path, "replay", str(broken))
    assert result.exit_code == 1
    assert "no such event" in result.stderr


@pytest.mark.parametrize("name", ["/dev/zero", "fifo"])
def test_what_is_no_file_is_no_recording(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "fifo")
    path = tmp_path / name
    result = ask(tmp_path, "replay", str(path))
    assert result.exit_code == 1
    assert f"{path} is no regular file\n" in result.stderr
    assert "next: Give it the recorder's directory" in result.stderr


def test_a_line_that_is_too_long_ends_the_replay(tmp_path: Path) -> None:
    recording, other = _recording(tmp_path / "recordings")
    with (recording / "events-00000001.jsonl").open("r+b") as file:
        file.seek(0, os.SEEK_END)
        file.truncate(1 << 34)
    for arguments in ([], ["--config", str(other)]):
        result = ask(tmp_path, "replay", str(recording), *arguments)
        assert result.exit_code == 1
        assert "is too long" in result.stderr


def write_golden() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with running(ScriptedSource(), directory):
            for command, arguments in ASKING.items():
                (GOLDEN / f"cli_{command}.txt").write_text(ask(directory, *arguments).stdout)
        recording, other = _recording(directory / "recordings")
        again = ask(directory, "replay", str(recording))
        (GOLDEN / "cli_replay.txt").write_text(_masked(again.stdout))
        differs = ask(directory, "replay", str(recording), "--config", str(other))
        (GOLDEN / "cli_replay_other.txt").write_text(_masked(differs.stdout))


if __name__ == "__main__":
    write_golden()
