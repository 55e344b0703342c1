"""One TCP flow over two lines together.

      a-lan0-h1 --- [a] === fibre 10 ms, 20 Mbit/s ===+              +=== fibre === [b] --- b-lan0
                        === dsl   25 ms, 20 Mbit/s ===+-- internet --+=== dsl   ===

Only a's lines are slow, in both directions. Both sites shape at 19 Mbit/s, b what it sends to each
line of a. The default class is in mode `bond`, and for comparison in mode `single`, over the better
line alone. Story `ratio`: iperf3's flow (CUBIC), from a to b. Story `jitter`: the same with 3 ms of
jitter and 0.1 % loss on both lines, for CUBIC, the system's own congestion control, and for BBR.
Story `death`: a line falls silent both ways, each in a world of its own, and what counts is how
long the receiver gets nothing.
"""

import itertools
import socket
import time
from contextlib import suppress
from threading import Thread
from typing import Any

from lab.fleet import Fleet
from lab.line import Line
from lab.topology import Host, Lab
from tests.bench.measure import record

LINES = {
    "fibre": Line(delay_ms=10, rate_mbit=20, buffer_packets=1000),
    "dsl": Line(delay_ms=25, rate_mbit=20, buffer_packets=1000),
}
RATE = "19 Mbit/s"
ENDLESS = "1 Gbit/s"  # that nothing here reaches
SECONDS, OMIT_S, ROUNDS = 10.0, 3.0, 2
JITTER_MS, LOSS = 3, 0.001
DEATHS, SETTLE_S, WATCHED_S = 3, 4.0, 3.0


def story_ratio(lab: Lab) -> None:
    single, bonded = [rates(lab, mode, "cubic") for mode in ("single", "bond")]
    ratio = sum(bonded) / sum(single)
    record(
        lab,
        "bond_ratio",
        ratio,
        "ratio",
        samples=[rate * ROUNDS / sum(single) for rate in bonded],
        peer={
            "name": "the better line alone",
            "value": sum(single) / ROUNDS,
            "unit": "Mbit/s",
            "samples": single,
        },
        mbit=bonded,
        lines_mbit=20,
        delays_ms=[10, 25],
    )


def story_jitter(lab: Lab) -> None:
    found: dict[str, list[float]] = {}
    for control in ("cubic", "bbr"):
        for mode in ("single", "bond"):
            found[f"{control} {mode}"] = rates(lab, mode, control, jitter_ms=JITTER_MS, loss=LOSS)
    lab.say(f"{found}")
    ratios = {c: sum(found[f"{c} bond"]) / sum(found[f"{c} single"]) for c in ("cubic", "bbr")}
    alone = found["cubic single"]
    record(
        lab,
        "bond_jitter_ratio",
        ratios["cubic"],
        "ratio",
        samples=[rate * ROUNDS / sum(alone) for rate in found["cubic bond"]],
        peer={
            "name": "the better line alone",
            "value": sum(alone) / ROUNDS,
            "unit": "Mbit/s",
            "samples": alone,
        },
        remark=f"BBR: {ratios['bbr']:.2f}",
        mbit=found,
        jitter_ms=JITTER_MS,
        loss_ratio=LOSS,
    )


def story_death(lab: Lab) -> None:
    gaps: dict[str, list[float]] = {}
    for phase in range(DEATHS):
        for name in LINES:
            fleet, client, server = world(lab, "bond")
            flow = Flow(client, server)
            lab.sleep_virtual(SETTLE_S + phase / DEATHS / 50)  # of the 20 ms between two probes
            cut_s = time.monotonic()
            fleet.sites["a"].uplinks[name].cut()
            lab.sleep_virtual(WATCHED_S)
            gaps.setdefault(name, []).append(flow.gap_ms(cut_s))
            lab.say(f"{name} dies: nothing for {gaps[name][-1]:.0f} ms")
            flow.stop()
    every = [gap for each in gaps.values() for gap in each]
    record(
        lab,
        "bond_death_gap_ms",
        max(every),
        "ms",
        samples=every,
        remark=", ".join(f"{name} {[round(g) for g in found]}" for name, found in gaps.items()),
    )


