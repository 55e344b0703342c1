"""Breakout: an uplink dies silently; how soon new connections succeed, and who else is disturbed.

      a-lan0-h1 --- [a] =x= fibre 10 ms ===+              +=== fibre 10 ms === [b]
                        === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===
                                           |
                                         server

A host behind a asks for a connection to the server every 50 ms, and holds sessions over the dsl.
a's fibre is cut at several phases of the probes. The slowest recovery counts: from the cut until a
connection that was asked for after it is made.
"""

import time

from lab.fleet import VOICE, Fleet
from lab.topology import Lab, StoryError
from tests.bench.measure import record, wait_for_phase
from tests.bench.worlds import two_uplinks
from tests.lab.outside import Attempts

CUTS = 5
INTERVAL_MS = 20
SESSIONS = 50
STALL_MS = 100.0  # a round trip over the dsl takes 20 ms: what stalls for longer was disturbed
SPARED = {"name": "spared", "match": [{"protocol": "tcp", "ports": 9200}]}
POLICIES = (
    {"class": "default", "hold": "2 s"},
    {"class": "spared", "tiers": ["dsl", "fibre"], "hold": "2 s"},
)


def story(lab: Lab) -> None:
    fleet = Fleet(
        lab,
        classes=(VOICE, SPARED),
        policies=POLICIES,
        probing={"interval": f"{INTERVAL_MS} ms"},
    )
    for number, name in enumerate("ab", start=1):
        fleet.add(two_uplinks(lab, name), number)
    fleet.start()
    fleet.wait_up(60)
    a, server = fleet.sites["a"], lab.internet_host("server")
    client = a.lans["lan0"].hosts[0]
    for name, plane in (("default", "1-0"), ("spared", "2-0")):
        fleet.wait_carriers("a", name, "internet", [plane], 30)
    spared = lab.tcp_sessions(client, server, count=SESSIONS, interval_s=0.1, port=9200)
    fresh = Attempts(client, server, 9300)
    recoveries, waits = [], []
    for n in range(CUTS):
        fleet.wait_carriers("a", "default", "internet", ["1-0"], 120)
        lab.sleep_virtual(1)
        wait_for_phase(INTERVAL_MS / 1000, n / CUTS)
        cut_s = time.monotonic()
        a.uplinks["fibre"].cut()
        lab.sleep_virtual(3)
        made = fresh.first_after(cut_s)
        if made is None:
            msg = "no connection was made within 3 s"
            raise StoryError(msg)
        recoveries.append(made.end_s - cut_s)
        waits.append(max(x.took_s for x in fresh.so_far() if cut_s <= x.start_s < cut_s + 1))
        a.uplinks["fibre"].heal()
    kept = spared.check()
    disturbed = SESSIONS if kept.longest_stall_ms > STALL_MS else SESSIONS - kept.survived
    lab.say(f"on the other uplink: {kept}")
    conditions = {"probe_interval_ms": INTERVAL_MS, "cuts": CUTS, "attempts_per_s": 20}
    record(
        lab,
        "breakout_recovery_s",
        max(recoveries),
        "s",
        samples=recoveries,
        remark=f"of those asked for in the first second the slowest takes {max(waits):.2f} s",
        statistic="worst",
        **conditions,
    )
    record(
        lab,
        "breakout_disturbed_flows",
        disturbed,
        "flows",
        samples=[disturbed],
        remark=f"of {SESSIONS}, the longest stall {kept.longest_stall_ms:.0f} ms",
        **conditions,
    )
    fresh.stop()
    spared.stop()
