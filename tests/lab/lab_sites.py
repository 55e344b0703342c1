"""What a hub sends to each of its sites: no more than their lines take, and what they are promised.

                                  +=== fibre 10 ms, 10 Mbit/s, a long queue === [b] --- b-lan0-h1
   hq-lan0-h1 --- [hq] === fibre =+
                                  +=== fibre 10 ms, 60 Mbit/s               === [c] --- c-lan0-h1

b and c shape nothing: the queue of b's provider would be full of whatever somebody sends there.
"""

from typing import Any

from lab.fleet import Fleet
from lab.line import Line
from lab.topology import Lab
from tests.lab.boxes import left, moves, operations, wait_put_back

HUB_MBIT = 40
SHAPING = {"up": f"{HUB_MBIT} Mbit/s", "down": "100 Mbit/s", "overhead": 14}


def story_a_slow_line_behind_a_fast_hub_keeps_a_short_queue(lab: Lab) -> None:
    def edit(config: dict[str, Any]) -> None:
        config["uplinks"][0]["shaping"]["up"] = "80 Mbit/s"
        tell_lines(config)

    fleet = world(lab, edit)
    hub, b, c = (fleet.sites[name].lans["lan0"].hosts[0] for name in ("hq", "b", "c"))
    idle = lab.ping(hub, b, count=50, interval_s=0.02, dscp=46)
    before = len(moves(fleet, "hq", "default"))
    runs = [lab.start_iperf3(hub, host, seconds=12, omit_s=4, parallel=4) for host in (b, c)]
    lab.sleep_virtual(4)
    loaded = lab.ping(hub, b, count=200, interval_s=0.02, dscp=46)
    to_b, to_c = (run.result().forward_mbit for run in runs)
    added_ms = loaded.mean_ms - idle.mean_ms
    lab.record("site_ef_added_mean", added_ms, "ms", most=loaded.most_ms)
    lab.check(added_ms < 6, f"a call to b waits {added_ms:.1f} ms longer while its line is full")
    lab.check(loaded.lost == 0, f"and loses nothing: {loaded.lost}")
    lab.check(0.8 * 9 < to_b < 9, f"b gets {to_b:.1f} of its 9 Mbit/s")
    lab.check(0.8 * 50 < to_c < 50, f"and c {to_c:.1f} of its 50")
    lab.check(len(moves(fleet, "hq", "default")) == before, "no path was taken for a bad one")


def story_a_site_has_what_it_is_promised_and_no_more_than_its_ceiling(lab: Lab) -> None:
    shares = [{"site": "b", "guarantee": "15 %"}, {"site": "c", "ceiling": "50 %"}]
    fleet = world(lab, lambda config: config["uplinks"][0]["shaping"].update(sites=shares))
    hub, b, c = (fleet.sites[name].lans["lan0"].hosts[0] for name in ("hq", "b", "c"))
    alone = lab.iperf3(hub, c, seconds=6, omit_s=2, parallel=4).forward_mbit / HUB_MBIT
    lab.check(0.4 < alone < 0.51, f"c alone gets {alone:.2f} of the line")
    back = lab.iperf3(c, hub, seconds=4, omit_s=1, parallel=4).forward_mbit / 100
    lab.check(0.38 < back < 0.51, f"and half of what the hub receives: {back:.2f}")
    server = lab.internet_host("server")
    others = lab.start_iperf3(hub, server, seconds=12, omit_s=3, parallel=8)
    run = lab.start_iperf3(hub, b, seconds=10, omit_s=3, parallel=1)
    got = run.result().forward_mbit / HUB_MBIT
    lab.check(got > 0.15 * 0.85, f"one flow to b gets {got:.3f} against eight to elsewhere")
    lab.say(f"those got {others.result().forward_mbit / HUB_MBIT:.2f}")


def story_queues_of_sites_are_put_back_and_follow_the_file(lab: Lab) -> None:
    fleet = world(lab, lambda config: tell_lines(config))
    hub, supervisor = fleet.sites["hq"], fleet.supervisor("hq")
    for command, is_restarted in {
        "tc class change dev bl-up1 parent b1:ffff classid b1:20 htb rate 1mbit": True,
        "tc filter del dev bl-up1 parent b1: pref 2": True,
        "tc qdisc del dev bl-up1 parent b1:21": False,
    }.items():
        hub.run(["sh", "-c", command])
        lab.check(left(fleet, "hq"), f"it is seen: {command}")
        if is_restarted:
            supervisor.kill()
            supervisor.start()
            lab.wait_until(lambda: not left(fleet, "hq"), 30, "a start puts it back", poll_s=1)
        else:
            before = operations(fleet, "hq")
            wait_put_back(lab, fleet, "hq", before, "it is put back while the supervisor runs")
    stream = lab.stream(*(fleet.sites[name].lans["lan0"].hosts[0] for name in ("hq", "b")), pps=100)
    for rates in ((9, 40), (9, None), (None, None), (9, 50)):
        config = fleet.config("hq")
        tell_lines(config, *rates)
        supervisor.write_config(config)
        supervisor.command("reload")
        lab.check(not left(fleet, "hq"), f"in force: {rates}")
        lab.sleep_virtual(1)
    supervisor.kill()
    supervisor.start()
    lab.check(not supervisor.status()["counters"]["ops"], "a restart finds all as it should be")
    result = stream.stop()
    lab.check(result.lost <= 5, f"{result.lost} of {result.sent} packets were lost")


def world(lab: Lab, edit: Any) -> Fleet:
    def shape(config: dict[str, Any]) -> None:
        config["uplinks"][0]["shaping"] = dict(SHAPING)
        edit(config)

    fleet = Fleet(lab, classes=(), policies=(), probing={"interval": "100 ms"}, hub="hq")
    hub = lab.site("hq")
    hub.uplink("fibre", down=Line(delay_ms=2))
    hub.lan()
    fleet.add(hub, 1, shape)
    slow = Line(delay_ms=10, rate_mbit=10, buffer_packets=500)
    fast = Line(delay_ms=10, rate_mbit=60, buffer_packets=500)
    for number, (name, line) in enumerate((("b", slow), ("c", fast)), start=2):
        site = lab.site(name)
        site.uplink("fibre", down=line)
        site.lan()
        fleet.add(site, number)
    fleet.start()
    fleet.wait_up()
    for name in ("b", "c"):
        fleet.wait_carriers("hq", "default", name, ["1-1"], 60)
    return fleet


def tell_lines(config: dict[str, Any], b: int | None = 9, c: int | None = 50) -> None:
    """What the hub knows of the lines of its sites, in Mbit/s."""
    for peer, rate in zip(config["peers"], (b, c), strict=True):
        if rate is None:
            peer["uplinks"][0].pop("down", None)
        else:
            peer["uplinks"][0]["down"] = f"{rate} Mbit/s"
