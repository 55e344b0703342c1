"""Uplinks from outside the tunnels: leases, advertisements, devices that come and go, targets.

                         +-- wan0 ---- [internet: dnsmasq] ---- server (DNS, TCP, echo)
    [a: follow_uplinks] -+
                         +-- wan1 ---- [internet: dnsmasq]

On [a] run the parts of the product that follow uplinks, with the real dhcpcd; the providers'
servers are dnsmasq. Hours of leases pass in virtual time.
"""

import json
import signal
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_interface
from pathlib import Path

from lab.machine import Daemon
from lab.topology import Host, Lab, Site
from lab.underlay import Uplink

RUN = "/run/branchline"
Event = dict[str, object]


class Follower:
    """follow_uplinks on a site, and what it has told."""

    def __init__(self, lab: Lab, site: Site) -> None:
        self.lab, self.site = lab, site
        self.daemon: Daemon | None = None
        self._seen = 0  # lines of earlier runs, which share the log

    def start(self, *uplinks: Event) -> None:
        if self.daemon is not None:
            self._seen = len(self.daemon.output().splitlines())
        argv = ["python3", "-m", "tests.lab.follow_uplinks", RUN, *map(json.dumps, uplinks)]
        self.daemon = self.site.background(argv, name="follower")

    def kill(self) -> None:
        assert self.daemon is not None
        self.daemon.kill()

    def events(self, kind: str, slot: int = 1) -> Iterator[Event]:
        """All events of this kind in this run, latest first."""
        assert self.daemon is not None
        for line in reversed(self.daemon.output().splitlines()[self._seen :]):
            if line.startswith("{"):
                event = json.loads(line)
                if (event["event"], event["slot"]) == (kind, slot):
                    yield event

    def latest(self, kind: str = "facts", slot: int = 1) -> Event:
        return next(self.events(kind, slot), {})

    def wait(
        self, what: str, condition: Callable[[Event], object], timeout_s: float, slot: int = 1
    ) -> float:
        """Until the latest facts meet the condition; the virtual seconds that it took."""

        def is_so() -> bool:
            event = self.latest(slot=slot)
            return bool(event and condition(event))

        took = self.lab.wait_until(is_so, timeout_s, what)
        self.lab.check(True, f"{what} ({took:.2f} s)")
        return took

    def logged(self, text: str) -> int:
        assert self.daemon is not None
        return self.daemon.output().count(text)


def dhcp(uplink: Uplink, slot: int = 1, **fields: object) -> Event:
    return {"slot": slot, "device": uplink.device, "method": "dhcp", **fields}


def address(event: Event, version: int) -> str | None:
    found = [str(a) for a in event.get("addresses", ())]  # type: ignore[attr-defined]
    return next((a for a in found if ip_interface(a).version == version), None)


def gateway(event: Event, version: int) -> str | None:
    found = [str(g) for g in event.get("gateways", ())]  # type: ignore[attr-defined]
    return next((g for g in found if (":" in g) == (version == 6)), None)


def is_whole(event: Event) -> bool:
    """Both families have an address and a gateway."""
    return all(address(event, v) and gateway(event, v) for v in (4, 6))


class Provider:
    """dnsmasq behind an uplink, with leases and advertisements of the story's choice."""

    def __init__(self, lab: Lab, uplink: Uplink) -> None:
        self.lab, self.uplink = lab, uplink
        self.device = uplink.core_device
        self.daemon: Daemon | None = None

    def serve(
        self,
        *options: str,
        first: int = 5,
        lease: str = "2m",
        router_s: int = 600,
        prefix: str = "slaac,64,1h",
    ) -> None:
        """Leases from the address `first` on; prefix advertised in that mode."""
        self.stop()
        network4 = self.uplink.facts.address4.network
        network6 = self.uplink.facts.address6.network
        self.daemon = self.lab.internet.background(
            [
                "dnsmasq",
                "--keep-in-foreground",
                "--conf-file=/dev/null",
                "--pid-file=",
                "--user=root",
                "--port=0",
                "--bind-dynamic",
                f"--interface={self.device}",
                "--leasefile-ro",
                "--log-facility=-",
                "--log-dhcp",
                "--no-ping",
                "--dhcp-authoritative",
                "--enable-ra",
                f"--ra-param={self.device},{router_s // 3},{router_s}",
                f"--dhcp-range={network4[first]},{network4[first]},{network4.netmask},{lease}",
                f"--dhcp-option=option:router,{self.uplink.facts.gateway4.ip}",
                f"--dhcp-range={network6.network_address},{prefix}",
                *options,
            ],
            name=f"dnsmasq-{self.device}",
        )

    def stop(self) -> None:
        """Without a word: a provider's router that dies says no farewell."""
        if self.daemon is not None:
            self.daemon.kill()


