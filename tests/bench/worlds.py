"""Topologies and measurements that several benchmarks share.

      a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                        === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===

The delay is that of the direction towards the site, so path 1-1 takes 20 ms both ways, 1-2 and 2-1
take 30 ms, and 2-2 takes 40 ms.
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

from lab.fleet import Fleet
from lab.line import Line
from lab.monitor import KernelMonitor, Notice
from lab.topology import Lab, Site

FIBRE, DSL = Line(delay_ms=10), Line(delay_ms=20)
VOICE_TABLE = 0xB1000000 + 0x100 + 1  # of the first class (appliance/config/addressing.py)


def two_uplinks(lab: Lab, name: str, *, fibre: Line = FIBRE, dsl: Line = DSL) -> Site:
    """A site with two uplinks and one host."""
    site = lab.site(name)
    site.uplink("fibre", down=fibre)
    site.uplink("dsl", down=dsl)
    site.lan()
    return site


def fleet_of(
    lab: Lab, names: Iterable[str], policy: Mapping[str, Any], *, interval_ms: int, hub: str = ""
) -> Fleet:
    """Supervised sites whose paths are all up, with the voice class on path 1-1."""
    fleet = Fleet(
        lab, policies=[policy], probing={"interval": f"{interval_ms} ms"}, hub=hub or None
    )
    for number, name in enumerate(names, start=1):
        fleet.add(two_uplinks(lab, name), number)
    fleet.start()
    fleet.wait_up(60)
    return fleet


def route_moves(monitor: KernelMonitor, prefix: str, since: float) -> list[Notice]:
    """Notices that the voice class's route to a prefix was changed."""
    return monitor.notices(since, (prefix, f"table {VOICE_TABLE}"))


def clock() -> float:
    """The guest's wall clock, which the notices of `KernelMonitor` carry."""
    return time.time()
