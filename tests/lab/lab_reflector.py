"""The kernel answers plain probes as the supervisor would, and goes on while that is busy.

    [a] === fibre, dsl ===+-- internet --+=== fibre, dsl === [b] --- b-lan0-h1

b's supervisor is stopped, and a script of test packets is sent in its place through the tunnels:
what a answers must be, but for the times, what a SessionReflector of ours answers to the same
script. A host behind b asks too, and gets nothing. Then a's supervisor is stopped.
"""

import socket
import struct
import time
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Network

from appliance.config.addressing import mirrored, plane_device, probe_address
from appliance.contract.ids import Plane, SiteId, Slot
from appliance.stamp.packet import PTP_FORMAT, pack_sender, parse_reflector, split_ntp, split_ptp
from appliance.stamp.reflector import SessionReflector
from appliance.stamp.tlv import (
    Type,
    decode_path_report,
    encode_class_of_service,
    encode_padding,
    encode_path_report,
    find,
)
from lab.fleet import OVERLAY, Fleet
from lab.line import Line
from lab.topology import Lab, Machine
from tests.bench.worlds import two_uplinks

A, B = SiteId(1), SiteId(2)
ONE, TWO = Plane(Slot(1), Slot(1)), Plane(Slot(2), Slot(1))  # as b sees them
SSID, UNKNOWN = 0x77, 0x66
SSID_ONE = ONE.local * 16 + ONE.remote  # the one that a plane's own session has
S = 1_000_000_000
BURST = 250  # of a session, and 500/s after it
TIMES = slice(4, 12), slice(16, 24)  # of an answer: when it left, when the probe came
NUMBER = slice(0, 4)
LEFT = 255  # the hop limit of a probe
CS6 = 48 << 2


@dataclass(frozen=True, slots=True)
class Asker:
    """A socket on b's end of a plane."""

    own: socket.socket
    port: int

    def ask(self, packet: bytes, wait_s: float = 0.5) -> bytes | None:
        self.own.settimeout(wait_s)
        self.own.send(packet)
        try:
            return self.own.recv(2048)
        except (TimeoutError, ConnectionRefusedError):
            return None

    def flood(self, packets: Iterable[bytes]) -> int:
        """Send all at once; how many answers come."""
        for packet in packets:
            self.own.send(packet)
        count = 0
        self.own.settimeout(0.5)
        while True:
            try:
                self.own.recv(2048)
            except TimeoutError:
                return count
            count += 1


def asker(machine: Machine, plane: Plane, port: int = 862, own_port: int = 0) -> Asker:
    overlay = IPv6Network(OVERLAY)
    with machine.entered():
        own = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        own.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, plane_device(plane).encode())
        own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, LEFT)
        own.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, CS6)
        own.bind((str(probe_address(overlay, plane, B)), own_port))
        own.connect((str(probe_address(overlay, mirrored(plane), A)), port))
    return Asker(own, own.getsockname()[1])


def probe(
    sequence: int, *, at_s: int = 1000, ssid: int = SSID, estimate: int = PTP_FORMAT | 1
) -> bytes:
    split = split_ptp if estimate & PTP_FORMAT else split_ntp
    return pack_sender((sequence, *split(at_s * S + 5), estimate, ssid))


# Each a step of the script: what is sent, and what is special about it.
SCRIPT = (
    (probe(7), "the first packet of a session"),
    (probe(8), "the second"),
    (probe(8), "the second again"),
    (probe(11), "one after two that were lost"),
    (probe(12) + encode_padding(40), "one that is padded"),
    (probe(13) + encode_padding(1200), "one that is padded to the size of a large packet"),
    (probe(14) + encode_padding(4), "one with the smallest padding"),
    (probe(12, ssid=0x177) + encode_class_of_service(8), "one that the supervisor answers"),
    (probe(15), "one after it"),
    (probe(14, estimate=1, ssid=0x78), "one with NTP timestamps, which it answers too"),
    (probe(16), "one after it"),
    (probe(14)[:14], "a short one of TWAMP Light"),
    (probe(0, at_s=1000), "the first one again, which is no new beginning"),
    (probe(0, at_s=1001), "a new beginning"),
    (probe(1, at_s=1001), "and its second packet"),
    (probe(0xFFFFFFFF, at_s=1001), "one from before the beginning"),
    (probe(2, at_s=1001, estimate=PTP_FORMAT), "an error estimate without multiplier"),
    (b"", "nothing at all"),
    (probe(3, at_s=1001, ssid=5), "another session"),
    (probe(4, at_s=1001, ssid=0x177) + b"\x01", "half a TLV"),
)


