"""Paths and uplinks die and come back; the classes follow, and the box says why.

      a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                        === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===

Probes go every 50 ms. A class is home again after 5 s of a clean path.
"""

import json

from lab.topology import Family, Host, Lab, Site
from tests.lab.boxes import asked, hosts, moves, pair, warnings

HOLD_S = 5.0
PLANES = ("bl-1-1", "bl-1-2")


def story_a_far_uplink_goes_dark(lab: Lab) -> None:
    fleet = pair(lab)
    for name in ("voice", "default"):
        fleet.wait_carriers("a", name, "b", ["1-1"], 60)
    stream = lab.stream(*hosts(fleet), dscp=46)
    lab.sleep_virtual(2)
    cut_s = lab.now_s
    fleet.sites["b"].uplinks["fibre"].down.cut()
    for name in ("voice", "default"):
        fleet.wait_carriers("a", name, "b", ["*-2"], 5)
    lab.sleep_virtual(2)
    lost = stream.lost(cut_s - 0.1, lab.now_s - 1)
    lab.record("blackout_lost", lost, "packets", packets_per_s=200, probe_interval_ms=50)
    lab.check(0 < lost <= 40, f"the call loses {lost} packets: at most 200 ms")
    why = asked(fleet, "a", "why", "voice", "b")
    lab.say(why["reason"])
    lab.check("fibre (1-1)" in why["reason"], "the reason names the path that was left")
    lab.check(why["cause"] == "path-down", f"the cause is {why['cause']}")
    dead = [c for c in why["candidates"] if c["path"] == "b/1-1"]
    lab.check(dead and dead[0]["verdict"] == "unusable", "the dead path is a candidate no more")

    fleet.sites["b"].uplinks["fibre"].down.heal()
    healed_s = lab.now_s
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    took_s = lab.now_s - healed_s
    lab.record("recovery", took_s, "s", hold_s=HOLD_S)
    lab.check(took_s > HOLD_S, f"the way back takes {took_s:.1f} s: the hold time is kept")
    lab.check(took_s < HOLD_S + 8, "and not much longer")
    last = moves(fleet, "a")[-1]
    lab.say(last["reason"])
    lab.check(last["cause"] == "recovered" and last["is_voluntary"], "it came back by choice")
    lab.check(last["evidence"], "with the candidates as they were")
    after = stream.stop()
    lab.check(after.lost == lost, "the way back loses nothing")


def story_a_local_uplink_goes_dark(lab: Lab) -> None:
    fleet = pair(lab)
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    stream = lab.stream(*hosts(fleet), dscp=46)
    lab.sleep_virtual(2)
    cut_s = lab.now_s
    fleet.sites["a"].uplinks["fibre"].cut()
    lab.wait_until(
        lambda: fleet.carriers("a", "voice", "b")[0].startswith("2-"), 5, "voice is on the dsl"
    )
    lab.sleep_virtual(2)
    lost = stream.lost(cut_s - 0.1, lab.now_s - 1)
    lab.record("uplink_death_lost", lost, "packets", packets_per_s=200, probe_interval_ms=50)
    lab.check(0 < lost <= 40, f"the call loses {lost} packets: at most 200 ms")
    lab.check("uplink-down" in warnings(fleet, "a"), "a warning names the uplink that is silent")
    lab.say(moves(fleet, "a")[-1]["reason"])
    stream.stop()


def story_the_cable_is_pulled(lab: Lab) -> None:
    fleet = pair(lab)
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    stream = lab.stream(*hosts(fleet), dscp=46)
    lab.sleep_virtual(2)
    fleet.sites["a"].uplinks["fibre"].unplug()
    lab.sleep_virtual(2)
    carriers = fleet.carriers("a", "voice", "b")
    lab.check(carriers[0].startswith("2-"), f"voice goes by {carriers[0]}, over the dsl")
    lost = stream.stop().lost
    lab.record("carrier_lost", lost, "packets", packets_per_s=200)
    lab.check(lost <= 3, f"the call loses {lost} packets")
    told = warnings(fleet, "a").get("uplink-down", "")
    lab.check("carrier" in told, f"the warning says so: {told}")
    fleet.sites["a"].uplinks["fibre"].plug_in()
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    lab.check("uplink-down" not in warnings(fleet, "a"), "plugged in again, the warning ends")


def story_one_end_moves_alone(lab: Lab) -> None:
    """A packet is taken on whatever plane it comes, though its answer goes by another.

    That must hold of flows which the fast path carries, too: conntrack has lost sight of them.
    """
    fleet = pair(lab)
    for name in ("voice", "default"):
        fleet.wait_carriers("a", name, "b", ["1-1"], 60)
    ours, theirs = hosts(fleet)
    for name in "ab":
        fleet.supervisor(name).pause()  # nobody but this story moves anything
    calls = [lab.stream(ours, theirs, dscp=46, family=f, port=9000 + f) for f in (4, 6)]
    sessions = [
        lab.tcp_sessions(ours, theirs, count=5, interval_s=0.2, family=f, port=7000 + f)
        for f in (4, 6)
    ]
    downloads = [Download(lab, ours, theirs, f) for f in (4, 6)]
    lab.sleep_virtual(1)
    a = fleet.sites["a"]
    lab.check("OFFLOAD" in a.run(["conntrack", "-L", "-p", "tcp"]), "the fast path carries TCP")
    a.ip(*(f"{family}nexthop replace id {n} dev bl-2-2 proto 177" for family, n in NEXTHOPS))
    lab.sleep_virtual(1.5)
    for call in calls:
        lost = call.stop().lost
        lab.check(lost == 0, f"a moves, b does not: {lost} packets of a call are lost")
    for each in sessions:
        result = each.check(20)
        lab.check(result.survived == 5, f"{result.survived} of 5 sessions live on")
        each.stop()
    for download in downloads:
        before, after = download.mbit()
        lab.check(after > 0.8 * before, f"TCP goes at {after:.1f} Mbit/s, before {before:.1f}")
    for name in "ab":
        fleet.supervisor(name).resume()
    lab.wait_until(
        lambda: "bl-1-1" in a.run(["ip", "nexthop", "get", "id", str(NEXTHOPS[0][1])]),
        30,
        "the supervisor of a puts back what was changed behind its back",
    )


