"""What bond.bpf.c does to packets, on two devices that this process is the line of.

Both have a shaper: their packets wait in another device and come back. The first one is slow.
"""

import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from ipaddress import ip_address

from appliance.config.addressing import FILTER_PRIORITY_LAST, class_mark
from appliance.kernel.bond import Bonding
from appliance.kernel.filters import BpfFilters
from appliance.kernel.netlink import Netlink
from appliance.plan.plan import Add, Bond, Change, Delete, Key, Kind, Stripe
from tests.contract.duplicate_checks import (
    NEAR,
    ONE,
    OTHER,
    PACKET,
    PORT,
    QUIET_S,
    SO_MARK,
    TWO,
    VOICE,
    Planes,
)
from tests.contract.shell import RealWorld, shell

BOTH = (ONE, TWO)
KEYS = [Key(Kind.BOND, (name,)) for name in BOTH]
EVERYWHERE = ("0.0.0.0/0", "::/0")
NETWORKS = ("10.0.1.8/30", "2001:db8:1::8/125")  # with all of NEAR
BOND = Bond("of one class", (Stripe(1, NETWORKS, BOTH),))
THIRD = class_mark(3)
MANY, FEW = 100, 5
UNKNOWN = 12  # more than may wait where it is not known how fast they leave
RATES = {ONE: "2mbit", TWO: "1gbit"}  # MANY wait for 0.2 s
EMPTY_S = 0.5
SYN, ACK = 0x02, 0x10
IDLE_S = 1.2  # longer than it takes until nobody is believed to wait any more


def redirect(device: str) -> str:
    """Where the filter is by which packets of a plane wait."""
    return f"dev {device} egress pref {FILTER_PRIORITY_LAST} protocol all"


class Bonded(Planes):
    """Both planes are members, the first is slow."""

    def __init__(self) -> None:
        super().__init__()
        self.bonding = Bonding(BpfFilters(Netlink(socket.NETLINK_ROUTE)))
        for number, (name, rate) in enumerate(RATES.items()):
            shell(
                f"ip link add shaper{number} type ifb; ip link set shaper{number} up; "
                f"tc qdisc add dev shaper{number} root netem rate {rate} limit 1000; "
                f"tc filter add {redirect(name)} "
                f"matchall action mirred egress redirect dev shaper{number}"
            )
        self.do(*(Add(key, BOND) for key in KEYS))

    def __exit__(self, *_: object) -> None:
        self.bonding.close()
        super().__exit__()

    def do(self, *ops: Add | Change | Delete) -> None:
        for op in ops:
            self.bonding.apply(op)

    def become(self, *stripes: Stripe) -> None:
        self.do(*(Change(key, BOND, Bond(repr(hash(stripes)), stripes)) for key in KEYS))

    def left(self, seconds: float = QUIET_S) -> tuple[list[int], list[int]]:
        """The numbers of what went out by each plane, in order."""
        self.wait(seconds)
        first, second = (
            [int(packet.removesuffix(PACKET)[-4:]) for packet in self.drain(name)] for name in BOTH
        )
        return first, second


class Flow:
    """Packets of one socket, with a number each, which routing sends to the first plane."""

    def __init__(self, source: socket.socket, to: str) -> None:
        self._source, self._to, self.sent = source, to, 0

    def send(self, count: int, mark: int = VOICE) -> list[int]:
        """Their numbers."""
        self._source.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        numbers = [*range(self.sent, self.sent + count)]
        for number in numbers:
            self._source.sendto(bytes(450) + b"%04d" % number + PACKET, (self._to, PORT))
        self.sent += count
        return numbers


