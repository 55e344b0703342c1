"""The systemd unit: systemd understands it, it is locked down, and it starts what there is."""

import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from appliance.cli.main import Context, main
from tests.lab import confined

UNIT = Path(__file__).parents[3] / "systemd" / "branchline.service"
SYSUSERS = UNIT.with_name("branchline.sysusers.conf")
CAPABILITIES = {f"CAP_{name.upper()}" for name in confined.CAPABILITIES}  # proved in the lab


def _settings() -> dict[str, list[str]]:
    """Every setting of the unit, with all of its values."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, is_setting, value = line.partition("=")
        if is_setting and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, with a program that is there on any machine."""
    path = tmp_path / UNIT.name
    path.write_text(UNIT.read_text().replace("/usr/bin/branchline", "/bin/true"))
    return path


def _run(*argv: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(argv, capture_output=True, text=True, timeout=60)


def test_systemd_has_nothing_to_say_about_it(unit: Path) -> None:
    done = _run("systemd-analyze", "verify", unit)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_mistake_in_it_would_be_seen(unit: Path) -> None:
    unit.write_text(unit.read_text().replace("ProtectHome=yes", "ProtectHouse=yes"))
    assert "ProtectHouse" in _run("systemd-analyze", "verify", unit).stderr


def test_it_is_exposed_to_little(unit: Path) -> None:
    """3.1 of 10 as it is; without the section on what it sees, about twice that."""
    argv = ("systemd-analyze", "security", "--offline=true", "--threshold=31", "--no-pager")
    done = _run(*argv, unit)
    assert done.returncode == 0, done.stdout
    text = unit.read_text()
    for name in ("ProtectSystem=strict", "SystemCallFilter=@system-service chroot"):
        text = text.replace(name, "")
    unit.write_text(text)
    assert _run(*argv, unit).returncode != 0


def test_it_has_the_capabilities_that_it_needs_and_no_other() -> None:
    settings = _settings()
    assert set(settings["AmbientCapabilities"][0].split()) == CAPABILITIES
    assert settings["CapabilityBoundingSet"] == settings["AmbientCapabilities"]
    assert settings["User"] == ["branchline"]


def test_it_sees_the_programs_that_it_may_have_to_adopt() -> None:
    """dhcpcd changes its user, and before Linux 6.9 is known by its start time in /proc."""
    assert not {"ProtectProc", "ProcSubset"} & _settings().keys()


def test_stopping_it_leaves_the_rest_alone() -> None:
    settings = _settings()
    assert settings["KillMode"] == ["process"]
    assert settings["RuntimeDirectoryPreserve"] == ["yes"]
    assert not {"ExecStop", "ExecStopPost"} & settings.keys()


def test_it_is_started_again_for_ever() -> None:
    settings = _settings()
    assert settings["Restart"] == ["on-failure"]
    assert settings["StartLimitIntervalSec"] == ["0"]
    assert settings["Type"] == ["notify"]
    assert int(settings["WatchdogSec"][0]) > 0


@pytest.mark.parametrize("name", ["ExecStart", "ExecReload"])
def test_its_commands_are_commands(name: str) -> None:
    program, *arguments = shlex.split(_settings()[name][0])
    assert Path(program).name == "branchline"
    result = CliRunner().invoke(main, [*arguments, "--help"])
    assert result.exit_code == 0
    assert f"branchline {arguments[0]}" in result.output or f"main {arguments[0]}" in result.output


def test_its_state_is_where_the_commands_look_for_it() -> None:
    settings = _settings()
    assert "branchline" in settings["StateDirectory"][0].split()
    assert "BRANCHLINE_STATE_DIR=/var/lib/branchline" in settings["Environment"]
    assert "branchline" in settings["RuntimeDirectory"][0].split()
    assert Context(Path("/var/lib/branchline"), None, None).run_dir == Path("/run/branchline")
    assert Context(Path("/tmp/box"), None, None).run_dir == Path("/tmp/box/run")
    told = CliRunner().invoke(main, ["--help"]).output
    assert "/var/lib/branchline" in told
    assert "/run/branchline" in told


def test_its_user_can_be_made(tmp_path: Path) -> None:
    for name in ("passwd", "group"):
        (tmp_path / "etc").mkdir(exist_ok=True)
        (tmp_path / "etc" / name).write_text("")
    done = _run("systemd-sysusers", f"--root={tmp_path}", "--replace=/usr/lib/x.conf", SYSUSERS)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "etc" / "passwd").read_text().startswith("branchline:x:")
    assert (tmp_path / "etc" / "group").read_text().startswith("branchline:x:")


def test_its_manual_is_where_it_says() -> None:
    manual = (UNIT.parents[1] / "docs" / "OPERATIONS.md").read_text()
    for address in _settings()["Documentation"]:
        path = Path(address.removeprefix("file://"))
        assert (UNIT.parents[1] / "docs" / path.name).exists()
        assert f"install -D -m 644 -t {path.parent} docs/*.md" in manual