def make(lab: Lab) -> tuple[Site, Uplink, Provider, Follower]:
    site = lab.site("a")
    uplink = site.uplink("cable")
    # As on a box that runs the product: it forwards, and yet is a host to its providers.
    site.sysctl(net__ipv4__ip_forward=1, net__ipv6__conf__all__forwarding=1)
    return site, uplink, Provider(lab, uplink), Follower(lab, site)


def dhcpcd_pid(site: Site, device: str = "wan0") -> int | None:
    """The main process as it wrote itself down, in the site's own /run."""
    text = site.run(["cat", f"/run/dhcpcd/{device}.pid"], check=False)
    return int(text) if text.strip() else None


def watch_addresses(lab: Lab, site: Site) -> Daemon:
    watch = site.background(["ip", "monitor", "address"], name="ip-monitor")
    lab.wait_until(lambda: Path(f"/proc/{watch.pid}/net").exists(), 5, "ip monitor runs")
    lab.sleep_virtual(0.2)
    return watch


def deletions(watch: Daemon) -> Sequence[str]:
    return [line for line in watch.output().splitlines() if line.startswith("Deleted")]


def story_leases_and_advertisements_become_facts_and_renewals_keep_them(lab: Lab) -> None:
    site, uplink, provider, follower = make(lab)
    provider.serve("--dhcp-option=option:dns-server,192.0.2.53")
    follower.start(dhcp(uplink))
    took = follower.wait("both families have an address and a gateway", is_whole, 30)
    lab.record("attach", took, "s")
    facts = follower.latest()
    network4, network6 = uplink.facts.address4.network, uplink.facts.address6.network
    lab.check(address(facts, 4) == f"{network4[5]}/{network4.prefixlen}", "the IPv4 lease")
    lab.check(gateway(facts, 4) == str(uplink.facts.gateway4.ip), "its router")
    v6 = ip_interface(str(address(facts, 6)))
    lab.check(v6.ip in network6, "an IPv6 address of the advertised prefix")
    lab.check(str(v6.ip).endswith("ff:fe02:1"), "made of the hardware address")
    lab.check(str(gateway(facts, 6)).startswith("fe80::"), "the advertising router")
    lab.check("default" not in site.run(["ip", "route"]), "no IPv4 default route is dhcpcd's")
    lab.check("default" not in site.run(["ip", "-6", "route"]), "no IPv6 default route either")
    watch = watch_addresses(lab, site)
    told = len(list(follower.events("facts")))
    lab.sleep_virtual(1800)
    lab.check(follower.latest() == facts, "half an hour and 15 leases later, all is as it was")
    lab.check(len(list(follower.events("facts"))) == told, "and nothing was told meanwhile")
    lab.check(not deletions(watch), "no address was ever away")
    acks = provider.daemon.output().count("DHCPACK") if provider.daemon else 0
    lab.check(acks >= 20, f"the lease was renewed ({acks} times)")


def story_a_server_changes_the_address_at_run_time(lab: Lab) -> None:
    _, uplink, provider, follower = make(lab)
    provider.serve(first=5)
    follower.start(dhcp(uplink))
    follower.wait("attached", is_whole, 30)
    network4 = uplink.facts.address4.network
    provider.serve(first=9)
    new = f"{network4[9]}/{network4.prefixlen}"
    took = follower.wait("the server's new address is used", lambda e: address(e, 4) == new, 130)
    lab.check(took <= 125, "at the next renewal, within the 2 minutes of a lease")
    follower.wait("with its gateway", lambda e: gateway(e, 4) is not None, 5)
    old = str(network4[5])
    lab.check(old not in str(follower.latest()["addresses"]), "and the old one is gone")


