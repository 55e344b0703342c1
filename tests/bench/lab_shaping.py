"""A call on a line that four greedy TCP flows fill in each direction.

      a-lan0-h1 --- [a] === 10 ms, 20 Mbit/s ===+              +=== 10 ms === [b] --- b-lan0-h1
                                                +-- internet --+

Only a's line is slow. a shapes it at 19 Mbit/s, 95 % of what it carries, in both directions, and b
sends no more than that. EF pings cross the tunnel while nothing else does, then under load; what is
added counts. Beside it stand no shaping at all, a far end that sends as it likes (bursts of others
queue in the line before they come here, where only holding back the senders helps), and both ends
shaping what they send and nothing that they receive. Goodput is measured one direction at a time,
because in both at once each carries the other's acknowledgements too.
"""

from functools import partial
from typing import Any, NamedTuple

from lab.fleet import Fleet
from lab.line import Line
from lab.programs import PingResult
from lab.topology import Host, Lab
from tests.bench.measure import percentile, record

LINE = Line(delay_ms=10, rate_mbit=20, buffer_packets=1000)
FAST = Line(delay_ms=10)
RATE_MBIT = 19
BOTH = ("up", "down")
ENDLESS = 1000  # Mbit/s that nothing here reaches
FLOWS, EF = 4, 46
PINGS, GAP_S = 400, 0.05
ROUNDS, SECONDS = 2, 10.0


class Measured(NamedTuple):
    """A call alone and under load."""

    ends: tuple[Host, Host]
    quiet: PingResult
    loaded: PingResult

    @property
    def added(self) -> tuple[float, float]:
        """Mean and 99th percentile over the mean of the idle line, in ms."""
        least = self.quiet.mean_ms
        return self.loaded.mean_ms - least, percentile(self.loaded.rtt_ms, 0.99) - least


def story(lab: Lab) -> None:
    without = measure(lab, {}).added
    one_end = measure(lab, {"a": BOTH}).added
    sent_only = measure(lab, {"a": ("up",), "b": ("up",)}).added
    shaped = measure(lab, {"a": BOTH, "b": ("up",)})
    loaded, idle_ms = shaped.loaded, shaped.quiet.mean_ms
    lab.require(loaded.lost == 0, f"{loaded.lost} of {loaded.sent} pings of the call were lost")
    for number, name in enumerate(("ef_added_mean_ms", "ef_added_p99_ms")):
        record(
            lab,
            name,
            shaped.added[number],
            "ms",
            samples=[round(rtt - idle_ms, 3) for rtt in loaded.rtt_ms],
            peer={
                "name": "no shaping",
                "value": without[number],
                "unit": "ms",
                "samples": [without[number]],
            },
            remark=f"{sent_only[number]:.2f} ms without shaping what is received, "
            f"{one_end[number]:.2f} ms where the far end does not shape",
            line_mbit=LINE.rate_mbit,
            shaped_mbit=RATE_MBIT,
            idle_mean_ms=idle_ms,
        )
    goodput(lab, shaped.ends)


def measure(lab: Lab, shaping: dict[str, tuple[str, ...]]) -> Measured:
    """A world in which these sites shape these directions."""
    lab.start_over(seed=lab.seed)
    fleet = Fleet(lab, probing={"interval": "20 ms"})
    ends = []
    for number, name in enumerate("ab", start=1):
        site = lab.site(name)
        line = LINE if name == "a" else FAST
        site.uplink("fibre", down=line, up=line)
        ends += site.lan().hosts
        fleet.add(site, number, partial(shape, directions=shaping.get(name, ())))
    fleet.start()
    fleet.wait_up(60)
    a, b = ends
    lab.wait_until(lambda: lab.ping(a, b, count=1).received, 30, "the hosts reach each other")
    quiet = lab.ping(a, b, count=PINGS // 2, interval_s=GAP_S, dscp=EF)
    load = lab.start_iperf3(a, b, seconds=PINGS * GAP_S + 8, parallel=FLOWS, direction="both")
    lab.sleep_virtual(5)
    measured = Measured((a, b), quiet, lab.ping(a, b, count=PINGS, interval_s=GAP_S, dscp=EF))
    rates = load.result()
    mean_ms, late_ms = measured.added
    lab.say(
        f"shaped: {shaping or 'nothing'}: {mean_ms:.2f} ms more, 99 % within {late_ms:.2f} ms; "
        f"the flows got {rates.forward_mbit:.2f} and {rates.backward_mbit:.2f} Mbit/s"
    )
    return measured


def shape(config: dict[str, Any], directions: tuple[str, ...]) -> None:
    """What an operator would write for a line that carries 5 % more. netem counts 14 octets."""
    if directions:
        rates = {each: f"{RATE_MBIT if each in directions else ENDLESS} Mbit/s" for each in BOTH}
        config["uplinks"][0]["shaping"] = {**rates, "overhead": 14}


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
