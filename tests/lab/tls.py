"""Servers of TLS in the lab, and what a box saw of those who call them."""

import json
from collections.abc import Iterable

from lab.topology import Host, Lab, Site

_KEY, _CERTIFICATE = "/run/lab/tls-key.pem", "/run/lab/tls-certificate.pem"
# After `classify`, at -150. Application data has content type 23 (RFC 8446, 5.1).
_WATCH = """
table inet watch {{
  set said {{ type inet_service . mark; flags dynamic; size 65535; }}
  chain come {{
    type filter hook prerouting priority -140; policy accept;
    iifname "{device}" tcp dport {{ {ports} }} @ih,0,8 0x17 add @said {{ tcp sport . meta mark }}
  }}
}}
"""


def serve(lab: Lab, hosts: Iterable[Host], ports: Iterable[int]) -> None:
    """Each host answers each line with the line reversed, on each port."""
    hosts, ports = list(hosts), list(map(str, ports))
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc"]
    subject = ["-subj", "/CN=example.net", "-keyout", _KEY, "-out", _CERTIFICATE]
    hosts[0].run(["openssl", "req", "-x509", *curve, *subject])
    words = ["openssl", "s_server", "-quiet", "-rev", "-cert", _CERTIFICATE, "-key", _KEY]
    for host in hosts:
        for port in ports:
            host.background([*words, "-accept", port], name=f"tls-{port}")
    lab.wait_until(
        lambda: all(f":{p}" in host.run(["ss", "-tln"]) for host in hosts for p in ports),
        20,
        "the servers listen",
    )


def watch(site: Site, ports: Iterable[int]) -> None:
    """Note from now on which mark application data has that comes from a site's LAN."""
    device = site.lans["lan0"].device
    site.nft(_WATCH.format(device=device, ports=", ".join(map(str, ports))))


def marks_of_data(site: Site) -> dict[int, set[int]]:
    """The marks that data of each flow had, by the flow's source port."""
    listed = site.run(["nft", "-j", "list", "set", "inet", "watch", "said"])
    (told,) = (each["set"] for each in json.loads(listed)["nftables"] if "set" in each)
    found: dict[int, set[int]] = {}
    for port, mark in (each["concat"] for each in told.get("elem", ())):
        found.setdefault(int(port), set()).add(int(mark))
    return found
