"""decide(state, event, now) -> (state, actions): every decision of the supervisor, and no I/O.

Pure and deterministic: the same events at the same times give the same actions on any machine,
which is what `replay` rests on. This module turns each event into changes of what is known, and
calls `settle` for a site when something changed that its steering depends on. It never reads a
clock, and never raises on an event that the types allow, in whatever order events come.
"""

import math
from collections.abc import Callable
from ipaddress import IPv6Network

from appliance.config.intent import Intent, Policy, TrafficClass
from appliance.contract.ids import INTERNET, ClassName, PathId, Plane, SiteId, SiteName
from appliance.core import breakout, measure, reload, uplinks
from appliance.core.actions import Action, Severity, VerifyPath
from appliance.core.draft import Draft, SiteDraft
from appliance.core.events import (
    AnswerLate,
    AnswerReturned,
    DeadlinePassed,
    Event,
    FarEndReported,
    IntentChanged,
    LineFilled,
    LoopStalled,
    PathMtuChanged,
    PathsSampled,
    ProbeOverdue,
    SteeringAdopted,
    TrafficSampled,
    UplinkChanged,
    UplinkProbed,
)
from appliance.core.filled import filled
from appliance.core.layout import are_neighbours, lay_out
from appliance.core.liveness import (
    A_MOMENT_S,
    BOX_BURSTS,
    BOX_BURSTS_RATE,
    BOX_HINT_BURSTS,
    RISE_FALL,
    RISE_S,
    acquit,
    answer,
    came_late,
    fall,
    is_dying_with_others,
    is_wrong,
    miss,
    moment,
    needed,
    patience,
    spend_burst,
)
from appliance.core.pace import BOX_BOOSTS, boost
from appliance.core.selection import ORDER
from appliance.core.settle import SLICE, carry, reconsider, repace, work_off
from appliance.core.state import (
    Bucket,
    ClassState,
    Liveness,
    PathState,
    State,
)
from appliance.core.steering import DEVICE_MTU

TOGETHER_S = 0.125  # a hub's reviews that are due so soon after each other are made together
GRAVE_STALL_S = 0.1  # perhaps not only our loop stood still, but the machine with its network
FAR_UNANSWERED = 2  # missing answers that the far end's word turns into a verdict
FAR_PROBES = 3  # probes that word must be about


def initial_state() -> State:
    """The state before the first event, which must be `IntentChanged`."""
    default = ClassName("default")
    nothing = Intent(
        site=SiteName(""),
        site_id=SiteId(0),
        overlay=IPv6Network("fd00::/48"),
        uplinks=(),
        lans=(),
        peers=(),
        classes=(TrafficClass(default, 15, ()),),
        policies=(Policy(default, ()),),
    )
    return State(
        nothing,
        lay_out(nothing),
        {},
        {},
        boosts=Bucket(BOX_BOOSTS, 0.0),
        bursts=Bucket(BOX_BURSTS, 0.0),
    )


def next_deadline(state: State) -> float | None:
    """When to call `decide` with `DeadlinePassed` if nothing happens before; may be past."""
    if state.pending:
        return state.now
    if not state.is_settled:
        return None if state.settle_at == float("inf") else state.settle_at
    review_at = state.review_at
    if len(state.sites) > SLICE:  # looking who is due costs as much for one as for all
        together = review_at / TOGETHER_S
        review_at = math.ceil(together) * TOGETHER_S if math.isfinite(together) else review_at
    review_at = min(review_at, state.internet.site.review_at)
    return None if math.isinf(review_at) else review_at


def decide(state: State, event: Event, now: float) -> tuple[State, tuple[Action, ...]]:
    """Advance the state by one event that happened at `now`, seconds on the monotonic clock."""
    draft = Draft(state, now)
    _ON[type(event)](draft, event)
    breakout.follow(draft)
    return draft.freeze(), tuple(draft.actions)


