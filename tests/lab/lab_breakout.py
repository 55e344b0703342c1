"""Out to the internet by the uplinks themselves: chosen by class, pinned by flow, ended with them.

a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre, dsl === [b]
                  === dsl   20 ms ===+-- internet --+
                                     |
                                   server
"""

import re
import time
from typing import Any

from lab.fleet import VOICE, Fleet
from lab.topology import Host, Lab, Site
from tests.lab.boxes import asked, branch, hosts, moves, pair, warnings
from tests.lab.outside import Attempts

BULK = {"name": "bulk", "match": [{"protocol": "tcp", "ports": 9200}]}
CLOSED = {"name": "closed", "match": [{"protocol": "tcp", "ports": 9400}]}
PREFER_DSL = {"class": "bulk", "tiers": ["dsl", "fibre"], "hold": "5 s"}
HOLD: tuple[dict[str, Any], ...] = ({"class": "default", "hold": "5 s"}, PREFER_DSL)
SHARED = {"class": "default", "tiers": [["fibre", "dsl"]], "mode": "share", "hold": "5 s"}
PIN_MASK = 0x0F000000


def pins(site: Site, port: int) -> set[int]:
    """Slots of the uplinks that flows to a port are kept on."""
    listed = site.run(["conntrack", "-L", "-p", "tcp", "--orig-port-dst", str(port)])
    marks = re.findall(r"\bmark=(\d+)", listed)
    return {(int(mark) & PIN_MASK) >> 24 for mark in marks}


def _over(fleet: Fleet, class_name: str) -> tuple[str, ...]:
    """The uplinks by which a class of a leaves for the internet."""
    rows = asked(fleet, "a", "why", class_name, "internet")["carriers"]
    return tuple(row["uplinks"] for row in rows)


def _world(lab: Lab, policies: Any = HOLD, **more: Any) -> tuple[Fleet, Host, Host]:
    fleet = pair(lab, policies, classes=(VOICE, BULK, CLOSED), **more)
    # A box that boots takes the first uplink that is there, and the preferred one in time.
    if PREFER_DSL in policies:
        lab.wait_until(lambda: _over(fleet, "bulk") == ("dsl",), 20, "bulk leaves by the dsl")
    return fleet, hosts(fleet)[0], lab.internet_host("server")


def story_an_uplink_dies_silently(lab: Lab) -> None:
    fleet, client, server = _world(lab, probing={"interval": "20 ms"})
    a = fleet.sites["a"]
    lab.check(_over(fleet, "default") == ("fibre",), "the default class leaves by the fibre")
    lab.check(_over(fleet, "bulk") == ("dsl",), "bulk leaves by the dsl, as its tiers say")
    dying = lab.tcp_sessions(client, server, count=10, interval_s=0.2, port=9100)
    spared = lab.tcp_sessions(client, server, count=10, interval_s=0.2, port=9200)
    fresh, fresh6 = Attempts(client, server, 9300), Attempts(client, server, 9306, 6)
    lab.sleep_virtual(1)
    lab.check(pins(a, 9100) == {1} and pins(a, 9200) == {2}, "each flow is kept on its uplink")
    flows = asked(fleet, "a", "flows")["flows"]
    told = {f["port"]: [c["uplinks"] for c in f["carriers"]] for f in flows}
    lab.check(
        told.get(9100) == ["fibre"] and told.get(9200) == ["dsl"],
        f"`flows` tells the uplink of each ({told})",
    )

    cut_s = time.monotonic()
    a.uplinks["fibre"].cut()
    lab.wait_until(lambda: fresh.first_after(cut_s) is not None, 5, "a connection is made")
    lab.wait_until(lambda: fresh6.first_after(cut_s) is not None, 5, "and one by IPv6")
    for attempts, family in ((fresh, 4), (fresh6, 6)):
        made = attempts.first_after(cut_s)
        took_s = made.end_s - cut_s if made else 99
        lab.record("recovery", took_s, "s", family=family)
        lab.check(took_s < 1, f"IPv{family}: connections are made again after {took_s:.2f} s")
    lab.sleep_virtual(4)
    early = [x for x in fresh.so_far() if cut_s - 0.05 <= x.start_s < cut_s + 3]
    slowest_s = max(x.took_s for x in early)
    lab.check(
        all(not x.errno for x in early) and slowest_s < 1.5,
        f"those asked for while it was not known are made, too, after {slowest_s:.2f} s at most",
    )
    lab.say(moves(fleet, "a", "default")[-1]["reason"])
    result = dying.check(timeout_s=2)
    lab.check(result.survived == 0, f"flows of the dead uplink are ended ({result})")
    lab.say("; ".join(sorted({f.partition(": ")[2] for f in result.failed})))
    lab.check(
        all("reset" in failed.lower() for failed in result.failed),
        "and their clients were told: reset",
    )
    kept = spared.check()
    lab.check(kept.survived == 10, f"flows of the other uplink go on: {kept}")
    lab.check(kept.longest_stall_ms < 150, "undisturbed")
    lab.check(2 in pins(a, 9300), "new flows are kept on the dsl")

    moved = lab.tcp_sessions(client, server, count=5, interval_s=0.2, port=9101)
    a.uplinks["fibre"].heal()
    took_s = lab.wait_until(lambda: _over(fleet, "default") == ("fibre",), 60, "back on the fibre")
    lab.check(took_s > 5, f"the way back is taken after {took_s:.1f} s, not before the hold time")
    lab.sleep_virtual(1)
    kept = moved.check()
    lab.check(kept.survived == 5, f"flows of the meantime stay where they began: {kept}")
    lab.check(pins(a, 9101) == {2}, "on the dsl")
    for each in (moved, spared, dying):
        each.stop()
    for attempts in (fresh, fresh6):
        attempts.stop()


