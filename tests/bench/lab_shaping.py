"""A call on a line that four greedy TCP flows fill in each direction.

      a-lan0-h1 --- [a] === 10 ms, 20 Mbit/s ===+-- internet --+=== 10 ms === [b] --- b-lan0-h1

a shapes at 19 Mbit/s, 95 % of what its line carries; b does not shape, since nothing queues there.
EF pings cross the tunnel while nothing else does, then under load; what is added counts. The same
without shaping is the peer. Goodput is measured one direction at a time, because in both at once
each carries the other's acknowledgements too.
"""

from typing import Any

from lab.fleet import Fleet
from lab.line import Line
from lab.programs import PingResult
from lab.topology import Host, Lab
from tests.bench.measure import percentile, record

LINE = Line(delay_ms=10, rate_mbit=20, buffer_packets=1000)
RATE_MBIT = 19
FLOWS, EF = 4, 46
PINGS, GAP_S = 400, 0.05
ROUNDS, SECONDS = 2, 10.0


def story(lab: Lab) -> None:
    fleet, hosts = world(lab, is_shaped=False)
    quiet, loaded = calls(lab, hosts)
    without = added(quiet, loaded)
    lab.say(f"without shaping: {loaded.mean_ms - quiet.mean_ms:.1f} ms more")
    lab.start_over(seed=lab.seed)
    fleet, hosts = world(lab, is_shaped=True)
    quiet, loaded = calls(lab, hosts)
    shaped = added(quiet, loaded)
    lab.require(loaded.lost == 0, f"{loaded.lost} of {loaded.sent} pings of the call were lost")
    for number, name in enumerate(("mean", "p99")):
        record(
            lab,
            f"ef_added_{name}_ms",
            shaped[number],
            "ms",
            samples=[round(rtt - quiet.mean_ms, 3) for rtt in loaded.rtt_ms],
            peer={
                "name": "no shaping",
                "value": without[number],
                "unit": "ms",
                "samples": [without[number]],
            },
            line_mbit=LINE.rate_mbit,
            shaped_mbit=RATE_MBIT,
            idle_mean_ms=quiet.mean_ms,
        )
    goodput(lab, hosts)
    counters = fleet.supervisor("a").status()["counters"]
    lab.say(f"moves of a under load: {counters['moves']}")


def world(lab: Lab, *, is_shaped: bool) -> tuple[Fleet, tuple[Host, Host]]:
    fleet = Fleet(lab, probing={})
    for number, (name, line) in enumerate((("a", LINE), ("b", Line(delay_ms=10))), start=1):
        site = lab.site(name)
        site.uplink("fibre", down=line, up=line if name == "a" else Line())
        site.lan()
        fleet.add(site, number, shape if name == "a" and is_shaped else None)
    fleet.start()
    fleet.wait_up(60)
    a, b = (fleet.sites[name].lans["lan0"].hosts[0] for name in "ab")
    lab.wait_until(lambda: lab.ping(a, b, count=1).received, 30, "the hosts reach each other")
    return fleet, (a, b)


def shape(config: dict[str, Any]) -> None:
    """What an operator would write for a line that carries 5 % more."""
    rate = f"{RATE_MBIT} Mbit/s"
    config["uplinks"][0]["shaping"] = {"up": rate, "down": rate}


def calls(lab: Lab, hosts: tuple[Host, Host]) -> tuple[PingResult, PingResult]:
    """A call alone, and one under load."""
    quiet = lab.ping(*hosts, count=PINGS // 2, interval_s=GAP_S, dscp=EF)
    seconds = PINGS * GAP_S + 8
    run = lab.start_iperf3(*hosts, seconds=seconds, parallel=FLOWS, direction="both")
    lab.sleep_virtual(5)
    loaded = lab.ping(*hosts, count=PINGS, interval_s=GAP_S, dscp=EF)
    result = run.result()
    lab.say(f"the flows got {result.forward_mbit:.2f} and {result.backward_mbit:.2f} Mbit/s")
    return quiet, loaded


def added(quiet: PingResult, loaded: PingResult) -> tuple[float, float]:
    """Mean and 99th percentile over the mean of the idle line."""
    return loaded.mean_ms - quiet.mean_ms, percentile(loaded.rtt_ms, 0.99) - quiet.mean_ms


def goodput(lab: Lab, hosts: tuple[Host, Host]) -> None:
    rates: dict[str, list[float]] = {"forward": [], "backward": []}
    for _ in range(ROUNDS):
        for direction, found in rates.items():
            result = lab.iperf3(
                *hosts, seconds=SECONDS, omit_s=3, parallel=FLOWS, direction=direction
            )
            found.append(round(max(result.forward_mbit, result.backward_mbit), 3))
    worse = min(rates.values(), key=sum)
    record(
        lab,
        "shaped_goodput_ratio",
        sum(worse) / ROUNDS / RATE_MBIT,
        "ratio",
        samples=[rate / RATE_MBIT for rate in worse],
        shaped_mbit=RATE_MBIT,
        mbit=rates,
        flows=FLOWS,
    )
