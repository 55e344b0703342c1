"""Flows of every application of the catalogue: is each in the right class in time?

a-lan0-h1 --- [a] === fibre, dsl === internet -- names, there

A box whose file names no classes, and whose hosts ask it for names. Each flow of tests/flows.py is
begun by a real packet, by IPv4 and by IPv6 after a question for its name where it has one; it has
to be in its class from that packet on. Then a host asks nobody and calls each name at an address
that has none: by TLS, where data follows as soon as hands are shaken, and by QUIC's first packets.
The kernel's word is the mark of the connection; by TLS it is that of every packet with data.
"""

import json
import re
from typing import Any

from lab.fleet import Fleet
from lab.topology import Family, Host, Lab, Site
from tests.bench.measure import record
from tests.flows import FLOWS, NAMES
from tests.lab.boxes import branch
from tests.lab.tls import marks_of_data, serve, watch

CLASS_SHIFT = 28
CLASSES = {1: "realtime", 2: "interactive", 3: "business", 4: "bulk", 15: "default"}
FAMILIES: tuple[Family, ...] = (4, 6)
NUMBERS = {"tcp": 6, "udp": 17, "sctp": 132, "esp": 50}
FOUR, SIX = "203.0.113.{}", "2001:db8:77::{:x}"
# Each line of the input: protocol, address, port. One packet each, whoever may answer.
SEND = """
import json, socket, sys
KINDS = {"udp": socket.SOCK_DGRAM, "tcp": socket.SOCK_STREAM}
for protocol, address, port in json.loads(sys.argv[1]):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = KINDS.get(protocol, socket.SOCK_RAW)
    number = 0 if protocol in KINDS else {"sctp": 132, "esp": 50}[protocol]
    with socket.socket(family, kind, number) as s:
        s.setblocking(False)
        try:
            s.connect((address, port or 0))
            s.send(b"\\0" * 32)
        except OSError:
            pass
"""
# Each name: its addresses, as the server told them.
ASK = """
import json, socket, struct, sys
server, names = sys.argv[1], json.loads(sys.argv[2])
found = {}
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(5)
    for name in names:
        for kind, family, size in ((1, socket.AF_INET, 4), (28, socket.AF_INET6, 16)):
            labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
            head = struct.pack(">6H", kind, 0x100, 1, 0, 0, 0)
            s.sendto(head + labels + struct.pack(">B2H", 0, kind, 1), (server, 53))
            answer = s.recv(512)
            if answer[7]:
                found.setdefault(name, []).append(socket.inet_ntop(family, answer[-size:]))
print(json.dumps(found))
"""

# Each name: the port from which hands were shaken, and data was sent at once.
SHAKE = """
import json, socket, ssl, sys
address, names = sys.argv[1], json.loads(sys.argv[2])
context = ssl.create_default_context()
context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
found = {}
for name in names:
    with socket.create_connection((address, 443), 5) as plain:
        with context.wrap_socket(plain, server_hostname=name) as tls:
            tls.sendall(b"x")
            found[name] = tls.getsockname()[1]
print(json.dumps(found))
"""
FIRST_PORT = 20000  # of flows by QUIC

Sent = tuple[str, str, int | None]  # protocol, address, port


