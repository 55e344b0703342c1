"""Probe sockets over the loopback device of the machine: real system calls, real control data."""

from collections.abc import Iterator
from ipaddress import IPv6Address
from select import select
from socket import if_nametoindex

import pytest

from appliance import clock
from appliance.probing.sockets import (
    BATCH,
    CS6,
    Packet,
    ProbeSocket,
    address_of,
    endpoint,
    pktinfo,
)

LOOPBACK = IPv6Address("::1")
END = pktinfo(LOOPBACK, if_nametoindex("lo"))
NOWHERE = pktinfo(LOOPBACK, 0x7FFFFFFF)


@pytest.fixture
def near() -> Iterator[ProbeSocket]:
    sock = ProbeSocket()
    yield sock
    sock.close()


@pytest.fixture
def far() -> Iterator[ProbeSocket]:
    sock = ProbeSocket()
    yield sock
    sock.close()


def read(sock: ProbeSocket, count: int) -> list[Packet]:
    """So many packets, however many calls they take."""
    found: list[Packet] = []
    while len(found) < count:
        assert select([sock], [], [], 10)[0], f"{len(found)} of {count} packets came"
        found += sock.receive()
    return found


@pytest.mark.parametrize("step_ms", [500, 50, -50, -500])
def test_a_wall_clock_that_is_set_makes_no_packet_older(
    near: ProbeSocket, far: ProbeSocket, monkeypatch: pytest.MonkeyPatch, step_ms: int
) -> None:
    """Not by a little either: an answer of before it was asked for would count as the fastest."""
    wall_ns, to_far = clock.wall_ns, endpoint(LOOPBACK, far.port)
    before_ns = clock.monotonic_ns()
    near.send([(b"", to_far, END)] * (2 * BATCH + 3))  # stamped before the call returns
    monkeypatch.setattr(clock, "wall_ns", lambda: wall_ns() + step_ms * 1_000_000)
    for packet in read(far, 2 * BATCH + 3):
        assert before_ns <= packet.received_ns <= clock.monotonic_ns()


def test_the_age_of_a_packet_counts_while_the_wall_clock_is_left_alone(
    near: ProbeSocket, far: ProbeSocket, monkeypatch: pytest.MonkeyPatch
) -> None:
    wall_ns, to_far = clock.wall_ns, endpoint(LOOPBACK, far.port)
    monkeypatch.setattr(clock, "wall_ns", lambda: wall_ns() + 1_000_000_000)
    ages_ns = []
    for _ in range(2):
        near.send([(b"", to_far, END)])
        (packet,) = read(far, 1)
        ages_ns.append(clock.monotonic_ns() - packet.received_ns)
    assert ages_ns[0] < 1_000_000_000 <= ages_ns[1]  # it had been set before the first


class Odd:
    """Every other port."""

    def __contains__(self, port: object) -> bool:
        return isinstance(port, int) and port % 2 == 1


def test_a_socket_keeps_away_from_ports_that_others_need() -> None:
    found = [ProbeSocket.outside(Odd()) for _ in range(16)]
    assert not [sock for sock in found if sock.port in Odd()]
    for sock in found:
        sock.close()


def test_packets_come_in_order_with_what_the_kernel_says_of_them(
    near: ProbeSocket, far: ProbeSocket
) -> None:
    to_far = endpoint(LOOPBACK, far.port)
    texts = [b"%d" % i * (i + 1) for i in range(2 * BATCH + 3)]
    before_ns = clock.monotonic_ns()
    assert near.send([(text, to_far, END) for text in texts]) == len(texts)
    packets = read(far, len(texts))
    assert [p.octets for p in packets] == texts
    assert {p.source for p in packets} == {endpoint(LOOPBACK, near.port)}
    assert {p.pktinfo for p in packets} == {END}
    assert {p.traffic_class for p in packets} == {CS6}
    assert {p.hop_limit for p in packets} == {64}
    stamps = [p.received_ns for p in packets]
    assert sorted(stamps) == stamps
    assert before_ns - 1_000_000 <= stamps[0] <= stamps[-1] <= clock.monotonic_ns()


def test_an_answer_goes_back_where_the_packet_came_from(
    near: ProbeSocket, far: ProbeSocket
) -> None:
    near.send([(b"ask", endpoint(LOOPBACK, far.port), END)])
    (asked,) = read(far, 1)
    assert address_of(asked.source) == LOOPBACK
    far.send([(b"answer", asked.source, asked.pktinfo)])
    (answer,) = read(near, 1)
    assert (answer.octets, answer.source) == (b"answer", endpoint(LOOPBACK, far.port))


@pytest.mark.parametrize("bad", [0, 1, BATCH - 1, BATCH])
def test_what_the_kernel_refuses_keeps_nothing_else_back(
    near: ProbeSocket, far: ProbeSocket, bad: int
) -> None:
    to_far = endpoint(LOOPBACK, far.port)
    outgoing = [(b"%d" % i, to_far, END) for i in range(BATCH + 2)]
    outgoing[bad] = (b"lost", to_far, NOWHERE)
    assert near.send(outgoing) == BATCH + 1
    octets = [p.octets for p in read(far, BATCH + 1)]
    assert octets == [b"%d" % i for i in range(BATCH + 2) if i != bad]


def test_sizes_of_earlier_packets_do_not_show(near: ProbeSocket, far: ProbeSocket) -> None:
    to_far = endpoint(LOOPBACK, far.port)
    for octets in (bytes(1400), b"short", b""):
        assert near.send([(octets, to_far, END)]) == 1
        assert read(far, 1)[0].octets == octets


def test_nothing_waits(near: ProbeSocket) -> None:
    assert near.receive() == []
    assert near.send([]) == 0


def test_a_port_that_is_taken_is_an_error(near: ProbeSocket) -> None:
    with pytest.raises(OSError, match="in use"):
        ProbeSocket(near.port)


def test_what_comes_in_by_no_plane_is_not_heard(near: ProbeSocket, far: ProbeSocket) -> None:
    to_far = endpoint(LOOPBACK, far.port)
    for ends, heard in (([NOWHERE], []), ([], []), ([NOWHERE, END], [b"here"])):
        far.hear(ends)
        near.send([(b"here", to_far, END)])  # loopback delivers before the call returns
        assert [p.octets for p in far.receive()] == heard