def _adopted(draft: Draft, event: SteeringAdopted) -> None:
    names = {plan.name for plan in draft.intent.classes}
    for class_name, site_name, assignment in event.assignments:
        if site_name == INTERNET and class_name in names:
            breakout.adopted(draft, class_name, assignment)
            continue
        site = draft.site(site_name)
        if site is None or class_name not in names:
            continue
        entry = ClassState(assignment, draft.now, None, "found in the kernel at the start")
        site.classes = {**site.classes, class_name: entry}
        carry(site)
        for each in assignment.paths:
            path = site.paths.get(each.plane)
            if path is not None and assignment.mtu is not None:
                size = min(assignment.mtu, path.mtu or assignment.mtu)
                site.paths[path.plane] = path._replace(mtu=size)
    if event.gateway in draft.intent.gateways:
        breakout.gateway_adopted(draft, event.gateway)
    slots = draft.uplinks.keys()
    draft.detours = {p: o for p, o in event.detours if p != o and {p.local, o.local} <= slots}


def _sampled(draft: Draft, event: PathsSampled) -> None:
    changed: dict[SiteName, SiteDraft] = {}
    for path_id, sample in event.samples:
        found = draft.find(path_id)
        if found and measure.take(draft, *found, sample):
            changed[path_id.site] = found[0]
    for site in changed.values():
        reconsider(draft, site)
    if changed and draft.detours:
        uplinks.undo_detours(draft)


def _traffic(draft: Draft, event: TrafficSampled) -> None:
    found = draft.find(event.path)
    if found and measure.count(draft, *found, event):
        reconsider(draft, found[0])


def _late(draft: Draft, event: AnswerLate) -> None:
    found = draft.find(event.path)
    if found is None:
        return
    site, path = found
    if path.liveness is Liveness.UP and path.plane in site.carrying:
        _verify(draft, site, path, is_hint=True)
    elif path.liveness is Liveness.UP and path.plane in site.shape.used:
        _verify_neighbours(draft, site, path.plane)


def _overdue(draft: Draft, event: ProbeOverdue) -> None:
    sent_at = draft.now - event.sent_age_s
    if not draft.is_usable(event.path.plane.local):
        return  # of a dead uplink a hub hears thousands of these
    found = draft.find(event.path)
    if found is None:
        return
    site, path = found
    if sent_at <= draft.forgiven_at:
        site.paths[path.plane] = path._replace(forgiven=event.unanswered)
        return
    if uplinks.share_fate(draft, event, sent_at) or path.liveness is Liveness.DOWN:
        return
    path = miss(path, event.unanswered, sent_at)
    site.paths[path.plane] = path
    enough = RISE_FALL if path.liveness is Liveness.RISING else needed(path.estimate)
    is_silent = path.unanswered >= enough and sent_at - path.missed_at >= moment(path, sent_at)
    is_cut = _is_cut(path) and _is_over(path, draft.now)
    if is_silent or is_cut or _is_dying(site, path, sent_at):
        _fall(draft, site, path)
        return
    _verify(draft, site, path, is_hint=False)
    _verify_neighbours(draft, site, path.plane)
    if site.shape.is_wary and path.plane in site.carrying:
        reconsider(draft, site)  # what if it is dead?


def _is_dying(site: SiteDraft, path: PathState, sent_at: float) -> bool:
    if path.liveness is not Liveness.SUSPECT:
        return False
    neighbours = [p for plane, p in site.paths.items() if are_neighbours(plane, path.plane)]
    return is_dying_with_others(path, neighbours, sent_at)


def _verify_neighbours(draft: Draft, site: SiteDraft, plane: Plane) -> None:
    """Trouble on one path is a hint for the carrying ones that share an uplink with it."""
    for other in site.carrying:
        path = site.paths.get(other)
        if path and path.liveness is Liveness.UP and are_neighbours(other, plane):
            _verify(draft, site, path, is_hint=True)


