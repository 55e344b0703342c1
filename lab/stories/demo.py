"""A call rides on the fibre. An upload fills it, it browns out, goes dark, and comes back.

    call --- [branch-a] === fibre  8 ms ===+              +=== fibre  8 ms === [cloud] --- server
                        === lte   25 ms ===+-- internet --+
    LAN ---- [branch-b] === fibre 10 ms ===+              +
                        === lte   30 ms ===+

Three boxes run the product over real kernel WireGuard: two branches with two uplinks each, and a
cloud gateway. A voice-like stream of 50 packets a second goes from branch-a's telephone to the
server in the cloud, and a backup-like stream without marks beside it. The first branch's fibre
sends 10 Mbit/s, and what waits for it waits in a queue a second long: unless the box puts it in
order before (`shaping`).
"""

from collections.abc import Mapping
from typing import Any

from lab.fleet import Fleet
from lab.line import Line
from lab.stream import Stream
from lab.topology import Lab, Site

FIBRE = Line(delay_ms=4, jitter_ms=0.3)
UPSTREAM_MBIT, SHAPED_MBIT, UPLOADS = 10, 9.5, 4
UPSTREAM = Line(delay_ms=4, jitter_ms=0.3, rate_mbit=UPSTREAM_MBIT, buffer_packets=800)
LATE_MS = 30  # of a call's packets, at most, beyond the mean of the idle line
LTE = Line(delay_ms=20, jitter_ms=2)
BROWNOUT_LOSS = 0.05
HOLD_S = 10
EF = 46

CLASSES = [{"name": "voice", "match": [{"dscp": "ef"}]}]
POLICIES: list[dict[str, Any]] = [
    {
        "class": "voice",
        "tiers": ["fibre", "lte"],
        "sla": {"loss": "1 %", "delay": "150 ms", "mos": 3.6},
        "hold": f"{HOLD_S} s",
    },
    {"class": "default", "tiers": ["fibre", "lte"], "hold": f"{HOLD_S} s"},
]


def story(lab: Lab) -> None:
    branch = build(lab, "branch-a", ("fibre", "lte"))
    other = build(lab, "branch-b", ("fibre", "lte"))
    cloud = build(lab, "cloud", ("fibre",))
    fleet = Fleet(lab, classes=CLASSES, policies=POLICIES, probing={"interval": "50 ms"})
    branch.uplinks["fibre"].up.set(UPSTREAM)
    for number, site in enumerate((branch, other, cloud), start=1):
        fleet.add(site, number, shape if site is branch else None)
    lab.say("Three boxes start. Each makes its tunnels and begins to measure them.")
    fleet.start()
    took = fleet.wait_up(60)
    watch = Watch(lab, fleet, branch)
    telephone, server = branch.lans["lan0"].hosts[0], cloud.lans["lan0"].hosts[0]
    call = lab.stream(telephone, server, pps=50, size=160, dscp=EF)
    backup = lab.stream(telephone, server, pps=50, size=1000, port=9001)
    watch.streams = {"call": call, "backup": backup}

    watch.chapter(f"All is well: every path was up {took:.1f} s after the boxes answered")
    watch.wait(5)
    lab.check(watch.carriers() == {"voice": "fibre", "default": "fibre"}, "both use the fibre")
    watch.close_chapter()

    quiet_ms = call.result().delay_ms[1]
    watch.chapter(f"{UPLOADS} uploads at once fill the fibre's {UPSTREAM_MBIT} Mbit/s")
    load = lab.start_iperf3(telephone, server, seconds=8, parallel=UPLOADS)
    watch.wait(8)
    upload_mbit = load.result().forward_mbit
    found = call.result(watch.since_s)
    _, mean_ms, most_ms = found.delay_ms
    lab.say(
        f"The uploads got {upload_mbit:.1f} Mbit/s. The call's packets took {mean_ms:.1f} ms, "
        f"at most {most_ms:.1f} ms, after {quiet_ms:.1f} ms before."
    )
    lab.check(upload_mbit > 0.7 * UPSTREAM_MBIT, "the uploads had most of the line")
    lab.check(found.lost == 0, "the call lost nothing")
    lab.check(most_ms < quiet_ms + LATE_MS, f"and no packet was {LATE_MS} ms late")
    lab.check(watch.carriers() == {"voice": "fibre", "default": "fibre"}, "nobody left the fibre")
    watch.close_chapter()

    watch.chapter(f"The fibre browns out: it loses {BROWNOUT_LOSS:.0%} of what branch-a sends")
    branch.uplinks["fibre"].up.change(loss=BROWNOUT_LOSS)
    watch.until("voice", "lte", 15, "voice has left the fibre")
    watch.wait(3)
    lab.check(
        watch.carriers()["default"] == "fibre", "the backup has no SLA and stays on the fibre"
    )
    watch.close_chapter()

    watch.chapter("The fibre goes dark: nothing passes, and the carrier stays")
    branch.uplinks["fibre"].cut()
    watch.until("default", "lte", 5, "everything has left the fibre")
    watch.wait(3)
    lab.check(watch.carriers() == {"voice": "lte", "default": "lte"}, "both use LTE")
    watch.close_chapter()

    watch.chapter(f"The fibre recovers: traffic returns when it was clean for {HOLD_S} s")
    branch.uplinks["fibre"].up.set(UPSTREAM)
    branch.uplinks["fibre"].heal()
    healed_s = lab.now_s
    watch.until("voice", "fibre", 60, "voice is back on the fibre")
    watch.until("default", "fibre", 60, "the backup is back on the fibre")
    lab.check(lab.now_s - healed_s >= HOLD_S, f"and not before the hold time of {HOLD_S} s")
    watch.wait(3)
    watch.close_chapter()

    lab.say("")
    lab.say("Packets lost, of those sent in each chapter:")
    for title, lost in watch.summary:
        lab.say(f"  {lost:<44} {title}")


