"""The world of most stories: two boxes with two uplinks each, and what they say.

      a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                        === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===

Path 1-1 takes 20 ms both ways, 1-2 and 2-1 take 30 ms, 2-2 takes 40 ms.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from lab.fleet import VOICE, Fleet
from lab.line import Line
from lab.topology import Host, Lab, Site

Policies = Sequence[Mapping[str, Any]]
SHORT_HOLD: Policies = ({"class": "voice", "hold": "5 s"}, {"class": "default", "hold": "5 s"})


def branch(lab: Lab, name: str, **uplink: Any) -> Site:
    """A site with two uplinks and one host. `uplink` holds for both of them."""
    site = lab.site(name)
    site.uplink("fibre", down=Line(delay_ms=10), **uplink)
    site.uplink("dsl", down=Line(delay_ms=20), **uplink)
    site.lan()
    return site


def pair(
    lab: Lab,
    policies: Policies = SHORT_HOLD,
    *,
    classes: Sequence[Mapping[str, Any]] = (VOICE,),
    **fleet: Any,
) -> Fleet:
    """Two boxes a and b that run; every path is up and every class on its first choice."""
    boxes = Fleet(lab, policies=policies, classes=classes, **fleet)
    for number, name in enumerate("ab", start=1):
        boxes.add(branch(lab, name), number)
    boxes.start()
    boxes.wait_up()
    return boxes


def hosts(fleet: Fleet, one: str = "a", other: str = "b") -> tuple[Host, Host]:
    return fleet.sites[one].lans["lan0"].hosts[0], fleet.sites[other].lans["lan0"].hosts[0]


def asked(fleet: Fleet, name: str, *words: str) -> Any:
    """What a command of `branchline` says, as JSON."""
    return json.loads(fleet.supervisor(name).command(*words, "--json"))


def left(fleet: Fleet, name: str) -> list[str]:
    """The commands for what is not as planned."""
    return list(asked(fleet, name, "plan", "--dry-run")["commands"])


def operations(fleet: Fleet, name: str) -> int:
    """How many a box has carried out since its supervisor began."""
    return sum(fleet.supervisor(name).status()["counters"]["ops"].values())


def wait_put_back(lab: Lab, fleet: Fleet, name: str, before: int, what: str) -> float:
    """Until a box has made the kernel what it should be again; how long it took.

    `before` are its `operations` before anything was taken away.
    """
    return lab.wait_until(
        lambda: operations(fleet, name) > before and not left(fleet, name), 90, what, poll_s=1
    )


def restarts_idle(lab: Lab, fleet: Fleet, name: str) -> None:
    """A supervisor is killed, and the next one finds everything as it should be."""
    box = fleet.supervisor(name)
    box.kill()
    lab.sleep_virtual(1)
    box.start()
    lab.wait_until(lambda: box.status()["stage"] == "running", 30, "the next one is running")
    lab.check(operations(fleet, name) == 0, "it has nothing to do")


def moves(fleet: Fleet, name: str, class_name: str = "voice") -> list[dict[str, Any]]:
    """The moves of a class of a box, the newest last."""
    told = asked(fleet, name, "history", "--class", class_name, "--limit", "1000")["moves"]
    return [dict(move) for move in told]


def warnings(fleet: Fleet, name: str) -> dict[str, str]:
    """Warnings of a box: the text of each code."""
    return {w["code"]: w["text"] for w in fleet.supervisor(name).status()["warnings"]}
