"""Carrier loss: what a call loses when the cable of the local uplink is pulled.

      a-lan0-h1 --- [a] =x= fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                        === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===

200 packets a second go from a's host to b's, and as many back. a's fibre loses its carrier at ten
phases of the stream; the worst loss of a's own packets counts. What b sends is beside it: b sees no
carrier change, only silence.
"""

from lab.topology import Lab
from tests.bench.measure import record, wait_for_phase
from tests.bench.worlds import fleet_of

PULLS = 10
PPS = 200
SETTLE_S = 3.0
POLICY = {"class": "voice", "tiers": ["fibre", "dsl"], "hold": "1 s"}


def story(lab: Lab) -> None:
    fleet = fleet_of(lab, ("a", "b"), POLICY, interval_ms=20)
    a, b = fleet.sites["a"], fleet.sites["b"]
    hosts = a.lans["lan0"].hosts[0], b.lans["lan0"].hosts[0]
    there = lab.stream(*hosts, pps=PPS, dscp=46, port=9001)
    back = lab.stream(*reversed(hosts), pps=PPS, dscp=46, port=9002)
    lost_there, lost_back = [], []
    for n in range(PULLS):
        for name, far in (("a", "b"), ("b", "a")):
            fleet.wait_carriers(name, "voice", far, ["1-1"], 120)
        lab.sleep_virtual(SETTLE_S)
        wait_for_phase(1 / PPS, n / PULLS)
        pulled_s = lab.now_s
        a.uplinks["fibre"].unplug()
        lab.sleep_virtual(SETTLE_S)
        lost_there.append(there.lost(pulled_s - 0.1, lab.now_s - 1))
        lost_back.append(back.lost(pulled_s - 0.1, lab.now_s - 1))
        a.uplinks["fibre"].plug_in()
    for stream in (there, back):
        lab.say(str(stream.stop()))
    record(
        lab,
        "carrier_loss_lost",
        max(lost_there),
        "packets",
        samples=lost_there,
        remark=f"the far end, which sees silence only, loses at most {max(lost_back)}",
        far_end_lost=lost_back,
        packets_per_s=PPS,
        probe_interval_ms=20,
        statistic="worst",
    )
