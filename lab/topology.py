"""The topology API: what a scenario file is written with. docs/LAB.md explains it with examples.

    def story(lab: Lab) -> None:
        a = lab.site("a")
        fibre = a.uplink("fibre", down=Line(delay_ms=10))
        ...

Runs inside the guest, as root, on the standard library and the guest's programs. All times are
virtual: `lab.sleep_virtual(60)` takes no wall time when the guest has nothing to do.
"""

import itertools
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv4Interface, IPv6Interface
from typing import Literal, TypeVar

from lab import machine, programs
from lab.line import Line
from lab.machine import CommandError, Daemon, Machine
from lab.programs import IperfResult, IperfRun, PingResult
from lab.report import Report
from lab.sessions import SessionsResult, TcpSessions
from lab.stream import Stream, StreamResult
from lab.supervisor import RUN, STATE, Supervisor
from lab.underlay import Addressing, Internet, Uplink

Family = Literal[4, 6]
M = TypeVar("M", bound=Machine)


class StoryError(Exception):
    """The story did not come true and cannot go on."""


class Host(Machine):
    """A computer on a LAN or on the internet, with one device `eth0`."""

    def __init__(self, name: str, address4: IPv4Interface, address6: IPv6Interface) -> None:
        super().__init__(name)
        self.sysctl(net__ipv6__conf__default__accept_dad=0)
        self.address4 = address4
        self.address6 = address6

    def address(self, family: Family = 4) -> str:
        """Without the prefix length."""
        return str((self.address4 if family == 4 else self.address6).ip)

    def configure(self, gateway4: IPv4Interface, gateway6: IPv6Interface) -> None:
        self.ip(
            "link set eth0 up",
            f"addr add {self.address4} dev eth0",
            f"addr add {self.address6} dev eth0 nodad",
            f"route add default via {gateway4.ip}",
            f"-6 route add default via {gateway6.ip}",
        )


class Lan:
    """A LAN of a site: the site's device, its addresses, and the hosts behind it."""

    def __init__(self, site: "Site", device: str, number: int, hosts: int) -> None:
        self.device = device
        self.address4 = IPv4Interface(f"192.168.{number}.1/24")
        self.address6 = IPv6Interface(f"2001:db8:f000:{number:x}::1/64")
        self.hosts = tuple(self._host(site, n) for n in range(hosts))
        if hosts == 1:
            site.ip(f"link add {device} type veth peer name eth0 netns {self.hosts[0].name}")
        else:
            self._connect_by_switch(site)
        for host in self.hosts:
            host.configure(self.address4, self.address6)

    def _host(self, site: "Site", index: int) -> Host:
        network4, network6 = self.address4.network, self.address6.network
        return site.lab.add(
            Host(
                f"{site.name}-{self.device}-h{index + 1}",
                IPv4Interface((network4[10 + index], 24)),
                IPv6Interface((network6[0x10 + index], 64)),
            )
        )

    def _connect_by_switch(self, site: "Site") -> None:
        switch = site.lab.add(Machine(f"{site.name}-{self.device}-sw"))
        switch.ip("link add br0 type bridge", "link set br0 up")
        ends = [(site.name, self.device), *((host.name, "eth0") for host in self.hosts)]
        for n, (owner, device) in enumerate(ends):
            switch.ip(
                f"link add p{n} type veth peer name {device} netns {owner}",
                f"link set p{n} master br0 up",
            )


