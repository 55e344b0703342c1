"""`branchline plan --offline`: what a file would do, as far as the file alone tells."""

import json
import re
from base64 import b64encode
from pathlib import Path

import pytest
import yaml

from appliance.config.addressing import class_table
from tests.unit.cli.test_commands import EXAMPLE, ask

GATEWAY = EXAMPLE.with_name("gateway.yaml")


def _offline(state_dir: Path, file: Path) -> tuple[list[str], str]:
    result = ask(state_dir, "plan", "--offline", "--config", str(file))
    assert result.exit_code == 0
    return result.stdout.splitlines(), result.stderr


def test_classes_go_where_a_box_that_has_just_started_sends_them(tmp_path: Path) -> None:
    commands, _ = _offline(tmp_path, EXAMPLE)
    plane_of = dict(
        found.groups()
        for line in commands
        if (found := re.search(r"nexthop add id (\d+) dev (bl-\S+)", line))
    )
    voice = f"table {class_table(1)}"
    carried = {
        found["prefix"]: plane_of[found["nexthop"]]
        for line in commands
        if voice in line and (found := re.search(r"(?P<prefix>\S+) nhid (?P<nexthop>\d+)", line))
    }
    assert carried == {
        "192.168.2.0/24": "bl-1-1",
        "192.168.3.0/24": "bl-1-1",
        "2001:db8:a3::/64": "bl-1-1",
    }


def test_a_hub_of_many_sites_is_decided_to_the_end(tmp_path: Path) -> None:
    hub = yaml.safe_load(GATEWAY.read_text())
    hub["peers"] = [
        {
            "name": f"s{n}",
            "id": n,
            "public_key": b64encode(n.to_bytes(32, "big")).decode(),
            "uplinks": [{"label": "fibre", "endpoint": f"198.51.100.{n}"}],
            "prefixes": [f"10.0.{n}.0/24"],
        }
        for n in range(10, 110)
    ]
    file = tmp_path / "hub.yaml"
    file.write_text(yaml.safe_dump(hub))
    commands, _ = _offline(tmp_path, file)
    voice = f"table {class_table(1)}"
    steered = {
        line.split()[4] for line in commands if voice in line and " nhid " in line and "-4" in line
    }
    assert steered == {f"10.0.{n}.0/24" for n in range(10, 110)}


def test_an_uplink_without_a_lease_has_its_tunnels_and_no_routes(tmp_path: Path) -> None:
    commands, said = _offline(tmp_path, EXAMPLE)
    assert "no lease: lte has neither addresses nor gateways" in said
    assert "ip link add bl-2-1 mtu 1420 up type wireguard" in commands
    assert [line for line in commands if "dev eth0" in line and "route add default" in line]
    assert not [line for line in commands if line.startswith("ip ") and "dev wwan0" in line]
    _, said = _offline(tmp_path, GATEWAY)
    assert "lease" not in said


def test_keys_are_neither_read_nor_made(tmp_path: Path) -> None:
    commands, said = _offline(tmp_path, EXAMPLE)
    assert "keys are not read" in said
    assert [line for line in commands if line.endswith("# preshared key digest not read")]
    assert list(tmp_path.iterdir()) == []
    assert not EXAMPLE.with_name("cloud.psk").exists()


def test_programs_get_what_the_api_would_say(tmp_path: Path) -> None:
    result = ask(tmp_path, "plan", "--offline", "--config", str(EXAMPLE), "--json")
    commands, _ = _offline(tmp_path, EXAMPLE)
    assert json.loads(result.stdout) == {"commands": commands, "is_dry_run": False}


def test_everything_that_is_wrong_with_the_file_is_listed(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("version: 1\nlnas: []\n")
    result = ask(tmp_path, "plan", "--offline", "--config", str(wrong))
    assert result.exit_code == 1
    assert "/lnas" in result.stderr
    assert "`site` is missing" in result.stderr
    assert "next: Mend the file" in result.stderr


def test_what_needs_the_kernel_is_refused(tmp_path: Path) -> None:
    result = ask(tmp_path, "plan", "--offline", "--dry-run", "--config", str(EXAMPLE))
    assert result.exit_code == 2
    assert "--dry-run compares with the kernel" in result.stderr


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_without_a_supervisor_it_is_said_what_can_be_done(tmp_path: Path, more: list[str]) -> None:
    result = ask(tmp_path, "plan", "--config", str(EXAMPLE), *more)
    assert result.exit_code == 3
    assert "no supervisor answers" in result.stderr
    assert f"next: Or go by the file alone: branchline plan --config {EXAMPLE} --offline" in (
        result.stderr
    )
