"""The supervisor is killed for a minute under load and started again.

      a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                        === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===

1,000 packets a second go from a's host to b's, and 200 back. a's supervisor gets SIGKILL; 60 s
later it starts again on the same state. No packet of either direction may be lost until 30 s after
the start, and the restarted one may apply nothing: that is what it says itself, and beside it what
the kernel tells of changed routes, nexthops, rules, addresses, links and nft objects of a.
"""

from lab.monitor import KernelMonitor
from lab.topology import Lab
from tests.bench.measure import record
from tests.bench.worlds import clock, fleet_of

DEAD_S = 60.0
AFTER_S = 30.0
PPS, BACK_PPS = 1000, 200
POLICY = {"class": "voice", "tiers": ["fibre", "dsl"], "sla": {"loss": "1 %", "delay": "80 ms"}}


def story(lab: Lab) -> None:
    fleet = fleet_of(lab, ("a", "b"), POLICY, interval_ms=20)
    a, b = fleet.sites["a"], fleet.sites["b"]
    for name, far in (("a", "b"), ("b", "a")):
        fleet.wait_carriers(name, "voice", far, ["1-1"], 120)
    lab.sleep_virtual(5)
    hosts = a.lans["lan0"].hosts[0], b.lans["lan0"].hosts[0]
    there = lab.stream(*hosts, pps=PPS, dscp=46, port=9001)
    back = lab.stream(*reversed(hosts), pps=BACK_PPS, dscp=46, port=9002)
    lab.sleep_virtual(5)
    monitor = KernelMonitor(a, "link", "address", "route", "rule", "nexthop")
    supervisor, begun = fleet.supervisor("a"), clock()
    supervisor.kill()
    lab.sleep_virtual(DEAD_S)
    supervisor.start(60)
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    lab.sleep_virtual(AFTER_S)
    told = supervisor.status()["counters"]
    noticed = monitor.notices(begun)
    for notice in noticed:
        lab.say(f"kernel: {notice.text}")
    results = [stream.stop() for stream in (there, back)]
    for result in results:
        lab.say(str(result))
    conditions = {"dead_s": DEAD_S, "packets_per_s": [PPS, BACK_PPS], "probe_interval_ms": 20}
    record(
        lab,
        "sigkill_lost",
        sum(result.lost for result in results),
        "packets",
        samples=[result.lost for result in results],
        sent=[result.sent for result in results],
        **conditions,
    )
    record(
        lab,
        "sigkill_ops",
        sum(told["ops"].values()),
        "operations",
        samples=[told["ops"]],
        also=[
            {
                "what": "changes told by the kernel",
                "value": len(noticed),
                "unit": "notices",
                "limit": 0,
            }
        ],
        **conditions,
    )