class Site(Machine):
    """A branch: uplinks to the internet and LANs. Its namespace belongs to the product.

    The lab creates the devices and leaves them down and without addresses, as a box finds them.
    For a site that runs no supervisor, `configure_plainly` does what an installer would.
    """

    def __init__(self, lab: "Lab", name: str) -> None:
        super().__init__(name)
        self.lab = lab
        self.uplinks: dict[str, Uplink] = {}
        self.lans: dict[str, Lan] = {}
        self.supervisor: Supervisor | None = None
        self.sysctl(net__ipv6__conf__default__accept_dad=0)

    def uplink(
        self,
        name: str,
        device: str | None = None,
        *,
        down: Line | None = None,
        up: Line | None = None,
        addressing: Addressing = "static",
        nat: bool = False,
        mtu: int | None = None,
        icmp_filtered: bool = False,
    ) -> Uplink:
        """Attach an uplink. `device` is wan0, wan1, ... when not given.

        `nat`: the provider gives a private IPv4 address and masquerades it. `mtu`: the limit
        inside the provider's network; with `icmp_filtered` nobody tells the sender about it.
        """
        uplink = Uplink(
            self,
            self.lab.internet,
            name,
            device or f"wan{len(self.uplinks)}",
            addressing=addressing,
            nat=nat,
            mtu=mtu,
            icmp_filtered=icmp_filtered,
            seed=self.lab.seed,
        )
        if uplink.provider is not None:
            self.lab.add(uplink.provider)
        uplink.impair(down=down, up=up)
        self.uplinks[name] = uplink
        return uplink

    def lan(self, device: str = "lan0", *, hosts: int = 1) -> Lan:
        """Attach a LAN with that many hosts (named SITE-DEVICE-h1, ...)."""
        lan = Lan(self, device, next(self.lab.lan_numbers), hosts)
        self.lans[device] = lan
        return lan

    def configure_plainly(self) -> None:
        """Addresses on all devices, forwarding, and per uplink routing: no product involved.

        The first uplink holds the default routes; a packet with the address of another uplink
        leaves by that one.
        """
        self.sysctl(
            net__ipv4__ip_forward=1,
            net__ipv6__conf__all__forwarding=1,
            net__ipv4__conf__all__rp_filter=0,
            net__ipv4__conf__default__rp_filter=0,
        )
        commands = []
        for lan in self.lans.values():
            commands += [
                f"link set {lan.device} up",
                f"addr add {lan.address4} dev {lan.device}",
                f"addr add {lan.address6} dev {lan.device} nodad",
            ]
        for n, uplink in enumerate(self.uplinks.values()):
            facts, device, table = uplink.facts, uplink.device, 1000 + n
            commands += [
                f"link set {device} up",
                f"addr add {facts.address4} dev {device}",
                f"addr add {facts.address6} dev {device} nodad",
            ]
            for in_table in [f"table {table}", *([""] if n == 0 else [])]:
                commands += [
                    f"route add default via {facts.gateway4.ip} dev {device} {in_table}",
                    f"-6 route add default via {facts.gateway6.ip} dev {device} {in_table}",
                ]
            commands += [
                f"rule add from {facts.address4.ip} table {table} pref {table}",
                f"-6 rule add from {facts.address6.ip} table {table} pref {table}",
            ]
        self.ip(*commands)

    def supervise(
        self, config: Mapping[str, object] | str, *, wait_s: float | None = 30
    ) -> Supervisor:
        """Start `branchline run` here with this configuration (a mapping, or YAML text)."""
        self.supervisor = Supervisor(self, config)
        self.supervisor.start(wait_s)
        return self.supervisor


