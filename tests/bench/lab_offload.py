"""How soon a flow of the fast path is on another path when its class is moved.

      a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                        === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===

A TCP flow of the class sends a packet each millisecond, past all rules of a's firewall: the kernel
says that it is offloaded. b's fibre gets 80 ms slower, which the SLA forbids, and the class
leaves it; it heals, and the class comes back. What counts is the time from the kernel's notice that
the class's route was changed to the flow's last packet by any other plane. Packets are seen on the
plane devices, before they are encrypted.
"""

import re

from lab.machine import Daemon
from lab.monitor import KernelMonitor
from lab.topology import Host, Lab, Site
from tests.bench.measure import record
from tests.bench.worlds import clock, fleet_of, route_moves

CYCLES = 6  # of two moves each
PLANES = ("bl-1-1", "bl-1-2", "bl-2-1", "bl-2-2")
POLICY = {"class": "voice", "sla": {"delay": "80 ms"}, "hold": "2 s"}
EACH_MS = ("--bitrate", "8M", "--length", "1000", "--no-delay", "--tos", "0xb8")
TOLD_S = 0.005
SEEN = re.compile(r"^(\d+\.\d+) ")


def story(lab: Lab) -> None:
    fleet = fleet_of(lab, "ab", POLICY, interval_ms=20)
    a, b = (fleet.sites[name] for name in "ab")
    hosts = a.lans["lan0"].hosts[0], b.lans["lan0"].hosts[0]
    prefix = str(b.lans["lan0"].address4.network)
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    monitor = KernelMonitor(a, "route")
    captures = {plane: capture(a, plane, hosts[1]) for plane in PLANES}
    load = lab.start_iperf3(*hosts, seconds=CYCLES * 12, options=EACH_MS)
    lab.sleep_virtual(3)
    line = b.uplinks["fibre"].down
    start = clock()
    for _ in range(CYCLES):
        for delay_ms in (90, 10):
            lab.require(is_offloaded(a, hosts[1]), "the flow is on the fast path")
            begun = clock()
            line.change(delay_ms=delay_ms)
            lab.wait_until(lambda at=begun: route_moves(monitor, prefix, at), 60, "the class moves")
            lab.sleep_virtual(1.5)
    load.result()
    lab.sleep_virtual(1)
    seen = {plane: times(daemon) for plane, daemon in captures.items()}
    moves = [(n.at, hop_of(n.text)) for n in route_moves(monitor, prefix, start)]
    listed = a.run(["ip", "nexthop", "list"])
    device_of = dict(re.findall(r"id (\d+) dev (\S+)", listed))
    late_ms = [
        lateness_ms(seen, at, device_of[new], until)
        for (at, new), (until, _) in zip(moves, [*moves[1:], (clock(), "")], strict=True)
    ]
    lab.say(f"after {len(moves)} moves: {late_ms} ms")
    lab.require(len(moves) >= 2 * CYCLES, f"{len(moves)} moves were seen")
    record(
        lab,
        "offload_move_ms",
        max(late_ms),
        "ms",
        samples=late_ms,
        remark=f"the worst of {len(moves)} moves; a packet each ms",
        moves=moves,
    )


def capture(site: Site, plane: str, to: Host) -> Daemon:
    """Every packet to a host that leaves by a plane."""
    words = ["tcpdump", "-tt", "-nn", "--immediate-mode", "-l", "-i", plane]
    return site.background([*words, "tcp and dst host " + to.address()], name=f"seen-{plane}")


def times(daemon: Daemon) -> list[float]:
    daemon.stop()
    lines = daemon.output().splitlines()
    return [float(found[1]) for line in lines if (found := SEEN.match(line))]


def lateness_ms(seen: dict[str, list[float]], at: float, new: str, until: float) -> float:
    """From a move to the flow's last packet by another plane; the whole time if none took the new.

    The next move is told a moment after it was made: what comes just before that is of it already.
    """
    before = until - TOLD_S
    if not any(at <= t < before for t in seen[new]):
        return round(1000 * (until - at), 3)
    others = (t for plane, ts in seen.items() if plane != new for t in ts)
    return round(1000 * (max((t for t in others if at <= t < before), default=at) - at), 3)


def hop_of(notice: str) -> str:
    """The nexthop that a route leads to, out of its notice."""
    found = re.search(r"nhid (\d+)", notice)
    return found[1] if found else "none"


def is_offloaded(site: Site, to: Host) -> bool:
    listed = site.run(["conntrack", "-L", "-p", "tcp", "-d", to.address()])
    return "[OFFLOAD]" in listed
