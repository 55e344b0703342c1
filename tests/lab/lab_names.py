"""Flows are known by the names that hosts asked for.

a-lan0-h1 --- [a] === fibre 10 ms ===+
a-lan1-h1 ---     === dsl   20 ms ===+-- internet -- names, meet, other, till

Hosts of lan0 may ask the box for names, those of lan1 may not.
"""

import re
import signal
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

from lab.fleet import Fleet
from lab.topology import Family, Host, Lab, Site
from tests.lab.boxes import asked, branch, warnings

CLASS_SHIFT = 28
CLASSES = (
    {"name": "meeting", "match": [{"domain": "meet.example.net"}]},
    {"name": "desk", "match": [{"application": "till"}]},
    {"name": "bulk", "match": [{"domain": ["example.net", "example.com"], "protocol": "tcp"}]},
)
FAMILIES: tuple[Family, ...] = (4, 6)
# Ask a name server for a name: the addresses, or the response code.
ASK = """
import socket, struct, sys
server, name, kind = sys.argv[1:]
labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
query = struct.pack(">6H", 7, 0x100, 1, 0, 0, 0) + labels + struct.pack(">B2H", 0, int(kind), 1)
with socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(2)
    s.sendto(query, (server, 53))
    answer = s.recv(512)
size = {1: 4, 28: 16}[int(kind)]
if answer[7]:
    print(socket.inet_ntop({4: socket.AF_INET, 16: socket.AF_INET6}[size], answer[-size:]))
else:
    print("code", answer[3] & 15)
"""
SEND = """
import socket, sys
address, kind, port = sys.argv[1:]
family = socket.AF_INET6 if ":" in address else socket.AF_INET
with socket.socket(family, {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}[kind]) as s:
    s.settimeout(0.2)
    try:
        s.connect((address, int(port)))
        s.send(b"x")
    except OSError:
        pass
"""


class World:
    """A box that is asked for names, and what is on the internet."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.fleet = Fleet(lab, classes=CLASSES, policies=())
        self.site: Site = branch(lab, "a")
        self.site.lan("lan1")
        self.hosts = {name: lab.internet_host(name) for name in ("meet", "other", "till")}
        for host in self.hosts.values():  # a connection that is refused is forgotten at once
            host.nft(
                "table inet deaf { chain come { type filter hook prerouting priority raw\n"
                "meta l4proto { tcp, udp } drop\n}\n}\n"
            )
        self.names: Host = lab.internet_host("names")
        records = {
            "room1.meet.example.net": "meet",
            "www.example.net": "other",
            "pay.till.example.org": "till",
        }
        self.daemon = self.names.background(
            [
                *("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="),
                *("--user=root", "--no-resolv", "--no-hosts", "--local-ttl=600"),
                *("--log-facility=-", "--log-queries"),
                *(f"--host-record={n},{self.to(h, 4)},{self.to(h, 6)}" for n, h in records.items()),
            ],
            name="names",
        )
        self.fleet.add(self.site, 1, self.configure)
        self.fleet.start()
        self.client = self.site.lans["lan0"].hosts[0]
        self.port = 7000
        lab.wait_until(lambda: self.ask("room1.meet.example.net") is not None, 20, "it answers")

    def configure(self, config: dict[str, Any]) -> None:
        config["lans"][0]["dns"] = True
        config["dns"] = {"servers": [self.names.address(4), self.names.address(6)]}
        config["applications"] = [{"name": "till", "domains": ["till.example.org"]}]

    def to(self, host: str, family: Family) -> str:
        return self.hosts[host].address(family)

    def ask(self, name: str, family: Family = 4, via: Family = 4) -> str | None:
        """What the box tells a host on its LAN."""
        lan = self.site.lans["lan0"]
        server = (lan.address4 if via == 4 else lan.address6).ip
        kind = "1" if family == 4 else "28"
        told = self.client.run(["python3", "-c", ASK, str(server), name, kind], check=False)
        return told.strip().splitlines()[-1] if told.strip() else None

    def class_of(self, host: str, family: Family, protocol: str = "udp") -> str:
        """The class that the kernel gives to a new flow."""
        self.port += 1
        address = self.to(host, family)
        self.client.run(["python3", "-c", SEND, address, protocol, str(self.port)])
        words = ["conntrack", "-L", "-f", f"ipv{family}", "-p", protocol, "-d", address]
        listed = self.site.run([*words, "--orig-port-dst", str(self.port)])
        (mark,) = {int(mark) for mark in re.findall(r"\bmark=(\d+)", listed)}
        names = dict(enumerate((each["name"] for each in CLASSES), start=1))
        return str({**names, 15: "default"}[mark >> CLASS_SHIFT])

    def told(self, host: str, family: Family, protocol: str = "udp") -> str:
        """The class that the box says it would have."""
        words = ["--protocol", protocol, "--port", "7000"]
        ends = ["--from", self.client.address(family), "--to", self.to(host, family)]
        return str(asked(self.fleet, "a", "classify", *ends, *words)["class_name"])

    def pids(self) -> list[int]:
        """The box's own dnsmasq."""
        found = self.site.run(["pgrep", "-f", "dnsmasq .*/dns.conf"], check=False)
        return [int(pid) for pid in found.split()]

    def signal(self, number: signal.Signals) -> None:
        self.site.run(["kill", f"-{number.value}", *map(str, self.pids())])