def _is_cut(path: PathState) -> bool:
    """Do missing answers and the far end's word agree?"""
    if path.far is None or path.unanswered < FAR_UNANSWERED:
        return False
    sent, received = path.far
    return sent >= FAR_PROBES and received == 0


def _is_over(path: PathState, now: float) -> bool:
    """Has a silent path been silent for longer than it once was for nothing?"""
    return now - path.missed_at >= patience(path, now) + path.estimate.delay_us / 1e6


def _suspect_loss(draft: Draft, site: SiteDraft, plane: Plane) -> None:
    """A loss on one path is a hint for all that share an uplink with it: look closer."""
    if not draft.layout.limits:
        return
    has_changed = False
    for other in site.carrying:
        if other == plane or are_neighbours(other, plane):
            path = site.paths.get(other)
            faster = path and boost(draft, path)
            if path is not None and faster is not None and faster is not path:
                site.paths[other] = faster
                has_changed = True
    if has_changed:
        repace(draft, site)


def _verify(draft: Draft, site: SiteDraft, path: PathState, *, is_hint: bool) -> None:
    """Have a burst sent on a path that may be dead, if there is a token for it."""
    if path.plane not in site.shape.used or path.liveness is Liveness.DOWN:
        return
    if not draft.is_usable(path.plane.local):
        return
    of_box = draft.bursts.level(draft.now, BOX_BURSTS_RATE, BOX_BURSTS)
    if of_box < (BOX_HINT_BURSTS if is_hint else 1.0):
        return
    spent = spend_burst(path, draft.now, is_hint=is_hint)
    if spent is None:
        return
    draft.bursts = Bucket(of_box - 1.0, draft.now)
    site.paths[path.plane] = spent
    other = alternative(draft, site, path.plane)
    draft.actions.append(
        VerifyPath(
            PathId(site.name, path.plane), None if other is None else PathId(site.name, other)
        )
    )


def alternative(draft: Draft, site: SiteDraft, plane: Plane) -> Plane | None:
    """The path most likely to work when this one does not: of other uplinks at both ends."""
    others = [
        (plane.local == p.local, plane.remote == p.remote, ORDER[path.liveness], p)
        for p, path in site.paths.items()
        if p != plane and draft.is_usable(p.local) and path.liveness is not Liveness.DOWN
    ]
    return min(others)[3] if others else None


def _returned(draft: Draft, event: AnswerReturned) -> None:
    found = draft.find(event.path)
    if found is None:
        return
    site, before = found
    slot = before.plane.local
    uplink = draft.uplinks[slot]
    if uplink.facts is None or not uplink.facts.is_attached:
        return
    sent_at = draft.now - event.sent_age_s
    if uplink.condemned_at is not None:
        if sent_at < uplink.overdue[0][0] - A_MOMENT_S:
            return  # it was asked for before the silence that the verdict is about
        uplinks.acquit(draft, slot)
    uplinks.refute(draft, slot, sent_at)
    after = came_late(before, sent_at) if event.is_late else before
    if after is not before and is_wrong(after, draft.now):
        after = acquit(after, draft.now)
    else:
        counted = before.answers if before.liveness is Liveness.RISING else 0
        after = answer(after, draft.now, max(0, event.consecutive - counted))
    if after is before:
        return
    site.paths[after.plane] = after
    risen_at = after.since + RISE_S
    if after.liveness is Liveness.RISING and risen_at > draft.now:
        site.review_at = min(site.review_at, risen_at)  # no sample may come by then
    if after.liveness is not before.liveness:
        _came_back(draft, site, before, after)


def _came_back(draft: Draft, site: SiteDraft, before: PathState, after: PathState) -> None:
    if after.liveness is not Liveness.DOWN:
        draft.clear("one-way-loss", str(PathId(site.name, after.plane)))
    if before.liveness is Liveness.SUSPECT:
        # It lives, so what was missing was lost. Not sooner: to find out whether it lives is
        # urgent, and fast probing keeps both ends busy.
        _suspect_loss(draft, site, after.plane)
        return
    draft.is_exit_stale = True
    reconsider(draft, site)
    if draft.detours:
        uplinks.undo_detours(draft)


