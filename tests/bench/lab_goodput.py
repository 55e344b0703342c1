"""TCP goodput through the product at both edges, against plain WireGuard in the same guest.

      a-lan0-h1 --- [a] === fibre ===+-- internet --+=== fibre === [b] --- b-lan0-h1
                        === dsl   ===+              +=== dsl   ===

First two sites whose planes were made by hand: a route by nexthop object, no firewall, no classes.
Then the same topology as the product builds it: flows are classified, marked, routed by class
tables and pass a stateful firewall. What counts is that forwarding: the two supervisors are stopped
(SIGSTOP) meanwhile. Beside it stands what is left while both are awake and probe all paths at their
default pace, on the one core that all of it shares, hosts and router included. One flow,
alternating directions.

The whole way of a packet (`full_path_goodput_ratio`) has more: the default classes with their
catalogue, and both uplinks shaped in both directions at both edges, at a rate that nothing here
reaches.
"""

from typing import Any

from lab.fleet import Fleet
from lab.line import Line
from lab.topology import Host, Lab, Site
from tests.bench import planes
from tests.bench.measure import record
from tests.bench.worlds import two_uplinks

ROUNDS = 6
SECONDS = 5.0
CLEAN = Line()
ENDLESS = "1 Gbit/s"


def story(lab: Lab) -> None:
    plain = measure(lab, build_plain(lab))
    lab.say(f"plain WireGuard: {plain} Mbit/s")
    lab.start_over(seed=lab.seed)
    fleet, hosts = build_supervised(lab)
    # First, because awake on a full core they move classes, of one end alone for a while: a flow
    # that comes by another plane than it leaves is not in the flow table.
    ours = asleep(lab, fleet, hosts)
    lab.say(f"through the product: {ours} Mbit/s")
    awake = measure(lab, hosts)
    lab.say(f"through the product, both supervisors awake: {awake} Mbit/s")
    lab.start_over(seed=lab.seed)
    fleet, hosts = build_supervised(lab, whole=True)
    whole = asleep(lab, fleet, hosts)
    lab.say(f"through all of it: {whole} Mbit/s")
    means = (sum(each) / ROUNDS for each in (plain, ours, awake, whole))
    mean_plain, mean_ours, mean_awake, mean_whole = means
    peer = {"name": "plain WireGuard", "value": mean_plain, "unit": "Mbit/s", "samples": plain}
    record(
        lab,
        "goodput_ratio",
        mean_ours / mean_plain,
        "ratio",
        samples=ours,
        peer=peer,
        remark=f"{mean_ours:.0f} Mbit/s; ratio {mean_awake / mean_plain:.2f} while both "
        "supervisors probe 4 paths at 50 ms on the same core",
        flows=1,
        seconds=SECONDS,
        awake_mbit=awake,
    )
    record(
        lab,
        "full_path_goodput_ratio",
        mean_whole / mean_plain,
        "ratio",
        samples=whole,
        peer=peer,
        remark=f"{mean_whole:.0f} Mbit/s",
        flows=1,
        seconds=SECONDS,
    )


def measure(lab: Lab, hosts: tuple[Host, Host]) -> list[float]:
    """Mbit/s of each round; the first seconds, when flows are young, do not count."""
    rates = []
    for n in range(ROUNDS):
        result = lab.iperf3(
            *hosts, seconds=SECONDS, omit_s=2, direction="backward" if n % 2 else "forward"
        )
        rates.append(round(max(result.forward_mbit, result.backward_mbit), 2))
    return rates


def asleep(lab: Lab, fleet: Fleet, hosts: tuple[Host, Host]) -> list[float]:
    """The same while the supervisors are stopped."""
    for name in fleet.sites:
        fleet.supervisor(name).pause()
    rates = measure(lab, hosts)
    for name in fleet.sites:
        fleet.supervisor(name).resume()
    return rates


def sites(lab: Lab) -> tuple[Site, Site]:
    a, b = (two_uplinks(lab, name, fibre=CLEAN, dsl=CLEAN) for name in "ab")
    return a, b


def build_plain(lab: Lab) -> tuple[Host, Host]:
    a, b = sites(lab)
    planes.connect(a, b)
    planes.route(a, b, (1, 1))
    planes.route(b, a, (1, 1))
    return reachable(lab, a, b)


def build_supervised(lab: Lab, *, whole: bool = False) -> tuple[Fleet, tuple[Host, Host]]:
    """Both boxes; with `whole` they do all that a packet can meet."""
    a, b = sites(lab)
    policies: dict[str, Any] = {"policies": ()} if whole else {}
    fleet = Fleet(lab, probing={"interval": "20 ms"}, **policies)
    fleet.add(a, 1, add_the_rest if whole else None)
    fleet.add(b, 2, add_the_rest if whole else None)
    fleet.start()
    fleet.wait_up(60)
    hosts = reachable(lab, a, b)
    lab.sleep_virtual(5)
    return fleet, hosts


def add_the_rest(config: dict[str, Any]) -> None:
    """Default classes, which the catalogue fills, and shapers."""
    del config["classes"]
    for uplink in config["uplinks"]:
        uplink["shaping"] = {"up": ENDLESS, "down": ENDLESS}


def reachable(lab: Lab, a: Site, b: Site) -> tuple[Host, Host]:
    """The hosts of both, once they reach each other."""
    hosts = a.lans["lan0"].hosts[0], b.lans["lan0"].hosts[0]
    lab.wait_until(lambda: lab.ping(*hosts, count=1).received, 30, "the hosts reach each other")
    return hosts
