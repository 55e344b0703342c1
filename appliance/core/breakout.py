"""Out of which uplinks each class leaves for the internet, and which flows end with an uplink.

The internet is chosen for as one more site whose paths are the uplinks themselves. A way out works
while its uplink is attached, has a gateway, is not silent inside its tunnels and answers outside
them. What is silent inside may be the far ends' fault, so targets that answer after that count for
more. New flows leave a dead uplink at once. Its old ones end a moment later, because their address
was translated to one of that uplink's: only if another uplink can take them, and no others.
"""

import math
from dataclasses import replace

from appliance.config.intent import Internet, Uplink
from appliance.contract.ids import INTERNET, OUTSIDE, ClassName, Plane, SiteName, Slot, exit_plane
from appliance.core import gateways, reasons
from appliance.core.actions import AskTargets, Cause, EndFlows, MoveClass, Severity
from appliance.core.draft import Draft, SiteDraft
from appliance.core.estimate import observe
from appliance.core.events import UplinkProbed
from appliance.core.layout import ClassPlan, Layout
from appliance.core.liveness import fall
from appliance.core.selection import stand_all
from appliance.core.sequential import UNTROUBLED
from appliance.core.settle import NOTHING, clear_warnings, decide_class
from appliance.core.state import ClassState, Liveness, PathState, SiteState, UplinkState
from appliance.core.steering import Assignment
from appliance.core.verdict import MEETS, judge
from appliance.stamp.sample import Sample

# An uplink that comes back within this time, or whose targets answer by then, has lost no flow. And
# it is short enough for a connection that was asked for meanwhile: its next packet comes after 1 s
# (RFC 6298).
END_S = 0.5
FRESH_S = 3.0  # an uplink that was attached so lately is silent because neighbours are asked for
ROUND_US = 1_000_000  # one round of targets is a trend by itself
FEW_PATHS = 16  # over an uplink; of more, shared fate tells what silence means


def probed(draft: Draft, event: UplinkProbed) -> None:
    """Targets were asked. So many answers vouch for an uplink whatever its tunnels say.

    They say nothing of what happened since they were asked: it may have died within the round.
    """
    uplink = draft.layout.uplinks.get(event.slot)
    if uplink is not None and event.answered >= uplink.quorum:
        internet = draft.internet
        vouched = {**internet.vouched, event.slot: draft.now - event.took_s}
        draft.internet = replace(internet, vouched=vouched)
    if event.delays_us:
        _measure(draft, event)


def _measure(draft: Draft, event: UplinkProbed) -> None:
    """Judge a way out by how long its targets took to answer, in the better of two rounds.

    One round may have waited for our own loop. Loss is not told by a few questions: it is the
    tunnels' to measure.
    """
    internet, layout = draft.internet, draft.layout
    plane = exit_plane(event.slot)
    path = internet.site.paths.get(plane)
    if path is None:
        return
    delays = min(event.delays_us, internet.delays.get(event.slot, event.delays_us), key=min)
    sample = Sample(
        sent=len(delays),
        answered=len(delays),
        delay_us=sum(delays) // len(delays),
        delay_min_us=min(delays),
        delay_max_us=max(delays),
        span_us=ROUND_US,
    )
    estimate = observe(path.estimate, sample, (0, 0), draft.now)
    verdicts = tuple(
        [
            judge(before, plan, estimate, path.tests, layout.limits, draft.now)
            for before, plan in zip(path.verdicts, layout.slas, strict=True)
        ]
    )
    review_at = draft.now if verdicts != path.verdicts else internet.site.review_at
    paths = {**internet.site.paths, plane: path._replace(estimate=estimate, verdicts=verdicts)}
    site = replace(internet.site, paths=paths, review_at=review_at)
    last = {**internet.delays, event.slot: event.delays_us}
    draft.internet = replace(internet, site=site, delays=last)


def adopted(draft: Draft, class_name: ClassName, assignment: Assignment) -> None:
    """What a starting supervisor found. That nothing carried the class is no reason to go on so."""
    if not assignment.carriers:
        return
    entry = ClassState(assignment, draft.now, None, "found in the kernel at the start")
    site = draft.internet.site
    draft.internet = replace(
        draft.internet, site=replace(site, classes={**site.classes, class_name: entry})
    )


def gateway_adopted(draft: Draft, gateway: SiteName | None) -> None:
    """What a starting supervisor found in the tunnels."""
    draft.internet = replace(draft.internet, gateway=gateway)


