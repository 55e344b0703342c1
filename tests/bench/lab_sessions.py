"""A hundred long-lived TCP sessions live through a blackout.

      a-lan0-h1 --- [a] === fibre 10 ms ===+              +=x= fibre 10 ms === [b] --- b-lan0-h1
                        === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===

Each session says something every second and awaits the echo. b's fibre goes dark both ways for 60 s
and comes back. A session survives when what it says afterwards is answered.
"""

from lab.topology import Lab
from tests.bench.measure import record
from tests.bench.worlds import fleet_of

SESSIONS = 100
DARK_S = 60.0
POLICY = {"class": "voice", "tiers": ["fibre", "dsl"], "hold": "10 s"}


def story(lab: Lab) -> None:
    fleet = fleet_of(lab, ("a", "b"), POLICY, interval_ms=20)
    a, b = fleet.sites["a"], fleet.sites["b"]
    fleet.wait_carriers("a", "default", "b", ["1-1"], 120)
    hosts = a.lans["lan0"].hosts[0], b.lans["lan0"].hosts[0]
    sessions = lab.tcp_sessions(*hosts, count=SESSIONS, interval_s=1.0)
    lab.require(sessions.check().survived == SESSIONS, "all sessions speak before the blackout")
    b.uplinks["fibre"].cut()
    dark = sessions.check()
    lab.say(f"in the dark: {dark}")
    lab.sleep_virtual(DARK_S)
    b.uplinks["fibre"].heal()
    fleet.wait_carriers("a", "default", "b", ["1-1"], 180)
    after = sessions.check()
    lab.say(f"after the return: {after}")
    sessions.stop()
    record(
        lab,
        "tcp_sessions_survived",
        min(dark.survived, after.survived),
        "sessions",
        samples=[dark.survived, after.survived],
        longest_stall_ms=after.longest_stall_ms,
        remark=f"longest stall {after.longest_stall_ms:.0f} ms",
        dark_s=DARK_S,
    )