def story_an_uplink_loses_its_carrier(lab: Lab) -> None:
    """The kernel forgets all that leads out of it at once: what is left is there as soon."""
    fleet, client, server = _world(lab, (*HOLD, {**SHARED, "class": "voice"}))
    fresh, fresh6 = Attempts(client, server, 9300), Attempts(client, server, 9306, 6)
    lab.sleep_virtual(1)
    cut_s = time.monotonic()
    fleet.sites["a"].uplinks["fibre"].unplug()
    lab.sleep_virtual(3)
    for attempts, family in ((fresh, 4), (fresh6, 6)):
        made = attempts.first_after(cut_s)
        took_s = made.end_s - cut_s if made else 99
        lab.record("recovery", took_s, "s", family=family)
        lab.check(took_s < 1, f"IPv{family}: connections are made again after {took_s:.2f} s")
        refused = [x for x in attempts.so_far() if x.errno and x.start_s > cut_s]
        lab.say(f"IPv{family}: {len(refused)} were refused meanwhile")
        attempts.stop()
    status = fleet.supervisor("a").status()
    lab.check("plan-not-in-force" not in warnings(fleet, "a"), "the plan is in force")
    lab.say(str(status["counters"]["ops"]))


def story_tunnels_fall_silent_and_the_line_does_not(lab: Lab) -> None:
    """Somebody drops the tunnels' packets: targets outside are asked at once, and no flow ends."""
    servers = [lab.internet_host(f"target{n}") for n in (1, 2, 3)]

    def ask(config: dict[str, Any]) -> None:
        targets = [f"icmp {server.address()}" for server in servers]
        config["uplinks"][0]["health"] = {"targets": targets, "quorum": 2}

    fleet = Fleet(lab, classes=[], policies=[HOLD[0]], probing={"interval": "20 ms"})
    fleet.add(branch(lab, "a"), 1, ask)
    fleet.add(branch(lab, "b"), 2)
    fleet.start()
    fleet.wait_up()
    a, client = fleet.sites["a"], hosts(fleet)[0]
    sessions = lab.tcp_sessions(client, servers[0], count=5, interval_s=0.2, port=9100)
    device = a.uplinks["fibre"].core_device
    lab.internet.nft(
        "table inet silence { chain f { type filter hook forward priority 0; "
        f'iifname "{device}" udp dport 51820-52075 drop; }}; }}'
    )
    lab.wait_until(lambda: "uplink-down" in warnings(fleet, "a"), 10, "the tunnels are silent")
    lab.sleep_virtual(3)
    kept = sessions.check()
    lab.check(kept.survived == 5, f"flows of the uplink go on: {kept}")
    lab.wait_until(lambda: _over(fleet, "default") == ("fibre",), 20, "new flows are back on it")
    ended = [line for line in fleet.supervisor("a").log().splitlines() if "flows end" in line]
    lab.check(ended == [], f"nothing was ended ({ended})")
    sessions.stop()


def story_one_that_works_is_not_ended(lab: Lab) -> None:
    """All uplinks die: nothing is ended, and what was open goes on when one comes back."""
    fleet, client, server = _world(lab)
    a = fleet.sites["a"]
    sessions = lab.tcp_sessions(client, server, count=5, interval_s=0.5, port=9100)
    lab.sleep_virtual(1)
    for uplink in a.uplinks.values():
        uplink.unplug()
    lab.wait_until(lambda: "no-internet" in warnings(fleet, "a"), 10, "no way out is warned of")
    lab.sleep_virtual(3)
    lab.check(pins(a, 9100) == {1}, "no flow is ended, as no uplink could take it")
    for uplink in a.uplinks.values():
        uplink.plug_in()
    lab.wait_until(lambda: "no-internet" not in warnings(fleet, "a"), 30, "the way out is back")
    kept = sessions.check(timeout_s=20)
    lab.check(kept.survived == 5, f"all go on: {kept}")
    sessions.stop()


