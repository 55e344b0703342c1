"""A hub with 1,000 sites on 4 planes each: how it starts, what it costs, how it loses an uplink.

      hub-lan0-h1 --- [hub] === fibre 10 ms ===+-- internet --- [far: 1,000 sites x 4 devices]
                            === dsl   20 ms ===+

The far ends are 4,000 real WireGuard devices with a reflector (tests/bench/far_ends.py): none is
scaled up. Five classes, two prefixes per site.

What is scaled up is the rate of probes, and with it the CPU share. The hub probes each path every
2 s, the far ends every 4 s, because hub, far ends and the encryption at both ends share one core.
The share is measured twice, first while the hub probes alone, then while every far end probes it
too, and so told apart into what it costs to send a probe and judge its answer, and what to answer
one; the target's share is 4,000 times both. That is rather too much than too little: at 4,000 a
second more packets are sent and read at one waking. Probes that look for the path's MTU count as
probes.

Each is a story of its own, and each death has a world of its own, since a hub that was short of
its core once takes minutes to be calm again. The cold apply begins with an empty kernel and ends
when the supervisor says that the plan is in force. In the last story the fibre dies, first by
carrier, then in silence (what the hub sends over it is lost, probes and all), under 500 packets a
second spread over all sites: the time until the last of them is lost counts. A slow pace makes
silence harder to notice, it is not scaled.
"""

import contextlib
import mmap
import os
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lab.fleet import OVERLAY
from lab.line import Line
from lab.topology import Host, Lab, Site, Supervisor
from tests.bench import far_ends
from tests.bench.far_ends import DATA_PORT, FarEnds
from tests.bench.measure import record

SITES = 1000
PLANES = 4
HUB_ID = 1
PPS = 500
RATE = 4000  # probes a second, sent and answered, that the CPU share is told for
PROBE_S = 2.0  # between two probes of the hub on one path
WINDOW_S = 20.0
HOLD = "10 s"  # less than usual: the way home is not measured
POLL_S = 10.0  # asking costs the hub: its rows are thousands
CLASSES = [
    {"name": "voice", "match": [{"dscp": "ef"}]},
    {"name": "video", "match": [{"dscp": "af41"}]},
    {"name": "business", "match": [{"protocol": "tcp", "ports": [1433, 3389]}]},
    {"name": "bulk", "match": [{"dscp": "cs1"}]},
]


def story_cold_apply(lab: Lab) -> None:
    hub, far = thousand_sites(lab)
    cold_apply(lab, hub)
    far.stop()


def story(lab: Lab) -> None:
    _, supervisor, far = settled(lab)
    probing(lab, supervisor, far)
    far.stop()


def story_uplink_death(lab: Lab) -> None:
    """Lose the fibre twice, by carrier and in silence, each time of a hub that is calm."""
    times = {}
    for what in ("carrier", "silence"):
        lab.start_over(seed=lab.seed)
        hub, supervisor, far = settled(lab)
        fibre = hub.uplinks["fibre"]
        fibre.up.prepare()
        die = fibre.unplug if what == "carrier" else fibre.up.cut
        traffic = Traffic(hub.lans["lan0"].hosts[0], [site.host for site in far.sites])
        lab.sleep_virtual(5)
        times[what] = one_death(lab, supervisor, traffic, far, die)
        lab.say(f"{what}: all traffic moved after {times[what]:.1f} ms")
        traffic.stop()
        far.stop()
    record(
        lab,
        "hub_uplink_death_ms",
        max(times.values()),
        "ms",
        samples=list(times.values()),
        by=times,
        remark=", ".join(f"{what} {value:.0f} ms" for what, value in times.items())
        + f" with a probe every {PROBE_S:g} s on each path, {SITES * PLANES / PROBE_S:.0f}/s",
        packets_per_s=PPS,
        probe_interval_s=PROBE_S,
    )


