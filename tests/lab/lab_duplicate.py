"""A call that leaves on two paths loses nothing when a line dies, and arrives once.

      a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                        === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===

The voice class of both sites is in mode `duplicate`: path 1-1 carries it, and copies go over 2-2.
"""

import json
import socket
import time
from typing import Any

from lab.fleet import Fleet
from lab.stream import Stream
from lab.supervisor import Supervisor
from lab.topology import Host, Lab, Site
from tests.lab.boxes import branch, hosts, left, pair, restarts_idle, warnings

EF = 46
POLICIES = (
    {"class": "voice", "mode": "duplicate", "hold": "5 s"},
    {"class": "default", "hold": "5 s"},
)
FAMILIES = 4, 6
ALIKE, GAP_S = 300, 0.01
_SO_RCVBUFFORCE = 33


def story_a_line_is_cut_and_nothing_is_lost(lab: Lab) -> None:
    """Nor when the supervisor is killed; and what somebody removes is put back."""
    fleet = world(lab)
    lab.wait_until(lambda: second(fleet) == "2-2", 30, "copies go over 2-2")
    calls = streams(lab, fleet)
    lab.sleep_virtual(2)
    fibre = fleet.sites["b"].uplinks["fibre"]
    fibre.cut()
    fleet.wait_carriers("a", "voice", "b", ["2-2"], timeout_s=5)
    lab.sleep_virtual(2)
    fibre.heal()
    fleet.wait_carriers("a", "voice", "b", ["1-1"], timeout_s=60)
    came_through(lab, calls, "a line cut and healed")

    calls = streams(lab, fleet)
    restarts_idle(lab, fleet, "a")
    lab.check(second(fleet) == "2-2", "and knows where copies go")
    came_through(lab, calls, "a supervisor killed and started again")

    for name, commands in {
        "a": ("tc filter del dev bl-1-1 egress", "ip link del bl-2-2"),
        "b": ("tc filter del dev bl-1-1 ingress", "ip link del bl-1-2"),
    }.items():
        fleet.sites[name].run(["sh", "-c", " && ".join(commands)])
        lab.wait_until(lambda: is_in_force(fleet, name), 30, f"{name}: all is put back")  # noqa: B023
    fleet.wait_up()
    lab.wait_until(lambda: second(fleet) == "2-2", 30, "copies go over 2-2 again")
    lab.wait_until(lambda: is_in_force(fleet, "a"), 30, "as planned")
    calls = streams(lab, fleet)
    lab.sleep_virtual(1)
    fibre.cut()
    fleet.wait_carriers("a", "voice", "b", ["2-2"], timeout_s=5)
    came_through(lab, calls, "a line cut again")


def story_packets_that_are_alike_are_not_taken_for_copies(lab: Lab) -> None:
    """Neither in a class that is sent twice, nor in one that is not and moves between paths."""
    fleet = world(lab)
    lab.wait_until(lambda: second(fleet) == "2-2", 30, "copies go over 2-2")
    for family in FAMILIES:
        for gap_s in (0, GAP_S):
            got = alike(lab, fleet, family, dscp=EF, gap_s=gap_s)
            lab.check(got == ALIKE, f"IPv{family}: {ALIKE} equal packets give {got}")
    for family, tiers in zip(FAMILIES, (["dsl", "fibre"], ["fibre", "dsl"]), strict=True):
        before = fleet.carriers("a", "default", "b")
        config = fleet.config("a")
        config["policies"] = [POLICIES[0], {**POLICIES[1], "tiers": tiers, "hold": "1 s"}]
        a = fleet.supervisor("a")
        a.write_config(config)
        a.command("reload")
        got = alike(lab, fleet, family, dscp=0, gap_s=GAP_S)
        after = fleet.carriers("a", "default", "b")
        lab.check(before != after, f"the default class went from {before} to {after}")
        lab.check(got == ALIKE, f"IPv{family}: {ALIKE} equal packets meanwhile give {got}")