def story_it_answers_as_the_supervisor_would(lab: Lab) -> None:
    fleet = started(lab)
    fleet.supervisor("b").pause()
    b = fleet.sites["b"]
    one = asker(b, ONE)
    ours = SessionReflector(dscp=48)
    now_ns = time.time_ns()
    with b.entered():
        tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x86DD))
        tap.bind((plane_device(ONE), 0x86DD))
        tap.setblocking(False)
    for packet, what in SCRIPT:
        got = one.ask(packet)
        expected = ours.reflect(packet, b"b", now_ns, now_ns, LEFT, traffic_class=CS6)
        lab.check(without_times(got) == without_times(expected), f"{what}: {shown(got)}")
    sums = [udp_sum(packet) for packet in answers_on(tap)]
    lab.check(len(sums) > len(SCRIPT) - 5 and set(sums) == {0xFFFF}, "their checksums are right")
    old = probe(3, at_s=900)
    got = asker(b, ONE).ask(old)
    expected = ours.reflect(old, b"b, restarted", now_ns, now_ns, LEFT)
    lab.check(without_times(got) == without_times(expected), f"a sender anew: {shown(got)}")
    got = one.ask(probe(20))
    lab.require(got is not None, "it is still there")
    assert got is not None
    left_s, came_s = parse_reflector(got)[1], parse_reflector(got)[5]
    lab.check(abs(left_s - time.time()) < 2 and came_s in (left_s, left_s - 1), "its time is ours")
    lab.check(asker(b, ONE, 863).ask(probe(1)) is None, "another port is not its business")
    lab.check(not heard_by_lan(lab, fleet), "and nobody behind b is answered")

    for sequence in (4, 5, 9):
        one.ask(probe(sequence, ssid=SSID_ONE))
    asks = encode_path_report([UNKNOWN, SSID_ONE])
    counted(lab, asker(b, TWO, own_port=one.port).ask(probe(0) + asks))
    answered = one.flood(probe(n, ssid=9) for n in range(2 * BURST))
    before = fleet.supervisor("a").status()["counters"]["probes_refused"]
    # Some of so many are lost in the tunnel's own queues.
    told = f"of {2 * BURST} at once {answered} are answered"
    lab.check(0.9 * BURST <= answered < 1.2 * BURST, told)
    lab.check(0.7 * BURST <= before["limited"] < 1.1 * BURST, f"the others are counted {before}")
    lab.check(before["malformed"] >= 2, "and so are those that were no test packets")


def heard_by_lan(lab: Lab, fleet: Fleet) -> bool:
    """Is a host of b's LAN answered, or counted, that asks a's end of the plane?"""
    host = fleet.sites["b"].lans["lan0"].hosts[0]
    target = str(probe_address(IPv6Network(OVERLAY), mirrored(ONE), A))
    refused = fleet.supervisor("a").status()["counters"]
    with host.entered():
        own = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    own.settimeout(0.5)
    own.sendto(probe(1), (target, 862))
    try:
        own.recv(2048)
    except OSError:
        after = fleet.supervisor("a").status()["counters"]
        return bool(after["probes_refused"] != refused["probes_refused"])
    return True


def answers_on(tap: socket.socket) -> list[bytes]:
    """What came in by a device from the port that answers."""
    found = []
    while True:
        try:
            packet, origin = tap.recvfrom(4096)
        except BlockingIOError:
            return found
        if origin[2] == socket.PACKET_HOST and packet[40:42] == (862).to_bytes(2):
            found.append(packet)


def udp_sum(packet: bytes) -> int:
    """The sum over an IPv6 packet's UDP part, 0xffff when its checksum is right (RFC 8200, 8.1)."""
    body = packet[40:] + bytes(len(packet) % 2)
    octets = packet[8:40] + (len(packet) - 40).to_bytes(4) + (17).to_bytes(4) + body
    total = sum(struct.unpack(f">{len(octets) // 2}H", octets))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def counted(lab: Lab, answer: bytes | None) -> None:
    """What a tells over one plane of what came by another."""
    value = find((answer or b"")[44:], Type.PATH_REPORT)
    reports = [] if value is None else decode_path_report(value)
    expected = [(UNKNOWN, 0, 0), (SSID_ONE, 3, 9)]
    lab.check(reports == tuple(expected), f"over another plane it tells what it counted: {reports}")


def story_it_needs_no_supervisor_that_is_awake(lab: Lab) -> None:
    fleet = started(lab)
    one = asker(fleet.sites["b"], ONE)
    a = fleet.supervisor("a")
    moves = fleet.supervisor("b").status()["counters"]["moves"]
    a.pause()
    lab.sleep_virtual(12)  # MTUs are confirmed meanwhile
    status = fleet.supervisor("b").status()
    seen = {(path["state"], path["loss_ratio"], path["mtu"]) for path in status["paths"]}
    lab.check(
        seen == {("up", 0.0, 1420)}, f"a's supervisor sleeps, and b sees nothing of it {seen}"
    )
    lab.check(status["counters"]["moves"] == moves, f"and moves nothing {moves}")
    lab.check(one.ask(probe(0)) is not None, "probes are answered")
    a.resume()
    a.kill()
    lab.check(one.ask(probe(1)) is None, "a supervisor that was killed leaves nothing behind")
    a.start()
    lab.wait_until(lambda: one.ask(probe(2), 0.1) is not None, 30, "the next one answers again")
    fleet.wait_up()


def started(lab: Lab) -> Fleet:
    fleet = Fleet(lab, probing={"interval": "50 ms"})
    for number, name in ((A, "a"), (B, "b")):
        site = two_uplinks(lab, name, fibre=Line(delay_ms=2), dsl=Line(delay_ms=3))
        fleet.add(site, number)
    fleet.start()
    fleet.wait_up()
    lab.require("the kernel answers probes" in fleet.supervisor("a").log(), "the kernel answers")
    return fleet


def without_times(answer: bytes | None) -> bytes | None:
    if answer is None:
        return None
    octets = bytearray(answer)
    for part in TIMES:
        octets[part] = bytes(len(octets[part]))
    return bytes(octets)


def shown(answer: bytes | None) -> str:
    return (
        "no answer"
        if answer is None
        else f"{len(answer)} octets, number {int.from_bytes(answer[NUMBER])}"
    )
