"""What a policy asks for beyond the best path: sharing, failing closed, sparing a metered line.

a-lan0-h1 --- [a] === fibre 10 ms ===+              +=== fibre 10 ms === [b] --- b-lan0-h1
                  === dsl   20 ms ===+-- internet --+=== dsl   20 ms ===
"""

from lab.fleet import Fleet
from lab.topology import Lab, Site
from tests.lab.boxes import branch, hosts, pair, warnings

FLOWS = 200
# Each flow is 20 packets of voice from a port of its own. One begins after the other: 4 MB at once
# would keep the one core of both boxes so busy that probes are missed.
MANY_FLOWS = """
import socket, sys, time
for _ in range(int(sys.argv[2])):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xB8)
        for _ in range(20):
            s.sendto(bytes(1000), (sys.argv[1], 9000))
    time.sleep(0.02)
"""
EVEN = {"class": "voice", "tiers": [["fibre", "dsl"]], "mode": "share", "hold": "5 s"}


def sent_by_planes(site: Site) -> dict[str, int]:
    """Octets that left by each plane device so far."""
    shown = site.run(["sh", "-c", "cd /sys/class/net; grep . bl-?-?/statistics/tx_bytes"])
    pairs = (line.split("/statistics/tx_bytes:") for line in shown.split())
    return {device: int(octets) for device, octets in pairs}


def story_share_spreads_flows(lab: Lab) -> None:
    fleet = pair(lab, [EVEN])
    lab.wait_until(
        lambda: len(fleet.carriers("a", "voice", "b")) == 4, 30, "four paths share voice"
    )
    ours, theirs = hosts(fleet)
    before = sent_by_planes(fleet.sites["a"])
    ours.run(["python3", "-c", MANY_FLOWS, theirs.address(), str(FLOWS)])
    after = sent_by_planes(fleet.sites["a"])
    sent = {device: after[device] - before[device] for device in after}
    lab.say(f"octets by plane: {sent}")
    lab.check(
        all(octets > 0.15 * sum(sent.values()) for octets in sent.values()),
        "each of the four carries its share of the flows",
    )
    streams = [
        lab.stream(ours, theirs, pps=50, dscp=46, port=9100 + n, source_port=9300 + n)
        for n in range(8)
    ]
    lab.sleep_virtual(1)
    cut_s = lab.now_s
    fleet.sites["b"].uplinks["fibre"].down.cut()
    lab.wait_until(
        lambda: all(p.endswith("-2") for p in fleet.carriers("a", "voice", "b")),
        5,
        "b's fibre left",
    )
    lab.sleep_virtual(2)
    results = [stream.result(cut_s - 0.1, lab.now_s - 1) for stream in streams]
    longest = max(r.longest_gap_ms for r in results)
    lab.check(longest < 400, f"every flow goes on: the longest gap is {longest:.0f} ms")
    for stream in streams:
        stream.stop()


def story_fail_closed_discards(lab: Lab) -> None:
    """Nothing of a class that may not go may get out, least of all by the plain internet."""
    fleet = pair(
        lab,
        [
            {
                "class": "voice",
                "sla": {"delay": "25 ms"},
                "tiers": ["fibre"],
                "fallback": "fail-closed",
            }
        ],
        probing={"interval": "20 ms"},
    )
    fleet.wait_carriers("a", "voice", "b", ["1-1"], 90)
    lab.internet.nft(
        "table inet wire {\ncounter plain { }\n"
        "chain watch { type filter hook prerouting priority raw\n"
        "udp dport 9000 counter name plain\n}\n}\n"
    )
    stream = lab.stream(*hosts(fleet), dscp=46)
    other = lab.stream(*hosts(fleet), pps=50, port=9500)
    lab.sleep_virtual(2)
    lab.check(stream.received > 300, "while its path is good, voice arrives")
    fleet.sites["b"].uplinks["fibre"].down.change(delay_ms=60)
    lab.wait_until(lambda: not fleet.carriers("a", "voice", "b"), 10, "voice has no carrier")
    lab.sleep_virtual(1)
    closed_s, received = lab.now_s, stream.received
    lab.sleep_virtual(2)
    lab.check(stream.received == received, "closed: not one packet of voice arrives any more")
    for path in ("fibre", "dsl"):
        fleet.sites["a"].uplinks[path].cut()
    lab.sleep_virtual(2)
    lab.check(stream.sent > (closed_s - 2) * 10, "though the host goes on sending")
    counted = lab.internet.run(["nft", "list", "counter", "inet", "wire", "plain"])
    lab.check("packets 0 " in counted, "and none was ever seen unencrypted on the wire")
    told = warnings(fleet, "a")
    lab.check("class-discarded" in told, f"a says so: {told}")
    for each in (stream, other):
        each.stop()


def story_a_metered_uplink_is_spared(lab: Lab) -> None:
    fleet = Fleet(
        lab,
        policies=[
            {"class": "voice", "hold": "5 s"},
            {"class": "default", "metered": False, "hold": "5 s"},
        ],
    )
    a, b = branch(lab, "a"), branch(lab, "b")
    fleet.add(a, 1, lambda config: config["uplinks"][1].update(metered=True))  # the dsl
    fleet.add(b, 2)
    fleet.start()
    fleet.wait_up(60)
    fleet.wait_carriers("a", "default", "b", ["1-1"], 60)
    counters = fleet.path("a", "b/2-2")
    lab.check(counters["probe_interval_s"] >= 0.5, "a metered path in reserve is probed sparingly")
    a.uplinks["fibre"].cut()
    lab.wait_until(
        lambda: fleet.carriers("a", "voice", "b")[0].startswith("2-"), 5, "voice goes over the dsl"
    )
    lab.sleep_virtual(2)
    lab.check(
        not any(p.startswith("2-") for p in fleet.carriers("a", "default", "b")),
        "the default class never does",
    )
    sender, receiver = hosts(fleet)
    lab.check(lab.ping(sender, receiver, count=3, dscp=46).received == 3, "voice gets through")
    lab.check(lab.ping(sender, receiver, count=3).received == 0, "the default class does not")