class Segments(Flow):
    """TCP segments, with or without data. Without, the number is where options are."""

    def __init__(self, family: int, flags: int, *, has_data: bool) -> None:
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        super().__init__(socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_TCP), NEAR[family])
        self._flags, self._has_data = flags, has_data

    def send(self, count: int, mark: int = VOICE) -> list[int]:
        self._source.setsockopt(socket.SOL_SOCKET, SO_MARK, mark)
        numbers = [*range(self.sent, self.sent + count)]
        for number in numbers:
            rest = b"%04d" % number + PACKET
            words = 5 + (0 if self._has_data else len(rest) // 4)
            head = struct.pack(
                ">HHIIBBHHH", 7, PORT, number, 1, words << 4, self._flags, 9000, 0, 0
            )
            self._source.sendto(head + rest, (self._to, 0))
        self.sent += count
        return numbers

    def close(self) -> None:
        self._source.close()


@contextmanager
def flow(family: int) -> Iterator[Flow]:
    to = NEAR[family]
    kind = socket.AF_INET if ip_address(to).version == 4 else socket.AF_INET6
    with socket.socket(kind, socket.SOCK_DGRAM) as source:
        yield Flow(source, to)


@contextmanager
def queued(planes: Bonded, family: int) -> Iterator[Flow]:
    """A flow of the class, of which some waits at the first plane behind much of another class."""
    planes.left(EMPTY_S)
    with flow(family) as made:
        others = made.send(MANY, THIRD)
        numbers = made.send(UNKNOWN)
        first, second = planes.left()
        assert first < others
        assert FEW < len(second) + FEW < UNKNOWN, second
        assert second == numbers[-len(second) :]
        yield made


async def check_a_packet_leaves_by_the_plane_that_lets_it_through_first(_: RealWorld) -> None:
    with Bonded() as planes:
        for family in NEAR:
            with queued(planes, family) as made:
                numbers = made.send(FEW)
                waited, passed = planes.left()
                assert passed == numbers, family
                assert not set(waited) & set(numbers)
            planes.left(EMPTY_S)
            with flow(family) as made:
                assert made.send(FEW) == planes.left(EMPTY_S)[0]  # not yet known to be slow
                assert made.send(1) == planes.left(EMPTY_S)[0]  # nothing waits: where it was sent


async def check_a_plane_whose_packets_do_not_wait_is_used_again(_: RealWorld) -> None:
    """Its shaper is away when a flow begins, so none of what it sent there was seen to leave."""
    with Bonded() as planes:
        shell(f"tc filter del {redirect(ONE)}")
        with flow(4) as made:
            numbers = made.send(UNKNOWN)
            first, second = planes.left()
            assert first + second == numbers
            assert 0 < len(second) < FEW
            shell(
                f"tc filter add {redirect(ONE)} matchall action mirred egress redirect dev shaper0"
            )
            assert made.send(1) == planes.left(IDLE_S)[1]
            assert made.send(1) == planes.left(EMPTY_S)[0]


async def check_acknowledgements_go_by_a_second_plane_too_and_data_does_not(_: RealWorld) -> None:
    with Bonded() as planes:
        for family in NEAR:
            for flags, has_data in ((ACK, True), (SYN | ACK, False), (ACK, False)):
                planes.left(EMPTY_S)
                copied = 0
                with closing(Segments(family, flags, has_data=has_data)) as made:
                    for _step in range(12):
                        numbers = made.send(FEW)
                        first, second = planes.left()
                        assert first == numbers, family
                        assert second == sorted(set(second) & set(numbers))
                        copied += len(second)
                    if has_data or flags != ACK:
                        assert not copied
                    else:
                        assert made.sent // 4 < copied < made.sent * 3 // 4, family


async def check_every_packet_leaves_exactly_once_and_in_order_by_each_plane(_: RealWorld) -> None:
    with Bonded() as planes:
        for family in NEAR:
            planes.left(EMPTY_S)
            with flow(family) as made:
                first: list[int] = []
                second: list[int] = []
                for _step in range(8):
                    made.send(MANY // 4)
                    for found, more in zip((first, second), planes.left(), strict=True):
                        found += more
                for found, more in zip((first, second), planes.left(EMPTY_S), strict=True):
                    found += more
                assert sorted(first + second) == [*range(made.sent)], family
                assert first == sorted(first)
                assert second == sorted(second)
                assert first
                assert second


async def check_what_is_of_no_bond_is_left_alone(_: RealWorld) -> None:
    with Bonded() as planes:
        for family in NEAR:
            with queued(planes, family) as made:
                made.send(FEW, OTHER)
                made.send(FEW, OTHER | 0x00ABCDEF)
                assert planes.left(EMPTY_S)[1] == [], family
            with queued(planes, family) as made:
                numbers = made.send(FEW, VOICE | 0x00ABCDEF)  # others' bits
                assert planes.left()[1] == numbers, family


async def check_what_goes_elsewhere_is_left_alone(_: RealWorld) -> None:
    elsewhere = Stripe(1, ("10.0.1.128/25", "2001:db8:1::8000/113"), BOTH)
    excepted = Stripe(1, NETWORKS, ()), Stripe(1, EVERYWHERE, BOTH)
    alone = Stripe(1, NETWORKS, (ONE,))
    other_class = Stripe(2, EVERYWHERE, BOTH)
    with Bonded() as planes:
        for family in NEAR:
            for stripes in ((elsewhere,), excepted, (alone,), (other_class,)):
                planes.become(BOND.stripes[0])
                with queued(planes, family) as made:
                    planes.become(*stripes)
                    made.send(FEW)
                    assert planes.left()[1] == [], (family, stripes)
            planes.become(Stripe(1, EVERYWHERE, BOTH))
            with queued(planes, family) as made:
                assert made.send(FEW) == planes.left()[1], family


async def check_a_plane_that_leaves_a_bond_gets_nothing_more_of_it(_: RealWorld) -> None:
    with Bonded() as planes, queued(planes, 4) as made:
        assert made.send(FEW) == planes.left()[1]
        planes.do(*(Delete(key, BOND) for key in KEYS))
        made.send(FEW)
        assert planes.left(EMPTY_S)[1] == []


CHECKS: dict[str, Callable[[RealWorld], Awaitable[None]]] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}
