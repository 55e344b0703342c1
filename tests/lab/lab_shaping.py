"""The shapers of an uplink: what they do for a call, and what must not take them away.

      a-lan0-h1 --- [a] === fibre 10 ms, 20 Mbit/s ===+              +=== the same === [b] ---
                        === dsl   20 ms            ===+-- internet --+=== the same ===

Both shape their fibre at 19 Mbit/s in both directions.
"""

from typing import Any

from lab.fleet import Fleet
from lab.line import Line
from lab.topology import Lab
from tests.lab.boxes import hosts, moves, operations, wait_put_back, warnings

LINE_MBIT, RATE_MBIT, EF = 20, 19, 46
POLICIES = (
    {"class": "voice", "sla": {"loss": "1 %", "delay": "150 ms"}, "hold": "5 s"},
    {"class": "default", "sla": {"loss": "1 %"}, "hold": "5 s"},
)


def story_a_call_does_not_notice_that_the_line_is_full(lab: Lab) -> None:
    """And nobody takes our own queue, nor what it drops, for a bad path."""
    fleet = world(lab)
    one, other = hosts(fleet)
    quiet = lab.ping(one, other, count=50, interval_s=0.05, dscp=EF)
    before = [len(moves(fleet, name, each)) for name in "ab" for each in ("voice", "default")]
    load = lab.start_iperf3(one, other, seconds=17, parallel=4, direction="both", omit_s=3)
    lab.sleep_virtual(4)
    call = lab.ping(one, other, count=200, interval_s=0.05, dscp=EF)
    result = load.result()
    lab.say(f"the flows got {result.forward_mbit:.2f} and {result.backward_mbit:.2f} Mbit/s")
    late_ms = sorted(call.rtt_ms)[-3] - quiet.mean_ms  # of 200: the 99th percentile
    added_ms = call.mean_ms - quiet.mean_ms
    lab.check(call.lost == 0, f"{call.lost} packets of the call were lost")
    # Without shaping it is 344 ms. What is aimed at is measured by tests/bench/lab_shaping.py.
    lab.check(added_ms <= 6, f"they take {added_ms:.2f} ms longer than on an idle line")
    lab.check(late_ms <= 20, f"one in a hundred {late_ms:.2f} ms")
    least = min(result.forward_mbit, result.backward_mbit) / RATE_MBIT
    lab.check(least >= 0.8, f"both directions are used: {least:.2f} of the rate and more")
    after = [len(moves(fleet, name, each)) for name in "ab" for each in ("voice", "default")]
    lab.check(after == before, f"no class has moved: {before}, {after}")
    drops = fleet.sites["a"].run(["tc", "-s", "qdisc", "show", "dev", "bl-up1"])
    lab.check("dropped 0," not in drops, "though the shaper dropped packets")


def story_what_somebody_removes_is_put_back(lab: Lab) -> None:
    fleet = world(lab, interval="1 s")
    one, other = hosts(fleet)
    a = fleet.sites["a"]
    fibre = a.uplinks["fibre"].device
    for what, commands in {
        "a shaper's device": ["ip link del bl-up1"],
        "what no notice comes of": [
            "tc qdisc del dev bl-down1 root",
            "tc filter del dev bl-1-1 egress",
            f"tc qdisc del dev {fibre} clsact",
            "tc qdisc change dev bl-up1 root handle b1: cake bandwidth 1mbit",
        ],
    }.items():
        before = operations(fleet, "a")
        a.run(["sh", "-c", " && ".join(commands)])
        took_s = wait_put_back(lab, fleet, "a", before, f"put back: {what}")
        answers = lab.ping(one, other, count=3).received
        lab.check(answers == 3, f"{what}: put back after {took_s:.1f} s, and traffic flows")


def story_shaping_comes_and_goes_while_traffic_flows(lab: Lab) -> None:
    fleet = world(lab)
    stream = lab.stream(*hosts(fleet), pps=200, dscp=EF)
    a, supervisor = fleet.sites["a"], fleet.supervisor("a")
    for rate in (None, "2 Mbit/s", "500 Mbit/s", f"{RATE_MBIT} Mbit/s"):
        config = fleet.config("a")
        shape(config, rate)
        supervisor.write_config(config)
        supervisor.command("reload")
        told = a.run(["sh", "-c", "tc qdisc show; ls /sys/class/net"])
        lab.check(("bl-up1" in told) == (rate is not None), f"shaped at {rate}")
        lab.check(rate is None or f"bandwidth {rate[:-7]}Mbit" in told, f"the kernel says {rate}")
        lab.sleep_virtual(2)
    told = fleet.sites["b"].run(["nft", "list", "counter", "inet", "branchline", "rx_1_1_1"])
    lab.check("packets 0 " not in told, f"what b receives is counted: {' '.join(told.split())}")
    lab.check("traffic-uncounted" not in warnings(fleet, "a"), "and the counts agree")
    result = stream.stop()
    lab.check(result.lost == 0, f"{result.lost} of {result.sent} packets were lost")


def world(lab: Lab, *, interval: str = "50 ms") -> Fleet:
    fleet = Fleet(lab, policies=POLICIES, probing={"interval": interval})
    full = Line(delay_ms=10, rate_mbit=LINE_MBIT, buffer_packets=1000)
    for number, name in enumerate("ab", start=1):
        site = lab.site(name)
        site.uplink("fibre", down=full, up=full)
        site.uplink("dsl", down=Line(delay_ms=20))
        site.lan()
        fleet.add(site, number, lambda config: shape(config, f"{RATE_MBIT} Mbit/s"))
    fleet.start()
    fleet.wait_up()
    fleet.wait_carriers("a", "default", "b", ["1-1"], 60)
    return fleet


def shape(config: dict[str, Any], rate: str | None) -> None:
    """Give the fibre these rates, or none. netem adds 14 octets to each packet."""
    config["uplinks"][0].pop("shaping", None)
    if rate is not None:
        config["uplinks"][0]["shaping"] = {"up": rate, "down": rate, "overhead": 14}
