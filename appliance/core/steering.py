"""The current result of all decisions: which paths carry which class to which site.

Pure values. `plan` renders them into routes and nexthop objects; `core` is the only writer.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from appliance.contract.ids import ClassName, PathId, Plane, SiteName, Slot

# What a plane's device lets through, in octets: IPv6, UDP and WireGuard take 80 of 1500.
DEVICE_MTU = 1420


@dataclass(frozen=True, slots=True)
class Carrier:
    """One path's share of a class."""

    path: PathId
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Assignment:
    """What carries a class to a site.

    No carrier at all discards the packets (fail closed). `mtu` is what the smallest of the carriers
    lets through, in octets of the inner packet, or None when the device's own MTU holds. In mode
    `bond` flows begin on the first carrier. In mode `duplicate` a copy of each packet goes over the
    `second` path, whose MTU counts as well.
    """

    carriers: tuple[Carrier, ...] = ()
    mtu: int | None = None
    second: PathId | None = None

    @property
    def paths(self) -> tuple[PathId, ...]:
        """All paths that packets of the class take."""
        first = tuple([c.path for c in self.carriers])
        return first if self.second is None else (*first, self.second)


@dataclass(frozen=True, slots=True)
class Steering:
    """Assignments of every (class, site), and detours of planes whose local uplink is dead.

    A detour makes the nexthop objects of a plane point at the device of another: all sites and
    classes on it move with one message. The assignments follow one by one at leisure, after which
    nothing refers to the plane any more.
    """

    assignments: Mapping[tuple[ClassName, SiteName], Assignment] = field(
        default_factory=lambda: MappingProxyType({})
    )
    detours: Mapping[Plane, Plane] = field(default_factory=lambda: MappingProxyType({}))
    gateway: SiteName | None = None  # through which classes get to the internet
    working: frozenset[Slot] = frozenset()  # uplinks that lead there, as far as is known
