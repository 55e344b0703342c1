"""What surrounds dhcpcd: its configuration, our hook (run for real), and reading what it keeps.

dhcpcd itself, with servers and routers, runs in tests/lab/lab_uplinks.py.
"""

import asyncio
import errno
import os
import subprocess
from ipaddress import ip_address
from pathlib import Path
from typing import NoReturn

import pytest

from appliance import clock
from appliance.kernel.process import start_time
from appliance.services import child, dhcp
from appliance.services.child import read_record
from appliance.services.dhcp import (
    HANG_GRACE_S,
    HOOK,
    DhcpClient,
    configuration,
    hook_fault,
    leases_directory,
    make_leases_directory,
    read_leases,
    release,
    served_devices,
)
from appliance.services.lease import LeaseFacts
from tests.unit.services.hook import ADVERT, BOUND, BOUND6, HEAD
from tests.unit.services.test_child import until


def run_hook(directory: Path, variables: dict[str, str]) -> None:
    """As dhcpcd does: the variables are all of the environment but the path."""
    make_leases_directory(directory)
    told = {k: v for k, v in variables.items() if k not in HEAD}
    environment = told | {
        "PATH": os.environ["PATH"],
        "branchline_leases": str(leases_directory(directory)),
    }
    subprocess.run([HOOK], env=environment, check=True)


def test_the_hook_keeps_what_dhcpcd_says_and_the_supervisor_reads_it(tmp_path: Path) -> None:
    for message in (BOUND, ADVERT, BOUND6):
        run_hook(tmp_path, message)
    facts = read_leases(tmp_path, "eth0")
    assert [str(g) for g in facts.gateways] == ["198.51.100.1", "fe80::58ae:a5ff:fe74:c809"]
    assert facts.lease4 is not None
    assert facts.lease4.ends_s == pytest.approx(clock.monotonic() + 120, abs=2)
    assert facts.lease6 is not None
    assert facts.lease6.addresses == (ip_address("2001:db8:1::1c9"),)
    assert read_leases(tmp_path, "eth1") == LeaseFacts()


def test_a_lease_that_ends_is_no_fact_any_more(tmp_path: Path) -> None:
    run_hook(tmp_path, BOUND)
    run_hook(tmp_path, BOUND | {"reason": "EXPIRE"})
    assert read_leases(tmp_path, "eth0") == LeaseFacts()


def test_news_of_the_link_replace_no_lease(tmp_path: Path) -> None:
    run_hook(tmp_path, BOUND)
    run_hook(tmp_path, {"reason": "NOCARRIER", "protocol": "link", "interface": "eth0"})
    assert read_leases(tmp_path, "eth0").lease4 is not None
    assert [p.name for p in leases_directory(tmp_path).iterdir()] == ["eth0.dhcp"]


def test_what_a_server_sends_is_never_run_or_split(tmp_path: Path) -> None:
    hostile = f"$(touch {tmp_path}/run) `touch {tmp_path}/run`; \n new_ip_address=192.0.2.66"
    run_hook(tmp_path, BOUND | {"new_captive_portal_uri": hostile, "new_routers": hostile})
    facts = read_leases(tmp_path, "eth0")
    assert facts.lease4 is not None
    assert facts.lease4.routers == ()
    assert str(facts.lease4.address) == "198.51.100.65/24"
    assert not (tmp_path / "run").exists()


def test_a_message_of_another_boot_is_no_fact(tmp_path: Path) -> None:
    run_hook(tmp_path, BOUND)
    file = leases_directory(tmp_path) / "eth0.dhcp"
    boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
    data = file.read_bytes()
    assert boot in data
    file.write_bytes(data.replace(boot, b"0" * len(boot)))
    assert read_leases(tmp_path, "eth0") == LeaseFacts()


def test_a_broken_message_costs_only_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run_hook(tmp_path, BOUND | {"new_ip_address": "nonsense"})
    run_hook(tmp_path, ADVERT)
    facts = read_leases(tmp_path, "eth0")
    assert facts.lease4 is None
    assert len(facts.routers) == 1
    assert "lease not understood" in caplog.text


