"""What a box takes a flow for, and what it makes of a DSCP.

a-lan0-h1, a-lan0-h2 --- [a] === fibre, shaped ===+              +=== fibre === [b] --- b-lan0-h1
a-lan1-h1 (guests)   ---     === dsl           ===+-- internet --+=== dsl   ===

The guests' LAN is not trusted. What a-lan0-h2 begins is bulk and leaves a as CS1.
"""

import json
import re
from typing import Any

from lab.fleet import VOICE, Fleet
from lab.line import Line
from lab.topology import Family, Host, Lab, Site
from tests.lab.boxes import asked, hosts

EF, CS1, CLASS_SHIFT = 46, 8, 28
RATE_MBIT = 19
# One datagram, or the first packet of a connection, to each port, with a DSCP.
SEND = """
import socket, sys
for line in sys.argv[1:]:
    protocol, host, port, dscp = line.split()
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
    with socket.socket(family, kind) as s:
        if family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, int(dscp) << 2)
        else:
            s.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, int(dscp) << 2)
        s.settimeout(0.3)
        try:
            s.connect((host, int(port)))
            s.send(b"x")
        except OSError:
            pass
"""


def world(lab: Lab) -> Fleet:
    fleet = Fleet(lab, probing={"interval": "50 ms"})
    full = Line(delay_ms=10, rate_mbit=RATE_MBIT + 1, buffer_packets=1000)
    a, b = lab.site("a"), lab.site("b")
    for site in (a, b):
        site.uplink("fibre", down=full, up=full)
        site.uplink("dsl", down=Line(delay_ms=20))
    office = a.lan(hosts=2)
    a.lan("lan1")
    b.lan()
    fleet.add(a, 1, lambda config: of_a(config, mac(office.hosts[1])))
    fleet.add(b, 2)
    fleet.start()
    fleet.wait_up()
    fleet.wait_carriers("a", "default", "b", ["1-1"], 60)
    return fleet


def of_a(config: dict[str, Any], device: str) -> None:
    rate = f"{RATE_MBIT} Mbit/s"
    config["uplinks"][0]["shaping"] = {"up": rate, "down": rate, "overhead": 14}
    config["lans"][1]["trust_dscp"] = False
    config["applications"] = [
        {"name": "till", "match": [{"protocol": "udp", "ports": 7000, "to": "192.168.0.0/16"}]}
    ]
    config["classes"] = [
        VOICE,
        {"name": "desk", "match": [{"application": ["rdp", "till"]}]},
        {"name": "bulk", "set_dscp": "cs1", "match": [{"device": device}]},
        {"name": "guests", "match": [{"lan": "lan1", "protocol": "udp"}]},
    ]


def mac(host: Host) -> str:
    return str(json.loads(host.run(["ip", "-j", "link", "show", "eth0"]))[0]["address"])


def count_dscp(host: Host) -> None:
    """Count TCP packets that come in, by DSCP and family."""
    names = {"ef": EF, "cs1": CS1, "df": 0}
    rules = "".join(
        f"meta nfproto ipv{v} meta l4proto tcp {word} dscp {dscp} counter name {name}{v}\n"
        for name, dscp in names.items()
        for v, word in ((4, "ip"), (6, "ip6"))
    )
    counters = "".join(f"counter {name}{v} {{ }}\n" for name in names for v in (4, 6))
    host.nft(
        "table inet seen {}\ndelete table inet seen\n"
        f"table inet seen {{\n{counters}chain come {{ type filter hook prerouting priority raw\n"
        f"{rules}}}\n}}\n"
    )


def counted(host: Host, name: str) -> int:
    listed = host.run(["nft", "list", "counter", "inet", "seen", name])
    return int(re.findall(r"packets (\d+)", listed)[0])


def flow_of(site: Site, source: str, protocol: str = "tcp") -> str:
    return site.run(["conntrack", "-L", "-p", protocol, "-s", source], check=False) + site.run(
        ["conntrack", "-L", "-f", "ipv6", "-p", protocol, "-s", source], check=False
    )


