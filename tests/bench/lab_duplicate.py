"""A call that is sent twice: one of two lines is cut, and both lose packets.

      a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                        === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===

The voice class of both sites is in mode `duplicate`. Story `cut`: 200 packets/s go from a's host
to b's, in IPv4 and in IPv6, and b's fibre, which carries the call, is cut towards b at twelve
phases of the probe interval; then the same is done to a call that is sent once. Story `loss`: each
line loses 5 % of what goes to b, independently of the other.
"""

from itertools import pairwise

from lab.fleet import Fleet
from lab.stream import Stream
from lab.topology import Lab
from tests.bench.measure import record, wait_for_phase
from tests.bench.worlds import fleet_of

CUTS, PPS, INTERVAL_MS = 12, 200, 50
SETTLE_S = 2.0
LOSS, LOSS_PPS, LOSS_S = 0.05, 1000, 11
EF = 46
TWICE = {"class": "voice", "mode": "duplicate", "hold": "1 s"}
ONCE = {"class": "voice", "hold": "1 s"}


def story_cut(lab: Lab) -> None:
    lost, twice, sent = cut(lab, TWICE)
    lab.start_over(seed=lab.seed)
    alone, *_ = cut(lab, ONCE)
    peer = {"name": "sent once", "value": sum(alone), "unit": "packets lost", "samples": alone}
    told = {"packets": sent, "packets_per_s": PPS, "cuts": CUTS, "probe_interval_ms": INTERVAL_MS}
    record(lab, "duplicate_cut_lost", sum(lost), "packets", samples=lost, peer=peer, **told)
    record(lab, "duplicate_cut_duplicates", sum(twice), "packets", samples=twice, **told)


def story_loss(lab: Lab) -> None:
    fleet = started(lab, TWICE)
    for uplink in fleet.sites["b"].uplinks.values():
        uplink.down.change(loss=LOSS)
    both = calls(lab, fleet, LOSS_PPS)
    lab.sleep_virtual(LOSS_S)
    results = [call.stop() for call in both]
    lost, sent = [sum(getattr(r, name) for r in results) for name in ("lost", "sent")]
    twice = sum(r.duplicates for r in results)
    record(
        lab,
        "duplicate_loss_ratio",
        lost / sent,
        "ratio",
        samples=[r.lost / r.sent for r in results],
        also=[{"what": "delivered twice", "value": twice, "unit": "packets", "limit": 0}],
        remark=f"{lost} of {sent} packets; {LOSS**2:.2%} is the least that can be",
        loss_ratio=LOSS,
        packets=sent,
        packets_per_s=LOSS_PPS,
    )


def cut(lab: Lab, policy: dict[str, str]) -> tuple[list[int], list[int], int]:
    """Packets lost and delivered twice by each cut, and how many were sent in all."""
    fleet = started(lab, policy)
    fibre = fleet.sites["b"].uplinks["fibre"]
    both = calls(lab, fleet, PPS)
    lost, seen = [], [0]
    for number in range(CUTS):
        lab.wait_until(
            lambda: fleet.carriers("a", "voice", "b") == ("1-1",), 90, "the call is on the fibre"
        )
        lab.sleep_virtual(SETTLE_S)
        wait_for_phase(INTERVAL_MS / 1000, number / CUTS)
        cut_s = lab.now_s
        fibre.down.cut()
        lab.sleep_virtual(SETTLE_S)
        lost.append(sum(call.lost(cut_s - 0.1, lab.now_s - 0.5) for call in both))
        seen.append(sum(call.result().duplicates for call in both))
        fibre.heal()
    results = [call.stop() for call in both]
    lab.check(sum(r.lost for r in results) == sum(lost), "nothing is lost but by cuts")
    twice = [after - before for before, after in pairwise(seen)]
    return lost, twice, sum(r.sent for r in results)


def started(lab: Lab, policy: dict[str, str]) -> Fleet:
    fleet = fleet_of(lab, ("a", "b"), policy, interval_ms=INTERVAL_MS)
    one, other = (fleet.sites[name].lans["lan0"].hosts[0] for name in "ab")
    for family in (4, 6):  # neighbours are known before anything counts
        lab.ping(one, other, count=2, family=family)
    lab.sleep_virtual(2)  # copies go where they are to go
    return fleet


def calls(lab: Lab, fleet: Fleet, pps: int) -> list[Stream]:
    one, other = (fleet.sites[name].lans["lan0"].hosts[0] for name in "ab")
    return [
        lab.stream(one, other, pps=pps, dscp=EF, family=family, port=9000 + family)
        for family in (4, 6)
    ]
