"""The supervisor as its systemd unit runs it: a user of its own with eight capabilities.

    [a] --- fibre (static) --- [internet] --- fibre --- [b]
     |
     +----- lte (DHCP) ------- [internet]

On [a] the supervisor is confined as by systemd/branchline.service, and this story plays systemd: it
listens at $NOTIFY_SOCKET. On [b] it runs as root. The tunnels come up, dhcpcd gets a lease and
outlives its supervisor, but not its uplink, dnsmasq tells names and learns from them, and the
commands tell people what they may and may not do.
"""

import os
import shutil
import socket
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from lab.fleet import Fleet
from lab.supervisor import STATE, Supervisor
from lab.topology import Lab
from tests.lab import confined
from tests.lab.lab_names import ASK

NOTIFY = STATE / "notify"
DHCPCD = (Path("/run/dhcpcd"), Path("/var/lib/dhcpcd"))  # as StateDirectory=, RuntimeDirectory=


class Unit(Supervisor):
    """A supervisor that is started as the unit starts it."""

    def start(self, wait_s: float | None = 30) -> None:
        argv = [*self._branchline, "run", "--config", str(self.config_file)]
        self.daemon = self._machine.background(
            confined.argv(*argv),
            name="branchline",
            env={"NOTIFY_SOCKET": str(NOTIFY), "WATCHDOG_USEC": "10000000"},
        )
        if wait_s is not None:
            self.wait_ready(wait_s)


def story_with_the_rights_of_the_unit(lab: Lab) -> None:
    a, b = lab.site("a"), lab.site("b")
    a.uplink("fibre")
    lte = a.uplink("lte", addressing="dhcp")
    b.uplink("fibre")
    for site in (a, b):
        site.lan()
    fleet = Fleet(lab)
    names = lab.internet_host("names")
    record = f"--host-record=www.example.net,{names.address(4)},{names.address(6)}"
    options = ("--conf-file=/dev/null", "--pid-file=", "--user=root", "--no-hosts", "--no-resolv")
    names.background(["dnsmasq", "--keep-in-foreground", *options, record], name="names")

    def ask(config: dict[str, Any]) -> None:
        config["lans"][0]["dns"] = True
        config["dns"] = {"servers": [names.address(4)]}
        web = {"name": "web", "match": [{"domain": "example.net"}]}
        config["classes"] = [*config["classes"], web]

    fleet.add(a, 1, ask)
    fleet.add(b, 2)
    b.supervise(fleet.config("b"), wait_s=None)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(NOTIFY))
        NOTIFY.chmod(0o777)
        systemd.setblocking(False)
        unit = a.supervisor = Unit(a, fleet.config("a"))
        for directory in (unit.directory, unit.run_directory):
            _own(directory)
        for directory in DHCPCD:
            directory.mkdir(exist_ok=True)
            _own(directory)
        unit.start()

        lab.wait_until(lambda: unit.status()["stage"] == "running", 30, "the plan is in force")
        lab.wait_until(lambda: len(_uplink(unit, "lte")["addresses"]) > 1, 60, "dhcpcd has leases")
        lab.wait_until(
            lambda: {p["state"] for p in unit.status()["paths"]} == {"up"}, 60, "all paths are up"
        )
        leased = [ip_interface(text) for text in _uplink(unit, "lte")["addresses"]]
        lab.check(
            {address.network for address in leased} >= {lte.facts.address4.network},
            f"the lease is in the status {leased}",
        )
        lab.check("the kernel answers probes" in unit.log(), "the kernel answers probes")
        inherited = [_capabilities(pid) & 1 << 39 for pid in _dhcpcd_processes()]
        lab.check(set(inherited) == {0}, "dhcpcd has no CAP_BPF")
        outstanding = unit.get("/v1/plan?dry_run=true")["commands"]
        lab.check(outstanding == [], f"nothing is outstanding in the kernel {outstanding}")
        key = unit.directory / "wireguard.key"
        lab.check(key.stat().st_mode & 0o777 == 0o600, "its key is for itself only")
        told = _heard(systemd)
        lab.check(any(text.startswith("READY=1\n") for text in told), "systemd heard READY")
        lab.sleep_virtual(11)
        alive = _heard(systemd).count("WATCHDOG=1")
        lab.check(alive in (2, 3), f"two signs of life in each 10 s ({alive} in 11 s)")

        lan = a.lans["lan0"]
        asked = ["python3", "-c", ASK, str(lan.address4.ip), "www.example.net", "1"]
        told_name = lan.hosts[0].run(asked).strip()
        lab.check(told_name == names.address(4), f"dnsmasq tells names: {told_name}")
        learned = a.run(["nft", "list", "table", "inet", "branchline"])
        lab.check(told_name in learned, "and puts what it tells into our sets")
        (pid,) = a.run(["pgrep", "-f", "dnsmasq .*/dns.conf"]).split()
        rights = _capabilities(int(pid))
        lab.check(rights == 1 << 12 | 1 << 10 | 1 << 13, f"with three rights: {rights:#x}")

        before = _dhcpcd_processes()
        unit.kill()
        lab.check(_dhcpcd_processes() == before != set(), "dhcpcd outlives its supervisor")
        unit.start()
        lab.wait_until(lambda: unit.status()["stage"] == "running", 30, "the next one is running")
        lab.check(_dhcpcd_processes() == before, "which adopts dhcpcd as it is")
        ops = unit.status()["counters"]["ops"]
        lab.check(sum(ops.values()) == 0, f"and has nothing to do in the kernel {ops}")
        config = fleet.config("a")
        config["uplinks"] = [row for row in config["uplinks"] if row["name"] != "lte"]
        unit.write_config(config)
        unit.command("reload")
        lab.wait_until(lambda: not _dhcpcd_processes(), 30, "dhcpcd ends with its uplink")
        lab.check(unit.stop() == 0, "it stops with status 0")
        told = _heard(systemd)
        lab.check("STOPPING=1" in told, "systemd heard STOPPING")


def story_who_may_ask(lab: Lab) -> None:
    a = lab.site("a")
    a.uplink("fibre")
    a.lan()
    fleet = Fleet(lab)
    fleet.add(a, 1)
    unit = a.supervise(fleet.config("a"))
    stranger = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    command = ["sh", "-c", f"branchline --run-dir {unit.run_directory} status 2>&1"]
    said = a.run([*stranger, *command], check=False)
    lab.check("use sudo, or join the group" in said, f"a stranger may not ask: {said.strip()}")
    member = ["setpriv", "--reuid=65534", f"--regid={os.getgid()}", "--clear-groups"]
    lab.check("running for" in a.run([*member, *command]), "a member of the group may")


def _own(directory: Path) -> None:
    """Give a directory and what is in it to the unit's user."""
    for path in (directory, *directory.rglob("*")):
        shutil.chown(path, confined.USER, confined.USER)


def _uplink(unit: Supervisor, name: str) -> dict[str, Any]:
    return next(dict(row) for row in unit.status()["uplinks"] if row["name"] == name)


def _heard(systemd: socket.socket) -> list[str]:
    """What was sent since the last time."""
    heard = []
    while True:
        try:
            heard.append(systemd.recv(4096).decode())
        except BlockingIOError:
            return heard


def _dhcpcd_processes() -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            if path.read_text().strip() == "dhcpcd":
                found.add(int(path.parent.name))
        except OSError:
            continue
    return found


def _capabilities(pid: int) -> int:
    """What a process is permitted, as a mask of bits."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("CapPrm:")[2].split()[0], 16)
