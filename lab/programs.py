"""Run ping and iperf3 and read their results."""

import json
import math
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from lab.machine import CommandError, Daemon, Machine

_RTT = re.compile(r"icmp_seq=(\d+) .*time=([\d.]+) ms(.*DUP!)?")
_SUMMARY = re.compile(r"rtt min/avg/max/mdev = ([\d.]+)/([\d.]+)/([\d.]+)/")


@dataclass(frozen=True, slots=True)
class PingResult:
    sent: int
    received: int  # different requests that were answered
    duplicates: int
    reordered: int  # answers that came after the answer to a later request
    rtt_ms: tuple[float, ...]  # of each answered request in order of arrival, three digits
    least_ms: float  # to the microsecond; NaN when nothing was answered
    mean_ms: float
    most_ms: float

    @property
    def lost(self) -> int:
        return self.sent - self.received


def ping(
    machine: Machine,
    address: str,
    *,
    count: int,
    interval_s: float,
    size: int,
    dscp: int,
    wait_s: float,
    dont_fragment: bool,
) -> PingResult:
    """`size` is the payload (56 makes 84-octet IPv4 packets). No answer at all is a result."""
    argv = ["ping", "-n", "-c", str(count), "-i", str(interval_s), "-s", str(size)]
    argv += ["-Q", str(dscp << 2), "-W", str(wait_s)]
    argv += ["-M", "do"] if dont_fragment else []
    return parse_ping(machine.run([*argv, address], check=False), count)


def parse_ping(output: str, sent: int) -> PingResult:
    seen: dict[int, float] = {}
    duplicates = reordered = highest = 0
    for match in _RTT.finditer(output):
        sequence, rtt = int(match[1]), float(match[2])
        if match[3] or sequence in seen:
            duplicates += 1
            continue
        seen[sequence] = rtt
        reordered += sequence < highest
        highest = max(highest, sequence)
    summary = _SUMMARY.search(output)
    least, mean, most = map(float, summary.groups()) if summary else (math.nan,) * 3
    return PingResult(
        sent, len(seen), duplicates, reordered, tuple(seen.values()), least, mean, most
    )


@dataclass(frozen=True, slots=True)
class IperfResult:
    """Rates as the receiving ends counted them."""

    forward_mbit: float  # client to server
    backward_mbit: float  # server to client
    retransmits: int
    cpu_ratio: float  # of the whole guest, client's view


class IperfRun:
    """A run under way, with a server of its own."""

    def __init__(
        self, client: subprocess.Popen[str], server: Daemon, parse: Callable[[str], IperfResult]
    ) -> None:
        self._client = client
        self._server = server
        self._parse = parse

    def result(self) -> IperfResult:
        """Wait for its end. Raises CommandError for one that failed."""
        output, _ = self._client.communicate()
        result = self._parse(output)
        self._server.process.wait(10)
        return result


def start_iperf3(
    client: Machine,
    server: Machine,
    address: str,
    *,
    seconds: float,
    parallel: int,
    direction: str,
    omit_s: float,
    port: int,
    options: tuple[str, ...],
    wait_until: Callable[[Callable[[], object], float, str], object],
) -> IperfRun:
    """Start a run. `direction`: "forward", "backward" or "both"."""
    flags = {"forward": [], "backward": ["--reverse"], "both": ["--bidir"]}[direction]
    daemon = server.background(["iperf3", "-s", "-1", "-p", str(port)], name=f"iperf3-{port}")
    wait_until(lambda: is_listening(server, port), 5, "iperf3 listens")
    argv = ["iperf3", "-c", address, "-p", str(port), "-t", str(seconds), "-P", str(parallel)]
    argv += ["-O", str(omit_s), "-J", *flags, *options]
    return IperfRun(client.start(argv), daemon, partial(parse_iperf3, direction=direction))


def parse_iperf3(output: str, *, direction: str) -> IperfResult:
    report = json.loads(output)
    if "error" in report:
        raise CommandError(f"iperf3: {report['error']}")  # noqa: EM102
    end = report["end"]
    first = end["sum_received"]["bits_per_second"] / 1e6
    second = end.get("sum_received_bidir_reverse", {}).get("bits_per_second", 0.0) / 1e6
    forward, backward = {"forward": (first, 0.0), "backward": (0.0, first)}.get(
        direction, (first, second)
    )
    return IperfResult(
        forward_mbit=forward,
        backward_mbit=backward,
        retransmits=int(end["sum_sent"].get("retransmits", 0)),
        cpu_ratio=end["cpu_utilization_percent"]["host_total"] / 100,
    )


def is_listening(machine: Machine, port: int) -> bool:
    """Whether something accepts TCP connections on that port, without connecting to it."""
    return bool(machine.run(["ss", "-Hltn", f"sport = :{port}"]).strip())
