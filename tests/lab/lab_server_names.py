"""Flows are known by the names that they call, of hosts that never asked this box for one.

a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                  === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===
                                          |
                                        there

The clients are real: TLS of Python, and QUIC of OpenSSL, which nobody answers.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lab.fleet import Fleet
from lab.line import Line
from lab.topology import Family, Host, Lab
from tests.lab.boxes import asked, warnings
from tests.lab.tls import marks_of_data, serve, watch

CLASS_SHIFT = 28
CLASSES = (
    {"name": "meeting", "match": [{"domain": "meet.example.net"}]},
    {"name": "bulk", "match": [{"domain": "example.com", "protocol": "tcp", "ports": [443, 8443]}]},
    {"name": "banned", "match": [{"domain": "example.org"}]},
)
POLICIES = (
    {"class": "meeting", "tiers": [["dsl"], ["fibre"]], "hold": "1 s"},
    {"class": "bulk", "tiers": [["dsl"]]},
    {"class": "banned", "internet": "none"},
    {"class": "default", "tiers": [["fibre"], ["dsl"]], "hold": "1 s"},
)
FAMILIES: tuple[Family, ...] = (4, 6)
PORTS = (443, 8443)
NAMES = {**dict(enumerate((str(each["name"]) for each in CLASSES), start=1)), 15: "default"}
# Connects, and after a line of input shakes hands and sends at once.
CLIENT = """
import socket, ssl, sys, threading
address, port, name, lines = sys.argv[1:]
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
with socket.create_connection((address, int(port)), 5) as plain:
    print(plain.getsockname()[1], flush=True)
    sys.stdin.readline()
    text = (b"x" * 999 + b"\\n") * int(lines)
    left = len(text)
    try:
        tls = context.wrap_socket(plain, server_hostname=name)
        threading.Thread(target=tls.sendall, args=[text], daemon=True).start()
        while left > 0 and (got := tls.recv(65536)):
            left -= len(got)
    except OSError as error:
        print(type(error).__name__, flush=True)
    else:
        print("answered" if left <= 0 else "ended", flush=True)
    sys.stdin.readline()
"""
# Connects, and after a line of input says a hello of some size whose last extension is the name.
NAME_LAST = """
import socket, ssl, sys
address, port, name, size = sys.argv[1:]
incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
try:
    ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
except ssl.SSLWantReadError:
    octets = outgoing.read()
at = 9 + 34
for width in (1, 2, 1):  # session, cipher suites, compression
    at += width + int.from_bytes(octets[at : at + width])
start, rest, names = octets[9:at], b"", b""
at += 2
while at < len(octets):
    size_of = 4 + int.from_bytes(octets[at + 2 : at + 4])
    one, at = octets[at : at + size_of], at + size_of
    if one[:2] == b"\\0\\0":
        names += one
    else:
        rest += one
padding = b"\\0\\x15" + int(size).to_bytes(2) + bytes(int(size))
extensions = rest + padding + names
body = start + len(extensions).to_bytes(2) + extensions
message = b"\\1" + len(body).to_bytes(3) + body
with socket.create_connection((address, int(port)), 5) as plain:
    print(plain.getsockname()[1], flush=True)
    sys.stdin.readline()
    plain.sendall(b"\\x16\\3\\1" + len(message).to_bytes(2) + message)
    print("said", flush=True)
    sys.stdin.readline()
"""
# What QUIC's packets begin with, from many ports.
FLOOD = """
import socket, sys, time
address, rate, seconds = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(200)]
for n in range(rate * seconds):
    sockets[n % len(sockets)].sendto(b"\\xc0\\0\\0\\0\\1" + bytes(40), (address, 1000 + n % 50000))
    if n % 20 == 0:
        time.sleep(20 / rate)