def story_two_lossy_lines_make_a_good_one(lab: Lab) -> None:
    fleet = world(lab)
    lab.wait_until(lambda: second(fleet) == "2-2", 30, "copies go over 2-2")
    for uplink in fleet.sites["b"].uplinks.values():
        uplink.down.change(loss=0.05)
    calls = streams(lab, fleet)
    lab.sleep_virtual(15)
    for family, call in calls.items():
        result = call.stop()
        ratio = result.lost / result.sent
        lab.check(ratio < 0.01, f"IPv{family}: {100 * ratio:.2f} % are lost of both: {result}")
        lab.check(result.duplicates == 0, f"IPv{family}: {result.duplicates} come twice")

    config = fleet.config("a")
    config["policies"] = [{**POLICIES[0], "when": "impaired"}, POLICIES[1]]
    a = fleet.supervisor("a")
    a.write_config(config)
    a.command("reload")
    lab.check(second(fleet) is not None, "while lines lose packets copies are sent")
    for uplink in fleet.sites["b"].uplinks.values():
        uplink.down.change(loss=0)
    took_s = lab.wait_until(lambda: second(fleet) is None, 120, "and none a while after", poll_s=2)
    lab.check(took_s > 50, f"that is after {took_s:.0f} s, not as soon as the lines are well")
    lab.wait_until(lambda: is_in_force(fleet, "a"), 30, "as planned")
    fleet.sites["b"].uplinks["fibre"].down.change(loss=0.03)
    took_s = lab.wait_until(lambda: second(fleet) is not None, 30, "copies are sent again")
    lab.check(took_s < 10, f"{took_s:.1f} s after a line began to lose 3 %")


def story_where_classes_have_shares_each_packet_leaves_twice_and_no_more(lab: Lab) -> None:
    """Packets pass a plane's egress again when they have waited."""
    shares = [{"class": "voice", "guarantee": "20 %"}]
    shaping = {"up": "50 Mbit/s", "down": "50 Mbit/s", "classes": shares}
    fleet = Fleet(lab, policies=POLICIES)
    for number, name in enumerate("ab", start=1):
        fleet.add(branch(lab, name), number, lambda config: _shape(config, shaping))
    fleet.start()
    fleet.wait_up()
    lab.wait_until(lambda: second(fleet) == "2-2", 30, "copies go over 2-2")
    lab.wait_until(lambda: is_in_force(fleet, "a"), 30, "as planned")
    before = _entered(fleet.sites["a"])
    calls = streams(lab, fleet)
    lab.sleep_virtual(2)
    results = {family: call.stop() for family, call in calls.items()}
    lab.sleep_virtual(0.5)
    sent = sum(result.sent for result in results.values())
    for device, packets in _entered(fleet.sites["a"]).items():
        ratio = (packets - before[device]) / sent
        wanted = 1 if device in ("bl-1-1", "bl-2-2") else 0
        # Beside probes, which are less than half of it.
        lab.check(wanted <= ratio < wanted + 0.8, f"{device} took {ratio:.2f} of each packet")
    for family, result in results.items():
        lab.check(
            (result.lost, result.duplicates) == (0, 0),
            f"IPv{family}: of {result.sent} {result.lost} are lost, {result.duplicates} come twice",
        )


def _shape(config: dict[str, Any], shaping: dict[str, Any]) -> None:
    for uplink in config["uplinks"]:
        uplink["shaping"] = shaping


def _entered(site: Site) -> dict[str, int]:
    """Packets that each plane took."""
    found = json.loads(site.run(["ip", "-j", "-s", "link", "show", "type", "wireguard"]))
    return {each["ifname"]: each["stats64"]["tx"]["packets"] for each in found}


