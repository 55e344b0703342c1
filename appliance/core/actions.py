"""Everything that `decide` can ask for. Whoever carries an action out decides nothing."""

from dataclasses import dataclass
from enum import StrEnum

from appliance.contract.ids import ClassName, PathId, Plane, SiteName, Slot
from appliance.core.steering import Assignment


class Cause(StrEnum):
    """Why a class moved. The sentence for people is in `reason`."""

    INITIAL = "initial"
    PATH_DOWN = "path-down"
    UPLINK_DOWN = "uplink-down"  # carrier, address or shared fate
    SLA_VIOLATED = "sla-violated"
    RECOVERED = "recovered"  # back to a better path after the hold time
    BETTER_PATH = "better-path"  # voluntary: both were good
    NO_PATH = "no-path"
    CONFIGURED = "configured"
    MTU_CHANGED = "mtu-changed"
    REORDERING = "reordering"  # in mode `bond`: a line too slow for one flow over it and another
    SECOND_PATH = "second-path"  # copies go another way from now on, or none are sent


@dataclass(frozen=True, slots=True)
class MoveClass:
    """Carry a class to a site in another way from now on."""

    class_name: ClassName
    site: SiteName
    before: Assignment
    after: Assignment
    cause: Cause
    reason: str  # one sentence with the numbers that decided

    @property
    def is_voluntary(self) -> bool:
        """True when nothing was wrong with the incumbent."""
        return self.cause in (Cause.RECOVERED, Cause.BETTER_PATH)


@dataclass(frozen=True, slots=True)
class DetourPlanes:
    """Point planes of a dead uplink at others, or (mapping to itself) undo that."""

    detours: tuple[tuple[Plane, Plane], ...]
    reason: str


@dataclass(frozen=True, slots=True)
class UseGateway:
    """Take what comes from the internet from another site than before. None: from nobody."""

    before: SiteName | None
    after: SiteName | None
    reason: str


@dataclass(frozen=True, slots=True)
class EndFlows:
    """Forget the flows of some classes that left for the internet by this uplink.

    Their next packets begin new ones, by whatever carries the class now.
    """

    uplink: Slot
    classes: tuple[ClassName, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class AskTargets:
    """Ask the targets of this uplink now: it seems dead, and its flows end unless they answer."""

    uplink: Slot


@dataclass(frozen=True, slots=True)
class VerifyPath:
    """Send a short burst of probes on the path, and ask over the alternative what arrived."""

    path: PathId
    alternative: PathId | None


@dataclass(frozen=True, slots=True)
class SetProbeInterval:
    """Probe this path at this pace from now on."""

    path: PathId
    interval_s: float


class Severity(StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class RaiseWarning:
    """Trouble that a user can see. One per code and subject; raising again replaces the text."""

    code: str  # "uplink-down", "sla-unmet", ...
    subject: str  # the uplink, path or class concerned
    severity: Severity
    text: str


@dataclass(frozen=True, slots=True)
class ClearWarning:
    code: str
    subject: str


Action = (
    MoveClass
    | DetourPlanes
    | EndFlows
    | AskTargets
    | UseGateway
    | VerifyPath
    | SetProbeInterval
    | RaiseWarning
    | ClearWarning
)