def reload(draft: Draft, was: Layout) -> None:
    """Another intent. Flows do not stay on an uplink that their class may not use any more."""
    internet, layout = draft.internet, draft.layout
    kept = {exit_plane(slot) for slot, uplink in draft.uplinks.items() if uplink.facts is not None}
    as_new = _innocent(layout)
    names = {plan.name for plan in layout.internet.classes}
    site = SiteState(
        {
            plane: path._replace(verdicts=as_new.verdicts, tests=as_new.tests)
            for plane, path in internet.site.paths.items()
            if plane in kept
        },
        {name: held for name, held in internet.site.classes.items() if name in names},
        review_at=draft.now,
    )
    draft.internet = replace(internet, site=site, seen=None, far=None)
    permitted = {plan.name: _candidates(plan) for plan in layout.internet.classes}
    left = {exit_plane(slot) for slot, uplink in was.uplinks.items() if _is_left(layout, uplink)}
    for plan in was.internet.classes:
        before = _candidates(plan)
        for plane in sorted(before - permitted.get(plan.name, before) | before & left):
            name = was.internet.names[plane]
            text = f"the configuration does not want {plan.name} on {name} any more"
            draft.actions.append(EndFlows(plane.local, (plan.name,), text))


def _is_left(layout: Layout, was: Uplink) -> bool:
    """Is nothing, or another device, where an uplink was?"""
    uplink = layout.uplinks.get(was.slot)
    return uplink is None or uplink.device != was.device


def _innocent(layout: Layout) -> PathState:
    """A way out of which nothing is known."""
    return PathState(
        exit_plane(OUTSIDE),
        tests=(UNTROUBLED,) * len(layout.limits),
        verdicts=(MEETS,) * len(layout.slas),
    )


def _candidates(plan: ClassPlan) -> frozenset[Plane]:
    return frozenset(c.plane for c in plan.candidates)


def follow(draft: Draft) -> None:
    """Decide anew, if something happened that ways out depend on. Called after each event."""
    internet = draft.internet
    is_due = draft.now >= internet.site.review_at
    gateway, since = gateways.chosen(draft, internet)
    is_far_stale = (
        gateway != internet.gateway or gateways.classes_of(draft, internet) is not internet.far
    )
    has_news = draft.is_exit_stale or is_due or draft.uplinks is not internet.seen
    if not draft.is_settled or not (has_news or is_far_stale):
        return
    site = SiteDraft(INTERNET, draft.layout.internet, internet.site)
    has_changed = _follow_uplinks(draft, site)
    ended = internet.ended
    gateways.use(draft, internet.gateway, gateway)
    if is_far_stale:
        for plan in filter(gateways.is_through, site.shape.classes):
            gateways.follow_gateway(draft, site, plan, internet.gateway, gateway)
    if has_changed or is_due:
        site.review_at = math.inf
        usable = frozenset(
            plane.local
            for plane, path in site.paths.items()
            if path.liveness is Liveness.UP or draft.is_usable(plane.local)
        )
        is_reached = any(site.paths[p].liveness is Liveness.UP for p in site.shape.used)
        for plan in site.shape.classes:
            if plan.policy.internet is Internet.NONE:
                _close(draft, site, plan)
            elif gateways.is_through(plan):
                gateways.follow_gateway(draft, site, plan, internet.gateway, gateway)
            elif is_reached or plan.name in site.classes:  # nobody is told of what never was
                decide_class(draft, site, plan, stand_all(plan, site.paths, usable))
        ended = _end_flows(draft, site, ended)
        _warn(draft, site)
    draft.internet = replace(
        internet,
        site=site.freeze(),
        ended=ended,
        seen=draft.uplinks,
        gateway=gateway,
        gateway_since=since,
    )
    draft.internet = replace(draft.internet, far=gateways.classes_of(draft, draft.internet))
    draft.is_exit_stale = False


