"""What is still known when the intent changes: as much as the new one leaves true.

A site is the same while its number is, whatever it is called; an uplink is while its device is.
What was found out about a path by the limits that stay is kept, and a limit that is new begins with
what the last seconds show, so that a reload never puts a class back on a path known to be bad.
"""

import math
from collections.abc import Callable
from dataclasses import replace

from appliance.config.intent import Peer
from appliance.contract.ids import INTERNET, ClassName, PathId, SiteName, Slot
from appliance.core import breakout, uplinks
from appliance.core.draft import Draft
from appliance.core.events import IntentChanged
from appliance.core.layout import Layout, lay_out
from appliance.core.liveness import BURSTS
from appliance.core.pace import BOOSTS
from appliance.core.sequential import UNTROUBLED, LossTest, feed
from appliance.core.settle import enqueue_all
from appliance.core.state import Bucket, ClassState, PathState, SiteState, UplinkState
from appliance.core.steering import Carrier
from appliance.core.verdict import MEETS, judge

SETTLE_S = 0.5  # how long the first decision waits for the facts of all uplinks


def changed(draft: Draft, event: IntentChanged) -> None:
    """The operator wants something else."""
    intent, layout = event.intent, lay_out(event.intent)
    known = {peer.site_id: peer.name for peer in draft.intent.peers}
    devices = {u.slot: u.device for u in draft.intent.uplinks}
    same = {u.slot for u in intent.uplinks if devices.get(u.slot) == u.device}
    judge_anew = _judging(draft, layout)
    names = {plan.name for plan in intent.classes}
    sites = {
        peer.name: _site(draft, layout, peer, known.get(peer.site_id), same, names, judge_anew)
        for peer in intent.peers
    }
    layout_was = draft.layout
    draft.lay_out(intent, layout, sites)
    _keep_uplinks(draft, same)
    breakout.reload(draft, layout_was)
    _forget_warnings(draft)
    if draft.is_settled:
        uplinks.warn_all(draft)  # by the names that they have now
        enqueue_all(draft)
    elif draft.settle_at == math.inf:
        draft.settle_at = draft.now + SETTLE_S


def _site(
    draft: Draft,
    layout: Layout,
    peer: Peer,
    was: SiteName | None,
    same: set[Slot],
    names: set[ClassName],
    judge_anew: Callable[[PathState], PathState],
) -> SiteState:
    """A site that was called `was` (None: that is new), where these uplinks are as they were."""
    old = draft.sites.get(was) if was is not None else None
    paths = {}
    for plane in layout.shapes[peer.name].planes:
        path = old.paths.get(plane) if old and plane.local in same else None
        if path is None:
            path = PathState(
                plane,
                since=draft.now,
                bursts=Bucket(BURSTS, draft.now),
                boosts=Bucket(BOOSTS, draft.now),
                tests=(UNTROUBLED,) * len(layout.limits),
                verdicts=(MEETS,) * len(layout.slas),
            )
        else:
            path = judge_anew(path)
            if was != peer.name:  # whoever probes knows paths by name: ask for the pace again
                path = path._replace(interval_s=0.0)
        paths[plane] = path
    if old is None:
        return SiteState(paths)
    classes = {n: _named(held, peer.name) for n, held in old.classes.items() if n in names}
    return SiteState(paths, classes, old.carrying)


def _named(held: ClassState, site: SiteName) -> ClassState:
    """What carries a class, by the name that its site has now."""
    if all(path.site == site for path in held.assignment.paths):
        return held
    second = held.assignment.second
    named = replace(
        held.assignment,
        carriers=tuple(
            [Carrier(PathId(site, c.path.plane), c.weight) for c in held.assignment.carriers]
        ),
        second=PathId(site, second.plane) if second else None,
    )
    return held._replace(assignment=named)


def _judging(draft: Draft, layout: Layout) -> Callable[[PathState], PathState]:
    """How the paths that are known are judged by the limits that are there now."""
    was = draft.layout
    if (was.slas, was.limits) == (layout.slas, layout.limits):
        return lambda path: path
    tests_were = {limit: place for place, limit in enumerate(was.limits)}
    verdicts_were = {plan.sla: place for place, plan in enumerate(was.slas)}

    def judged(path: PathState) -> PathState:
        tests: list[LossTest] = []
        for limit in layout.limits:
            place, lately = tests_were.get(limit), path.estimate.recent()
            tests.append(
                path.tests[place]
                if place is not None
                else feed(UNTROUBLED, limit, lately.sent, lately.forward, lately.backward)
            )
        path = path._replace(tests=tuple(tests))
        verdicts = []
        for plan in layout.slas:
            place = verdicts_were.get(plan.sla)
            verdicts.append(
                path.verdicts[place]
                if place is not None
                else judge(MEETS, plan, path.estimate, path.tests, layout.limits, draft.now)
            )
        return path._replace(verdicts=tuple(verdicts))

    return judged


def _keep_uplinks(draft: Draft, same: set[Slot]) -> None:
    kept = {}
    for uplink in draft.intent.uplinks:
        state = UplinkState()
        if uplink.slot in same:  # whatever its name: that is for people
            state = draft.uplinks[uplink.slot]
            overdue = [(at, path) for at, path in state.overdue if path.site in draft.sites]
            overdue = [(at, path) for at, path in overdue if path.plane in draft.paths(path.site)]
            state = replace(state, overdue=tuple(overdue))
            if not uplink.targets:  # nobody will be asked any more
                state = replace(state, probed=None)
                draft.clear("uplink-unhealthy", uplink.name)
        kept[uplink.slot] = state
    draft.uplinks = kept
    draft.detours = {
        plane: other
        for plane, other in draft.detours.items()
        if {plane.local, other.local} <= kept.keys()
    }


def _forget_warnings(draft: Draft) -> None:
    subjects: set[str] = {INTERNET, *(u.name for u in draft.intent.uplinks)}
    subjects.update([f"{plan.name} to {INTERNET}" for plan in draft.layout.internet.classes])
    for site, shape in draft.layout.shapes.items():
        subjects.add(site)
        subjects.update([f"{plan.name} to {site}" for plan in shape.classes])
        subjects.update([str(PathId(site, plane)) for plane in shape.planes])
    for code, subject in tuple(draft.warnings):
        if subject not in subjects:
            draft.clear(code, subject)
