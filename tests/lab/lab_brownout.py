"""A line gets worse without dying: the class with an SLA leaves it, the others stay.

      a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                        === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===

voice allows 80 ms and 1 % loss, the default class has no limits.
"""

from lab.fleet import VOICE_SLA, Fleet
from lab.topology import Lab, Lan
from tests.lab.boxes import branch, hosts, moves, pair, warnings

POLICIES = (
    {"class": "voice", "sla": VOICE_SLA, "hold": "5 s"},
    {"class": "default", "hold": "5 s"},
)
TWENTY_MS = {"interval": "20 ms"}


def why_it_left(lab: Lab, fleet: Fleet) -> str:
    """The reason of the first move but the initial ones."""
    move = next(move for move in moves(fleet, "a") if move["cause"] != "initial")
    lab.say(move["reason"])
    lab.check(move["cause"] == "sla-violated", "it left because of its SLA")
    return str(move["reason"])


def story_delay_grows(lab: Lab) -> None:
    fleet = pair(lab, POLICIES, probing=TWENTY_MS)
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    stream = lab.stream(*hosts(fleet), dscp=46)
    lab.sleep_virtual(3)
    line = fleet.sites["b"].uplinks["fibre"].down
    for delay_ms in range(20, 100, 10):  # a queue fills: a leap of 80 ms would look like death
        line.change(delay_ms=delay_ms)
        lab.sleep_virtual(0.1)
    took_s = fleet.wait_carriers("a", "voice", "b", ["1-2"], 5)
    lab.record("delay_brownout", took_s, "s", probe_interval_ms=20)
    lab.check(took_s < 1, f"voice leaves within {took_s:.2f} s of the worst")
    lab.check(fleet.carriers("a", "default", "b") == ("1-1",), "the default class stays")
    reason = why_it_left(lab, fleet)
    lab.check("delay" in reason, "with the delay as reason")
    lab.check("80 ms" in reason, "and the limit")
    line.change(delay_ms=10)
    took_s = fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    lab.check(took_s > 5, f"healed, voice returns after {took_s:.1f} s: the hold time is kept")
    lab.check(stream.stop().lost == 0, "no packet is lost by any of it")


def story_loss_begins(lab: Lab) -> None:
    fleet = pair(lab, POLICIES, probing=TWENTY_MS)
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    lab.sleep_virtual(3)
    fleet.sites["b"].uplinks["fibre"].down.change(loss=0.05)
    took_s = fleet.wait_carriers("a", "voice", "b", ["1-2"], 15)
    lab.record("loss_brownout", took_s, "s", loss=0.05, probe_interval_ms=20)
    lab.check(took_s < 5, f"voice leaves after {took_s:.2f} s")
    lab.check(fleet.carriers("a", "default", "b") == ("1-1",), "the default class stays")
    reason = why_it_left(lab, fleet)
    lab.check("loss" in reason, "with the loss as reason")
    lab.check("1 %" in reason, "and the limit")


def story_a_line_that_reorders_and_duplicates_is_not_a_lossy_one(lab: Lab) -> None:
    fleet = pair(lab, POLICIES, probing=TWENTY_MS)
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    for name in "ab":
        fleet.sites[name].uplinks["fibre"].down.change(reorder=0.03, duplicate=0.02)
    lab.sleep_virtual(3)
    before = [len(moves(fleet, name)) for name in "ab"]
    stream = lab.stream(*hosts(fleet), pps=200, dscp=46)
    lab.sleep_virtual(20)
    result = stream.stop()
    lab.check(result.reordered > 0, f"{result.reordered} packets were overtaken")
    lab.check(result.duplicates == 0, "what the line doubles, WireGuard drops")
    lab.check(result.lost == 0, f"{result.lost} packets were lost")
    after = [len(moves(fleet, name)) for name in "ab"]
    lab.check(after == before, f"nothing moves within 20 s of traffic: {before}, {after}")


def story_traffic_that_the_far_end_does_not_know_accuses_no_path(lab: Lab) -> None:
    """b was never told of a's second LAN: it drops what comes from there, on perfect lines."""
    fleet = Fleet(lab, policies=POLICIES, probing=TWENTY_MS)
    a, b = branch(lab, "a"), branch(lab, "b")
    guests = a.lan("lan1")
    fleet.add(a, 1)
    fleet.add(b, 2, lambda config: config["peers"][0].update(prefixes=prefixes(a.lans["lan0"])))
    fleet.start()
    fleet.wait_up()
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 60)
    lab.sleep_virtual(3)
    before = len(moves(fleet, "a"))
    far = b.lans["lan0"].hosts[0]
    unknown = lab.stream(guests.hosts[0], far, pps=50, dscp=46)
    known = lab.stream(a.lans["lan0"].hosts[0], far, pps=50, dscp=46, port=6000)
    lab.sleep_virtual(12)
    a.run(["python3", "-c", FROM_THE_BOX, far.address(6)])  # from its management address
    lab.sleep_virtual(3)
    told = warnings(fleet, "a")
    lab.say(told.get("traffic-uncounted", "no warning"))
    lab.check("traffic-uncounted" in told, "a says that its packets are not counted there")
    result = unknown.stop()
    lab.check(result.lost == result.sent, f"all {result.sent} packets of the second LAN were lost")
    lab.check(known.stop().lost == 0, "none of the first")
    lab.check(len(moves(fleet, "a")) == before, "and nothing has moved")


FROM_THE_BOX = """
import socket, sys, time
sender = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
for _ in range(100):
    sender.sendto(b"x", (sys.argv[1], 9))
    time.sleep(0.05)
"""


def prefixes(lan: Lan) -> list[str]:
    return [str(lan.address4.network), str(lan.address6.network)]


def story_a_line_that_stands_still_is_left_once_and_then_trusted(lab: Lab) -> None:
    """60 ms without a packet look like death, when an answer is due after 20 ms."""
    fleet = pair(lab, POLICIES, probing=TWENTY_MS)
    fleet.wait_carriers("a", "default", "b", ["1-1"], 60)
    line = fleet.sites["b"].uplinks["fibre"].down
    line.change(jitter_ms=0.1)  # with any jitter the line keeps the order of packets
    stream = lab.stream(*hosts(fleet), pps=200)
    lab.sleep_virtual(8)

    def stand_still() -> None:
        line.change(delay_ms=70)
        lab.sleep_virtual(0.06)
        line.change(delay_ms=10)

    stand_still()
    lab.sleep_virtual(0.5)
    first = moves(fleet, "a", "default")
    lab.say(first[-1]["reason"])
    took_s = fleet.wait_carriers("a", "default", "b", ["1-1"], 10)
    lab.check(took_s < 3, f"the class is home {took_s + 0.5:.1f} s after the first time")
    before = len(moves(fleet, "a", "default"))
    for _ in range(6):
        lab.sleep_virtual(4)
        stand_still()
    lab.sleep_virtual(1)
    after = moves(fleet, "a", "default")
    lab.check(len(after) == before, f"six more times move nothing: {after[-1]['reason']}")
    so_far = stream.lost()
    lab.check(so_far == 0, f"{so_far} packets were lost by all of it")
    cut_s = lab.now_s
    line.cut()
    fleet.wait_carriers("a", "default", "b", ["*-2"], 5)
    lab.sleep_virtual(1)
    lost = stream.lost(since_s=cut_s)
    stream.stop()
    lab.record("lost_after_standing_still", lost, "packets", pps=200, probe_interval_ms=20)
    lab.check(lost < 50, f"its death costs {lost} packets, less than 0.25 s")
