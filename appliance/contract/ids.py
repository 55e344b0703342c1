"""Identities that every layer and the wire share."""

from typing import NamedTuple, NewType

SiteName = NewType("SiteName", str)
SiteId = NewType("SiteId", int)  # 1..65535, unique in the fleet; part of overlay addresses
UplinkName = NewType("UplinkName", str)
Slot = NewType("Slot", int)  # 1..15, the place of an uplink in ports, marks and device names
ClassName = NewType("ClassName", str)
Label = NewType("Label", str)  # what a policy calls an uplink: "fibre", "lte"


class Plane(NamedTuple):
    """A pair of uplink slots: one WireGuard device, shared by all sites."""

    local: Slot
    remote: Slot

    def __str__(self) -> str:
        return f"{self.local}-{self.remote}"


# Where a class goes that leaves the box by an uplink itself, as if it were one more site.
INTERNET = SiteName("internet")
OUTSIDE = Slot(0)  # no uplink has it: the far end of the way out


def exit_plane(local: Slot) -> Plane:
    """The way out of an uplink itself, as if it were a plane."""
    return Plane(local, OUTSIDE)


class PathId(NamedTuple):
    """A way a packet can take to a site."""

    site: SiteName
    plane: Plane

    def __str__(self) -> str:
        return f"{self.site}/{self.plane}"
