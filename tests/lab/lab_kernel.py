"""What the product needs of the guest's kernel and programs works here, before any product runs.

[a] wan0 ---- [internet] ---- wan0 [b]      wg0 of a <-> wg0 of b, inside fd00:10::/64
"""

import json

from lab.topology import Lab, Line, Site


def _two_sites(lab: Lab) -> tuple[Site, Site]:
    sites = lab.site("a"), lab.site("b")
    for site in sites:
        site.uplink("fibre", down=Line(delay_ms=10))
        site.configure_plainly()
    return sites


def story_wireguard_carries_pings(lab: Lab) -> None:
    a, b = _two_sites(lab)
    keys = {site.name: site.run(["wg", "genkey"]).strip() for site in (a, b)}
    for site, peer, own in ((a, b, 1), (b, a, 2)):
        public = site.run(["wg", "pubkey"], stdin=keys[peer.name]).strip()
        endpoint = peer.uplinks["fibre"].facts.address4.ip
        site.ip("link add wg0 type wireguard")
        site.run(
            ["wg", "setconf", "wg0", "/proc/self/fd/0"],
            stdin=(
                f"[Interface]\nPrivateKey = {keys[site.name]}\nListenPort = 51820\n"
                f"[Peer]\nPublicKey = {public}\nEndpoint = {endpoint}:51820\n"
                "AllowedIPs = fd00:10::/64, 10.10.0.0/24\n"
            ),
        )
        site.ip(
            f"addr add fd00:10::{own}/64 dev wg0 nodad",
            f"addr add 10.10.0.{own}/24 dev wg0",
            "link set wg0 mtu 1420 up",
        )
    lab.ping(a, "fd00:10::2", count=1)
    for address in ("fd00:10::2", "10.10.0.2"):
        result = lab.ping(a, address)
        lab.record("tunnel_ping", result.mean_ms, "ms", address=address)
        lab.check(result.received == 5 and result.mean_ms < 20.5, f"{address} answers in 20 ms")
    shown = a.run(["wg", "show", "wg0", "latest-handshakes"]).split()
    lab.check(int(shown[1]) > 0, "after a handshake")


def story_nexthop_objects_move_routes(lab: Lab) -> None:
    site = lab.site("a")
    site.ip(
        *(f"link add dummy{n} type dummy" for n in (1, 2)),
        *(f"link set dummy{n} up" for n in (1, 2)),
        "nexthop add id 11 dev dummy1",
        "nexthop add id 12 dev dummy2",
        "nexthop add id 100 group 11",
        "route add 10.9.0.0/16 nhid 100",
        "-6 nexthop add id 21 dev dummy1",
        "nexthop add id 200 group 21",
        "-6 route add 2001:db8:9::/48 nhid 200",
    )

    def device(address: str) -> str:
        found: list[dict[str, str]] = json.loads(site.run(["ip", "-j", "route", "get", address]))
        return found[0]["dev"]

    lab.check(device("10.9.1.1") == "dummy1", "a route by nexthop id leaves by the first device")
    lab.check(device("2001:db8:9::1") == "dummy1", "for IPv6 too")
    site.ip("nexthop replace id 100 group 12", "-6 nexthop replace id 21 dev dummy2")
    lab.check(device("10.9.1.1") == "dummy2", "replacing the group moves it, by one message")
    lab.check(device("2001:db8:9::1") == "dummy2", "and so does replacing the nexthop")