def test_what_is_kept_is_nobody_elses_to_read(tmp_path: Path) -> None:
    run_hook(tmp_path, BOUND)
    assert leases_directory(tmp_path).stat().st_mode & 0o777 == 0o700
    assert (leases_directory(tmp_path) / "eth0.dhcp").stat().st_mode & 0o777 == 0o600


def test_looking_for_leases_makes_nothing(tmp_path: Path) -> None:
    assert read_leases(tmp_path, "eth0") == LeaseFacts()
    assert list(tmp_path.iterdir()) == []


def test_the_hook_can_be_run() -> None:
    assert hook_fault() is None


def test_the_configuration_is_what_the_traps_demand() -> None:
    lines = configuration(Path("/run/branchline/leases")).splitlines()
    for line in (
        "env branchline_leases=/run/branchline/leases",
        "persistent",
        "timeout 0",
        "nogateway",
        "noipv4ll",
        "nooption static_routes, classless_static_routes, ms_classless_static_routes",
    ):
        assert line in lines


@pytest.mark.parametrize("name", ["a b", 'a"b', "a\\b", "a#b"])
def test_a_directory_that_dhcpcd_cannot_take_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    with pytest.raises(OSError, match=r"spaces or quotes.*--run-dir"):
        make_leases_directory(tmp_path / name)


async def test_a_device_that_goes_while_nothing_can_be_removed_is_told_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dhcp, "RETRY_S", 0.02)
    told: list[str | None] = []
    dhcpcd = tmp_path / "bin" / "dhcpcd"
    dhcpcd.parent.mkdir()
    dhcpcd.write_text("#!/bin/sh\nexec sleep 100\n")
    dhcpcd.chmod(0o755)
    monkeypatch.setenv("PATH", str(dhcpcd.parent), prepend=os.pathsep)
    client = DhcpClient("eth7", tmp_path, lambda: 0.5, told.append)
    client.device_is(7)
    task = asyncio.ensure_future(client.run())
    await until(lambda: told == [None], "a start")
    record = read_record(tmp_path / "dhcp-eth7.child")
    assert record is not None
    with monkeypatch.context() as read_only:
        read_only.setattr(child, "_forget", read_only_disk)
        client.device_is(None)
        await until(lambda: len(told) > 2, "two tries")
    assert set(told[1:]) == {"its files cannot be removed: Read-only file system"}
    assert start_time(record.pid) is None
    await until(lambda: told[-1] is None, "its end")
    assert served_devices(tmp_path) == set()
    assert not task.done()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def read_only_disk(*_: object) -> NoReturn:
    raise OSError(errno.EROFS, os.strerror(errno.EROFS))


def test_a_lease_that_cannot_be_read_is_as_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_leases_directory(tmp_path)
    (leases_directory(tmp_path) / "eth0.dhcp").mkdir()
    assert read_leases(tmp_path, "eth0") == LeaseFacts()
    assert "lease not understood" in caplog.text


def test_a_dhcpcd_that_keeps_what_has_run_out_hangs(tmp_path: Path) -> None:
    client = DhcpClient("eth0", tmp_path, lambda: 0.5)
    is_hung = client._is_hung  # private: waiting out a lease takes minutes
    run_hook(tmp_path, ADVERT)
    assert not is_hung(4242)
    # Written so long ago that the router's 12 s and the grace are over.
    file = leases_directory(tmp_path) / "eth0.ra"
    data = file.read_bytes()
    uptime = data.split(b"\0")[0]
    aged = b"branchline_uptime=%.2f" % (float(uptime.split(b"=")[1]) - 12 - HANG_GRACE_S)
    file.write_bytes(data.replace(uptime, aged))
    assert is_hung(4242)
    assert not is_hung(4243)  # what an earlier one told is not this one's to withdraw
    run_hook(tmp_path, ADVERT | {"nd1_lifetime": "0"})
    assert not is_hung(4242)


async def test_a_released_device_leaves_nothing_behind(tmp_path: Path) -> None:
    run_hook(tmp_path, BOUND)
    for suffix in ("child", "conf", "out"):
        (tmp_path / f"dhcp-eth0.5.{suffix}").write_text("")
    assert served_devices(tmp_path) == {"eth0.5"}
    await release("eth0.5", tmp_path)
    await release("eth0", tmp_path)
    assert names(tmp_path) == ["leases"]


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*"))
