"""Brownout: how soon a class leaves a path that still works but violates its SLA.

      a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                        === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===

By turns a's and b's fibre gets worse in the direction towards its site, at another phase of the
probe interval and with another random sequence each time. The time from there to the kernel's
notice that a's route of the class leads to a path without that line, and not back to it while it is
bad, is one sample. Then the line heals, the class comes back, and the next run begins. All lines
have 1 ms of jitter all the time.
"""

import re

from lab.fleet import Fleet
from lab.line import Line
from lab.monitor import KernelMonitor
from lab.topology import Lab
from tests.bench.measure import percentile, record, wait_for_phase
from tests.bench.worlds import clock, route_moves, two_uplinks

RUNS = 20
INTERVAL_MS = 20
PPS = 200
SETTLE_S = 5.0  # at home before the next brownout
GIVE_UP_S = 60.0
STAYS_S = 2.0  # away from the bad line, or it was no move
JITTER_MS = 1.0
LOSS_ONLY = {"loss": "1 %"}
DELAY_ONLY = {"delay": "80 ms"}


def story_delay(lab: Lab) -> None:
    run(lab, "brownout_delay_p95_s", DELAY_ONLY, added_delay_ms=80)


def story_loss(lab: Lab) -> None:
    run(lab, "brownout_loss_p95_s", LOSS_ONLY, loss=0.03)


def story_loss_traffic(lab: Lab) -> None:
    run(lab, "brownout_loss_traffic_p95_s", LOSS_ONLY, loss=0.03, pps=PPS)


def run(
    lab: Lab,
    name: str,
    sla: dict[str, str],
    *,
    added_delay_ms: float = 0.0,
    loss: float = 0.0,
    pps: int = 0,
) -> None:
    fleet, prefix = build(lab, sla)
    monitor = KernelMonitor(fleet.sites["a"], "route")
    hosts = [fleet.sites[n].lans["lan0"].hosts[0] for n in ("a", "b")]
    streams = [
        lab.stream(*way, pps=pps, dscp=46, port=port)
        for way, port in ((hosts, 9001), (hosts[::-1], 9002))
        if pps
    ]
    samples = []
    for n in range(RUNS):
        fleet.wait_carriers("a", "voice", "b", ["1-1"], 600)
        lab.sleep_virtual(SETTLE_S)
        line = fleet.sites["ab"[n % 2]].uplinks["fibre"].down
        is_bad = (r"bl-1-\d", r"bl-\d-1")[n % 2]
        wait_for_phase(INTERVAL_MS / 1000, n / RUNS)
        begun = clock()
        line.change(delay_ms=10 + added_delay_ms, loss=loss)
        left_at = wait_for_leaving(lab, monitor, prefix, begun, is_bad)
        samples.append(round(left_at - begun, 4))
        line.change(delay_ms=10, loss=0.0)
    for stream in streams:
        stream.stop()
    lab.say(f"{name}: {samples}")
    record(
        lab,
        name,
        percentile(samples, 0.95),
        "s",
        samples=samples,
        median_s=percentile(samples, 0.5),
        worst_s=max(samples),
        sla=sla,
        added_delay_ms=added_delay_ms,
        added_loss=loss,
        packets_per_s=pps,
        probe_interval_ms=INTERVAL_MS,
        jitter_ms=JITTER_MS,
    )


def wait_for_leaving(
    lab: Lab, monitor: KernelMonitor, prefix: str, since: float, is_bad: str
) -> float:
    """When the kernel told that the class's route leads where no device matches, and stays there.

    A move to another path over the bad line is none.
    """

    def left_at() -> float | None:
        at = None
        for notice in route_moves(monitor, prefix, since):
            if re.search(is_bad, notice.text):
                at = None
            elif at is None:
                at = notice.at
        return at

    end_s = lab.now_s + GIVE_UP_S
    while True:
        lab.wait_until(lambda: left_at() is not None, end_s - lab.now_s, "the class leaves")
        seen = left_at()
        lab.sleep_virtual(STAYS_S)
        if seen is not None and seen == left_at():
            return seen


def build(lab: Lab, sla: dict[str, str]) -> tuple[Fleet, str]:
    """A fleet whose voice class has this SLA, and the prefix of b's LAN."""
    policy = {"class": "voice", "tiers": ["fibre", "dsl"], "sla": sla, "hold": "5 s"}
    fleet = Fleet(lab, policies=[policy], probing={"interval": f"{INTERVAL_MS} ms"})
    for number, name in enumerate("ab", start=1):
        site = two_uplinks(
            lab,
            name,
            fibre=Line(delay_ms=10, jitter_ms=JITTER_MS),
            dsl=Line(delay_ms=20, jitter_ms=JITTER_MS),
        )
        fleet.add(site, number)
    fleet.start()
    fleet.wait_up(60)
    return fleet, str(fleet.sites["b"].lans["lan0"].address4.network)
