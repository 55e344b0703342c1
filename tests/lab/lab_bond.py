"""One flow takes both lines of a box at once, packet by packet.

      a-lan0-h1 --- [a] === fibre 10 ms, 6 Mbit/s ===+              +=== fibre === [b] --- b-lan0-h1
                        === dsl   20 ms, 6 Mbit/s ===+-- internet --+=== dsl   ===

b's lines have the same delays and no limit. Both boxes shape at 5.5 Mbit/s. The default class is in
mode `bond`: a path over each line carries it.
"""

import json
from typing import Any

from lab.fleet import Fleet
from lab.line import Line
from lab.topology import Lab
from tests.lab.boxes import (
    hosts,
    left,
    moves,
    operations,
    restarts_idle,
    wait_put_back,
)

RATE_MBIT = 5.5
BOTH, EF = {"1", "2"}, 46
POLICIES = (
    {"class": "voice", "hold": "5 s"},
    {"class": "default", "mode": "bond", "tiers": [["fibre", "dsl"]], "hold": "5 s"},
)
SHAPERS = ("bl-up1", "bl-up2")


def story_a_flow_takes_both_lines_and_leaves_one_that_dies(lab: Lab) -> None:
    """A call beside it is not delayed, and a supervisor that is killed changes nothing."""
    fleet = world(lab)
    one, other = hosts(fleet)
    quiet = lab.ping(one, other, count=40, interval_s=0.05, dscp=EF)
    before = sent(fleet)
    run = lab.start_iperf3(one, other, seconds=9, omit_s=3)
    lab.sleep_virtual(3)
    call = lab.ping(one, other, count=80, interval_s=0.05, dscp=EF)
    result = run.result()
    ratio = result.forward_mbit / RATE_MBIT
    shares = [after - octets for after, octets in zip(sent(fleet), before, strict=True)]
    lab.check(ratio > 1.15, f"one flow gets {ratio:.2f} times what a line carries {shares}")
    lab.check(min(shares) > max(shares) / 2, "and both lines carry it")
    added_ms = call.mean_ms - quiet.mean_ms
    lab.check(added_ms < 5, f"a call takes {added_ms:.2f} ms more than on idle lines")
    lab.check(call.lost == 0, "and loses nothing")

    sessions = lab.tcp_sessions(one, other, count=3)
    stream = lab.stream(one, other, pps=300)
    dsl = fleet.sites["a"].uplinks["dsl"]
    dsl.cut()
    lab.wait_until(lambda: lines(fleet) == {"1"}, 5, "the bond has left the dead line")
    lab.sleep_virtual(1)
    dsl.heal()
    lab.wait_until(lambda: lines(fleet) == BOTH, 60, "both lines carry it again")
    restarts_idle(lab, fleet, "a")
    result = stream.stop()
    lab.check(result.duplicates == 0, "nothing came twice")
    lab.check(result.lost < 60, f"{result.lost} of {result.sent} packets were lost")
    survived = sessions.check()
    sessions.stop()
    lab.check(survived.survived == 3, f"{survived}")
    told = [move["reason"] for move in moves(fleet, "a", "default")]
    lab.check(any("dsl" in reason for reason in told), f"and why is told: {told[-2:]}")


def story_bonds_are_put_back_and_changed_while_traffic_flows(lab: Lab) -> None:
    fleet = world(lab)
    one, other = hosts(fleet)
    a, supervisor = fleet.sites["a"], fleet.supervisor("a")
    before = operations(fleet, "a")
    first, second = devices(fleet)
    for command in (
        f"tc filter del dev {first} egress",
        f"tc filter del dev {second} egress pref 45314",
    ):
        a.run(["sh", "-c", command])
        lab.check(bool(left(fleet, "a")), f"it is seen: {command}")
    wait_put_back(lab, fleet, "a", before, "all of it is put back")
    stream = lab.stream(one, other, pps=300)
    for mode in ("single", "bond", "share", "bond"):
        config = fleet.config("a")
        config["policies"] = [POLICIES[0], {**POLICIES[1], "mode": mode}]
        supervisor.write_config(config)
        supervisor.command("reload")
        lab.check(not left(fleet, "a"), f"in force: {mode}")
        (first, *_) = devices(fleet)
        has_bond = "branchline-bond" in a.run(["tc", "filter", "show", "dev", first, "egress"])
        lab.check(has_bond == (mode == "bond"), f"and in the kernel: {mode}")
    result = stream.stop()
    lab.check(result.lost == 0, f"{result.lost} of {result.sent} packets were lost")
    for cause, troubles in {
        "sla-violated": [{"loss": 0.05}],
        "reordering": [{"delay_ms": more} for more in range(50, 650, 30)],  # none a silence
    }.items():
        lab.wait_until(lambda: lines(fleet) == BOTH, 60, "both lines carry it")
        before = len(moves(fleet, "a", "default"))
        for trouble in troubles:
            a.uplinks["dsl"].up.change(**trouble)
            lab.sleep_virtual(0.3)
        lab.wait_until(lambda: lines(fleet) == {"1"}, 60, f"the bond has left it: {trouble}")
        causes = [move["cause"] for move in moves(fleet, "a", "default")[before:]]
        lab.check(cause in causes, f"and why is told: {causes}")
        a.uplinks["dsl"].up.change(loss=0.0)


def world(lab: Lab) -> Fleet:
    fleet = Fleet(lab, policies=POLICIES, probing={"interval": "50 ms"})
    for number, name in enumerate("ab", start=1):
        site = lab.site(name)
        for label, delay_ms in (("fibre", 10), ("dsl", 20)):
            slow = Line(delay_ms=delay_ms, rate_mbit=6, buffer_packets=500)
            line = slow if name == "a" else Line(delay_ms=delay_ms)
            site.uplink(label, down=line, up=line)
        site.lan()
        fleet.add(site, number, shape)
    fleet.start()
    fleet.wait_up()
    lab.wait_until(
        lambda: lines(fleet, "a") == lines(fleet, "b") == BOTH, 60, "both lines carry it both ways"
    )
    return fleet


def shape(config: dict[str, Any]) -> None:
    """What an operator would write for these lines. netem counts 14 octets."""
    rate = f"{RATE_MBIT} Mbit/s"
    for uplink in config["uplinks"]:
        uplink["shaping"] = {"up": rate, "down": rate, "overhead": 14}


def lines(fleet: Fleet, name: str = "a") -> set[str]:
    """The uplinks of a box that the class leaves by, by whichever paths: the far ones are alike."""
    far = "b" if name == "a" else "a"
    return {plane.split("-")[0] for plane in fleet.carriers(name, "default", far)}


def devices(fleet: Fleet) -> list[str]:
    """Those of the planes by which the class leaves a."""
    return [f"bl-{plane}" for plane in fleet.carriers("a", "default", "b")]


def sent(fleet: Fleet) -> list[int]:
    """Octets that left by each line of a."""
    a = fleet.sites["a"]
    found = [json.loads(a.run(["tc", "-s", "-j", "qdisc", "show", "dev", d])) for d in SHAPERS]
    return [int(qdiscs[0]["bytes"]) for qdiscs in found]
