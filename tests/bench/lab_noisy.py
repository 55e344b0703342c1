"""A healthy but noisy line: for 30 minutes nothing may move.

      [a] === fibre 10 ms, noisy ===+              +=== fibre 10 ms === [b]
          === dsl   20 ms ==========+-- internet --+=== dsl   20 ms ===

a's fibre loses 0.3 % of the packets and has 5 ms of jitter in each direction; the SLA of voice is
1 %. Probes go every 20 ms: 90,000 on every path. Moves of both sites count, as their counters and
as the kernel's notices say.
"""

from lab.fleet import Fleet
from lab.line import Line
from lab.monitor import KernelMonitor
from lab.topology import Lab
from tests.bench.measure import record
from tests.bench.worlds import clock, route_moves, two_uplinks

MINUTES = 30
NOISE = Line(delay_ms=10, jitter_ms=5, loss=0.003)
POLICY = {"class": "voice", "tiers": ["fibre", "dsl"], "sla": {"loss": "1 %", "jitter": "30 ms"}}


def story(lab: Lab) -> None:
    fleet = Fleet(lab, policies=[POLICY], probing={"interval": "20 ms"})
    for number, name in enumerate("ab", start=1):
        fleet.add(two_uplinks(lab, name), number)
    fleet.sites["a"].uplinks["fibre"].impair(down=NOISE, up=NOISE)
    fleet.start()
    fleet.wait_up(60)
    for name, far in (("a", "b"), ("b", "a")):
        fleet.wait_carriers(name, "voice", far, ["1-1"], 120)
    monitors = {name: KernelMonitor(fleet.sites[name], "route") for name in "ab"}
    before, begun = counters(fleet), clock()
    for minute in range(MINUTES):
        lab.sleep_virtual(60)
        lab.say(f"{minute + 1} of {MINUTES} minutes, moves so far: {counters(fleet)}")
    after = counters(fleet)
    moves = [after[name]["moves"] - before[name]["moves"] for name in "ab"]
    noticed = [
        len(route_moves(monitors[name], network(fleet, far), begun)) for name, far in ("ab", "ba")
    ]
    probes = after["a"]["probes_sent"] - before["a"]["probes_sent"]
    lab.require(probes > 0.9 * 4 * 50 * 60 * MINUTES, f"a sent {probes} probes over its 4 paths")
    for name in "ab":
        lab.say(fleet.supervisor(name).command("history"))
    record(
        lab,
        "noisy_line_moves",
        max(sum(moves), sum(noticed)),
        "moves",
        samples=moves,
        minutes=MINUTES,
        loss_each_way=NOISE.loss,
        jitter_ms=NOISE.jitter_ms,
        probes_sent_by_a=probes,
        probe_interval_ms=20,
    )


def counters(fleet: Fleet) -> dict[str, dict[str, int]]:
    found = {}
    for name in "ab":
        told = fleet.supervisor(name).status()["counters"]
        found[name] = {
            "moves": sum(told["moves"].values()),
            "probes_sent": told["probes_sent"],
        }
    return found


def network(fleet: Fleet, name: str) -> str:
    return str(fleet.sites[name].lans["lan0"].address4.network)
