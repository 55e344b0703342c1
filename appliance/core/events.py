"""Everything that can happen, as far as decisions are concerned.

The supervisor turns what the world does into these values and hands them to `decide`. They are
what the recorder keeps, so that a recording can be decided again. Times are seconds on the
monotonic clock of the `now` that accompanies each event; ages are relative to that `now`.
"""

from dataclasses import dataclass

from appliance.config.intent import Address, Intent, Interface
from appliance.contract.ids import ClassName, PathId, Plane, SiteName, Slot
from appliance.core.steering import Assignment
from appliance.stamp.sample import Sample


@dataclass(frozen=True, slots=True)
class IntentChanged:
    """A validated configuration came into force. The first event of every run."""

    intent: Intent


@dataclass(frozen=True, slots=True)
class SteeringAdopted:
    """What a starting supervisor found steering in the kernel: the incumbents.

    Comes after `IntentChanged` and before the facts of uplinks. A class that was found with no
    carrier at all (fail closed) is listed with an empty assignment; what was not found is not.
    """

    assignments: tuple[tuple[ClassName, SiteName, Assignment], ...] = ()
    detours: tuple[tuple[Plane, Plane], ...] = ()
    gateway: SiteName | None = None


@dataclass(frozen=True, slots=True)
class UplinkFacts:
    """What the kernel and the lease say of one uplink, with the source of each in the field."""

    slot: Slot
    has_device: bool = False  # netlink
    has_carrier: bool = False  # netlink, IFF_LOWER_UP
    addresses: tuple[Interface, ...] = ()  # netlink, global scope, not tentative
    gateways: tuple[Address, ...] = ()  # configuration, DHCP hook or router advertisement
    name_servers: tuple[Address, ...] = ()  # DHCP hook

    @property
    def is_attached(self) -> bool:
        """Could it carry a packet at all?"""
        return self.has_device and self.has_carrier and bool(self.addresses)


@dataclass(frozen=True, slots=True)
class UplinkChanged:
    """Device, carrier, address or gateway of an uplink changed."""

    facts: UplinkFacts


@dataclass(frozen=True, slots=True)
class UplinkProbed:
    """A round of probes to targets outside the tunnels was judged by quorum."""

    slot: Slot
    answered: int
    asked: int
    is_healthy: bool
    evidence: str  # "2 of 3 targets answered; 192.0.2.53 (dns) did not"
    delays_us: tuple[int, ...] = ()  # two-way, of the targets that answered
    took_s: float = 0.0  # since the targets were asked


@dataclass(frozen=True, slots=True)
class PathsSampled:
    """Measurement intervals of some paths closed. Many at once on a hub."""

    samples: tuple[tuple[PathId, Sample], ...]


@dataclass(frozen=True, slots=True)
class AnswerLate:
    """A probe's answer is later than usual for the path, but not yet overdue: worth a burst."""

    path: PathId
    late_s: float


@dataclass(frozen=True, slots=True)
class ProbeOverdue:
    """A probe's answer did not come by its deadline.

    `unanswered` counts the overdue probes sent after the last one that was answered, and
    `uplink_answered_age_s` is the age of the send time of the latest answered probe over any path
    of the same local uplink (`math.inf` when none ever was), so that shared fate can be told from
    one path's trouble.
    """

    path: PathId
    sent_age_s: float
    unanswered: int
    uplink_answered_age_s: float


@dataclass(frozen=True, slots=True)
class AnswerReturned:
    """A path with overdue probes answered again. `consecutive` answers since the last overdue.

    Sent at least for the first answer after an overdue probe, and for every one that came after its
    deadline (`is_late`). `sent_age_s` is how long ago its probe was sent.
    """

    path: PathId
    consecutive: int
    sent_age_s: float = 0.0
    is_late: bool = False


@dataclass(frozen=True, slots=True)
class FarEndReported:
    """Over another path, the far end said what it received on this one while we were unanswered.

    `received` counts our probes of `path` that arrived there out of the `sent` last ones: 0 means
    that the way forth is cut, `sent` that only the way back is.
    """

    path: PathId
    sent: int
    received: int


@dataclass(frozen=True, slots=True)
class TrafficSampled:
    """Real packets counted at both ends of a path, in our direction of sending."""

    path: PathId
    sent: int
    lost: int


@dataclass(frozen=True, slots=True)
class LineFilled:
    """What we send or receive ourselves has begun to wait in the line of an uplink, or no more."""

    slot: Slot
    is_full: bool


@dataclass(frozen=True, slots=True)
class PathMtuChanged:
    """Padded probes found how large an inner packet the path carries."""

    path: PathId
    mtu: int  # octets of the inner IP packet


@dataclass(frozen=True, slots=True)
class LoopStalled:
    """Our own loop ran late by this much, and deadlines moved. No path is blamed for a long one."""

    late_s: float


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The time that `next_deadline` asked for has come."""


Event = (
    IntentChanged
    | SteeringAdopted
    | UplinkChanged
    | UplinkProbed
    | PathsSampled
    | AnswerLate
    | ProbeOverdue
    | AnswerReturned
    | FarEndReported
    | TrafficSampled
    | LineFilled
    | PathMtuChanged
    | LoopStalled
    | DeadlinePassed
)
