"""Out to the internet through another site, which has a backup.

a-lan0-h1 --- [a] === fibre ===+              +=== fibre === [hq]
                  === dsl   ===+-- internet --+=== fibre === [dc]
                                   |
                                 server

Hosts behind a may leave through hq and dc, hosts behind dc may not leave through hq.
"""

import time
from typing import Any

from lab.fleet import Fleet
from lab.line import Line
from lab.topology import Lab
from tests.lab.boxes import asked, branch, hosts, warnings
from tests.lab.lab_breakout import pins
from tests.lab.outside import Attempts

FAR = {"name": "far", "match": [{"protocol": "tcp", "ports": 9400}]}


def _branch(config: dict[str, Any]) -> None:
    config["gateways"] = ["hq", "dc"]
    config["policies"] = [{"class": "default", "internet": "gateway", "hold": "5 s"}]


def _gateway(config: dict[str, Any]) -> None:
    for peer in config["peers"]:
        peer["internet"] = peer["name"] == "a"


def _outsider(config: dict[str, Any]) -> None:
    _gateway(config)
    config["gateways"] = ["hq"]  # which does not take its hosts
    config["policies"] = [{"class": "far", "internet": "gateway"}]


def story_a_gateway_and_its_backup(lab: Lab) -> None:
    fleet = Fleet(lab, classes=[FAR], policies=[], probing={"interval": "20 ms"})
    fleet.add(branch(lab, "a"), 1, _branch)
    for number, (name, edit) in enumerate((("hq", _gateway), ("dc", _outsider)), start=2):
        site = lab.site(name)
        site.uplink("fibre", down=Line(delay_ms=10))
        site.lan()
        fleet.add(site, number, edit)
    server = lab.internet_host("server")
    fleet.start()
    fleet.wait_up()
    a, hq, dc = (fleet.sites[name] for name in ("a", "hq", "dc"))
    client, _ = hosts(fleet, "a", "hq")
    outsider, _ = hosts(fleet, "dc", "hq")

    fresh, fresh6 = Attempts(client, server, 9300), Attempts(client, server, 9306, 6)
    lab.wait_until(lambda: fresh.first_after(0) is not None, 20, "a connection is made")
    lab.wait_until(lambda: fresh6.first_after(0) is not None, 20, "and one by IPv6")
    lab.check(pins(hq, 9300) == {1}, "hq translates it and keeps it on its uplink")
    lab.check(pins(a, 9300) == {0}, "a does not")
    why = asked(fleet, "a", "why", "default", "internet")
    lab.check("goes through hq" in why["reason"], why["reason"])
    refused = Attempts(outsider, server, 9400)
    lab.sleep_virtual(2)
    lab.check(
        not any(not x.errno for x in refused.so_far()), "a site that is not served does not get out"
    )
    refused.stop()
    sessions = lab.tcp_sessions(client, server, count=10, interval_s=0.2, port=9100)
    supervisor = fleet.supervisor("a")
    supervisor.kill()
    lab.sleep_virtual(1)
    supervisor.start()
    lab.sleep_virtual(3)
    ops = supervisor.status()["counters"]["ops"]
    lab.check(ops == {}, f"a restart does nothing to the kernel ({ops})")
    kept = sessions.check()
    lab.check(kept.survived == 10, f"and breaks no flow: {kept}")

    cut_s = time.monotonic()
    hq.uplinks["fibre"].cut()
    lab.wait_until(lambda: fresh.first_after(cut_s) is not None, 5, "a connection is made again")
    lab.wait_until(lambda: fresh6.first_after(cut_s) is not None, 5, "and one by IPv6")
    made = fresh.first_after(cut_s)
    took_s = made.end_s - cut_s if made else 99
    lab.record("gateway_recovery", took_s, "s")
    lab.check(took_s < 1, f"the backup takes over after {took_s:.2f} s")
    lab.check(pins(dc, 9300) == {1}, "dc translates now")
    lab.sleep_virtual(3)
    ended = sessions.check(timeout_s=1)
    lab.check(
        ended.survived == 0 and all("reset" in each.lower() for each in ended.failed),
        f"connections through hq are reset: {ended}",
    )
    lab.check("no-path" in warnings(fleet, "a"), "the site that is away is warned of")

    through_dc = lab.tcp_sessions(client, server, count=10, interval_s=0.2, port=9101)
    hq.uplinks["fibre"].heal()
    fleet.wait_carriers("a", "default", "hq", ["1-1"], 60)
    lab.sleep_virtual(10)
    kept = through_dc.check()
    lab.check(kept.survived == 10, f"hq is back, and no connection moves: {kept}")
    for each in (fresh, fresh6):
        each.stop()
    for every in (sessions, through_dc):
        every.stop()