def story_what_a_dead_provider_promised_runs_out(lab: Lab) -> None:
    _, uplink, provider, follower = make(lab)
    provider.serve(router_s=60)
    follower.start(dhcp(uplink))
    follower.wait("attached", is_whole, 30)
    provider.stop()
    took = follower.wait("the IPv6 gateway is gone", lambda e: gateway(e, 6) is None, 70)
    lab.check(took <= 61, "within its lifetime of 60 s")
    took = follower.wait(
        "the IPv4 lease is gone", lambda e: address(e, 4) is None and gateway(e, 4) is None, 125
    )
    lab.check(address(follower.latest(), 6) is not None, "the IPv6 address is valid for longer")
    provider.serve(router_s=60)
    follower.wait("all is back when the provider is", is_whole, 400)


def story_a_withdrawn_prefix_is_used_no_more(lab: Lab) -> None:
    site, uplink, provider, follower = make(lab)
    provider.serve()
    follower.start(dhcp(uplink))
    follower.wait("attached", is_whole, 30)
    provider.serve(prefix="slaac,64,deprecated")
    follower.wait("its address is no fact any more", lambda e: address(e, 6) is None, 600)
    shown = site.run(["ip", "-6", "address", "show", uplink.device])
    lab.check("deprecated" in shown, "though the kernel keeps it for flows that use it")
    lab.check(gateway(follower.latest(), 6) is None, "a gateway without an address is none")
    lab.check(address(follower.latest(), 4) is not None, "IPv4 does not care")


def story_addresses_by_dhcpv6(lab: Lab) -> None:
    site = lab.site("a")
    uplink = site.uplink("cable", addressing="dhcp")
    site.sysctl(net__ipv6__conf__all__forwarding=1)
    follower = Follower(lab, site)
    follower.start(dhcp(uplink))
    follower.wait("attached", is_whole, 30)
    v6 = str(address(follower.latest(), 6))
    lab.check(v6.endswith("/128"), f"{v6} was given by DHCPv6")
    lab.check(ip_interface(v6).ip in uplink.facts.address6.network, "from the provider's range")


def story_the_supervisor_is_killed_and_dhcpcd_goes_on(lab: Lab) -> None:
    site, uplink, provider, follower = make(lab)
    provider.serve()
    follower.start(dhcp(uplink))
    follower.wait("attached", is_whole, 30)
    facts, pid = follower.latest(), dhcpcd_pid(site)
    watch = watch_addresses(lab, site)
    follower.kill()
    lab.sleep_virtual(600)
    lab.check(dhcpcd_pid(site) == pid, "10 minutes without a supervisor: the same dhcpcd runs")
    shown = site.run(["ip", "-br", "address", "show", uplink.device])
    lab.check(str(address(facts, 4)) in shown, "and keeps the address beyond its 2 minutes")
    follower.start(dhcp(uplink))
    lab.wait_until(lambda: follower.logged("program adopted"), 10, "the next one adopts it")
    told = list(follower.events("facts"))
    lab.check(told == [facts], "and tells the same facts, gateways included, in its first word")
    lab.check(dhcpcd_pid(site) == pid, "without a restart of dhcpcd")
    lab.check(not deletions(watch), "no address was ever away")
    follower.kill()
    provider.stop()
    provider.serve(router_s=1200)
    follower.start(dhcp(uplink))
    follower.wait("a third one is told of news as well", is_whole, 30)
    lab.check(not deletions(watch), "still no address was away")