def story_each_class_has_its_fallback(lab: Lab) -> None:
    """A class that may leave by the fibre only: closed, or left where it was; and one with none."""
    fleet, client, server = _world(
        lab,
        (
            {"class": "bulk", "tiers": ["fibre"], "fallback": "fail-closed", "hold": "1 s"},
            {"class": "default", "tiers": ["fibre"], "hold": "1 s"},
            {"class": "closed", "internet": "none"},
        ),
    )
    a = fleet.sites["a"]
    attempts = {port: Attempts(client, server, port) for port in (9200, 9300, 9400)}
    for port in (9200, 9300):
        lab.wait_until(
            lambda port=port: attempts[port].first_after(0) is not None, 10, f"{port} gets out"
        )
    lab.sleep_virtual(1)
    counts = {port: sum(not x.errno for x in each.so_far()) for port, each in attempts.items()}
    lab.check(counts[9200] > 5 and counts[9300] > 5, f"both get out ({counts})")
    lab.check(counts[9400] == 0, "the class without internet does not")
    refused = {x.errno for x in attempts[9400].so_far()}
    lab.check(refused and refused <= {101, 113}, f"and is told at once ({refused})")
    why = asked(fleet, "a", "why", "closed", "internet")
    lab.check(why["carriers"] == [] and "internet none" in why["reason"], why["reason"])
    told = asked(fleet, "a", "classify", "--from", client.address(), "--to", server.address(),
                 "--port", "9300")  # fmt: skip
    lab.check(
        told["site"] == "internet" and [c["uplinks"] for c in told["carriers"]] == ["fibre"],
        "`classify` tells where a flow would leave",
    )
    a.uplinks["fibre"].cut()
    lab.wait_until(lambda: _over(fleet, "bulk") == (), 5, "bulk is closed")
    lab.check(_over(fleet, "default") == ("fibre",), "the other class waits on the fibre")
    lab.check("class-discarded" in warnings(fleet, "a"), "the closed class is warned of")
    lab.sleep_virtual(2)
    leaving = a.run(["conntrack", "-L", "-p", "tcp", "--orig-port-dst", "9200"])
    lab.check(f"mark={0x22000000}" not in leaving, "nothing of it took the dsl")
    a.uplinks["fibre"].heal()
    healed_s = time.monotonic()
    for port in (9200, 9300):
        lab.wait_until(
            lambda port=port: attempts[port].first_after(healed_s) is not None,
            10,
            f"connections to {port} are made again",
        )
    for each in attempts.values():
        each.stop()


def story_a_class_is_shared_and_a_restart_breaks_nothing(lab: Lab) -> None:
    fleet, client, server = _world(lab, (SHARED, PREFER_DSL))
    a, supervisor = fleet.sites["a"], fleet.supervisor("a")
    shared = ("fibre", "dsl")
    lab.wait_until(lambda: _over(fleet, "default") == shared, 20, "both uplinks share the class")
    sessions = lab.tcp_sessions(client, server, count=24, interval_s=0.5, port=9100)
    lab.check(pins(a, 9100) == {1, 2}, "both uplinks carry flows of the class")
    supervisor.kill()
    lab.sleep_virtual(2)
    supervisor.start()
    fleet.wait_up()
    lab.sleep_virtual(3)
    ops = supervisor.status()["counters"]["ops"]
    lab.check(ops == {}, f"a restart does nothing to the kernel ({ops})")
    kept = sessions.check()
    lab.check(kept.survived == 24, f"and breaks no flow: {kept}")
    on_dsl = len([1 for line in _lines(a, 9100) if f"mark={0xF2000000}" in line])
    a.uplinks["fibre"].unplug()
    lab.sleep_virtual(5)
    kept = sessions.check(timeout_s=2)
    lab.check(kept.survived == on_dsl, f"with the fibre go its own flows only: {kept}")
    sessions.stop()


def _lines(site: Site, port: int) -> list[str]:
    return site.run(["conntrack", "-L", "-p", "tcp", "--orig-port-dst", str(port)]).splitlines()


def story_configuration_is_taken_away_while_traffic_flows(lab: Lab) -> None:
    fleet, client, server = _world(lab)
    a, supervisor = fleet.sites["a"], fleet.supervisor("a")
    other = lab.tcp_sessions(client, server, count=5, interval_s=0.2, port=9100)
    closed = lab.tcp_sessions(client, server, count=5, interval_s=0.2, port=9200)
    config = fleet.config("a")
    config["policies"] = [HOLD[0], {**PREFER_DSL, "internet": "none"}]
    supervisor.write_config(config)
    supervisor.command("reload")
    lab.sleep_virtual(2)
    lab.check(closed.check(timeout_s=1).survived == 0, "the class without internet is cut off")
    lab.check(pins(a, 9200) <= {0}, "its flows are forgotten")
    kept = other.check()
    lab.check(kept.survived == 5 and kept.longest_stall_ms < 150, f"the others go on: {kept}")

    config["uplinks"] = config["uplinks"][1:]
    config["uplinks"][0]["slot"] = 2
    config["policies"] = []
    supervisor.write_config(config)
    supervisor.command("reload")
    fresh = Attempts(client, server, 9300)
    start_s = time.monotonic()
    lab.wait_until(lambda: fresh.first_after(start_s) is not None, 5, "a connection is made")
    made = fresh.first_after(start_s)
    lab.check(
        made is not None and made.end_s - start_s < 2, "new flows take the uplink that is left"
    )
    lab.check(pins(a, 9300) == {2}, "the dsl")
    for each in (other, closed):
        each.stop()
    fresh.stop()