def rates(lab: Lab, mode: str, control: str, **impairment: float) -> list[float]:
    """Mbit/s of one flow, in each round."""
    _, client, server = world(lab, mode, **impairment)
    found = []
    for _ in range(ROUNDS):
        result = lab.iperf3(client, server, seconds=SECONDS, omit_s=OMIT_S, options=["-C", control])
        found.append(round(result.forward_mbit, 3))
    lab.say(f"{mode} {control}: {found} Mbit/s")
    return found


def world(lab: Lab, mode: str, **impairment: float) -> tuple[Fleet, Host, Host]:
    lab.start_over(seed=lab.seed)
    policy = {
        "class": "default",
        "hold": "5 s",
        "tiers": [["fibre", "dsl"] if mode == "bond" else ["fibre"]],
    }
    fleet = Fleet(lab, policies=[{**policy, "mode": mode}], probing={"interval": "20 ms"})
    for number, name in enumerate("ab", start=1):
        site = lab.site(name)
        for label, line in LINES.items():
            how = line if name == "a" else Line()
            site.uplink(label, down=how, up=how)
        site.lan()
        fleet.add(site, number, shape)
    fleet.start()
    fleet.wait_up(60)
    client, server = (fleet.sites[name].lans["lan0"].hosts[0] for name in "ab")
    if mode == "bond":
        lab.wait_until(lambda: is_bonded(fleet), 60, "both lines carry it")
    lab.wait_until(
        lambda: lab.ping(client, server, count=1).received, 30, "the hosts reach each other"
    )
    for line in fleet.sites["a"].uplinks.values():
        for direction in (line.up, line.down):
            direction.change(**impairment)
    return fleet, client, server


def is_bonded(fleet: Fleet) -> bool:
    """b's lines are alike, so any two paths over both lines of a will do."""
    sent = {plane.split("-")[0] for plane in fleet.carriers("a", "default", "b")}
    received = {plane.split("-")[1] for plane in fleet.carriers("b", "default", "a")}
    return len(sent) == len(received) == len(LINES)


def shape(config: dict[str, Any]) -> None:
    """What an operator would write. netem counts 14 octets."""
    rate = RATE if config["site"]["name"] == "a" else ENDLESS
    for uplink in config["uplinks"]:
        uplink["shaping"] = {"up": rate, "down": rate, "overhead": 14}
    for peer in config["peers"]:
        for uplink in peer["uplinks"] if peer["name"] == "a" else ():
            uplink["down"] = RATE


class Flow:
    """A greedy TCP flow, and when its receiver got something."""

    def __init__(self, client: Host, server: Host) -> None:
        self.came: list[float] = []
        with server.entered():
            self._listener = socket.create_server((str(server.address(4)), 7000))
        with client.entered():
            self._source = socket.create_connection(self._listener.getsockname())
        self._sink, _ = self._listener.accept()
        self._threads = [Thread(target=each, daemon=True) for each in (self._send, self._receive)]
        for thread in self._threads:
            thread.start()

    def gap_ms(self, since: float) -> float:
        """The longest time from `since` on in which nothing came."""
        times = [since, *(at for at in self.came if at > since), time.monotonic()]
        return max(after - before for before, after in itertools.pairwise(times)) * 1000

    def stop(self) -> None:
        self._source.close()
        for thread in self._threads:
            thread.join(10)
        self._sink.close()
        self._listener.close()

    def _send(self) -> None:
        octets = bytes(1 << 15)
        with suppress(OSError):
            while True:
                self._source.sendall(octets)

    def _receive(self) -> None:
        with suppress(OSError):
            while self._sink.recv(1 << 16):
                self.came.append(time.monotonic())
