"""What gets through a box, and what does not: classes, marks, counters, default deny, isolation.

a-lan0-h1 --- [a] === fibre ===+              +=== fibre === [b] --- b-lan0-h1
                  === dsl   ===+-- internet --+=== dsl   ===
                                   |
                                 server
"""

import re

from lab.topology import Family, Host, Lab, Site
from tests.lab.boxes import hosts, pair, warnings

FAMILIES: tuple[Family, ...] = (4, 6)
VOICE_MARK, CLASS_MASK = 0x10000000, 0xF0000000
SLA: tuple[dict[str, str], ...] = (
    {"class": "voice", "hold": "5 s"},
    {"class": "default", "hold": "5 s"},
)


_DOOR = """
import socket
s = socket.create_server(("", 2222), family=socket.AF_INET6, dualstack_ipv6=True)
while True:
    s.accept()[0].close()
"""


def _reaches(host: Host | Site, address: str, port: int) -> bool:
    program = (
        "import socket,sys\n"
        "try: socket.create_connection((sys.argv[1], int(sys.argv[2])), 2).close()\n"
        "except OSError: print('no')\n"
    )
    return "no" not in host.run(["python3", "-c", program, address, str(port)])


_ECHO = """
import socket
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s:
    s.bind(("::", 7))
    while True:
        s.sendto(*s.recvfrom(2000))
"""
_ASK = """
import socket, sys
address, source = sys.argv[1], int(sys.argv[2])
with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.bind(("", source))
    s.settimeout(1)
    for _ in range(3):
        try:
            s.sendto(b"?", (address, 7))
            print("answered", s.recv(9).decode())
            break
        except OSError:
            pass
"""


def _is_answered(host: Host, address: str, source: int) -> bool:
    """Does a datagram from this port come back?"""
    return "answered" in host.run(["python3", "-c", _ASK, address, str(source)])


def _mark(site: Site, protocol: str, port: int) -> set[int]:
    """Conntrack marks of flows to a port."""
    listed = site.run(["conntrack", "-L", "-p", protocol, "--orig-port-dst", str(port)])
    return {int(mark) for mark in re.findall(r"\bmark=(\d+)", listed)}


def _counted(site: Site, name: str) -> int:
    listed = site.run(["nft", "list", "counter", "netdev", "branchline", name])
    return int(re.findall(r"packets (\d+)", listed)[0])


def story_flows_are_classed_alike_at_both_ends_counted_and_cut_to_the_tunnel(lab: Lab) -> None:
    fleet = pair(lab, SLA)
    a, b = fleet.sites["a"], fleet.sites["b"]
    ours, theirs = hosts(fleet)
    names = [f"{way}_{plane}_{site}" for plane in ("1_1", "2_2") for way, site in (("tx", 2),)]
    before = [_counted(a, name) for name in names], _counted(b, "rx_1_1_1")
    voice = lab.stream(ours, theirs, dscp=46, port=9000)
    plain = lab.stream(ours, theirs, pps=100, port=9500)
    lab.sleep_virtual(2)
    for stream in (voice, plain):
        stream.stop()
    lab.sleep_virtual(0.5)
    for site in (a, b):
        voices, others = _mark(site, "udp", 9000), _mark(site, "udp", 9500)
        lab.check(
            {mark & CLASS_MASK for mark in voices} == {VOICE_MARK}
            and {mark & CLASS_MASK for mark in others} != {VOICE_MARK},
            f"{site.name} keeps voice {voices} apart from the rest {others} in conntrack",
        )
    sent = _counted(a, "tx_1_1_2") - before[0][0]
    received = _counted(b, "rx_1_1_1") - before[1]
    lab.check(
        sent == received == voice.sent + plain.sent,
        f"a counted {sent} packets into plane 1-1 and b {received} out of it, of "
        f"{voice.sent + plain.sent}",
    )
    lab.check(_counted(a, "tx_2_2_2") == before[0][1], "and none on a plane that carried nothing")
    offload = lab.iperf3(ours, theirs, seconds=1)
    lab.check(offload.forward_mbit > 20, f"TCP goes at {offload.forward_mbit:.0f} Mbit/s")
    lab.check(_counted(a, "tx_1_1_2") - before[0][0] == sent, "and is not counted: GSO merges it")
    theirs.background(["python3", "-c", _DOOR], name="door")
    lab.wait_until(lambda: _reaches(ours, theirs.address(), 2222), 5, "b's host listens")
    # Padded probes may have been lost among the load: what they found is doubted 10 s later.
    lab.wait_until(lambda: "path-mtu" not in warnings(fleet, "a"), 30, "no path seems narrow")
    program = (
        "import socket\n"
        "with socket.create_connection(('{}', 2222), 5) as s:\n"
        "    print(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))\n"
    )
    for family, headers in zip(FAMILIES, (40, 60), strict=True):
        said = ours.run(["python3", "-c", program.format(theirs.address(family))])
        # The kernel tells it without the 12 octets of its timestamp option.
        lab.check(int(said) == 1420 - headers - 12, f"IPv{family}: {said.strip()} octets a segment")


