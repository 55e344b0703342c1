"""A line gets worse without dying: the class with an SLA leaves it, the others stay.

      a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                        === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===

voice allows 80 ms and 1 % loss, the default class has no limits.
"""

from lab.fleet import VOICE_SLA, Fleet
from lab.topology import Lab
from tests.lab.boxes import hosts, moves, pair

POLICIES = (
    {"class": "voice", "sla": VOICE_SLA, "hold": "5 s"},
    {"class": "default", "hold": "5 s"},
)
TWENTY_MS = {"interval": "20 ms"}


def why_it_left(lab: Lab, fleet: Fleet) -> str:
    """The reason of the first move but the initial ones."""
    move = next(move for move in moves(fleet, "a") if move["cause"] != "initial")
    lab.say(move["reason"])
    lab.check(move["cause"] == "sla-violated", "it left because of its SLA")
    return str(move["reason"])


def story_delay_grows(lab: Lab) -> None:
    fleet = pair(lab, POLICIES, probing=TWENTY_MS)
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    stream = lab.stream(*hosts(fleet), dscp=46)
    lab.sleep_virtual(3)
    line = fleet.sites["b"].uplinks["fibre"].down
    for delay_ms in range(20, 100, 10):  # a queue fills: a leap of 80 ms would look like death
        line.change(delay_ms=delay_ms)
        lab.sleep_virtual(0.1)
    took_s = fleet.wait_carriers("a", "voice", "b", ["1-2"], 5)
    lab.record("delay_brownout", took_s, "s", probe_interval_ms=20)
    lab.check(took_s < 1, f"voice leaves within {took_s:.2f} s of the worst")
    lab.check(fleet.carriers("a", "default", "b") == ("1-1",), "the default class stays")
    reason = why_it_left(lab, fleet)
    lab.check("delay" in reason, "with the delay as reason")
    lab.check("80 ms" in reason, "and the limit")
    line.change(delay_ms=10)
    took_s = fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    lab.check(took_s > 5, f"healed, voice returns after {took_s:.1f} s: the hold time is kept")
    lab.check(stream.stop().lost == 0, "no packet is lost by any of it")


def story_loss_begins(lab: Lab) -> None:
    fleet = pair(lab, POLICIES, probing=TWENTY_MS)
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    lab.sleep_virtual(3)
    fleet.sites["b"].uplinks["fibre"].down.change(loss=0.05)
    took_s = fleet.wait_carriers("a", "voice", "b", ["1-2"], 15)
    lab.record("loss_brownout", took_s, "s", loss=0.05, probe_interval_ms=20)
    lab.check(took_s < 5, f"voice leaves after {took_s:.2f} s")
    lab.check(fleet.carriers("a", "default", "b") == ("1-1",), "the default class stays")
    reason = why_it_left(lab, fleet)
    lab.check("loss" in reason, "with the loss as reason")
    lab.check("1 %" in reason, "and the limit")