def settled(lab: Lab) -> tuple[Site, Supervisor, FarEnds]:
    """A hub that is in force, all of whose paths are up and all of whose classes at home."""
    hub, far = thousand_sites(lab)
    supervisor = supervisor_of(hub)
    started_s(lab, supervisor)
    progress = Progress(lab, supervisor, far)
    progress.wait(lambda: far.answered >= 2 * SITES * PLANES, "every path is probed")
    progress.wait(lambda: paths_up(supervisor) == SITES * PLANES, "all paths are up")
    progress.wait(lambda: all_over(supervisor, "1-"), "every class is on the fibre")
    return hub, supervisor, far


class Progress:
    """Waits, and says at each look what becomes of it: a hub's start takes its time."""

    def __init__(self, lab: Lab, supervisor: Supervisor, far: FarEnds) -> None:
        self._lab = lab
        self._supervisor = supervisor
        self._far = far

    def wait(self, is_done: Callable[[], bool], what: str) -> None:
        """Wait until it is so. Raises StoryError in vain."""
        before, said_s = self._numbers(), self._lab.now_s

        def is_done_at_last() -> bool:
            nonlocal before, said_s
            done = is_done()
            now, took_s = self._numbers(), self._lab.now_s - said_s
            rates = {name: (now[name] - before[name]) / (took_s or 1) for name in now}
            told = ", ".join(f"{name} {rate:.2f}/s" for name, rate in rates.items())
            self._lab.say(f"{what}: {'yes' if done else 'not yet'} ({told})")
            before, said_s = now, self._lab.now_s
            return done

        self._lab.wait_until(is_done_at_last, 300, what, poll_s=POLL_S)

    def _numbers(self) -> dict[str, float]:
        assert self._supervisor.daemon is not None
        return {
            "probes answered": self._far.answered,
            "CPU of the hub": self._supervisor.daemon.cpu_s(),
            "CPU of the far ends": self._far.cpu_s(),
        }


def thousand_sites(lab: Lab) -> tuple[Site, FarEnds]:
    """A hub whose supervisor is still to be started, and its far ends."""
    hub = lab.site("hub")
    hub.uplink("fibre", down=Line(delay_ms=10))
    hub.uplink("dsl", down=Line(delay_ms=20))
    hub.lan()
    private = subprocess.run(["wg", "genkey"], check=True, capture_output=True).stdout
    public = subprocess.run(["wg", "pubkey"], check=True, capture_output=True, input=private).stdout
    far = FarEnds(lab, SITES, OVERLAY, HUB_ID, public.decode().strip())
    lab.say(f"{SITES * PLANES} far ends stand")
    supervisor = Supervisor(hub, configuration(hub, far))
    key = supervisor.directory / "wireguard.key"
    key.touch(mode=0o600)
    key.write_bytes(private)
    hub.supervisor = supervisor
    return hub, far


def supervisor_of(hub: Site) -> Supervisor:
    assert hub.supervisor is not None
    return hub.supervisor


def configuration(hub: Site, far: FarEnds) -> dict[str, Any]:
    uplinks = [
        {
            "name": uplink.name,
            "device": uplink.device,
            "address": [str(uplink.facts.address4)],
            "gateway": [str(uplink.facts.gateway4.ip)],
        }
        for uplink in hub.uplinks.values()
    ]
    lan = hub.lans["lan0"]
    return {
        "version": 1,
        "site": {"name": "hub", "id": HUB_ID},
        "fleet": {"overlay": OVERLAY},
        "uplinks": uplinks,
        "lans": [
            {"name": "lan0", "device": "lan0", "address": [str(lan.address4), str(lan.address6)]}
        ],
        "classes": CLASSES,
        "policies": [
            {"class": name, "hold": HOLD, "sla": {"loss": "2 %", "delay": "150 ms"}}
            for name in (*(each["name"] for each in CLASSES), "default")
        ],
        "probing": {"interval": f"{PROBE_S:g} s"},
        "peers": [
            {
                "name": site.name,
                "id": site.site_id,
                "public_key": site.public_key,
                "uplinks": [
                    {"label": label, "endpoint": site.endpoint(slot)}
                    for slot, label in enumerate(hub.uplinks, start=1)
                ],
                "prefixes": list(site.prefixes),
            }
            for site in far.sites
        ],
    }


