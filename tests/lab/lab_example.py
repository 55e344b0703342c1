"""A fibre line is cut; a call moves to the other line and home again. (The example of docs/LAB.md.)

a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                  === lte   25 ms ===+-- internet --+=== lte   25 ms ===
"""

from lab.fleet import Fleet
from lab.topology import Lab, Line


def story(lab: Lab) -> None:
    fleet = Fleet(lab, policies=[{"class": "voice", "hold": "5 s"}])
    for number, name in enumerate("ab", start=1):
        site = lab.site(name)
        site.uplink("fibre", down=Line(delay_ms=10))
        site.uplink("lte", down=Line(delay_ms=25, jitter_ms=2))
        site.lan()
        fleet.add(site, number)
    a, b = fleet.sites.values()
    fleet.start()
    lab.say(f"all paths are up after {fleet.wait_up():.1f} s")

    call = lab.stream(a.lans["lan0"].hosts[0], b.lans["lan0"].hosts[0], pps=200, dscp=46)
    lab.sleep_virtual(2)
    cut_s = lab.now_s
    b.uplinks["fibre"].down.cut()
    fleet.wait_carriers("a", "voice", "b", ["*-2"], timeout_s=5)
    lab.sleep_virtual(1)
    lost = call.lost(since_s=cut_s)  # packets that may still be on their way do not count
    lab.record("blackout_lost", lost, "packets", pps=200)
    lab.check(lost < 40, f"the call loses {lost} packets, less than 0.2 s")

    b.uplinks["fibre"].heal()
    took_s = fleet.wait_carriers("a", "voice", "b", ["1-1"], timeout_s=60)
    lab.check(took_s > 5, f"it is home after {took_s:.1f} s, not before the hold time")
    lab.check(call.stop().lost == lost, "the way home loses nothing")
