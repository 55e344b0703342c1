"""The state as the wire types tell it: what the API, the command line and the metrics show.

It words and converts, and decides nothing. Times on the wire are wall-clock, for people: a moment
of the monotonic clock is told as its age, taken off the wall clock of now.

A hub has thousands of rows: each is made as it is taken, from a state that never changes, so that
rows taken over many turns of the event loop are still of one moment.
"""

import math
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple, get_args

from appliance.config.addressing import plane_device
from appliance.config.intent import Intent, Internet, Uplink
from appliance.contract.decision import Candidate, CarrierStatus
from appliance.contract.ids import INTERNET, OUTSIDE, ClassName, PathId, SiteName, Slot
from appliance.contract.status import (
    ClassStatus,
    PathStatus,
    ShaperStatus,
    UplinkStatus,
    WarningStatus,
)
from appliance.contract.wire import Direction
from appliance.contract.wire import PathState as PathWord
from appliance.contract.wire import UplinkState as UplinkWord
from appliance.core import reasons
from appliance.core.autorate import Line
from appliance.core.mos import mos
from appliance.core.state import (
    ClassState,
    Liveness,
    PathState,
    SiteState,
    State,
    UplinkState,
    entry_of,
    everywhere,
    shape_of,
)
from appliance.core.steering import Assignment
from appliance.core.why import CandidateView

WORDS: Mapping[Liveness, PathWord] = {
    Liveness.UNKNOWN: "unknown",
    Liveness.UP: "up",
    Liveness.SUSPECT: "suspect",
    Liveness.RISING: "rising",
    Liveness.DOWN: "down",
}


class Moment(NamedTuple):
    """Now, on both clocks, in seconds."""

    monotonic: float
    wall: float

    def unix(self, at: float) -> float:
        """A monotonic time on the wall clock."""
        return max(0.0, self.wall - (self.monotonic - at)) if math.isfinite(at) else self.wall

    def age(self, at: float) -> float:
        return max(0.0, self.monotonic - at)


def uplinks(
    state: State,
    since: Mapping[Slot, float],
    probed_at: Mapping[Slot, float],
    now: Moment,
    lines: Mapping[tuple[Slot, str], Line] = MappingProxyType({}),
) -> tuple[UplinkStatus, ...]:
    """`since` has when each uplink's state changed last, `probed_at` its last round of targets.

    `lines` has what is known of each direction that is shaped.
    """
    rows = []
    for uplink in state.intent.uplinks:
        entry = state.uplinks.get(uplink.slot, UplinkState())
        facts = entry.facts
        probed = probed_at.get(uplink.slot)
        rows.append(
            UplinkStatus(
                uplink.name,
                uplink.slot,
                uplink.label,
                uplink.device,
                uplink_word(entry),
                _uplink_detail(entry),
                now.unix(since.get(uplink.slot, now.monotonic)),
                tuple(str(a) for a in facts.addresses) if facts else (),
                tuple(str(g) for g in facts.gateways) if facts else (),
                uplink.metered,
                None if probed is None else now.age(probed),
                tuple(_shapers(uplink, lines, now)),
            )
        )
    return tuple(rows)


def _shapers(
    uplink: Uplink, lines: Mapping[tuple[Slot, str], Line], now: Moment
) -> Iterator[ShaperStatus]:
    for direction in get_args(Direction):
        line = lines.get((uplink.slot, direction))
        if line is None or uplink.shaping is None:
            continue
        carried = line.capacity_bps
        yield ShaperStatus(
            direction,
            round(line.rate_bps),
            *uplink.shaping.bounds(direction),
            used_bps=round(line.used_bps),
            carried_bps=None if carried is None else round(carried),
            carried_age_s=None if carried is None else now.age(line.capacity_at),
            queue_us=None if line.queue_us is None else max(0, round(line.queue_us)),
        )


def uplink_word(entry: UplinkState) -> UplinkWord:
    if not entry.is_usable:
        return "down"
    return "up" if entry.probed is None or entry.probed.is_healthy else "unhealthy"


def _uplink_detail(entry: UplinkState) -> str:
    if not entry.is_usable or entry.probed is None:
        return reasons.uplink_trouble(entry)
    return entry.probed.evidence


def paths(state: State, names: "Names", now: Moment, mtu: int) -> Iterator[PathStatus]:
    """Every path, by site and plane. `mtu` is that of the planes' devices."""
    for site, entry in state.sites.items():
        for path in entry.paths.values():
            yield _path(state, names, site, path, now, mtu)


def changed_paths(
    before: State, state: State, names: "Names", now: Moment, mtu: int
) -> Iterator[PathStatus | None]:
    """As `paths`, with None for each that nothing happened to: its age grew, and that is all."""
    is_same_ground = before.intent is state.intent and _usable(before) == _usable(state)
    for site, entry in state.sites.items():
        was = before.sites.get(site) if is_same_ground else None
        for plane, path in entry.paths.items():
            is_same = was is not None and was.paths.get(plane) is path
            yield None if is_same else _path(state, names, site, path, now, mtu)


def _usable(state: State) -> set[Slot]:
    return {slot for slot, uplink in state.uplinks.items() if uplink.is_usable}


