"""A line that steps from 40 to 8 Mbit/s and back under four greedy TCP flows: what a call notices.

      a-lan0-h1 --- [a] === 10 ms, 40 or 8 Mbit/s ===+              +=== 10 ms === [b] --- b-lan0-h1
                                                     +-- internet --+

a is told that its line carries from 2 to 100 Mbit/s and learns the rest. The flows go from a to b,
and then, in another world, from b to a. EF pings cross the tunnel from 3 s after each step on; what
they take longer than on the idle line counts, and what comes out of the tunnel meanwhile, as IP
packets, over what the line carries. The worse direction is recorded.
"""

from typing import Any, NamedTuple

from lab.fleet import Fleet
from lab.line import Line
from lab.topology import Host, Lab
from tests.bench.measure import percentile, record

HIGH, LOW = 40, 8  # Mbit/s
BOUNDS = {"min": "2 Mbit/s", "max": "100 Mbit/s"}
FLOWS, EF = 4, 46
AFTER_S, GAP_S, PINGS = 3.0, 0.05, 240  # after a step, between pings
STEPS = (HIGH, LOW, HIGH)


class Phase(NamedTuple):
    """From 3 s after a step to the next."""

    mbit: int
    added_ms: tuple[float, ...]
    used: float  # ratio


def story(lab: Lab) -> None:
    found = {way: measure(lab, way) for way in ("up", "down")}
    added = {
        way: percentile([ms for phase in phases for ms in phase.added_ms], 0.95)
        for way, phases in found.items()
    }
    used = {way: min(phase.used for phase in phases) for way, phases in found.items()}
    worse = max(added, key=lambda way: added[way])
    conditions: dict[str, Any] = {"steps_mbit": STEPS, "flows": FLOWS, "bounds": BOUNDS}
    record(
        lab,
        "autorate_ef_added_p95_ms",
        added[worse],
        "ms",
        samples=[round(ms, 3) for phase in found[worse] for ms in phase.added_ms],
        remark=f"sending {added['up']:.1f} ms, receiving {added['down']:.1f} ms",
        **conditions,
    )
    worse = min(used, key=lambda way: used[way])
    record(
        lab,
        "autorate_used_ratio",
        used[worse],
        "ratio",
        samples=[phase.used for phase in found[worse]],
        remark=f"the worst of {len(STEPS)} phases, sending {used['up']:.3f}, "
        f"receiving {used['down']:.3f}",
        **conditions,
    )


def measure(lab: Lab, way: str) -> list[Phase]:
    """The phases of one direction."""
    lab.start_over(seed=lab.seed)
    fleet = Fleet(lab, probing={"interval": "20 ms"})
    ends: list[Host] = []
    for number, name in enumerate("ab", start=1):
        site = lab.site(name)
        full = line(HIGH) if name == "a" else Line(delay_ms=10)
        site.uplink("lte", down=full, up=full)
        ends += site.lan().hosts
        fleet.add(site, number, shape)
    fleet.start()
    fleet.wait_up(60)
    a, b = ends
    lab.wait_until(lambda: lab.ping(a, b, count=1).received, 30, "the hosts reach each other")
    quiet_ms = lab.ping(a, b, count=100, interval_s=GAP_S, dscp=EF).mean_ms
    length_s = AFTER_S + PINGS * GAP_S + 1
    direction = "forward" if way == "up" else "backward"
    load = lab.start_iperf3(
        a, b, seconds=5 + len(STEPS) * length_s, parallel=FLOWS, direction=direction
    )
    lab.sleep_virtual(5)
    phases = []
    for mbit in STEPS:
        fleet.sites["a"].uplinks["lte"].impair(down=line(mbit), up=line(mbit))
        lab.sleep_virtual(AFTER_S)
        to = b if way == "up" else a
        began_s, before = lab.now_s, received(to)
        call = lab.ping(a, b, count=PINGS, interval_s=GAP_S, dscp=EF)
        used = 8 * (received(to) - before) / (lab.now_s - began_s) / mbit / 1e6
        phases.append(Phase(mbit, tuple([rtt - quiet_ms for rtt in call.rtt_ms]), used))
        lab.require(call.lost == 0, f"{call.lost} of {call.sent} pings of the call were lost")
        lab.say(
            f"{way} at {mbit} Mbit/s: 95 % within {percentile(phases[-1].added_ms, 0.95):.1f} ms "
            f"more, {used:.3f} of the line used"
        )
    load.result()
    return phases


def received(host: Host) -> int:
    """Octets of IP packets that have come to a host."""
    folder = "/sys/class/net/eth0/statistics"
    octets, packets = host.run(["cat", f"{folder}/rx_bytes", f"{folder}/rx_packets"]).split()
    return int(octets) - 14 * int(packets)


def line(mbit: int) -> Line:
    return Line(delay_ms=10, rate_mbit=mbit, buffer_packets=300)


def shape(config: dict[str, Any]) -> None:
    """What an operator would write for a's line. netem counts 14 octets."""
    if config["site"]["name"] == "a":
        config["uplinks"][0]["shaping"] = {"up": BOUNDS, "down": BOUNDS, "overhead": 14}
