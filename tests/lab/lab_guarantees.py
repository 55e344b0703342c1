"""Classes with shares of a line: what each gets of it.

      a-lan0-h1 --- [a] === fibre 10 ms, 12 Mbit/s ===+              +=== the same === [b] ---
                        === dsl   20 ms            ===+-- internet --+=== the same ===

a shapes its fibre at 11 Mbit/s: `business` is guaranteed 60 %, and `bulk` gets 30 % at most.
"""

import json
from typing import Any

from lab.fleet import Fleet
from lab.line import Line
from lab.topology import Lab
from tests.lab.boxes import hosts, left, moves, operations, wait_put_back

RATE_MBIT = 11
VOICE = {"name": "voice", "match": [{"dscp": "ef"}]}
BUSINESS = {"name": "business", "match": [{"dscp": "af31"}]}
BULK = {"name": "bulk", "match": [{"dscp": "cs1"}]}
SHARES = [{"class": "business", "guarantee": "60 %"}, {"class": "bulk", "ceiling": "30 %"}]


def story_classes_get_their_shares_and_probes_are_never_starved(lab: Lab) -> None:
    fleet = world(lab)
    one, other = hosts(fleet)
    before = len(moves(fleet, "a", "default"))
    alone = lab.iperf3(one, other, seconds=6, omit_s=2, parallel=2, options=["--dscp", "cs1"])
    ratio = alone.forward_mbit / RATE_MBIT
    lab.check(0.2 <= ratio <= 0.31, f"bulk alone gets {ratio:.2f} of the rate, though all is free")
    runs = [
        lab.start_iperf3(one, other, seconds=10, omit_s=3, parallel=flows, options=["--dscp", name])
        for name, flows in (("af31", 1), ("cs0", 4))
    ]
    business, default = (run.result().forward_mbit for run in runs)
    ratio = business / (business + default)
    # 60 % are its own, 10 % nobody's, and of the 29 % for others it needs nothing.
    lab.check(0.55 <= ratio <= 0.75, f"one flow of business gets {ratio:.2f} against four others")
    total = (business + default) / RATE_MBIT
    lab.check(total >= 0.8, f"the line is used: {total:.2f}")
    probes, others = (sent(fleet, minor) for minor in ("10", "f"))
    lab.iperf3(one, other, seconds=4, parallel=2, options=["--dscp", "cs6"])
    grown = sent(fleet, "10") - probes
    ratio = grown / (grown + sent(fleet, "f") - others)
    lab.check(0 < ratio < 0.1, f"CS6 of a LAN is none of a box's own: {ratio:.3f} came before it")
    after = len(moves(fleet, "a", "default"))
    lab.check(after == before, "no path was taken for a bad one")


def story_shares_are_put_back_and_changed_while_traffic_flows(lab: Lab) -> None:
    fleet = world(lab, interval="1 s")
    one, other = hosts(fleet)
    a, supervisor = fleet.sites["a"], fleet.supervisor("a")
    done = operations(fleet, "a")
    for command in (
        "tc class change dev bl-up1 parent b1:ffff classid b1:2 htb rate 1mbit",
        "tc filter del dev bl-down1 parent b1: pref 4",
        "tc filter del dev bl-1-1 egress",
    ):
        before = len(left(fleet, "a"))
        a.run(["sh", "-c", command])
        lab.check(len(left(fleet, "a")) > before, f"it is seen: {command}")
    took_s = wait_put_back(lab, fleet, "a", done, "all of it is put back")
    lab.say(f"all of it is put back after {took_s:.1f} s")
    stream = lab.stream(one, other, pps=100, dscp=26)
    for shares in ([], SHARES[:1], SHARES):
        config = fleet.config("a")
        shape(config, shares)
        supervisor.write_config(config)
        supervisor.command("reload")
        lab.check(not left(fleet, "a"), f"in force: {shares}")
        lab.sleep_virtual(1)
    supervisor.kill()
    supervisor.start()
    lab.check(not supervisor.status()["counters"]["ops"], "a restart finds all as it should be")
    result = stream.stop()
    lab.check(result.lost <= 5, f"{result.lost} of {result.sent} packets were lost")


def world(lab: Lab, interval: str = "50 ms") -> Fleet:
    probing = {"interval": interval}
    fleet = Fleet(lab, classes=(VOICE, BUSINESS, BULK), policies=(), probing=probing)
    full = Line(delay_ms=10, rate_mbit=12, buffer_packets=500)
    for number, name in enumerate("ab", start=1):
        site = lab.site(name)
        site.uplink("fibre", down=full, up=full)
        site.uplink("dsl", down=Line(delay_ms=20))
        site.lan()
        fleet.add(site, number, lambda config: shape(config, SHARES))
    fleet.start()
    fleet.wait_up()
    fleet.wait_carriers("a", "default", "b", ["1-1"], 60)
    return fleet


def shape(config: dict[str, Any], shares: list[dict[str, str]]) -> None:
    """Give a's fibre its rates and these shares. netem adds 14 octets to each packet."""
    if config["site"]["name"] == "a":
        rates = {"up": f"{RATE_MBIT} Mbit/s", "down": f"{RATE_MBIT} Mbit/s", "overhead": 14}
        config["uplinks"][0]["shaping"] = {**rates, "classes": shares}


def sent(fleet: Fleet, minor: str) -> int:
    """Octets that a class of a's shaper has let out."""
    classes = json.loads(fleet.sites["a"].run(["tc", "-s", "-j", "class", "show", "dev", "bl-up1"]))
    (found,) = [each for each in classes if each["handle"] == f"b1:{minor}"]
    return int(found["stats"]["bytes"])