# Words of `ip` and the nexthop objects of plane 1-1.
NEXTHOPS = (("", 184549410), ("-6 ", 184549411))


class Download:
    """3 s of TCP at up to 20 Mbit/s."""

    def __init__(self, lab: Lab, client: Host, server: Host, family: Family) -> None:
        port = str(5300 + family)
        server.background(["iperf3", "-s", "-1", "-p", port], name=f"iperf3-{port}")
        listens = f"sport = :{port}"
        lab.wait_until(lambda: server.run(["ss", "-Hltn", listens]).strip(), 5, "iperf3 listens")
        words = ["-p", port, "-t", "3", "-i", "0.5", "-b", "20M", "-J"]
        self._client = client.start(["iperf3", "-c", server.address(family), *words])

    def mbit(self) -> tuple[float, float]:
        """Rates of the second half-second and of the last but one."""
        told, _ = self._client.communicate(timeout=30)
        rates = [part["sum"]["bits_per_second"] / 1e6 for part in json.loads(told)["intervals"]]
        return rates[1], rates[-2]


def story_everything_dies_and_one_comes_back(lab: Lab) -> None:
    fleet = pair(lab, [{"class": "voice"}, {"class": "default"}])  # the usual hold: 60 s
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 90)
    uplinks = fleet.sites["a"].uplinks
    for uplink in uplinks.values():
        uplink.cut()
    lab.wait_until(lambda: "no-path" in warnings(fleet, "a"), 10, "a says that nothing works")
    lab.check(
        all(p["state"] != "up" for p in fleet.supervisor("a").status()["paths"]), "no path is up"
    )
    lab.sleep_virtual(10)
    uplinks["dsl"].heal()
    sender, receiver = hosts(fleet)
    took_s = lab.wait_until(
        lambda: lab.ping(sender, receiver, count=1, wait_s=0.2, dscp=46).received,
        30,
        "the far host answers again",
    )
    lab.record("first_light", took_s, "s")
    lab.check(took_s < 10, f"one uplink back, traffic flows after {took_s:.1f} s: no hold time")
    # Packets flow once b knows: a learns it from its own probes, which go once a second.
    lab.wait_until(lambda: "no-path" not in warnings(fleet, "a"), 10, "and the warning ends")


def story_a_flow_of_the_fast_path_follows_its_class(lab: Lab) -> None:
    """What comes first after a move is mostly out of the old tunnel: it must not keep the flow."""
    fleet = pair(lab)
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    one, other = hosts(fleet)
    a = fleet.sites["a"]
    for name in "ab":
        fleet.supervisor(name).pause()  # which would put back what is moved here
    options = ("--bitrate", "8M", "--tos", "0xb8")
    load = lab.start_iperf3(one, other, seconds=14, direction="backward", options=options)
    lab.sleep_virtual(2)
    table = next(
        line.split()[-3]
        for line in a.run(["ip", "rule"]).splitlines()
        if "fwmark 0x10000000/0xf0000000" in line
    )
    listed = a.run(["ip", "-4", "nexthop", "list"]).splitlines()
    ids = {plane: line.split()[1] for plane in PLANES for line in listed if plane in line.split()}
    kept = ["metric", "100", "proto", "177", "mtu", "1420"]
    network = str(other.address4.network)
    for n in range(6):
        plane = PLANES[(n + 1) % 2]
        a.run(["ip", "route", "replace", network, "nhid", ids[plane], "table", table, *kept])
        lab.sleep_virtual(0.5 if n % 3 else 1.5)  # the kernel clears up once a second
        found = sent_by_plane(lab, a)
        lab.check(found[plane] > 10 * found[PLANES[n % 2]], f"moved to {plane}: {found}")
        flows = a.run(["conntrack", "-L", "-p", "tcp", "-d", other.address()])
        lab.check("[OFFLOAD]" in flows, "and it is on the fast path")
    load.result()


def sent_by_plane(lab: Lab, site: Site) -> dict[str, int]:
    """Packets that left by each plane in a moment."""

    def count() -> dict[str, int]:
        folder = "/sys/class/net/{}/statistics/tx_packets"
        return {plane: int(site.run(["cat", folder.format(plane)])) for plane in PLANES}

    before = count()
    lab.sleep_virtual(0.3)
    after = count()
    return {plane: after[plane] - before[plane] for plane in PLANES}