def story(lab: Lab) -> None:
    site, names = branch(lab, "a"), lab.internet_host("names")
    records = [
        f"--host-record={name},{FOUR.format(n)},{SIX.format(n)}"
        for n, (_, _, name) in enumerate(NAMES, start=1)
    ]
    server = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="]
    more = ["--user=root", "--no-resolv", "--no-hosts", "--local-ttl=600"]
    names.background([*server, *more, *records], name="names")

    def configure(config: dict[str, Any]) -> None:
        del config["classes"]
        config["lans"][0]["dns"] = True
        config["dns"] = {"servers": [names.address(4)]}

    fleet = Fleet(lab, policies=(), probing={"interval": "20 ms"})
    fleet.add(site, 1, configure)
    fleet.start()
    client, lan = site.lans["lan0"].hosts[0], site.lans["lan0"]
    asked = json.dumps([name for _, _, name in NAMES])

    def told() -> dict[str, list[str]]:
        said = client.run(["python3", "-c", ASK, str(lan.address4.ip), asked], check=False)
        return dict(json.loads(said)) if said.startswith("{") else {}

    lab.wait_until(lambda: len(told()) == len(NAMES), 60, "all names are told")
    addresses = told()
    wanted: dict[Sent, tuple[str, str]] = {
        (protocol, to, port): (application, class_name)
        for application, class_name, protocol, to, port in FLOWS
    }
    wanted |= {
        (protocol, address, 443): (f"{application}, {name}", class_name)
        for application, class_name, name in NAMES
        for address in addresses[name]
        for protocol in ("tcp", "udp")
    }
    client.run(["python3", "-c", SEND, json.dumps(list(wanted))])
    found = in_kernel(site.run(["conntrack", "-L"]) + site.run(["conntrack", "-L", "-f", "ipv6"]))
    wrong = [
        f"{application}, {sent}: {found.get(sent, 'nothing')}"
        for sent, (application, class_name) in wanted.items()
        if found.get(sent) != class_name
    ]
    count = len(wanted)
    there = lab.internet_host("there")
    serve(lab, [there], [443])
    watch(site, [443])
    there.nft(
        "table inet deaf { chain come { type filter hook prerouting priority raw\n"
        "udp dport 443 drop\n}\n}\n"
    )
    for family in FAMILIES:
        for protocol, call in (("TLS", shaken), ("QUIC", begun)):
            by_name = call(lab, site, client, there.address(family))
            for application, class_name, name in NAMES:
                count += 1
                if (seen := by_name.get(name)) != {class_name}:
                    wrong.append(f"{application}, {name} by {protocol} and IPv{family}: {seen}")
    for flow in wrong:
        lab.say(flow)
    record(
        lab,
        "catalogue_match_ratio",
        1 - len(wrong) / count,
        "ratio",
        samples=[count - len(wrong), count],
        remark=f"{len(FLOWS)} by ports and prefixes, {len(wanted) - len(FLOWS)} by DNS, "
        f"{2 * len(NAMES)} by TLS, {2 * len(NAMES)} by QUIC",
    )


Classes = dict[str, set[str]]  # by name


def shaken(_lab: Lab, site: Site, client: Host, address: str) -> Classes:
    """Call all names by TLS: the classes that data was in."""
    names = json.dumps([name for _, _, name in NAMES])
    ports = json.loads(client.run(["python3", "-c", SHAKE, address, names]))
    marks = marks_of_data(site)
    return {name: {class_of(m) for m in marks.get(port, ())} for name, port in ports.items()}


def begun(lab: Lab, site: Site, client: Host, address: str) -> Classes:
    """Call all names by QUIC at once, to nobody: the class of each flow."""
    ports = {name: FIRST_PORT + n for n, (_, _, name) in enumerate(NAMES)}
    family: Family = 6 if ":" in address else 4
    own = client.address(family)
    here, there = (f"[{each}]" if ":" in each else each for each in (own, address))
    words = ["openssl", "s_client", "-quic", "-alpn", "h3", "-connect", f"{there}:443"]
    calls = [
        client.start([*words, "-servername", name, "-bind", f"{here}:{port}"], stdin="")
        for name, port in ports.items()
    ]
    lab.sleep_virtual(3)  # they start one after the other
    for each in calls:
        each.kill()
        each.communicate()
    listed = site.run(["conntrack", "-L", "-f", f"ipv{family}", "-p", "udp", "-d", address])
    found = re.findall(r"\bsport=(\d+).*?\bmark=(\d+)", listed)
    marks = {int(port): int(mark) for port, mark in found}
    return {name: {class_of(marks[port])} for name, port in ports.items() if port in marks}


def class_of(mark: int) -> str:
    return CLASSES.get(mark >> CLASS_SHIFT, "none")


def in_kernel(listed: str) -> dict[Sent, str]:
    """The class of each flow, out of `conntrack -L`."""
    words = {number: protocol for protocol, number in NUMBERS.items()}
    found = {}
    for line in listed.splitlines():
        number = re.match(r"\S+\s+(\d+)", line)
        to = re.search(r"\bdst=(\S+)", line)
        mark = re.search(r"\bmark=(\d+)", line)
        port = re.search(r"\bdport=(\d+)", line)
        if number and to and mark and (protocol := words.get(int(number[1]))):
            sent = (protocol, to[1], int(port[1]) if port else None)
            found[sent] = class_of(int(mark[1]))
    return found