def _path(
    state: State, names: "Names", site: SiteName, path: PathState, now: Moment, mtu: int
) -> PathStatus:
    plane, estimate = path.plane, path.estimate
    is_measured = bool(estimate.answered)
    minute = estimate.minute()
    recent = estimate.recent()
    uplink = state.uplinks.get(plane.local)
    is_attached = uplink is not None and uplink.is_usable
    score = mos(estimate.delay_us, estimate.jitter_us, minute.ratio)
    return PathStatus(
        str(PathId(site, plane)),
        site,
        str(plane),
        names.of(PathId(site, plane)),
        plane_device(plane),
        _path_word(path.liveness, is_attached),
        now.unix(path.since),
        round(estimate.delay_us) if is_measured else None,
        round(estimate.jitter_us) if is_measured else None,
        recent.two_way_ratio if recent.sent else None,
        _ratio(recent.forward, recent.sent),
        _ratio(recent.backward, recent.sent),
        min(4.5, max(1.0, score)) if is_measured else None,
        path.mtu or mtu,
        plane in state.layout.shapes[site].metered,
        path.interval_s,
        now.age(estimate.at) if is_measured else None,
    )


def _path_word(liveness: Liveness, is_attached: bool) -> PathWord:
    return WORDS[liveness] if is_attached or liveness is Liveness.UNKNOWN else "down"


def _ratio(lost: int, sent: int) -> float | None:
    return min(1.0, max(0.0, lost / sent)) if sent else None


def classes(state: State, names: "Names", now: Moment) -> Iterator[ClassStatus]:
    """Every class toward every site and the internet."""
    for site, entry in everywhere(state):
        places = _places(state, site)
        for name, held in entry.classes.items():
            meets = _meets(entry, held, places.get(name))
            if _is_told(state, site, name):
                yield _class(names, site, name, held, now, meets=meets)


def changed_classes(
    before: State, state: State, names: "Names", now: Moment
) -> Iterator[ClassStatus | None]:
    """As `classes`, with None for each that is as it was."""
    is_same_ground = before.intent is state.intent
    for site, entry in everywhere(state):
        places = _places(state, site)
        was = entry_of(before, site) if is_same_ground else None
        for name, held in entry.classes.items():
            place = places.get(name)
            meets = _meets(entry, held, place)
            is_same = was is not None and (
                was is entry
                or (was.classes.get(name) is held and _meets(was, held, place) == meets)
            )
            is_same = is_same or not _is_told(state, site, name)
            yield None if is_same else _class(names, site, name, held, now, meets=meets)


def _places(state: State, site: SiteName) -> Mapping[ClassName, int]:
    """Where the SLA of each class is among the verdicts of a path to the site."""
    return {plan.name: plan.sla for plan in shape_of(state, site).classes}


def _is_told(state: State, site: SiteName, name: ClassName) -> bool:
    """Of a class that has no internet by its policy there is nothing to tell."""
    return site != INTERNET or state.intent.policy(name).internet is not Internet.NONE


def _class(
    names: "Names",
    site: SiteName,
    name: ClassName,
    held: ClassState,
    now: Moment,
    *,
    meets: bool | None,
) -> ClassStatus:
    return ClassStatus(
        name,
        site,
        carriers(names, held.assignment),
        meets,
        now.unix(held.since),
        None if held.cause is None else held.cause.value,
        held.reason,
        second(names, held.assignment),
    )


def _meets(entry: SiteState, held: ClassState, sla: int | None) -> bool | None:
    """Do all carriers meet the SLA? None while one of them is unmeasured."""
    found = [entry.paths.get(c.path.plane) for c in held.assignment.carriers]
    if not found or sla is None:
        return False if not found else None
    verdicts = []
    for path in found:
        if path is None or not path.estimate.answered or sla >= len(path.verdicts):
            return None
        verdicts.append(path.verdicts[sla].violated is None)
    return all(verdicts)


def carriers(names: "Names", assignment: Assignment) -> tuple[CarrierStatus, ...]:
    return tuple(
        CarrierStatus(str(c.path), names.of(c.path), c.weight) for c in assignment.carriers
    )


def second(names: "Names", assignment: Assignment) -> CarrierStatus | None:
    path = assignment.second
    return None if path is None else CarrierStatus(str(path), names.of(path))


class Names:
    """What uplinks are called at both ends of a path. Made once for many paths."""

    def __init__(self, intent: Intent) -> None:
        self._own = {u.slot: u.label for u in intent.uplinks}
        self._far = {(p.name, u.slot): u.label for p in intent.peers for u in p.uplinks}

    def of(self, path: PathId) -> str:
        """The labels at both ends: "fibre - cable". Out to the internet there is one end."""
        own = self._own.get(path.plane.local, "?")
        if path.plane.remote == OUTSIDE:
            return own
        return f"{own} - {self._far.get((path.site, path.plane.remote), '?')}"


def warnings(state: State, now: Moment) -> Iterator[WarningStatus]:
    """What the core warns of."""
    for (code, subject), warned in state.warnings.items():
        since = now.unix(warned.since)
        yield WarningStatus(code, subject, warned.severity.value, warned.text, since)


def candidate(view: CandidateView, names: Names) -> Candidate:
    """A path as one class sees it."""
    return Candidate(
        str(view.path),
        names.of(view.path),
        _path_word(view.liveness, view.is_attached),
        view.verdict,
        view.tier,
        None if view.delay_us is None else round(view.delay_us),
        None if view.jitter_us is None else round(view.jitter_us),
        view.loss_ratio,
        None if view.mos is None else min(4.5, max(1.0, view.mos)),
        view.is_metered,
        view.is_carrying,
        view.remarks,
    )