class Lab:
    """One story's world. Everything in it is removed when the story ends."""

    def __init__(self, report: Report, *, seed: int = 1) -> None:
        self.report = report
        self.seed = seed  # of all random impairments
        self._machines: list[Machine] = []
        self._begin()

    def start_over(self, *, seed: int) -> None:
        """Remove the whole world and begin an empty one: for stories that repeat with seeds."""
        self.close()
        self.seed = seed
        self._begin()

    def _begin(self) -> None:
        self.lan_numbers = itertools.count(1)
        self._host_numbers = itertools.count(1)
        self._ports = itertools.count(5201)
        self.internet = self.add(Internet())

    # -- building ------------------------------------------------------------------------------

    def site(self, name: str) -> Site:
        """A branch; the name is also the name of its network namespace."""
        return self.add(Site(self, name))

    def internet_host(self, name: str) -> Host:
        """A server on the internet, without impairments: 192.0.2.x, 2001:db8:ffff:x::2."""
        n = next(self._host_numbers)
        gateway4 = IPv4Interface(f"192.0.2.{4 * n + 1}/30")
        gateway6 = IPv6Interface(f"2001:db8:ffff:{n:x}::1/64")
        host = Host(
            name,
            IPv4Interface(f"192.0.2.{4 * n + 2}/30"),
            IPv6Interface(f"2001:db8:ffff:{n:x}::2/64"),
        )
        self.add(host)
        self.internet.ip(
            f"link add s{n} type veth peer name eth0 netns {name}",
            f"link set s{n} up",
            f"addr add {gateway4} dev s{n}",
            f"addr add {gateway6} dev s{n} nodad",
        )
        host.configure(gateway4, gateway6)
        return host

    def machine(self, name: str) -> Machine:
        """A bare machine with `lo` only, for whatever else a story needs."""
        return self.add(Machine(name))

    def add(self, machine: M) -> M:
        """Let the lab take down this machine at the story's end."""
        self._machines.append(machine)
        return machine

    # -- traffic -------------------------------------------------------------------------------

    def stream(
        self,
        source: Machine,
        destination: Host,
        *,
        pps: float = 200,
        size: int = 160,
        dscp: int = 0,
        port: int = 9000,
        source_port: int = 0,
        family: Family = 4,
        address: str | None = None,
        capacity_s: float = 3600,
    ) -> Stream:
        """Start a UDP stream. `size` is the UDP payload; `address` overrides the destination's."""
        return Stream(
            source,
            destination,
            address or destination.address(family),
            start_ns=self.report.start_ns,
            pps=pps,
            size=size,
            dscp=dscp,
            port=port,
            source_port=source_port,
            capacity_s=capacity_s,
        )

    def tcp_sessions(
        self,
        client: Machine,
        server: Host,
        *,
        count: int = 100,
        interval_s: float = 1.0,
        port: int = 7000,
        family: Family = 4,
        timeout_s: float = 30,
    ) -> TcpSessions:
        """Open that many sessions; each says 32 octets every `interval_s` and awaits the echo."""
        return TcpSessions(
            client,
            server,
            server.address(family),
            count=count,
            interval_s=interval_s,
            port=port,
            timeout_s=timeout_s,
        )

    def ping(
        self,
        source: Machine,
        destination: Host | str,
        *,
        count: int = 5,
        interval_s: float = 0.2,
        size: int = 56,
        dscp: int = 0,
        wait_s: float = 1.0,
        family: Family = 4,
        dont_fragment: bool = False,
    ) -> PingResult:
        """Ping and wait for the end; losing all is a result, not an error."""
        address = destination if isinstance(destination, str) else destination.address(family)
        return programs.ping(
            source,
            address,
            count=count,
            interval_s=interval_s,
            size=size,
            dscp=dscp,
            wait_s=wait_s,
            dont_fragment=dont_fragment,
        )

    def iperf3(
        self,
        client: Machine,
        server: Host,
        *,
        seconds: float = 5,
        parallel: int = 1,
        direction: Literal["forward", "backward", "both"] = "forward",
        omit_s: float = 1,
        family: Family = 4,
        options: Sequence[str] = (),
    ) -> IperfResult:
        """A TCP run (other `options` go to iperf3); rates as the receivers counted them."""
        return self.start_iperf3(
            client,
            server,
            seconds=seconds,
            parallel=parallel,
            direction=direction,
            omit_s=omit_s,
            family=family,
            options=options,
        ).result()

    def start_iperf3(
        self,
        client: Machine,
        server: Host,
        *,
        seconds: float = 5,
        parallel: int = 1,
        direction: Literal["forward", "backward", "both"] = "forward",
        omit_s: float = 1,
        family: Family = 4,
        options: Sequence[str] = (),
    ) -> IperfRun:
        """The same in the background, until `result()`."""
        return programs.start_iperf3(
            client,
            server,
            server.address(family),
            seconds=seconds,
            parallel=parallel,
            direction=direction,
            omit_s=omit_s,
            port=next(self._ports),
            options=tuple(options),
            wait_until=self.wait_until,
        )

    # -- time ----------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        """Virtual seconds since the story began."""
        return self.report.now()

    def sleep_virtual(self, seconds: float) -> None:
        """Let virtual time pass: for "then nothing may happen", never to await something."""
        time.sleep(seconds)

    def at(self, moment_s: float) -> None:
        """Sleep until that moment of the story; at once when it has passed."""
        time.sleep(max(0.0, moment_s - self.now_s))

    def wait_until(
        self, predicate: Callable[[], object], timeout_s: float, what: str, *, poll_s: float = 0.05
    ) -> float:
        """Wait until `predicate()` is true; the virtual seconds it took. Raises StoryError.

        Asking costs the guest's one core much (4 ms for a status), so what takes long is
        asked for less often: what is returned is late by 0.1 s or a hundredth of itself, at most.
        The limit is kept to `poll_s` all the same.
        """
        start = self.now_s
        while not predicate():
            passed_s = self.now_s - start
            if passed_s > timeout_s:
                message = f"not within {timeout_s:g} s: {what}"
                raise StoryError(message)
            pause_s = min(passed_s / 25, max(0.1, passed_s / 100), timeout_s - passed_s)
            time.sleep(max(poll_s, pause_s))
        return self.now_s - start

    # -- telling -------------------------------------------------------------------------------

    def say(self, text: str) -> None:
        """Tell the reader; shown at once with the virtual time."""
        self.report.say(text)

    def check(self, condition: object, sentence: str) -> bool:
        """State a fact. When it is not true the story goes on, and fails at its end."""
        ok = bool(condition)
        self.report.check(ok, sentence)
        return ok

    def require(self, condition: object, sentence: str) -> None:
        """State a fact without which the story makes no sense. Raises StoryError."""
        if not self.check(condition, sentence):
            raise StoryError(sentence)

    def record(self, name: str, value: float, unit: str, **params: object) -> None:
        """Hand a number to the outside, with the conditions it was measured under."""
        self.report.record(name, value, unit, params)

    # -- the end -------------------------------------------------------------------------------

    def logs(self) -> dict[str, str]:
        """The log of every daemon that this story started, by the log's name."""
        return {
            path.stem: path.read_text(errors="replace")
            for path in sorted(machine.LOGS.glob("*.log"))
        }

    def close(self) -> None:
        """Remove every machine, with its processes, devices and state."""
        for each in reversed(self._machines):
            each.destroy()
        self._machines.clear()
        machine.forget_logs()
        for directory in (STATE, RUN):
            shutil.rmtree(directory, ignore_errors=True)


__all__ = [
    "CommandError",
    "Daemon",
    "Host",
    "IperfResult",
    "Lab",
    "Lan",
    "Line",
    "Machine",
    "PingResult",
    "SessionsResult",
    "Site",
    "StoryError",
    "Stream",
    "StreamResult",
    "Supervisor",
    "TcpSessions",
    "Uplink",
]
