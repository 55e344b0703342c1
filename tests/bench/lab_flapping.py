"""A line that flaps: down for 15 s, up for 15 s, for ten minutes.

      a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms (flaps) === [b] --- h1
                        === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===========

b's fibre is cut both ways and healed every 15 s. Voice of a must leave it as fast as in a blackout
whenever it is there, and must not come back more than once a minute, though its policy is content
with 10 s of a clean line. Nor must the default class with the usual 60 s; the worse of both counts.
The voluntary moves come from the history of a, the time on the dead path from the gaps of a stream
of 200 packets a second in the voice class.
"""

import json

from lab.topology import Lab
from tests.bench.measure import record
from tests.bench.worlds import fleet_of

MINUTES = 10
HALF_PERIOD_S = 15.0
PPS = 200
WINDOW_S = 60.0
BLACKOUT_MS = 60.0  # 0.8 of the 15 packets that BIRD with BFD at 20 ms x 3 loses, at 5 ms each
HOLD_S = {"voice": 10, "default": 60}
POLICY = {"class": "voice", "tiers": ["fibre", "dsl"], "hold": "10 s"}


def story(lab: Lab) -> None:
    fleet = fleet_of(lab, ("a", "b"), POLICY, interval_ms=20)
    a, b = fleet.sites["a"], fleet.sites["b"]
    for name in HOLD_S:
        fleet.wait_carriers("a", name, "b", ["1-1"], 120)
    lab.sleep_virtual(5)
    stream = lab.stream(a.lans["lan0"].hosts[0], b.lans["lan0"].hosts[0], pps=PPS, dscp=46)
    lab.sleep_virtual(3)  # its start keeps the one core busy, and answers late, for a moment
    begun_s = lab.now_s
    lost = []
    for n in range(int(MINUTES * 60 / HALF_PERIOD_S / 2)):
        start_s = begun_s + 2 * n * HALF_PERIOD_S
        lab.at(start_s)
        b.uplinks["fibre"].cut()
        lab.at(start_s + HALF_PERIOD_S)
        b.uplinks["fibre"].heal()
        lost.append(stream.lost(start_s - 0.1, lab.now_s - 1))
    lab.at(begun_s + MINUTES * 60)
    result = stream.stop()
    moves = json.loads(fleet.supervisor("a").command("history", "--json"))["moves"]
    for move in moves:
        lab.say(f"{move['class_name']}: {move['reason']}")
    voluntary = {
        name: sorted(
            m["at"]
            for m in moves
            if (m["class_name"], m["site"]) == (name, "b") and m["is_voluntary"]
        )
        for name in HOLD_S
    }
    worse = max(HOLD_S, key=lambda name: most_within(WINDOW_S, voluntary[name]))
    lab.say(f"lost per flap {lost}; voluntary moves {voluntary}; {result}")
    record(
        lab,
        "flapping_moves_per_min",
        most_within(WINDOW_S, voluntary[worse]),
        "moves",
        samples=voluntary[worse],
        also=[
            {
                "what": "longest on a dead path",
                "value": max(lost) * 1000 / PPS,
                "unit": "ms",
                "limit": BLACKOUT_MS,
            }
        ],
        minutes=MINUTES,
        period_s=2 * HALF_PERIOD_S,
        lost_per_flap=lost,
        moves_in_all=len(moves),
        hold_s=HOLD_S[worse],
    )


def most_within(seconds: float, times: list[float]) -> int:
    """How many of them lie within so many seconds, at most."""
    return max((sum(t <= u < t + seconds for u in times) for t in times), default=0)