def story_the_first_packet_is_in_the_class_of_its_name(lab: Lab) -> None:
    world = World(lab)
    lab.check(world.class_of("other", 4, "tcp") == "default", "an address is nothing by itself")
    for family in FAMILIES:
        for name, host in (
            ("room1.meet.example.net", "meet"),
            ("www.example.net", "other"),
            ("pay.till.example.org", "till"),
        ):
            told = world.ask(name, family, via=family)
            lab.check(
                told is not None and ip_address(told) == ip_address(world.to(host, family)),
                f"IPv{family}: {name} is {told}",
            )
    for family in FAMILIES:
        for host, protocol, wanted in (
            ("meet", "udp", "meeting"),
            ("till", "tcp", "desk"),
            ("other", "tcp", "bulk"),
            ("other", "udp", "default"),
        ):
            found, said = (f(host, family, protocol) for f in (world.class_of, world.told))
            lab.check(
                found == said == wanted,
                f"IPv{family}, {protocol} to {host}: found {found}, told {said}",
            )
    guest = world.site.lans["lan1"].hosts[0]
    for server in (world.site.lans[name].address4.ip for name in ("lan0", "lan1")):
        said = guest.run(["python3", "-c", ASK, str(server), "www.example.net", "1"], check=False)
        lab.check(not said.strip(), f"a host of the other LAN is told nothing by {server}")
    outstanding = world.fleet.supervisor("a").command("plan", "--dry-run")
    lab.check(
        "names_" not in outstanding and "nft" not in outstanding,
        f"what was learned is no drift: {outstanding.strip() or 'nothing to do'}",
    )


def story_dnsmasq_dies_or_hangs(lab: Lab) -> None:
    world = World(lab)
    (before,) = world.pids()
    world.signal(signal.SIGKILL)
    lab.check(world.class_of("meet", 4) == "meeting", "without it what was learned stays")
    took_s = lab.wait_until(
        lambda: world.ask("room1.meet.example.net", 6) is not None, 20, "names are told again"
    )
    lab.check(world.pids() != [before], f"by another one, after {took_s:.1f} s")
    lab.check(world.class_of("meet", 6) == "meeting", "and learned")

    (before,) = world.pids()
    world.signal(signal.SIGSTOP)
    took_s = lab.wait_until(
        lambda: world.ask("www.example.net") is not None, 60, "one that hangs is replaced"
    )
    lab.check(world.pids() != [before], f"after {took_s:.1f} s")

    supervisor = world.fleet.supervisor("a")
    (before,) = world.pids()
    supervisor.kill()
    lab.check(world.ask("pay.till.example.org") is not None, "it outlives the supervisor")
    supervisor.start()
    lab.sleep_virtual(3)
    lab.check(world.pids() == [before], "which adopts it")
    lab.check(world.class_of("till", 4) == "desk", "and leaves what it had learned")


