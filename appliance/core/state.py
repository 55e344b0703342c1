"""Everything that is remembered between two events. Frozen; mappings are never written to.

Named tuples where one is made for every sample or probe, dataclasses elsewhere.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import NamedTuple

from appliance.config.intent import Intent
from appliance.contract.ids import INTERNET, ClassName, PathId, Plane, SiteName, Slot
from appliance.core.actions import Cause, Severity
from appliance.core.belief import NOTHING, Heard
from appliance.core.estimate import UNMEASURED, Estimate
from appliance.core.events import UplinkFacts, UplinkProbed
from appliance.core.layout import Layout, Shape
from appliance.core.sequential import LossTest
from appliance.core.steering import Assignment, Steering
from appliance.core.verdict import Verdict


class Liveness(StrEnum):
    """Does the path carry packets at all?"""

    UNKNOWN = "unknown"  # never answered since the start, or since its uplink came back
    UP = "up"
    SUSPECT = "suspect"  # an answer is missing
    RISING = "rising"  # answers again, not yet for long enough
    DOWN = "down"


class Bucket(NamedTuple):
    """A token bucket: what was left of it at some time."""

    tokens: float
    at: float

    def level(self, now: float, rate: float, size: float) -> float:
        return min(size, self.tokens + (now - self.at) * rate)


EMPTY = Bucket(0.0, 0.0)


class PathState(NamedTuple):
    """What is known of one path, apart from its local uplink: see `is_usable` of that."""

    plane: Plane
    liveness: Liveness = Liveness.UNKNOWN
    since: float = 0.0  # of the liveness; UP and SUSPECT count as one
    up_since: float = math.inf  # answers without a fall since then: what the hold time runs from
    answers: int = 0  # since it began to rise
    unanswered: int = 0  # probes overdue since the last answer
    forgiven: int = 0  # ... and before, for which we are to blame ourselves
    missed_at: float = 0.0  # when the first of them was sent
    far: tuple[int, int] | None = None  # of so many probes so many arrived, says the far end
    falls: int = 0  # in close succession
    fell_at: float = -math.inf
    fell_before: float = -math.inf  # the fall before that
    missing: int = 0  # answers that the fall is about, ...
    late: int = 0  # ... and how many of them came after all
    erred_at: float = -math.inf  # a verdict "down" was taken back
    patience_s: float = 0.0  # for so long it may be silent since, and live
    estimate: Estimate = UNMEASURED
    tests: tuple[LossTest, ...] = ()  # one per `Layout.limits`
    verdicts: tuple[Verdict, ...] = ()  # one per `Layout.slas`
    heard: Heard = NOTHING  # what traffic was lost lately, and probes beside it
    mtu: int | None = None  # octets of the inner packet, when it is less than the device's own
    bursts: Bucket = EMPTY
    verified_at: float = -math.inf
    boosts: Bucket = EMPTY
    boosted_at: float | None = None  # probed at the fast pace since
    interval_s: float = 0.0  # as last asked for


class ClassState(NamedTuple):
    """What carries a class to a site, and why."""

    assignment: Assignment
    since: float
    cause: Cause | None  # None: adopted
    reason: str
    voluntary_at: float = -math.inf  # when it last moved without need


@dataclass(frozen=True, slots=True)
class SiteState:
    paths: Mapping[Plane, PathState]
    classes: Mapping[ClassName, ClassState] = field(default_factory=lambda: MappingProxyType({}))
    carrying: frozenset[Plane] = frozenset()
    review_at: float = math.inf  # a voluntary move may be due then


class Filled(NamedTuple):
    """A queue of our own in an uplink's line: see `filled`."""

    since: float | None = None
    until: float = -math.inf  # no path is blamed before
    budget: Bucket = Bucket(math.inf, 0.0)  # s


NEVER_FILLED = Filled()


@dataclass(frozen=True, slots=True)
class UplinkState:
    """A local uplink: attached by what the kernel says, alive by what its paths show together."""

    facts: UplinkFacts | None = None  # None: not told yet
    attached_at: float = -math.inf  # when it last became attached
    condemned_at: float | None = None  # shared fate: all its paths fell silent at once
    overdue: tuple[tuple[float, PathId], ...] = ()  # send times of unanswered probes
    probed: UplinkProbed | None = None
    filled: Filled = NEVER_FILLED

    @property
    def is_usable(self) -> bool:
        return self.condemned_at is None and self.facts is not None and self.facts.is_attached


@dataclass(frozen=True, slots=True)
class InternetState:
    """What carries classes to the internet: as a site whose paths are the uplinks themselves."""

    site: SiteState = field(default_factory=lambda: SiteState({}))
    vouched: Mapping[Slot, float] = field(default_factory=lambda: MappingProxyType({}))
    delays: Mapping[Slot, tuple[int, ...]] = field(default_factory=lambda: MappingProxyType({}))
    ended: frozenset[tuple[ClassName, Slot]] = frozenset()  # flows on uplinks that are dead still
    seen: Mapping[Slot, UplinkState] | None = None  # the uplinks when it was last looked at
    gateway: SiteName | None = None  # the site through which some classes go
    gateway_since: float = -math.inf
    far: Mapping[ClassName, ClassState] | None = None  # what carried classes there, then


class Warned(NamedTuple):
    """A warning that stands."""

    severity: Severity
    text: str
    since: float


@dataclass(frozen=True, slots=True)
class State:
    intent: Intent
    layout: Layout
    sites: Mapping[SiteName, SiteState]
    uplinks: Mapping[Slot, UplinkState]
    detours: Mapping[Plane, Plane] = field(default_factory=lambda: MappingProxyType({}))
    warnings: Mapping[tuple[str, str], Warned] = field(default_factory=lambda: MappingProxyType({}))
    pending: tuple[SiteName, ...] = ()  # to be reconsidered, a slice at a time
    review_at: float = math.inf  # not after the earliest `review_at` of a site
    settle_at: float = math.inf  # nothing is decided before the facts of all uplinks or this time
    is_settled: bool = False
    forgiven_at: float = -math.inf  # what was sent before says nothing: our own loop stalled
    boosts: Bucket = EMPTY  # of the box: paths that may begin to be probed fast
    bursts: Bucket = EMPTY  # of the box: paths that may be verified by a burst
    now: float = 0.0  # of the last event
    internet: InternetState = field(default_factory=InternetState)


def everywhere(state: State) -> Iterator[tuple[SiteName, SiteState]]:
    """Every site, and the internet after them."""
    yield from state.sites.items()
    yield INTERNET, state.internet.site


def entry_of(state: State, site: SiteName) -> SiteState | None:
    """What is known of a site or of the internet; None: there is no such site."""
    return state.internet.site if site == INTERNET else state.sites.get(site)


def shape_of(state: State, site: SiteName) -> Shape:
    """What follows from the intent for a site or the internet. Raises KeyError."""
    return state.layout.internet if site == INTERNET else state.layout.shapes[site]


def steering(state: State) -> Steering:
    """The result of all decisions so far."""
    return Steering(
        {
            (name, site): held.assignment
            for site, entry in everywhere(state)
            for name, held in entry.classes.items()
        },
        dict(state.detours),
        state.internet.gateway,
        working(state),
    )


def working(state: State) -> frozenset[Slot]:
    """The uplinks that lead to the internet."""
    paths = state.internet.site.paths.items()
    return frozenset([plane.local for plane, path in paths if path.liveness is Liveness.UP])