def story_nobody_gets_in_from_the_internet(lab: Lab) -> None:
    fleet = pair(lab, SLA)
    a = fleet.sites["a"]
    ours, theirs = hosts(fleet)
    server = lab.internet_host("server")
    outside = str(a.uplinks["fibre"].facts.address4.ip)
    for host in (ours, a):
        host.background(["python3", "-c", _DOOR], name="door")
    lab.wait_until(lambda: _reaches(ours, str(a.lans["lan0"].address4.ip), 2222), 5, "doors open")
    lab.check(_reaches(theirs, ours.address(), 2222), "b's host reaches a's host")
    lab.check(not _reaches(server, outside, 2222), "the internet does not reach a's own door")
    lab.internet.ip(f"route add {a.lans['lan0'].address4.network} via {outside}")
    lab.check(not _reaches(server, ours.address(), 2222), "nor a's host, even with a route to it")
    lab.check(lab.ping(server, outside).received == 5, "but a answers the internet's pings")
    own = "fd12:3456:789a:ffff::1"
    lab.check(lab.ping(ours, own, count=2).received == 0, "a's overlay is not for its LAN")
    lab.check(_pings(fleet.sites["b"], own), "it is for b")


def _pings(site: Site, address: str) -> bool:
    return " 0% packet loss" in site.run(["ping", "-c", "3", "-W", "1", address], check=False)


def story_the_cable_is_pulled(lab: Lab) -> None:
    """The internet is reached by what is left, and no tunnel strays to the other uplink."""
    fleet = pair(lab, SLA)
    a = fleet.sites["a"]
    ours, theirs = hosts(fleet)
    server = lab.internet_host("server")
    # Ports of planes 1-x and of planes 2-x; counted outside the box, where the product has no say.
    wrong = {"dsl": "51836-51851", "fibre": "51852-51867"}
    rules = "".join(
        f"ip saddr {a.uplinks[name].facts.address4.ip} udp sport {ports} counter name strange\n"
        for name, ports in wrong.items()
    )
    lab.internet.nft(
        "table inet wire {\ncounter strange { }\n"
        f"chain watch {{ type filter hook prerouting priority raw\n{rules}}}\n}}\n"
    )
    a.run(["ip", "route", "flush", "table", str(0xB1000001), "proto", "177"])
    for family in FAMILIES:
        received = lab.ping(ours, server, family=family).received
        lab.check(received == 5, f"the internet is reached over fibre, IPv{family}")
    server.background(["python3", "-c", _ECHO], name="echo")
    # The ports of planes 1-1 and 2-2: what comes to them from outside belongs to the tunnels.
    for family, source in ((f, s) for f in FAMILIES for s in (40000, 51837, 51854)):
        lab.check(
            _is_answered(ours, server.address(family), source),
            f"a datagram from port {source} of the LAN is answered, IPv{family}",
        )
    stream = lab.stream(ours, theirs)
    lab.sleep_virtual(1)
    a.uplinks["fibre"].unplug()
    lab.wait_until(lambda: fleet.carriers("a", "default", "b")[0][0] == "2", 5, "all is on dsl")
    lab.sleep_virtual(2)
    lab.check(stream.result(lab.now_s - 1.5, lab.now_s - 0.5).lost == 0, "b is reached over dsl")
    for family in FAMILIES:
        received = lab.ping(ours, server, family=family).received
        lab.check(received == 5, f"the internet is reached over dsl, IPv{family}")
    counted = lab.internet.run(["nft", "list", "counter", "inet", "wire", "strange"])
    lab.check("packets 0 " in counted, "no tunnel of one uplink was ever seen on the other")
    stream.stop()