def reload(world: World, edit: Callable[[dict[str, Any]], None]) -> None:
    config = world.fleet.config("a")
    edit(config)
    supervisor = world.fleet.supervisor("a")
    supervisor.write_config(config)
    supervisor.command("reload")


def story_another_configuration_keeps_what_was_learned(lab: Lab) -> None:
    world = World(lab)
    supervisor = world.fleet.supervisor("a")
    world.ask("pay.till.example.org")

    def swap(config: dict[str, Any]) -> None:
        config["classes"][0]["match"] = [{"domain": "elsewhere.example.net"}]

    reload(world, swap)
    lab.check(world.class_of("till", 4) == "desk", "the address of the till is still known")
    lab.check(world.class_of("meet", 4) != "meeting", "and that of the meeting is of no class now")
    lab.check(not warnings(world.fleet, "a"), f"nothing is wrong: {warnings(world.fleet, 'a')}")

    def without(config: dict[str, Any]) -> None:
        config["lans"][0]["dns"] = False
        config["classes"] = []
        config["policies"] = []

    reload(world, without)
    lab.wait_until(lambda: not world.pids(), 20, "with no LAN that asks dnsmasq ends")
    lab.check(supervisor.is_running, "and the supervisor goes on")


def story_somebody_flushes_all_rules(lab: Lab) -> None:
    world = World(lab)
    lab.check(world.class_of("meet", 4) == "meeting", "an address is learned")
    world.site.run(["nft", "flush", "ruleset"])
    listing = ["nft", "list", "table", "inet", "branchline"]
    lab.wait_until(
        lambda: "chain classify" in world.site.run(listing, check=False), 90, "they are loaded"
    )
    lab.wait_until(
        lambda: world.ask("room1.meet.example.net") and world.class_of("meet", 4) == "meeting",
        20,
        "with the next question it is learned again, whatever dnsmasq knew by heart",
    )


def story_it_is_told_when_names_are_not(lab: Lab) -> None:
    world = World(lab)
    (before,) = world.pids()
    world.signal(signal.SIGSTOP)
    lab.wait_until(lambda: "names-unanswered" in warnings(world.fleet, "a"), 60, "a warns")
    lab.say(warnings(world.fleet, "a")["names-unanswered"])
    lab.wait_until(lambda: "names-unanswered" not in warnings(world.fleet, "a"), 120, "it ends")
    lab.check(world.pids() != [before], "with another dnsmasq")


def story_a_line_dies_and_names_are_told(lab: Lab) -> None:
    world = World(lab)
    world.site.uplinks["fibre"].cut()
    told = world.ask("www.example.net")
    lab.check(told == world.to("other", 4), f"at once, over the other line: {told}")


def story_an_address_is_forgotten_in_time(lab: Lab) -> None:
    """The TTL is 10 minutes; one that is asked for again and again is never forgotten."""
    world = World(lab)
    world.ask("pay.till.example.org")
    for n in range(15):
        lab.sleep_virtual(600)
        world.ask("room1.meet.example.net")
        found = world.class_of("meet", 4)
        lab.require(found == "meeting", f"after {10 * (n + 1)} minutes it is {found}")
        if n == 4:
            found = world.class_of("till", 4)
            lab.check(found == "desk", f"one that nobody asked for in 50 minutes is still {found}")
    lab.check(world.class_of("till", 4) == "default", "and after two and a half hours is not")