def story_a_dhcpcd_that_dies_or_hangs_is_replaced_without_loss_of_address(lab: Lab) -> None:
    site, uplink, provider, follower = make(lab)
    provider.serve(lease="1h", router_s=60)
    follower.start(dhcp(uplink))
    follower.wait("attached", is_whole, 30)
    first = dhcpcd_pid(site)
    watch = watch_addresses(lab, site)
    site.run(["kill", "-9", str(first)])
    lab.wait_until(lambda: follower.logged("program started") == 2, 10, "killed, it is replaced")
    lab.wait_until(lambda: dhcpcd_pid(site) not in (None, first), 10, "by another process")
    lab.sleep_virtual(60)
    lab.check(not deletions(watch), "no address was ever away")
    lab.check(is_whole(follower.latest()), "nor a gateway for good")
    second = dhcpcd_pid(site)
    site.run(["kill", f"-{signal.SIGSTOP.value}", str(second)])
    took = follower.wait("it hangs: its router runs out", lambda e: gateway(e, 6) is None, 61)
    lab.wait_until(
        lambda: dhcpcd_pid(site) not in (None, second), 60, "it is found out and replaced"
    )
    took = follower.wait("and the router is known again", is_whole, 30)
    lab.record("hang_recovery", took, "s")
    lab.check(follower.logged("program hangs and is killed") == 1, "it was told so once")
    lab.check(not deletions(watch), "no address was ever away")


def story_another_client_on_the_device_is_not_fought(lab: Lab) -> None:
    """Somebody's own dhcpcd runs there already: ours says so and waits."""
    site, uplink, provider, follower = make(lab)
    provider.serve()
    site.ip(f"link set {uplink.device} up")
    other = site.background(["dhcpcd", "-B", "--noipv4ll", uplink.device], name="other")
    lab.wait_until(lambda: "leased" in other.output(), 30, "the other client has a lease")
    follower.start(dhcp(uplink))
    lab.wait_until(lambda: follower.logged("program ended") >= 3, 60, "ours cannot run")
    lab.check(other.is_running, "the other one is left alone")
    other.stop()
    follower.wait("when it goes, ours takes over", is_whole, 120)


def story_a_modem_is_pulled_out_renamed_and_plugged_in(lab: Lab) -> None:
    site, uplink, provider, follower = make(lab)
    follower.start(dhcp(uplink))
    provider.serve()
    follower.wait("attached", is_whole, 30)
    uplink.delete_device()
    took = follower.wait("pulled out: no device, no address", lambda e: not e["device"], 1)
    lab.check(follower.latest()["addresses"] == [], "and nothing of it is left")
    lab.sleep_virtual(300)
    lab.check(follower.logged("program started") == 1, "nothing is started for nobody")
    uplink.create_device()
    provider.serve()
    follower.wait("plugged in again: attached", is_whole, 60)
    site.ip("link set wan0 down", "link set wan0 name usb7", "link set usb7 up")
    follower.wait("renamed: it is another one", lambda e: not e["device"], 1)
    site.ip("link set usb7 down", "link set usb7 name wan0", "link set wan0 up")
    follower.wait("renamed back: attached", is_whole, 60)
    lab.record("pulled_out", took, "s")


def story_carrier_loss_is_told_at_once(lab: Lab) -> None:
    _, uplink, provider, follower = make(lab)
    provider.serve()
    follower.start(dhcp(uplink))
    follower.wait("attached", is_whole, 30)
    lab.internet.run(["true"])
    uplink.unplug()
    took = lab.wait_until(
        lambda: follower.latest().get("carrier") is False, 1, "the carrier is lost", poll_s=0.002
    )
    lab.record("carrier_told", took * 1000, "ms")
    lab.check(took < 0.05, f"told in {took * 1000:.0f} ms")
    uplink.plug_in()
    took = follower.wait("and it comes back", is_whole, 60)
    lab.record("carrier_back", took, "s")


def story_an_uplink_that_is_configured_otherwise_gives_its_lease_back(lab: Lab) -> None:
    site, uplink, provider, follower = make(lab)
    provider.serve()
    follower.start(dhcp(uplink))
    follower.wait("attached", is_whole, 30)
    leased = str(address(follower.latest(), 4))
    follower.kill()
    follower.start(
        {"slot": 1, "device": uplink.device, "method": "static", "addresses": [], "gateways": []}
    )
    follower.wait("now static: the leased address goes", lambda e: not address(e, 4), 30)
    told = provider.daemon.output() if provider.daemon else ""
    lab.check(f"DHCPRELEASE({provider.device}) {leased.split('/')[0]}" in told, "it is given back")
    lab.wait_until(
        lambda: not site.run(["ls", f"{RUN}/leases"]).split(), 5, "what was told of it is forgotten"
    )


