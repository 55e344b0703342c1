"""Four classes that all want more than a line carries: does each get its share?

      a-lan0-h1 --- [a] === 10 ms, 20 Mbit/s ===+              +=== 10 ms === [b] --- b-lan0-h1
                                                +-- internet --+

a shapes its line at 19 Mbit/s and guarantees 40, 20 and 10 % of it to three classes. Of each class,
and of `default`, two greedy TCP flows go from a to b, and in another round from b to a. A share is
what a class is guaranteed over what all are, `default` having the rest but what is kept for probes.
The worst class of the worse direction is recorded.
"""

from typing import Any

from lab.fleet import Fleet
from lab.line import Line
from lab.topology import Host, Lab
from tests.bench.measure import record

LINE = Line(delay_ms=10, rate_mbit=20, buffer_packets=1000)
RATE_MBIT, CONTROL = 19, 0.1
GUARANTEES = {"af31": 0.4, "af21": 0.2, "af11": 0.1}  # a class is called as its DSCP
SHARES = {**GUARANTEES, "cs0": 1 - CONTROL - sum(GUARANTEES.values())}
FLOWS, SECONDS, OMIT_S = 2, 16.0, 4.0


def story(lab: Lab) -> None:
    one, other = world(lab)
    errors, shown = {}, {}
    for way, (client, server) in {"sending": (one, other), "receiving": (other, one)}.items():
        runs = {
            name: lab.start_iperf3(
                client,
                server,
                seconds=SECONDS,
                omit_s=OMIT_S,
                parallel=FLOWS,
                options=["--dscp", name],
            )
            for name in SHARES
        }
        mbit = {name: run.result().forward_mbit for name, run in runs.items()}
        errors[way] = [error(name, mbit) for name in SHARES]
        shown[way] = {name: round(rate, 3) for name, rate in mbit.items()}
        lab.say(f"{way}: {shown[way]}, errors {[round(e, 3) for e in errors[way]]}")
    worse = max(errors, key=lambda way: max(errors[way]))
    record(
        lab,
        "class_share_error_ratio",
        max(errors[worse]),
        "ratio",
        samples=errors[worse],
        remark=", ".join(f"{way} {max(found):.3f}" for way, found in errors.items()),
        guarantees=GUARANTEES,
        shaped_mbit=RATE_MBIT,
        mbit=shown,
        flows=FLOWS,
    )


def error(name: str, mbit: dict[str, float]) -> float:
    """How far a class is from its share of what all of them got."""
    share = SHARES[name] / sum(SHARES.values())
    return abs(mbit[name] / sum(mbit.values()) / share - 1)


def world(lab: Lab) -> tuple[Host, Host]:
    """The two hosts."""
    classes = [{"name": name, "match": [{"dscp": name}]} for name in GUARANTEES]
    fleet = Fleet(lab, classes=classes, policies=(), probing={"interval": "20 ms"})
    ends = []
    for number, name in enumerate("ab", start=1):
        site = lab.site(name)
        line = LINE if name == "a" else Line(delay_ms=10)
        site.uplink("fibre", down=line, up=line)
        ends += site.lan().hosts
        fleet.add(site, number, shape)
    fleet.start()
    fleet.wait_up(60)
    one, other = ends
    lab.wait_until(lambda: lab.ping(one, other, count=1).received, 30, "the hosts are reached")
    return one, other


def shape(config: dict[str, Any]) -> None:
    """What an operator would write for a's line. netem counts 14 octets."""
    if config["site"]["name"] == "a":
        rate = f"{RATE_MBIT} Mbit/s"
        classes = [{"class": n, "guarantee": f"{100 * g:g} %"} for n, g in GUARANTEES.items()]
        shaping = {"up": rate, "down": rate, "overhead": 14, "classes": classes}
        config["uplinks"][0]["shaping"] = shaping
