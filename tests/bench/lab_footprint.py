"""What the supervisor itself takes of the box: 8 paths, a probe every 20 ms on each.

      [a] === fibre 10 ms ===+              +=== fibre, dsl === [b]
          === dsl   20 ms ===+-- internet --+=== fibre, dsl === [c]

a is the hub of b and c, so it has 2 x 2 planes and 8 paths, and it answers as many probes
as it sends. CPU time is the kernel's account of the process over a minute of virtual time, system
calls included, memory its resident set afterwards.
"""

from lab.topology import Lab
from tests.bench.measure import record
from tests.bench.worlds import fleet_of

WARM_S, WINDOW_S = 15.0, 20.0
WINDOWS = 3
PATHS, INTERVAL_MS = 8, 20
POLICY = {"class": "voice", "tiers": ["fibre", "dsl"], "sla": {"loss": "1 %", "delay": "80 ms"}}


def story(lab: Lab) -> None:
    fleet = fleet_of(lab, ("a", "b", "c"), POLICY, interval_ms=INTERVAL_MS, hub="a")
    lab.sleep_virtual(WARM_S)
    supervisor = fleet.supervisor("a")
    before = supervisor.status()["counters"]
    ratios = [supervisor.cpu_ratio(lambda: lab.sleep_virtual(WINDOW_S)) for _ in range(WINDOWS)]
    after = supervisor.status()["counters"]
    rates = {
        key: round((after[key] - before[key]) / WINDOWS / WINDOW_S)
        for key in ("probes_sent", "probes_answered", "probes_reflected")
    }
    wanted = PATHS * 1000 / INTERVAL_MS
    for key, rate in rates.items():
        lab.require(rate > 0.95 * wanted, f"{key.replace('_', ' ')}: {rate}/s of {wanted:g}/s")
    daemon = supervisor.daemon
    assert daemon is not None
    record(
        lab,
        "supervisor_cpu_ratio",
        sum(ratios) / WINDOWS,
        "ratio",
        samples=[round(ratio, 5) for ratio in ratios],
        paths=PATHS,
        probe_interval_ms=INTERVAL_MS,
        per_second=rates,
    )
    rss = daemon.rss_mib()
    record(lab, "supervisor_rss_mib", rss, "MiB", samples=[rss], paths=PATHS)