def story_a_server_cannot_draw_traffic_to_itself(lab: Lab) -> None:
    site, uplink, provider, follower = make(lab)
    evil = uplink.facts.gateway4.ip
    provider.serve(
        f"--dhcp-option-force=121,10.0.0.0/8,{evil},192.168.0.0/16,{evil}",
        f"--dhcp-option-force=249,172.16.0.0/12,{evil}",
        f"--dhcp-option-force=33,10.9.9.9,{evil}",
        '--dhcp-option-force=option:domain-name,"$(touch /run/pwned)"',
        "--dhcp-option-force=114,http://192.0.2.1/`touch /run/pwned`",
    )
    follower.start(dhcp(uplink))
    follower.wait("attached", is_whole, 30)
    routes = site.run(["ip", "route"])
    lab.check("via" not in routes, f"none of its routes is taken: {routes!r}")
    lab.check(not Path("/run/pwned").exists(), "and none of its words is run")


# -- targets -----------------------------------------------------------------------------------


def make_targets(lab: Lab) -> tuple[Site, list[Uplink], Host, Follower]:
    """Two uplinks with static addresses, policy routes as the plan makes them, one server."""
    site = lab.site("a")
    uplinks = [site.uplink("fibre"), site.uplink("lte")]
    site.configure_plainly()
    for slot, uplink in enumerate(uplinks, start=1):
        table, mark = 500 + slot, f"{slot << 24:#x}/0xf000000"
        facts, device = uplink.facts, uplink.device
        site.ip(
            f"route add default via {facts.gateway4.ip} dev {device} table {table}",
            f"-6 route add default via {facts.gateway6.ip} dev {device} table {table}",
            f"rule add fwmark {mark} table {table} pref {table}",
            f"-6 rule add fwmark {mark} table {table} pref {table}",
        )
    server = lab.internet_host("server")
    server.background(
        [
            "dnsmasq",
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--pid-file=",
            "--user=root",
            "--no-resolv",
            "--no-hosts",
            "--address=/example.net/192.0.2.80",
        ],
        name="dns",
    )
    server.background(["python3", "-m", "http.server", "80", "--bind", "::"], name="tcp")
    lab.wait_until(lambda: len(listening(server)) == 2, 10, "DNS and TCP are served")
    return site, uplinks, server, Follower(lab, site)


def listening(host: Host) -> set[str]:
    shown = host.run(["ss", "-Hltn"]) + host.run(["ss", "-Hlun"])
    return {port for port in ("53", "80") if f":{port} " in shown}


def asking(uplink: Uplink, slot: int, server: Host, **fields: object) -> Event:
    targets: list[list[object]] = [
        ["icmp", server.address(4)],
        ["dns", server.address(4), 53, "example.net"],
        ["tcp", server.address(6), 80],
    ]
    return {
        "slot": slot,
        "device": uplink.device,
        "method": "static",
        "gateways": [str(uplink.facts.gateway4.ip), str(uplink.facts.gateway6.ip)],
        "targets": targets,
        **fields,
    }


def verdict(follower: Follower, slot: int) -> bool | None:
    found = follower.latest("probed", slot).get("healthy")
    return None if found is None else bool(found)


def evidence(follower: Follower, slot: int) -> str:
    return str(follower.latest("probed", slot).get("evidence"))