"""


class World:
    """Two boxes, whose hosts ask nobody, and servers on the internet and at b."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.fleet = Fleet(lab, classes=CLASSES, policies=POLICIES)
        for number, name in enumerate("ab", start=1):
            site = lab.site(name)
            for uplink, delay_ms in (("fibre", 10), ("dsl", 20)):
                site.uplink(uplink, down=Line(delay_ms=delay_ms))
            site.lan(hosts=2)
            self.fleet.add(site, number)
        self.there: Host = lab.internet_host("there")
        self.fleet.start()
        self.fleet.wait_up()
        self.fleet.wait_carriers("a", "default", "b", ["1-1"], 60)
        self.fleet.wait_carriers("a", "meeting", "b", ["2-2"], 60)
        self.client, self.neighbour = self.fleet.sites["a"].lans["lan0"].hosts
        for site in self.fleet.sites.values():
            watch(site, PORTS)
        self.inside = self.fleet.sites["b"].lans["lan0"].hosts[0]
        serve(lab, (self.there, self.inside), PORTS)

    def call(
        self, host: Host, family: Family, name: str, *, port: int = 443, lines: int = 1
    ) -> "Call":
        argv = ["python3", "-c", CLIENT, host.address(family), str(port), name, str(lines)]
        return Call(self, argv, host.address(family), port)

    def class_of(
        self, address: str, port: int, *ends: str, protocol: str = "tcp", at: str = "a"
    ) -> str | None:
        """The class of the one flow there, as the kernel has it; None for none."""
        family = "ipv6" if ":" in address else "ipv4"
        words = ["conntrack", "-L", "-f", family, "-p", protocol, "-d", address]
        words += ["--orig-port-dst", str(port), *ends]
        listed = self.fleet.sites[at].run(words)
        marks = {int(mark) >> CLASS_SHIFT for mark in re.findall(r"\bmark=(\d+)", listed)}
        if len(marks) > 1:
            self.lab.require(False, f"one flow has one class: {listed}")
        return NAMES[marks.pop()] if marks else None


class Call:
    """A TLS client, which is told when to go on."""

    def __init__(self, world: World, argv: list[str], address: str, port: int) -> None:
        self.world, self.address, self.port = world, address, port
        self.process = world.client.start(argv, stdin="")
        self.source_port = self.step()  # when it is connected

    def step(self) -> str:
        """What it says next."""
        assert self.process.stdout is not None
        return str(self.process.stdout.readline()).strip()

    def go_on(self) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.step()

    def class_at(self, box: str = "a") -> str | None:
        return self.world.class_of(
            self.address, self.port, "--orig-port-src", self.source_port, at=box
        )

    def said_in(self) -> set[str]:
        """The classes in which a's host sent the flow's application data."""
        marks = marks_of_data(self.world.fleet.sites["a"]).get(int(self.source_port), ())
        return {NAMES[mark >> CLASS_SHIFT] for mark in marks}

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


def story_a_flow_is_in_the_class_of_the_name_it_calls(lab: Lab) -> None:
    """Before its first application data, which comes as soon as hands are shaken."""
    world = World(lab)
    for family in FAMILIES:
        for host, ends in ((world.inside, "ab"), (world.there, "a")):
            call = world.call(host, family, "Room1.Meet.example.net")
            found, what = call.class_at(), f"IPv{family}, to {host.name}"
            lab.check(found == "default", f"{what}: connected, in the class {found}")
            lab.check(call.go_on() == "answered", "data goes and comes")
            known = {box: call.class_at(box) for box in ends}
            lab.check(set(known.values()) == {"meeting"}, f"the flow's classes: {known}")
            said = call.said_in()
            lab.check(said == {"meeting"}, f"all of its data was in: {said}")
            call.end()
    lab.check(not warnings(world.fleet, "a"), f"nothing is wrong: {warnings(world.fleet, 'a')}")


def story_a_name_may_come_last(lab: Lab) -> None:
    """In a hello of several segments, which the host's kernel hands over as one (TSO), or cut."""
    world = World(lab)
    for offload in ("on", "off"):
        world.client.run(["ethtool", "-K", "eth0", "tso", offload, "gso", offload])
        for family in FAMILIES:
            for size in (0, 1000, 1250, 3000, 9000):
                address = world.there.address(family)
                argv = ["python3", "-c", NAME_LAST, address, "443", "room1.meet.example.net"]
                call = Call(world, [*argv, str(size)], address, 443)
                lab.require(call.go_on() == "said", "a hello is said")
                lab.sleep_virtual(0.05)
                found = call.class_at()
                lab.check(found == "meeting", f"tso {offload}, IPv{family}, {size} more: {found}")
                call.end()


def story_who_floods_takes_nobodys_part(lab: Lab) -> None:
    world = World(lab)
    address = world.there.address()
    flood = world.neighbour.start(["python3", "-c", FLOOD, address, "2000", "6"])
    lab.sleep_virtual(2)
    ratio = world.fleet.supervisor("a").cpu_ratio(lambda: lab.sleep_virtual(2))
    lab.check(ratio < 0.5, f"the supervisor takes {ratio:.2f} of the core meanwhile")
    call = world.call(world.there, 4, "room1.meet.example.net")
    lab.check(call.go_on() == "answered", "somebody else calls")
    lab.check(call.class_at() == "meeting", f"and is heard: {call.class_at()}")
    call.end()
    lab.require(flood.poll() is None, "all the while")
    flood.kill()
    flood.communicate()
    states = {path["state"] for path in world.fleet.supervisor("a").status()["paths"]}
    lab.check(states == {"up"}, f"the paths are {states}")