def tcp(
    fleet: Fleet, one: Host, other: Host, family: Family, dscp: int
) -> tuple[str, dict[str, int]]:
    """A TCP run with a DSCP: what the box has of its flows while it runs; what the far end saw."""
    count_dscp(other)
    tos = hex(dscp << 2)
    run = fleet.lab.start_iperf3(one, other, seconds=4, family=family, options=("-S", tos))
    fleet.lab.sleep_virtual(3)
    flows = flow_of(fleet.sites["a"], one.address(family))
    run.result()
    return flows, {name: counted(other, f"{name}{family}") for name in ("ef", "cs1", "df")}


def story_a_dscp_is_believed_taken_away_or_given(lab: Lab) -> None:
    fleet = world(lab)
    office, far = hosts(fleet)
    upload = fleet.sites["a"].lans["lan0"].hosts[1]
    guest = fleet.sites["a"].lans["lan1"].hosts[0]
    families: tuple[Family, ...] = (4, 6)
    for family in families:
        flows, seen = tcp(fleet, office, far, family, EF)
        lab.check("[OFFLOAD]" in flows, f"IPv{family}: a flow of the office has the fast path")
        lab.check(seen["ef"] > 1000, f"and its EF arrives: {seen}")
        flows, seen = tcp(fleet, guest, far, family, EF)
        lab.check("[OFFLOAD]" in flows, f"IPv{family}: a flow of a guest has it, too")
        lab.check(
            seen["ef"] == 0 and seen["df"] > 1000, f"and not one packet of it arrives as EF: {seen}"
        )
        before = bulk_tin(fleet.sites["a"])
        flows, seen = tcp(fleet, upload, far, family, 0)
        lab.check("[OFFLOAD]" not in flows, f"IPv{family}: what gets a DSCP has no fast path")
        lab.check(
            seen["df"] == 0 and seen["cs1"] > 1000, f"and every packet arrives as CS1: {seen}"
        )
        waited = bulk_tin(fleet.sites["a"]) - before
        lab.check(waited > 1000, f"the shaper had {waited} of them in its last tin")


def bulk_tin(site: Site) -> int:
    """Packets that waited in the last tin of a's shaper so far."""
    told = json.loads(site.run(["tc", "-s", "-j", "qdisc", "show", "dev", "bl-up1"]))
    return int(told[0]["tins"][0]["sent_packets"])


def story_a_lan_that_is_not_there_takes_nothing_else_away(lab: Lab) -> None:
    fleet = world(lab)
    one, other = hosts(fleet)
    a = fleet.sites["a"]
    supervisor = fleet.supervisor("a")
    supervisor.kill()
    # The table goes, too: what stands afterwards was loaded without the device.
    a.run(["sh", "-c", "ip link del lan1; nft delete table inet branchline"])
    supervisor.start()
    list_table = ["nft", "list", "table", "inet", "branchline"]
    lab.wait_until(
        lambda: "chain classify" in a.run(list_table, check=False), 60, "the table is loaded again"
    )
    lab.check("chain untrusted" not in a.run(list_table), "without the guests' device")
    lab.check(lab.ping(one, other, count=3).received == 3, "and the office reaches b")


def story_what_is_said_of_a_flow_is_what_the_kernel_does(lab: Lab) -> None:
    """Real packets from real hosts; the kernel's word is the mark in conntrack."""
    fleet = world(lab)
    a = fleet.sites["a"]
    office, device = a.lans["lan0"].hosts
    guest, far = a.lans["lan1"].hosts[0], hosts(fleet)[1]
    for called in (office, far):
        # The kernel forgets a connection at once whose first answer is a refusal.
        called.nft(
            "table inet deaf { chain come { type filter hook prerouting priority raw\n"
            "tcp dport 3000-8000 drop\n}\n}\n"
        )
    families: tuple[Family, ...] = (4, 6)
    for family in families:
        for host, lan in ((office, "lan0"), (device, "lan0"), (guest, "lan1"), (far, None)):
            to = (office if host is far else far).address(family)
            lines = [f"{protocol} {to} {port} {dscp}" for protocol, port, dscp in SENT]
            host.run(["python3", "-c", SEND, *lines])
            found = [class_in_kernel(fleet, host.address(family), to, *flow[:2]) for flow in SENT]
            told = [class_as_told(fleet, host, lan, to, *flow) for flow in SENT]
            lab.check(found == told, f"IPv{family}, {host.name}: told {told}, found {found}")
            lab.check(len(set(found)) > 1, "of more than one class")


