"""Wire types of the status: what a box says about itself, locally and later to the portal."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

from annotated_types import Ge

from appliance.contract.decision import CarrierStatus, Move
from appliance.contract.problem import ConfigProblem
from appliance.contract.wire import (
    STRICT,
    Count,
    Direction,
    Microseconds,
    Mos,
    MoveCause,
    PathState,
    Ratio,
    Seconds,
    SeverityName,
    SlotNumber,
    UnixTime,
    UplinkState,
)

Stage = Literal["starting", "running", "stopping"]  # stages of life of docs/ERRORS.md


@dataclass(frozen=True, slots=True)
class ShaperStatus:
    """One direction of an uplink that is shaped. Rates in bit/s, as the line counts them."""

    __pydantic_config__ = STRICT

    direction: Direction
    rate_bps: Count  # at which packets are let through now
    least_bps: Count  # and the bounds between which that is learned; equal: it is given
    most_bps: Count
    used_bps: Count  # of the last moment
    carried_bps: Count | None = None  # when the line was last full, so much came through it
    carried_age_s: Seconds | None = None  # of that measurement
    queue_us: Microseconds | None = None  # that waits in the line; None: no path tells


@dataclass(frozen=True, slots=True)
class UplinkStatus:
    """A WAN attachment of this box."""

    __pydantic_config__ = STRICT

    name: str
    slot: SlotNumber
    label: str
    device: str
    state: UplinkState
    detail: str  # "2 of 3 targets answered; 192.0.2.53 (dns) did not"
    since: UnixTime  # of the state
    addresses: tuple[str, ...]
    gateways: tuple[str, ...]
    metered: bool
    age_s: Seconds | None = None  # of the newest probe of a target; None without targets
    shapers: tuple[ShaperStatus, ...] = ()


@dataclass(frozen=True, slots=True)
class PathStatus:
    """A measured way to a site. What was not measured yet is null, never zero."""

    __pydantic_config__ = STRICT

    path: str  # "hq/1-2"
    site: str
    plane: str  # "1-2": own uplink slot, the far end's
    uplinks: str  # the labels at both ends, "fibre - cable"
    device: str  # "bl-1-2"
    state: PathState
    since: UnixTime  # of the state
    delay_us: Microseconds | None  # two-way mean
    jitter_us: Microseconds | None  # the worse direction
    loss_ratio: Ratio | None  # two-way
    loss_forward_ratio: Ratio | None
    loss_backward_ratio: Ratio | None
    mos: Mos | None
    mtu: Annotated[int, Ge(576)] | None  # octets of the inner packet
    metered: bool
    probe_interval_s: Seconds
    age_s: Seconds | None  # of the newest measurement


@dataclass(frozen=True, slots=True)
class ClassStatus:
    """Which paths carry a class to a site."""

    __pydantic_config__ = STRICT

    class_name: str
    site: str
    carriers: tuple[CarrierStatus, ...]  # none: its packets are discarded
    meets_sla: bool | None  # None: not measured yet
    since: UnixTime
    cause: MoveCause | None  # None: adopted from the kernel, not decided in this run
    reason: str
    second: CarrierStatus | None = None  # over which copies go; None: none are sent


@dataclass(frozen=True, slots=True)
class WarningStatus:
    """Trouble that a user can see. One per code and subject."""

    __pydantic_config__ = STRICT

    code: str
    subject: str
    severity: SeverityName
    text: str
    since: UnixTime


@dataclass(frozen=True, slots=True)
class ConfigStatus:
    """The configuration in force, and what was wrong with one that was refused after it."""

    __pydantic_config__ = STRICT

    file: str
    digest: str  # first 12 hexadecimal digits of the SHA-256 of the file
    since: UnixTime
    refused: tuple[ConfigProblem, ...] = ()


@dataclass(frozen=True, slots=True)
class RecorderStatus:
    """The on-disk recorder: what it holds, and whether it can write."""

    __pydantic_config__ = STRICT

    octets: Count = 0
    dropped: Count = 0  # entries that could not be kept since the start
    trouble: str | None = None


@dataclass(frozen=True, slots=True)
class Counters:
    """What the supervisor has done since its start."""

    __pydantic_config__ = STRICT

    moves: Mapping[str, Count] = field(default_factory=dict)  # by cause
    ops: Mapping[str, Count] = field(default_factory=dict)  # by kind of kernel object
    ops_failed: Count = 0
    events: Count = 0
    probes_sent: Count = 0
    probes_answered: Count = 0
    probes_reflected: Count = 0
    probes_refused: Mapping[str, Count] = field(default_factory=dict)  # malformed, forged, limited
    loop_late_max_s: Seconds = 0.0  # the latest that the event loop ever ran
    loop_stalls: Count = 0


@dataclass(frozen=True, slots=True)
class Status:
    """Everything about a box at one moment."""

    __pydantic_config__ = STRICT

    site: str
    site_id: int
    version: str
    stage: Stage
    at: UnixTime
    uptime_s: Seconds
    config: ConfigStatus
    uplinks: tuple[UplinkStatus, ...]
    paths: tuple[PathStatus, ...]
    classes: tuple[ClassStatus, ...]
    warnings: tuple[WarningStatus, ...] = ()
    recorder: RecorderStatus = RecorderStatus()
    counters: Counters = field(default_factory=Counters)


@dataclass(frozen=True, slots=True)
class Change:
    """What is different since the last change told: rows replace those of the same identity.

    No row goes in this way. What another configuration removes, and what has no row, is told by a
    whole Status again.
    """

    __pydantic_config__ = STRICT

    at: UnixTime
    uplinks: tuple[UplinkStatus, ...] = ()
    paths: tuple[PathStatus, ...] = ()
    classes: tuple[ClassStatus, ...] = ()
    moves: tuple[Move, ...] = ()
    warnings: tuple[WarningStatus, ...] | None = None  # all of them, when any was raised or cleared


@dataclass(frozen=True, slots=True)
class Health:
    """Answer of the health check: the supervisor's loop runs."""

    __pydantic_config__ = STRICT

    stage: Stage
    uptime_s: Seconds


@dataclass(frozen=True, slots=True)
class PlanText:
    """Kernel objects, or what would be done to them, as commands that a person would type."""

    __pydantic_config__ = STRICT

    commands: tuple[str, ...]
    is_dry_run: bool  # True: the operations that are outstanding; False: the whole plan


@dataclass(frozen=True, slots=True)
class Reloaded:
    """The configuration file was read again and is in force."""

    __pydantic_config__ = STRICT

    digest: str
    is_changed: bool


@dataclass(frozen=True, slots=True)
class ConfigSummary:
    """A configuration that is valid: what it describes."""

    __pydantic_config__ = STRICT

    site: str
    site_id: int
    uplinks: Count
    peers: Count
    classes: Count
    paths: Count