def story_quic_says_whom_it_calls(lab: Lab) -> None:
    world = World(lab)
    for family in FAMILIES:
        for port, name, wanted in (
            (443, "room2.meet.example.net", "meeting"),
            (4433, "room3.meet.example.net", "meeting"),
            (444, "www.example.com", "default"),
        ):
            address = world.there.address(family)
            to = f"[{address}]:{port}" if family == 6 else f"{address}:{port}"
            words = ["openssl", "s_client", "-quic", "-alpn", "h3", "-servername", name]
            quic = world.client.start([*words, "-connect", to], stdin="")

            def found(at: str = address, by: int = port) -> str | None:
                return world.class_of(at, by, protocol="udp")

            lab.wait_until(lambda: found() is not None, 5, "a datagram left")
            lab.sleep_virtual(0.05)
            lab.check(found() == wanted, f"IPv{family}: QUIC to {name} is {found()}")
            quic.kill()
            quic.wait()


def story_a_flow_keeps_its_way(lab: Lab) -> None:
    """What has left for the internet joins no class that another way is for."""
    world = World(lab)
    call = world.call(world.there, 4, "www.example.com", port=8443)
    lab.check(call.go_on() == "answered", "it goes over the fibre")
    lab.check(call.class_at() == "default", f"and is not for bulk's dsl: {call.class_at()}")
    call.end()
    call = world.call(world.inside, 4, "www.example.com", port=8443)
    lab.check(call.go_on() == "answered", "it goes to another site")
    lab.check(call.class_at() == "bulk", f"any way will do: {call.class_at()}")
    call.end()
    call = world.call(world.there, 4, "www.example.org")
    said = call.go_on()
    lab.check(call.class_at() == "banned", f"one that may not go there is {call.class_at()}")
    lab.check(said == "ConnectionResetError", f"and is told so at once: {said}")
    call.end()


def story_its_path_is_that_of_its_class(lab: Lab) -> None:
    world = World(lab)
    call = world.call(world.inside, 4, "room1.meet.example.net", lines=3000)
    site = world.fleet.sites["a"]
    counter = ["cat", f"/sys/class/net/{site.uplinks['dsl'].device}/statistics/tx_bytes"]
    before = int(site.run(counter))
    lab.check(call.go_on() == "answered", "three megabytes went and came back")
    sent = int(site.run(counter)) - before
    lab.check(sent > 3_000_000, f"over the dsl: {sent} octets")
    (flow,) = asked(world.fleet, "a", "flows", "--class", "meeting")["flows"]
    lab.check(flow["rule"] == "match 1", f"by its rule: {flow['rule']}")
    lab.check(flow["is_fast"], "on the fast path")
    call.end()


def story_without_a_supervisor_nothing_waits(lab: Lab) -> None:
    world = World(lab)
    supervisor = world.fleet.supervisor("a")
    for how, done in (("hangs", supervisor.pause), ("is dead", supervisor.kill)):
        done()
        for _ in range(3):
            call = world.call(world.there, 4, "room1.meet.example.net")
            lab.check(call.go_on() == "answered", f"data flows while it {how}")
            lab.check(call.class_at() == "default", "in the class of its address")
            call.end()
    supervisor.start()

    def is_known() -> bool:
        call = world.call(world.there, 4, "room1.meet.example.net")
        call.go_on()
        found = call.class_at()
        call.end()
        return found == "meeting"

    lab.wait_until(is_known, 20, "the next supervisor reads names again")


def story_rules_with_names_come_and_go(lab: Lab) -> None:
    world = World(lab)
    site, supervisor = world.fleet.sites["a"], world.fleet.supervisor("a")

    def reload(classes: Sequence[Mapping[str, Any]], policies: Sequence[Mapping[str, Any]]) -> None:
        config = world.fleet.config("a")
        config["classes"], config["policies"] = list(classes), list(policies)
        supervisor.write_config(config)
        supervisor.command("reload")

    reload((), ())
    listing = ["nft", "list", "table", "inet", "branchline"]
    lab.check("log group" not in site.run(listing), "without such rules nothing is copied")
    others = ({**CLASSES[0], "match": [{"domain": "talk.example.net"}]}, *CLASSES[1:])
    reload(others, POLICIES)
    for name, wanted in (("room1.meet.example.net", "default"), ("talk.example.net", "meeting")):
        call = world.call(world.there, 6, name)
        call.go_on()
        lab.check(call.class_at() == wanted, f"with others {name} is {call.class_at()}")
        call.end()
    outstanding = supervisor.command("plan", "--dry-run")
    lab.check("nft" not in outstanding, f"who sent what is no drift: {outstanding.strip()}")
