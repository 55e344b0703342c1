"""Blackout: how many packets a call loses when the far uplink dies one way, beside BIRD with BFD.

      a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                        === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===

200 packets a second go from a's host to b's. b's fibre is cut towards b at 24 different phases
of the probe interval. First Branchline steers, then BIRD does it by static routes with BFD at the
same interval times 3, over the same WireGuard devices in the same guest. The median counts.
Branchline is started anew before each cut, because it returns to a line that died twice after a
minute only.
"""

import statistics
from collections.abc import Callable
from pathlib import Path

from lab.fleet import wireguard_peer
from lab.topology import Lab, Site, StoryError
from tests.bench.measure import record, wait_for_phase
from tests.bench.worlds import fleet_of

CUTS = 24
PPS = 200
SETTLE_S = 3.0  # after a cut
CALM_S = 8.0  # at home before the next
PLANES = tuple((x, y) for x in (1, 2) for y in (1, 2))
POLICY = {"class": "voice", "tiers": ["fibre", "dsl"], "hold": "1 s"}


def story_20ms(lab: Lab) -> None:
    compare(lab, 20)


def story_50ms(lab: Lab) -> None:
    compare(lab, 50)


def compare(lab: Lab, interval_ms: int) -> None:
    fleet = fleet_of(lab, ("a", "b"), POLICY, interval_ms=interval_ms)
    a, b = fleet.sites["a"], fleet.sites["b"]

    def is_home() -> bool:
        return fleet.carriers("a", "voice", "b") == ("1-1",)

    def start_anew() -> None:
        for name in ("a", "b"):
            fleet.supervisor(name).stop()
            fleet.supervisor(name).start()

    ours = lose_uplink(lab, a, b, interval_ms, is_home, start_anew)
    for name in ("a", "b"):
        fleet.supervisor(name).kill()
    hand_over_to_bird(lab, a, b, interval_ms)
    birds = lose_uplink(lab, a, b, interval_ms, lambda: route_device(a, b) == "bl-1-1")
    lab.say(f"lost per cut: Branchline {ours}, BIRD + BFD {birds}")
    lost, peer = statistics.median(ours), statistics.median(birds)
    record(
        lab,
        f"blackout_{interval_ms}ms_ratio",
        lost / peer,
        "ratio",
        samples=ours,
        peer={
            "name": f"BIRD 2 static routes + BFD {interval_ms} ms x 3",
            "value": peer,
            "unit": "packets lost",
            "samples": birds,
        },
        remark=f"Branchline loses {lost:g} packets",
        lost=lost,
        packets_per_s=PPS,
        probe_interval_ms=interval_ms,
        two_way_delay_ms=20,
    )


def lose_uplink(
    lab: Lab,
    a: Site,
    b: Site,
    interval_ms: int,
    is_home: Callable[[], bool],
    start_anew: Callable[[], None] = lambda: None,
) -> list[int]:
    """Cut b's fibre towards b at CUTS phases of the interval; the packets lost by each cut."""
    stream = lab.stream(a.lans["lan0"].hosts[0], b.lans["lan0"].hosts[0], pps=PPS, dscp=46)
    lost = []
    for n in range(CUTS):
        start_anew()
        lab.wait_until(is_home, 90, "the call is on the fibre path")
        lab.sleep_virtual(CALM_S)
        wait_for_phase(interval_ms / 1000, n / CUTS)
        cut_s = lab.now_s
        b.uplinks["fibre"].down.cut()
        lab.sleep_virtual(SETTLE_S)
        lost.append(stream.lost(cut_s - 0.1, lab.now_s - 1))
        b.uplinks["fibre"].down.heal()
    stream.stop()
    return lost


def route_device(a: Site, b: Site) -> str:
    """The device by which a reaches b's host, as the kernel says."""
    address = b.lans["lan0"].hosts[0].address()
    words = a.run(["ip", "route", "get", address], check=False).split()
    return words[words.index("dev") + 1] if "dev" in words else ""


def hand_over_to_bird(lab: Lab, a: Site, b: Site, interval_ms: int) -> None:
    """Leave the planes as they are; routes and failure detection become BIRD's."""
    for site, own, far in ((a, 1, 2), (b, 2, 1)):
        site.run(["nft", "flush", "ruleset"])
        for family in ("-4", "-6"):
            for rule in site.run(["ip", family, "rule"]).splitlines():
                priority, _, words = rule.partition(":")
                if 20000 <= int(priority) <= 20999 and "/0xf000000" not in words:
                    site.run(["ip", family, "rule", "del", "pref", priority])
        for x, y in PLANES:
            left, right = (x, y) if own == 1 else (y, x)
            device = f"bl-{left}-{right}"
            key = wireguard_peer(site, device)
            site.run(["wg", "set", device, "peer", key, "allowed-ips", "0.0.0.0/0,::/0"])
            site.ip(f"addr add 10.254.{x}{y}.{own} peer 10.254.{x}{y}.{far}/32 dev {device}")
    for site, other, own_n, far_n in ((a, b, 1, 2), (b, a, 2, 1)):
        config = Path(f"/tmp/bird-{site.name}.conf")
        config.write_text(bird_config(other, own_n, far_n, interval_ms))
        control = f"/tmp/bird-{site.name}.ctl"
        site.background(["bird", "-f", "-c", str(config), "-s", control], name="bird")
    for site in (a, b):
        wait_for_bfd(lab, site)
    lab.wait_until(lambda: route_device(a, b) == "bl-1-1", 60, "BIRD routes over the fibre path")


def wait_for_bfd(lab: Lab, site: Site) -> None:
    control = f"/tmp/bird-{site.name}.ctl"
    shown = ""

    def all_up() -> bool:
        nonlocal shown
        shown = site.run(["birdc", "-s", control, "show", "bfd", "sessions"], check=False)
        return shown.count(" Up ") == len(PLANES)

    try:
        lab.wait_until(all_up, 60, f"the BFD sessions of {site.name} are up", poll_s=0.5)
    except StoryError:
        lab.say(shown)
        raise


def bird_config(far: Site, own_n: int, far_n: int, interval_ms: int) -> str:
    lines = [
        f"router id 10.254.0.{own_n};",
        "protocol device { scan time 1; }",
        "protocol kernel { ipv4 { export all; import none; }; merge paths off; }",
        'protocol bfd { interface "bl-*" { '
        f"min rx interval {interval_ms} ms; min tx interval {interval_ms} ms; "
        f"idle tx interval {interval_ms} ms; multiplier 3; }}; }}",
    ]
    for preference, (x, y) in enumerate(PLANES):
        left, right = (x, y) if own_n == 1 else (y, x)
        lines.append(
            f"protocol static s{x}{y} {{ ipv4 {{ preference {190 - preference}; }}; "
            f"route {far.lans['lan0'].address4.network} "
            f"via 10.254.{x}{y}.{far_n}%'bl-{left}-{right}' bfd; }}"
        )
    return "\n".join(lines) + "\n"