def started_s(lab: Lab, supervisor: Supervisor) -> float:
    """From the start of the process to READY=1, as systemd would hear it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        address = str(supervisor.directory / "notify")
        systemd.bind(address)
        systemd.settimeout(120)
        begun_s = lab.now_s
        os.environ["NOTIFY_SOCKET"] = address
        try:
            supervisor.start(wait_s=None)
        finally:
            del os.environ["NOTIFY_SOCKET"]
        while b"READY=1" not in systemd.recv(4096):
            pass
        return lab.now_s - begun_s


def cold_apply(lab: Lab, hub: Site) -> None:
    supervisor = supervisor_of(hub)
    took_s = started_s(lab, supervisor)
    cpu_s = supervisor.daemon.cpu_s() if supervisor.daemon else 0.0
    count = "ip -6 route show table all | grep -c nhid; ip route show table all | grep -c nhid"
    routes = sum(map(int, hub.run(["sh", "-c", count]).split()))
    peers = len(hub.run(["wg", "show", "all", "peers"]).splitlines())
    lab.require(peers == SITES * PLANES, f"the kernel has {peers} peers")
    lab.require(routes >= SITES * 2 * (len(CLASSES) + 1), f"and {routes} routes by nexthop")
    record(
        lab,
        "hub_cold_apply_s",
        took_s,
        "s",
        samples=[took_s],
        sites=SITES,
        peers=peers,
        routes=routes,
        classes=len(CLASSES) + 1,
        cpu_s=cpu_s,
        remark="from the start of the process, its configuration file read",
    )


def paths_up(supervisor: Supervisor) -> int:
    try:
        return sum(p["state"] == "up" for p in supervisor.get("/v1/paths"))
    except TimeoutError:
        return 0  # 4,000 handshakes at once, at both ends, on the one core


def probing(lab: Lab, supervisor: Supervisor, far: FarEnds) -> None:
    """CPU and memory in steady state. What counts is the window in which all far ends probe too."""
    alone = window(lab, supervisor, far)
    far.probe(is_on=True)
    lab.sleep_virtual(5)
    both = window(lab, supervisor, far)
    far.probe(is_on=False)
    for what, told in (("alone", alone), ("with the far ends' probes", both)):
        lab.say(f"{what}: {', '.join(f'{name} {value:.2f}' for name, value in told.items())}")
    for name, pace_s in (("answered_by_far_ends", PROBE_S), ("answered_by_hub", far_ends.PROBE_S)):
        wanted = 0.95 * SITES * PLANES / pace_s
        lab.require(both[name] > wanted, f"{both[name]:.0f}/s {name.replace('_', ' ')}")
    sending_s = alone["cpu_ratio"] / alone["answered_by_far_ends"]
    rest = both["cpu_ratio"] - sending_s * both["answered_by_far_ends"]
    answering_s = rest / both["answered_by_hub"]
    record(
        lab,
        "hub_probing_cpu_ratio",
        RATE * (sending_s + answering_s),
        "ratio",
        samples=[both["cpu_ratio"]],
        us_of_a_probe_sent=1e6 * sending_s,
        us_of_a_probe_answered=1e6 * answering_s,
        per_second=both,
        without_probes_of_the_far_ends=alone,
        remark=f"scaled up: {both['cpu_ratio']:.2f} at {both['answered_by_far_ends']:.0f}/s sent "
        f"and {both['answered_by_hub']:.0f}/s answered, {alone['cpu_ratio']:.2f} at "
        f"{alone['answered_by_far_ends']:.0f}/s sent and none answered: {1e6 * sending_s:.0f} us "
        f"and {1e6 * answering_s:.0f} us each",
    )
    assert supervisor.daemon is not None
    rss = supervisor.daemon.rss_mib()
    record(lab, "hub_rss_mib", rss, "MiB", samples=[rss], sites=SITES, paths=SITES * PLANES)


def window(lab: Lab, supervisor: Supervisor, far: FarEnds) -> dict[str, float]:
    """CPU share, and the rates of probes answered by the far ends and by the hub."""
    begun_s, answered, heard, cpu_s = lab.now_s, far.answered, far.heard, far.cpu_s()
    idle_s = core_idle_s()
    ratio = supervisor.cpu_ratio(lambda: lab.sleep_virtual(WINDOW_S))
    took_s = lab.now_s - begun_s
    return {
        "cpu_ratio": ratio,
        "answered_by_far_ends": (far.answered - answered) / took_s,
        "answered_by_hub": (far.heard - heard) / took_s,
        "reflector_cpu_ratio": (far.cpu_s() - cpu_s) / took_s,
        "core_idle_ratio": (core_idle_s() - idle_s) / took_s,
    }


def core_idle_s() -> float:
    """Seconds that the core has had nothing to do."""
    idle = Path("/proc/stat").read_text(encoding="ascii").split("\n", 1)[0].split()[4]
    return int(idle) / os.sysconf("SC_CLK_TCK")


def one_death(
    lab: Lab, supervisor: Supervisor, traffic: "Traffic", far: FarEnds, die: Callable[[], None]
) -> float:
    """Milliseconds from the last packet before the death to the last that was lost by it.

    Not from when the death is asked for: the program that does it needs its time too.
    """
    before_ns = time.monotonic_ns()
    die()
    lab.sleep_virtual(10)
    sent = [
        (sent_ns, bool(far.arrived_ns(sequence)))
        for sequence, sent_ns in traffic.since(before_ns - 1_000_000_000)
        if sent_ns < time.monotonic_ns() - 2_000_000_000
    ]
    lost = [sent_ns for sent_ns, has_arrived in sent if not has_arrived]
    if not lost:
        return 0.0
    died_ns = max(sent_ns for sent_ns, has_arrived in sent if has_arrived and sent_ns < lost[0])
    last_ms = (max(lost) - died_ns) / 1e6
    detours = [line for line in supervisor.log().splitlines() if '"detour"' in line]
    lab.say(f"{len(lost)} packets were lost until {last_ms:.1f} ms: {''.join(detours[-1:])}")
    return last_ms


def all_over(supervisor: Supervisor, planes: str) -> bool:
    try:
        classes = supervisor.get("/v1/classes")
    except TimeoutError:
        return False
    return all(
        carrier["path"].rpartition("/")[2].startswith(planes)
        for each in classes
        for carrier in each["carriers"]
    )


class Traffic:
    """One packet after the other, each to the next site."""

    def __init__(self, host: Host, targets: list[str]) -> None:
        self._targets = targets
        cells = memoryview(mmap.mmap(-1, 8 * (1 << 18))).cast("q")
        self._header, self._sent_ns = cells[:2], cells[2:]  # packets sent, stop
        self._pid = host.fork(self._send)

    def since(self, moment_ns: int) -> list[tuple[int, int]]:
        """(sequence, send time) of the packets sent since then."""
        times = self._sent_ns[: self._header[0]].tolist()
        return [(n, sent_ns) for n, sent_ns in enumerate(times) if sent_ns >= moment_ns]

    def stop(self) -> None:
        self._header[1] = 1
        os.waitpid(self._pid, 0)

    def _send(self) -> None:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
        sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        due, sequence = time.monotonic(), 0
        while not self._header[1]:
            time.sleep(max(0.0, due - time.monotonic()))
            due += 1 / PPS
            self._sent_ns[sequence] = time.monotonic_ns()
            target = (self._targets[sequence % len(self._targets)], DATA_PORT)
            with contextlib.suppress(OSError):  # of an ICMP error about an earlier packet
                sender.sendto(sequence.to_bytes(4, "big"), target)
            sequence += 1
            self._header[0] = sequence