def _follow_uplinks(draft: Draft, site: SiteDraft) -> bool:
    """Bring the ways out up to date. Has one begun or ceased to work?"""
    has_changed = False
    for plane in site.shape.planes:
        path = site.paths.get(plane)
        if path is None:
            path = _innocent(draft.layout)._replace(plane=plane)
        works = _works(draft, plane.local)
        if works and path.liveness is not Liveness.UP:
            path = path._replace(liveness=Liveness.UP, since=draft.now, up_since=draft.now)
        elif not works and path.liveness is not Liveness.DOWN:
            path = fall(path, draft.now)
            entry = draft.uplinks[plane.local]
            if _has_way(entry) and (entry.probed is None or entry.probed.is_healthy):
                draft.actions.append(AskTargets(plane.local))
        if site.paths.get(plane) is not path:
            site.paths[plane] = path
            has_changed = True
    for plane in site.paths.keys() - set(site.shape.planes):
        del site.paths[plane]
    return has_changed


def _works(draft: Draft, slot: Slot) -> bool:
    entry = draft.uplinks[slot]
    if not _has_way(entry):
        return False
    vouched_at = draft.internet.vouched.get(slot, -math.inf)
    silent_at = entry.condemned_at
    if silent_at is None:
        silent_at = _silent_at(draft, slot)
    if silent_at is not None and silent_at > vouched_at:
        return False
    return entry.probed is None or entry.probed.is_healthy


def _has_way(uplink: UplinkState) -> bool:
    """Does the kernel know a way out by it, whether it works or not?"""
    facts = uplink.facts
    return facts is not None and facts.is_attached and bool(facts.gateways)


def _silent_at(draft: Draft, slot: Slot) -> float | None:
    """Since when all paths over an uplink have been down while one over another is not."""
    count, _ = draft.layout.reach[slot]
    if not 0 < count <= FEW_PATHS:
        return None
    paths = [path for name in draft.sites for path in draft.paths(name).values()]
    own = [path for path in paths if path.plane.local == slot]
    if any(path.liveness is not Liveness.DOWN for path in own):
        return None
    # One that misses answers as well may be about to fall: then the far end is gone, no uplink.
    answering = [path.plane.local for path in paths if path.liveness is Liveness.UP]
    if not any(draft.is_usable(local) for local in answering):
        return None
    return max([path.since for path in own])


def _close(draft: Draft, site: SiteDraft, plan: ClassPlan) -> None:
    """The policy of the class knows no internet."""
    held = site.classes.get(plan.name)
    clear_warnings(draft, plan, site)
    if held is not None and held.assignment == NOTHING:
        return
    before = held.assignment if held else NOTHING
    reason = f"{plan.name} to {site.name} is discarded, as its policy says: internet none"
    draft.actions.append(MoveClass(plan.name, site.name, before, NOTHING, Cause.CONFIGURED, reason))
    entry = ClassState(NOTHING, draft.now, Cause.CONFIGURED, reason)
    site.classes = {**site.classes, plan.name: entry}


def _end_flows(
    draft: Draft, site: SiteDraft, ended: frozenset[tuple[ClassName, Slot]]
) -> frozenset[tuple[ClassName, Slot]]:
    """End what is left on dead uplinks, once for each death, where another takes its place."""
    still = set(ended)
    for plane, path in site.paths.items():
        names = [plan.name for plan in site.shape.classes if plane in _candidates(plan)]
        if path.liveness is not Liveness.DOWN:
            still.difference_update([(name, plane.local) for name in names])
            continue
        due = max(path.since, draft.uplinks[plane.local].attached_at + FRESH_S - END_S) + END_S
        ending = [
            name for name in names if (name, plane.local) not in still and _is_carried(site, name)
        ]
        if ending and due > draft.now:
            site.review_at = min(site.review_at, due)
        elif ending:
            still.update([(name, plane.local) for name in ending])
            dead = site.shape.names[plane]
            text = f"{dead} {reasons.exit_trouble(draft.uplinks[plane.local])}: its flows end"
            draft.actions.append(EndFlows(plane.local, tuple(ending), text))
    return frozenset(still)


def _is_carried(site: SiteDraft, name: ClassName) -> bool:
    """Does something that works carry the class?"""
    held = site.classes.get(name)
    planes = [c.path.plane for c in held.assignment.carriers] if held else []
    return any(p in site.paths and site.paths[p].liveness is Liveness.UP for p in planes)


def _warn(draft: Draft, site: SiteDraft) -> None:
    if not site.shape.used or any(
        path.liveness is Liveness.UP
        for plane, path in site.paths.items()
        if plane in site.shape.used
    ):
        draft.clear("no-internet", INTERNET)
    else:
        text = "no uplink leads to the internet"
        draft.warn("no-internet", INTERNET, Severity.CRITICAL, text)