def shape(config: dict[str, Any]) -> None:
    """What an operator writes for a line that carries 5 % more. netem counts 14 octets."""
    rates = {"up": f"{SHAPED_MBIT} Mbit/s", "down": "1 Gbit/s"}
    config["uplinks"][0]["shaping"] = {**rates, "overhead": 14}


def build(lab: Lab, name: str, uplinks: tuple[str, ...]) -> Site:
    site = lab.site(name)
    for uplink in uplinks:
        line = FIBRE if uplink == "fibre" else LTE
        site.uplink(uplink, down=line, up=line)
    site.lan()
    return site


class Watch:
    """Looks at one box while time passes, shows it, and tells each move once."""

    def __init__(self, lab: Lab, fleet: Fleet, site: Site) -> None:
        self._lab = lab
        self._fleet = fleet
        self._name = site.name
        self._moves = 0
        self._title = ""
        self.since_s = 0.0
        self.streams: dict[str, Stream] = {}
        self.summary: list[tuple[str, str]] = []

    def chapter(self, title: str) -> None:
        self._title = title
        self.since_s = self._lab.now_s
        self._lab.say("")
        self._lab.say(f"# {title}")

    def close_chapter(self) -> None:
        """Show the table once more and count the losses of the chapter."""
        self._look()
        self._lab.report.emit("board_rest")
        lost = []
        for name, stream in self.streams.items():
            result = stream.result(self.since_s, self._lab.now_s - 0.2)
            lost.append(f"{name} {result.lost} of {result.sent}")
            metric = f"demo_lost_{name}"
            self._lab.record(metric, result.lost, "packets", chapter=self._title, sent=result.sent)
        self.summary.append((self._title, ", ".join(lost)))

    def wait(self, seconds: float) -> None:
        end = self._lab.now_s + seconds
        while self._lab.now_s < end:
            self._look()
            self._lab.sleep_virtual(0.5)

    def until(self, class_name: str, label: str, timeout_s: float, what: str) -> None:
        """Watch until a class goes over an uplink."""

        def is_there() -> bool:
            self._look()
            return self.carriers().get(class_name) == label

        took = self._lab.wait_until(is_there, timeout_s, what, poll_s=0.25)
        self._lab.check(True, f"{what} ({took:.1f} s)")

    def carriers(self) -> dict[str, str]:
        """The uplink of this box that carries each class to the cloud."""
        return {
            row["class_name"]: row["carriers"][0]["uplinks"].partition(" - ")[0]
            for row in self._fleet.supervisor(self._name).status()["classes"]
            if row["site"] == "cloud" and row["carriers"]
        }

    def _look(self) -> None:
        supervisor = self._fleet.supervisor(self._name)
        status: Mapping[str, Any] = supervisor.status()
        moved = sum(status["counters"]["moves"].values())
        if moved > self._moves:
            moves = supervisor.get("/v1/history?limit=100")["moves"]
            for move in moves[self._moves :]:
                self._lab.say(f"-> {move['reason']}.")
            self._moves = len(moves)
        self._lab.report.emit("board", site=self._name, status=status)