class WithoutBpf(Supervisor):
    """A supervisor that a kernel refuses every program."""

    def start(self, wait_s: float | None = 30) -> None:
        without = "-bpf,-sys_admin"
        self.daemon = self._machine.background(
            [
                *("setpriv", f"--inh-caps={without}", f"--bounding-set={without}"),
                *(*self._branchline, "run", "--config", str(self.config_file)),
            ],
            name="branchline",
        )
        if wait_s is not None:
            self.wait_ready(wait_s)


def story_without_bpf_it_warns_and_sends_once(lab: Lab) -> None:
    fleet = Fleet(lab, policies=POLICIES)
    for number, name in enumerate("ab", start=1):
        fleet.add(branch(lab, name), number)
    a, b = fleet.sites.values()
    a.supervisor = WithoutBpf(a, fleet.config("a"))
    a.supervisor.start(None)
    b.supervise(fleet.config("b"))
    a.supervisor.wait_ready(30)
    fleet.wait_up()
    text = warnings(fleet, "a").get("duplicate-unavailable", "")
    lab.check("voice in mode single instead" in text, f"a warns: {text}")
    lab.check("duplicate-unavailable" not in warnings(fleet, "b"), "b does not")
    lab.check(second(fleet) is None and is_in_force(fleet, "a"), "a does what it can")
    one, other = hosts(fleet)
    told = lab.ping(one, other, count=20, interval_s=0.02, dscp=EF)
    lab.check((told.lost, told.sent) == (0, 20), f"a call gets through: {told.received} answers")


def world(lab: Lab) -> Fleet:
    fleet = pair(lab, POLICIES)
    one, other = hosts(fleet)
    for family in FAMILIES:  # neighbours are known before anything counts
        lab.ping(one, other, count=2, family=family)
    return fleet


def second(fleet: Fleet) -> str | None:
    """The plane over which a's copies go to b."""
    rows = fleet.supervisor("a").status()["classes"]
    (found,) = [row["second"] for row in rows if (row["class_name"], row["site"]) == ("voice", "b")]
    return None if found is None else str(found["path"].rpartition("/")[2])


def is_in_force(fleet: Fleet, name: str) -> bool:
    return not left(fleet, name)


def streams(lab: Lab, fleet: Fleet, *, pps: int = 200) -> dict[int, Stream]:
    one, other = hosts(fleet)
    return {
        family: lab.stream(one, other, pps=pps, dscp=EF, family=family, port=9000 + family)
        for family in FAMILIES
    }


def came_through(lab: Lab, calls: dict[int, Stream], what: str) -> None:
    lab.sleep_virtual(1)
    for family, call in calls.items():
        result = call.stop()
        sentence = f"{what}, IPv{family}: of {result.sent} packets {result.lost} are lost"
        lab.check(result.lost == 0, f"{sentence} and {result.duplicates} come twice")
        lab.check(result.duplicates == 0, "so none comes twice")


def alike(lab: Lab, fleet: Fleet, family: int, *, dscp: int, gap_s: float) -> int:
    """Send equal packets from a's host to b's; how many come."""
    one, other = hosts(fleet)
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with other.entered():
        sink = socket.socket(kind, socket.SOCK_DGRAM)
        sink.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 1 << 20)
        sink.bind(("", 9100))
    source = sender(one, kind, dscp)
    with source, sink:
        for _ in range(ALIKE):
            # Not connected, and not to be fragmented: so IPv4 numbers them all 0.
            source.sendto(b"the same", (other.address(family), 9100))
            time.sleep(gap_s)
        lab.sleep_virtual(1.5)
        sink.setblocking(False)
        count = 0
        while True:
            try:
                sink.recv(64)
            except BlockingIOError:
                return count
            count += 1


def sender(host: Host, kind: socket.AddressFamily, dscp: int) -> socket.socket:
    with host.entered():
        source = socket.socket(kind, socket.SOCK_DGRAM)
    if kind == socket.AF_INET:
        source.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
    else:
        source.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, dscp << 2)
    source.bind(("", 9101))
    return source