def story_the_same_targets_serve_every_uplink_and_judge_each_alone(lab: Lab) -> None:
    site, uplinks, server, follower = make_targets(lab)
    follower.start(*(asking(u, slot, server) for slot, u in enumerate(uplinks, start=1)))
    for slot in (1, 2):
        lab.wait_until(lambda slot=slot: verdict(follower, slot), 10, f"uplink {slot} is healthy")
        lab.check("3 of 3" in evidence(follower, slot), evidence(follower, slot))
    # The main table's default route is the first uplink's: it must not rescue the second.
    uplinks[1].cut()
    took = lab.wait_until(lambda: verdict(follower, 2) is False, 30, "the second one, cut, falls")
    lab.record("fall", took, "s")
    lab.check(took < 17, "within its bound")
    lab.check("0 of 3" in evidence(follower, 2), evidence(follower, 2))
    lab.check(verdict(follower, 1) is True, "the first one does not")
    uplinks[1].heal()
    took = lab.wait_until(lambda: verdict(follower, 2), 30, "healed, it rises")
    lab.record("rise", took, "s")
    uplinks[0].cut()
    lab.wait_until(lambda: verdict(follower, 1) is False, 30, "the first one, cut, falls")
    lab.check(verdict(follower, 2) is True, "the second does without the main default route")
    site.run(["true"])


def story_no_single_target_condemns_an_uplink(lab: Lab) -> None:
    _, uplinks, server, follower = make_targets(lab)
    follower.start(asking(uplinks[0], 1, server, quorum=2))
    lab.wait_until(lambda: verdict(follower, 1), 10, "the uplink is healthy")
    for name, rule in (
        ("icmp", "icmp type echo-request drop"),
        ("dns", "udp dport 53 drop"),
        ("tcp", "tcp dport 80 drop"),  # hangs: nobody says no
    ):
        server.nft(
            "table inet deaf { chain c { type filter hook input priority 0\n" + rule + "\n}\n}"
        )
        lab.wait_until(lambda: "2 of 3" in evidence(follower, 1), 15, f"{name} is deaf")
        lab.sleep_virtual(60)
        lab.check(verdict(follower, 1) is True, f"a minute later: {evidence(follower, 1)}")
        server.nft("delete table inet deaf")
        lab.wait_until(lambda: "3 of 3" in evidence(follower, 1), 15, f"{name} hears again")


def story_filtered_icmp_is_no_verdict_and_silence_of_all_is_one(lab: Lab) -> None:
    _, uplinks, server, follower = make_targets(lab)
    follower.start(asking(uplinks[0], 1, server, quorum=3))
    lab.wait_until(lambda: verdict(follower, 1), 10, "healthy with a quorum of all three")
    lab.internet.nft(
        "table inet f { chain c { type filter hook forward priority 0\n"
        "icmp type echo-request drop\n}\n}"
    )
    lab.wait_until(lambda: "filtered" in evidence(follower, 1), 15, "somebody filters ICMP")
    lab.sleep_virtual(60)
    lab.check(verdict(follower, 1) is True, evidence(follower, 1))
    server.nft(
        "table inet deaf { chain c { type filter hook input priority 0\n"
        "udp dport 53 drop\ntcp dport 80 drop\n}\n}"
    )
    took = lab.wait_until(lambda: verdict(follower, 1) is False, 30, "all silent: it falls")
    lab.check(took < 17, f"though a TCP target hangs for ever ({took:.1f} s)")
    server.nft("delete table inet deaf")
    lab.wait_until(lambda: verdict(follower, 1), 30, "two of them back: it rises")
    lab.check("filtered" in evidence(follower, 1), evidence(follower, 1))


def story_targets_are_asked_seldom_over_a_metered_uplink(lab: Lab) -> None:
    _, uplinks, server, follower = make_targets(lab)
    follower.start(asking(uplinks[0], 1, server), asking(uplinks[1], 2, server, metered=True))
    lab.wait_until(lambda: verdict(follower, 2), 10, "both are healthy")
    before = [len(list(follower.events("probed", slot))) for slot in (1, 2)]
    lab.sleep_virtual(600)
    rounds = [
        len(list(follower.events("probed", slot))) - count
        for slot, count in zip((1, 2), before, strict=True)
    ]
    lab.record("rounds_in_10_min", rounds[0], "1")
    lab.record("metered_rounds_in_10_min", rounds[1], "1")
    lab.check(110 <= rounds[0] <= 130, f"{rounds[0]} rounds in 10 minutes")
    lab.check(9 <= rounds[1] <= 11, f"{rounds[1]} over the metered one")