# Protocol, port and DSCP.
SENT = (
    *(("udp", 7000, 0), ("udp", 7001, 0), ("udp", 7002, EF), ("udp", 3389, 0)),
    *(("tcp", 3389, 0), ("tcp", 7003, 0), ("tcp", 7004, EF), ("tcp", 3390, CS1)),
)


def class_in_kernel(fleet: Fleet, source: str, to: str, protocol: str, port: int) -> str:
    words = ["conntrack", "-L", "-f", "ipv6" if ":" in to else "ipv4", "-p", protocol]
    listed = fleet.sites["a"].run([*words, "--orig-port-dst", str(port), "-s", source, "-d", to])
    names = dict(enumerate((each["name"] for each in fleet.config("a")["classes"]), start=1))
    (mark,) = {int(mark) for mark in re.findall(r"\bmark=(\d+)", listed)}
    return str({**names, 15: "default"}[mark >> CLASS_SHIFT])


def class_as_told(
    fleet: Fleet, host: Host, lan: str | None, to: str, protocol: str, port: int, dscp: int
) -> str:
    source = host.address(6 if ":" in to else 4)
    words = ["--protocol", protocol, "--port", str(port), "--dscp", str(dscp)]
    words += ["--device", mac(host)] if lan is not None else []
    told = asked(fleet, "a", "classify", "--from", source, "--to", to, *words)
    assert told["lan"] == lan
    return str(told["class_name"])


def story_live_flows_are_listed_with_their_rates(lab: Lab) -> None:
    """Also those of the fast path, and those of a class that has none."""
    fleet = world(lab)
    office, far = hosts(fleet)
    upload = fleet.sites["a"].lans["lan0"].hosts[1]
    mbit = {office: 4, upload: 3}
    # In small blocks: of the usual 128 KiB, a second has three or four.
    runs = [
        lab.start_iperf3(one, far, seconds=10, options=("-b", f"{rate}M", "-l", "4K"))
        for one, rate in mbit.items()
    ]
    lab.sleep_virtual(3)
    told = asked(fleet, "a", "flows")
    for run in runs:
        run.result()
    lab.check(told["is_complete"], f"all of {told['count']} flows were looked at")
    fast, slow = told["flows"][:2]
    for flow, host, class_name, is_fast in (
        (fast, office, "default", True),
        (slow, upload, "bulk", False),
    ):
        rate = flow["sent_bps"] / 1e6
        lab.check(flow["source"] == host.address(), f"{rate:.2f} Mbit/s from {flow['source']}")
        lab.check(abs(rate / mbit[host] - 1) < 0.2, f"of {mbit[host]} Mbit/s")
        lab.check(
            (flow["class_name"], flow["is_fast"], flow["site"]) == (class_name, is_fast, "b"),
            f"{flow['class_name']} to {flow['site']}, fast: {flow['is_fast']}: {flow['rule']}",
        )
        lab.check(
            [each["path"] for each in flow["carriers"]] == ["b/1-1"], "over the path of its class"
        )
    voice = asked(fleet, "a", "flows", "--class", "voice")
    lab.check(voice["flows"] == [], "and none of a class that has none")


def story_ten_thousand_entries_are_in_force_within_two_seconds(lab: Lab) -> None:
    """Read, checked, compiled, loaded, verified: what a reload takes beyond one for nothing."""
    fleet = world(lab)
    office, far = hosts(fleet)
    entries = [f"10.{n // 250}.{n % 250}.0/25" for n in range(9_999)] + [f"{far.address()}/32"]
    config = fleet.config("a")
    config["classes"][1]["match"] = [{"to": entries, "protocol": "udp"}]
    supervisor = fleet.supervisor("a")
    took_s = []
    for text in (fleet.config("a"), config):
        supervisor.write_config(text)
        begun_s = lab.now_s
        supervisor.command("reload")
        took_s.append(lab.now_s - begun_s)
    nothing_s, all_s = took_s
    lab.say(f"a reload that changes nothing takes {nothing_s:.2f} s, this one {all_s:.2f} s")
    lab.record("ten_thousand_entries", all_s - nothing_s, "s")
    lab.check(all_s - nothing_s < 2, f"{len(entries)} entries are in force")
    office.run(["python3", "-c", SEND, f"udp {far.address()} 7000 0"])
    found = class_in_kernel(fleet, office.address(), far.address(), "udp", 7000)
    lab.check(found == "desk", f"the last of them takes a flow: {found}")
