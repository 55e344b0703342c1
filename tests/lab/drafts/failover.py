"""Paths and uplinks die and come back; the classes follow, and the box says why.

      a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                        === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===

Probes go every 50 ms. A class is home again after 5 s of a clean path.
"""

from lab.topology import Lab
from tests.lab.boxes import asked, hosts, moves, pair, warnings

HOLD_S = 5.0


def story_a_far_uplink_goes_dark(lab: Lab) -> None:
    fleet = pair(lab)
    for name in ("voice", "default"):
        fleet.wait_carriers("a", name, "b", ["1-1"], 60)
    stream = lab.stream(*hosts(fleet), dscp=46)
    lab.sleep_virtual(2)
    cut_s = lab.now_s
    fleet.sites["b"].uplinks["fibre"].down.cut()
    for name in ("voice", "default"):
        fleet.wait_carriers("a", name, "b", ["1-2"], 5)
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
    lab.check(lost <= 40, f"the call loses {lost} packets: at most 200 ms")
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
    """A packet is taken on whatever plane it comes, though its answer would go by another."""
    fleet = pair(lab)
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    streams = [lab.stream(*hosts(fleet), dscp=46, family=f, port=9000 + f) for f in (4, 6)]
    fleet.supervisor("b").pause()  # b's routes stay as they are
    fleet.sites["a"].uplinks["fibre"].unplug()
    lab.sleep_virtual(2)
    for stream in streams:
        lost = stream.stop().lost
        lab.check(lost <= 3, f"a moves, b does not: {lost} packets are lost")
    fleet.supervisor("b").resume()


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
    lab.check("no-path" not in warnings(fleet, "a"), "and the warning has ended")