def story_flowtable_and_conntrack_marks_load(lab: Lab) -> None:
    site = lab.site("a")
    site.uplink("fibre")
    site.lan()
    site.configure_plainly()
    site.nft(
        """
        table inet probe {
          flowtable fast { hook ingress priority 0; devices = { wan0, lan0 }; counter; }
          set domains { type ipv4_addr; flags interval, timeout; auto-merge; }
          chain pre {
            type filter hook prerouting priority mangle
            ct state new meta mark set meta mark and 0x00ffffff or 0x01000000
            ct mark set ct mark and 0x00ffffff or 0x01000000
          }
          chain onward {
            type filter hook forward priority 0
            ct state established flow add @fast
          }
          chain out { type nat hook postrouting priority srcnat; oifname "wan0" masquerade; }
        }
        """
    )
    rules = site.run(["nft", "list", "ruleset"])
    lab.check("flowtable fast" in rules, "a software flowtable loads")
    lab.check("masquerade" in rules, "with NAT and masked marks beside it")
    server = lab.internet_host("server")
    host = site.lans["lan0"].hosts[0]
    server.background(["iperf3", "-s", "-1"])
    host.background(["iperf3", "-c", server.address(), "-t", "10", "-b", "1M"])
    lab.wait_until(
        lambda: "[OFFLOAD]" in site.run(["conntrack", "-L", "-p", "tcp"]),
        10,
        "a TCP flow is offloaded to the flowtable",
    )


def story_cake_shapes_on_an_ifb(lab: Lab) -> None:
    site = lab.site("a")
    site.uplink("fibre")
    site.lan()
    site.configure_plainly()
    site.ip("link add ifb1 type ifb", "link set ifb1 up")
    site.tc(
        "qdisc add dev ifb1 root cake bandwidth 10mbit diffserv4",
        "qdisc add dev wan0 clsact",
        "filter add dev wan0 egress matchall action mirred egress redirect dev ifb1",
    )
    server = lab.internet_host("server")
    lab.internet.ip(
        f"route add {site.lans['lan0'].address4.network} "
        f"via {site.uplinks['fibre'].facts.address4.ip}"
    )
    goodput = lab.iperf3(site.lans["lan0"].hosts[0], server, seconds=3).forward_mbit
    lab.record("cake_goodput", goodput, "Mbit/s")
    lab.check(9 < goodput < 10, "CAKE at 10 Mbit/s lets 9 to 10 Mbit/s pass")


def story_bird_keeps_bfd_sessions(lab: Lab) -> None:
    a, b = _two_sites(lab)
    for site, peer, own in ((a, b, 1), (b, a, 2)):
        address = peer.uplinks["fibre"].facts.address4.ip
        local = site.uplinks["fibre"].facts.address4.ip
        config = (
            f"router id 10.0.0.{own};\nprotocol device {{}}\n"
            "protocol bfd { multihop { interval 50 ms; multiplier 3; };\n"
            f"neighbor {address} local {local} multihop; }}\n"
        )
        site.run(["sh", "-c", f"cat > /run/lab/{site.name}-bird.conf"], stdin=config)
        site.background(
            [
                "bird",
                "-f",
                "-c",
                f"/run/lab/{site.name}-bird.conf",
                "-s",
                f"/run/lab/{site.name}.ctl",
            ],
        )

    def state() -> str:
        return a.run(["birdc", "-s", "/run/lab/a.ctl", "show", "bfd", "sessions"], check=False)

    lab.wait_until(lambda: " Up " in state(), 20, "BFD is up")
    b.uplinks["fibre"].down.cut()
    took = lab.wait_until(lambda: " Up " not in state(), 5, "BFD sees the cut", poll_s=0.01)
    lab.record("bfd_detection", took * 1e3, "ms", interval_ms=50, multiplier=3)
    lab.check(took < 0.4, "within its three intervals")


def story_the_locked_libraries_load(lab: Lab) -> None:
    site = lab.site("a")
    program = (
        "import aiohttp, click, nacl.public, prometheus_client, pydantic, pyroute2, rich, yaml\n"
        "assert yaml.CSafeLoader\n"
        "with pyroute2.IPRoute() as ip: print([l.get_attr('IFLA_IFNAME') for l in ip.get_links()])"
    )
    start = lab.now_s
    shown = site.run(["python3", "-c", program])
    lab.record("import_all", lab.now_s - start, "s")
    lab.check(shown.strip() == "['lo']", "the wheels run, and netlink shows this site's devices")
    version = "import importlib.metadata as m; print(m.version('branchline'))"
    lab.check(site.run(["python3", "-c", version]).strip(), "the product is installed beside them")