def _far_end(draft: Draft, event: FarEndReported) -> None:
    found = draft.find(event.path)
    if found is None or event.sent <= 0:
        return
    site, path = found
    if path.liveness in (Liveness.UP, Liveness.UNKNOWN):
        return  # it has answered meanwhile
    path = path._replace(far=(event.sent, event.received))
    site.paths[path.plane] = path
    if path.liveness is Liveness.DOWN:
        _warn_direction(draft, site, path)
    elif _is_cut(path) and _is_over(path, draft.now):
        _fall(draft, site, path)


def _probed(draft: Draft, event: UplinkProbed) -> None:
    uplinks.probed(draft, event)
    breakout.probed(draft, event)


def _fall(draft: Draft, site: SiteDraft, path: PathState) -> None:
    """A path is down."""
    site.paths[path.plane] = fall(path, draft.now)
    draft.is_exit_stale = True
    _warn_direction(draft, site, path)
    reconsider(draft, site)


def _warn_direction(draft: Draft, site: SiteDraft, path: PathState) -> None:
    """Name the direction that is cut, when the far end has told."""
    if path.far is None:
        return
    sent, received = path.far
    name = f"{site.shape.names[path.plane]} to {site.name}"
    if received >= sent:
        text = f"{name}: our packets arrive, but no answer comes back"
    elif received == 0:
        text = f"{name}: our packets do not arrive"
    else:
        return
    draft.warn("one-way-loss", str(PathId(site.name, path.plane)), Severity.WARNING, text)


def _mtu(draft: Draft, event: PathMtuChanged) -> None:
    found = draft.find(event.path)
    if found is None:
        return
    site, path = found
    size = event.mtu if event.mtu < DEVICE_MTU else None
    if size == path.mtu:
        return
    site.paths[path.plane] = path._replace(mtu=size)
    subject = str(event.path)
    if size is None:
        draft.clear("path-mtu", subject)
    else:
        name = f"{site.shape.names[path.plane]} to {site.name}"
        text = f"{name} carries packets of at most {size} octets"
        draft.warn("path-mtu", subject, Severity.INFO, text)
    reconsider(draft, site)


def _stalled(draft: Draft, event: LoopStalled) -> None:
    """What was overdue until now may be our own fault.

    Not after a short stall, as a hub has when it verifies many paths at once: what came meanwhile
    was read first, the other deadlines have moved, and what was overdue before still is.
    """
    if event.late_s < GRAVE_STALL_S:
        return
    draft.forgiven_at = draft.now
    uplinks.forgive(draft)
    for name, entry in draft.sites.items():
        if any(p.liveness is Liveness.SUSPECT for p in entry.paths.values()):
            site = draft.site(name)
            for plane, path in entry.paths.items():
                if site and path.liveness is Liveness.SUSPECT:
                    forgiven = path.forgiven + path.unanswered
                    site.paths[plane] = path._replace(
                        liveness=Liveness.UP, unanswered=0, forgiven=forgiven
                    )


def _deadline(draft: Draft, _: DeadlinePassed) -> None:
    if not draft.is_settled:
        if draft.now >= draft.settle_at:
            uplinks.settle(draft)
        return
    if draft.pending or draft.now >= draft.review_at:
        work_off(draft)
        uplinks.undo_detours(draft)


_ON: dict[type, Callable[..., None]] = {
    IntentChanged: reload.changed,
    SteeringAdopted: _adopted,
    UplinkChanged: uplinks.changed,
    UplinkProbed: _probed,
    PathsSampled: _sampled,
    TrafficSampled: _traffic,
    AnswerLate: _late,
    ProbeOverdue: _overdue,
    AnswerReturned: _returned,
    FarEndReported: _far_end,
    LineFilled: filled,
    PathMtuChanged: _mtu,
    LoopStalled: _stalled,
    DeadlinePassed: _deadline,
}
