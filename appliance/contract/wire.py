"""Words and units that all wire types share.

Wire types are frozen dataclasses of the standard library: the command line and the telemetry read
them without loading pydantic, which validates and describes them in one place
(`appliance/contract/codec.py`); a hub's thousands of rows stay small. Ratios are 0..1, delays are
microseconds, times are seconds since 1970: those are for people, nothing is decided by them.
"""

from typing import Annotated, Final, Literal

from annotated_types import Ge, Le

SOCKET_NAME: Final = "api.sock"  # of the local API, in the run directory
STRICT: Final = {"extra": "forbid"}  # the `__pydantic_config__` of every wire type

UnixTime = Annotated[float, Ge(0), Le(1e11)]
Seconds = Annotated[float, Ge(0), Le(1e11)]
Microseconds = Annotated[int, Ge(0)]
Ratio = Annotated[float, Ge(0), Le(1)]
Mos = Annotated[float, Ge(1), Le(4.5)]
SlotNumber = Annotated[int, Ge(1), Le(15)]
Count = Annotated[int, Ge(0)]
Direction = Literal["up", "down"]  # of an uplink: what we send, what we receive
BitsPerSecond = Annotated[int, Ge(0)]
Port = Annotated[int, Ge(0), Le(65535)]
Dscp = Annotated[int, Ge(0), Le(63)]

PathState = Literal["unknown", "up", "suspect", "rising", "down"]
UplinkState = Literal["up", "unhealthy", "down"]  # unhealthy: attached, but the targets say no
SeverityName = Literal["info", "warning", "critical"]
MoveCause = Literal[
    "initial",
    "path-down",
    "uplink-down",
    "sla-violated",
    "recovered",
    "better-path",
    "no-path",
    "configured",
    "mtu-changed",
    "reordering",
    "second-path",
]
Verdict = Literal["meets", "violates", "unmeasured", "unusable", "not-permitted"]
