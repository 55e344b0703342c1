"""Look at one site again: who carries its classes, how often its paths are probed, what is wrong.

Called when something changed that rank depends on, or when a hold time ends; never for an
ordinary sample.
"""

import math

from appliance.contract.ids import PathId
from appliance.core import reasons
from appliance.core.actions import Cause, MoveClass, SetProbeInterval, Severity
from appliance.core.bond import is_led_anew, lead
from appliance.core.draft import Draft, SiteDraft
from appliance.core.layout import ClassPlan
from appliance.core.liveness import RISE_S, answer, fall, forget
from appliance.core.pace import interval
from appliance.core.second import choose_second
from appliance.core.selection import Standing, stand_all
from appliance.core.state import ClassState, Liveness
from appliance.core.steering import Assignment, Carrier
from appliance.core.sticky import choose

NOTHING = Assignment()
SLICE = 16  # sites looked at in one step, so that a hub's step stays short


def reconsider(draft: Draft, site: SiteDraft) -> None:
    """Decide everything about one site anew.

    Once the site can be reached at all, every class has an assignment, an empty one if need be:
    what has none has no route in the table of its class, and its packets would go where those of
    the default class go.
    """
    _follow_uplinks(draft, site)
    if not draft.is_settled:
        return
    usable = draft.usable
    site.review_at = _next_rise(draft, site)
    is_reachable = _is_reachable(draft, site)
    for plan in site.shape.classes:
        if is_reachable or plan.name in site.classes:
            standings = stand_all(plan, site.paths, usable)
            decide_class(draft, site, plan, standings)
    _warn_unreachable(draft, site)
    repace(draft, site)


def enqueue_all(draft: Draft) -> None:
    """Look at every site again: now when they are few, else a slice with each deadline."""
    names = tuple(draft.sites)
    if not draft.is_settled:
        return
    if len(names) > SLICE:
        draft.pending = names
        return
    for name in names:
        site = draft.site(name)
        if site is not None:
            reconsider(draft, site)


def work_off(draft: Draft) -> None:
    """The next slice of what is pending, then of the reviews that are due."""
    if draft.pending:
        now, draft.pending = draft.pending[:SLICE], draft.pending[SLICE:]
    else:
        due = [n for n, e in draft.sites.items() if e.review_at <= draft.now]
        now = tuple(due[:SLICE])
    for name in now:
        site = draft.site(name)
        if site is not None:
            reconsider(draft, site)
    draft.review_at = draft.earliest_review()


def repace(draft: Draft, site: SiteDraft) -> None:
    """Ask for another probe interval wherever the situation calls for one."""
    probing = draft.intent.probing
    for plane, path in site.paths.items():
        wanted = interval(
            path,
            probing,
            is_attached=draft.is_usable(plane.local),
            is_used=plane in site.shape.used,
            is_metered=plane in site.shape.metered,
            is_carrying=plane in site.carrying,
        )
        if wanted != path.interval_s:
            site.paths[plane] = path._replace(interval_s=wanted)
            draft.actions.append(SetProbeInterval(PathId(site.name, plane), wanted))


def _follow_uplinks(draft: Draft, site: SiteDraft) -> None:
    """A path is down with its uplink, unknown again when that comes back, and up in time."""
    for plane, path in site.paths.items():
        uplink = draft.uplinks.get(plane.local)
        if uplink is None or uplink.facts is None:
            continue
        if not uplink.is_usable:
            if path.liveness not in (Liveness.DOWN, Liveness.UNKNOWN):
                site.paths[plane] = fall(path, draft.now)
        elif path.liveness is Liveness.DOWN and path.since <= uplink.attached_at:
            site.paths[plane] = forget(path, draft.now)
        elif path.liveness is Liveness.RISING and not path.unanswered:
            site.paths[plane] = answer(path, draft.now, 0)


def _next_rise(draft: Draft, site: SiteDraft) -> float:
    """When a path that answers again will have done so for long enough."""
    return min(
        [
            path.since + RISE_S
            for path in site.paths.values()
            if path.liveness is Liveness.RISING and path.since + RISE_S > draft.now
        ],
        default=math.inf,
    )


def decide_class(draft: Draft, site: SiteDraft, plan: ClassPlan, standings: list[Standing]) -> None:
    """Decide what carries one class to one site."""
    held = site.classes.get(plan.name)
    choice = choose(plan, standings, held, draft.now)
    site.review_at = min(site.review_at, choice.review_at)
    before = held.assignment if held else NOTHING
    by_plane = {s.candidate.plane: s for s in standings}
    if choice.after is None:
        after = [by_plane[c.path.plane] for c in before.carriers if c.path.plane in by_plane]
        cause = Cause.MTU_CHANGED
        if len(after) != len(before.carriers):
            return
    else:
        after = sorted(choice.after, key=lambda s: s.candidate.plane)
        cause = choice.cause or Cause.CONFIGURED
    if plan.is_bonded and len(after) > 1:
        after, look_at = lead(plan, after, held, draft.now)
        site.review_at = min(site.review_at, look_at)
    had = before.second.plane if before.second else None
    second, review_at = choose_second(plan, standings, after, had, draft.now)
    site.review_at = min(site.review_at, review_at)
    assignment = assign(site, after, second, is_bonded=plan.is_bonded)
    if assignment == before and (held or choice.after is None):
        _warn_class(draft, site, plan, standings, after)
        return
    if held and assignment.carriers == before.carriers and assignment.second != before.second:
        # The class stays where it is, for the reason that it has.
        reason = reasons.second(plan, site.name, site.shape.names, before, second, draft.uplinks)
        move = MoveClass(plan.name, site.name, before, assignment, Cause.SECOND_PATH, reason)
        draft.actions.append(move)
        site.classes = {**site.classes, plan.name: held._replace(assignment=assignment)}
        carry(site)
        _warn_class(draft, site, plan, standings, after)
        return
    planes = {c.path.plane for c in before.carriers}
    if choice.after is not None and held and planes == {s.candidate.plane for s in after}:
        cause = Cause.MTU_CHANGED if assignment.mtu != before.mtu else Cause.CONFIGURED
    if plan.is_bonded and is_led_anew(before, assignment):
        cause = Cause.BETTER_PATH
        reason = reasons.led(plan, site.name, after, by_plane[before.carriers[0].path.plane])
    elif cause is Cause.MTU_CHANGED:
        if assignment.carriers != before.carriers:
            cause = Cause.CONFIGURED  # other weights
        reason = reasons.mtu(plan, site.name, after, assignment.mtu)
    else:
        reason = reasons.move(
            plan,
            site.name,
            site.shape.names,
            draft.uplinks,
            held,
            standings,
            after,
            cause,
            draft.now,
        )
    if second is not None:
        reason = f"{reason}; copies go over {second.candidate.name}"
    action = MoveClass(plan.name, site.name, before, assignment, cause, reason)
    draft.actions.append(action)
    voluntary_at = held.voluntary_at if held else -math.inf
    if action.is_voluntary:
        voluntary_at = draft.now
    entry = ClassState(assignment, draft.now, cause, reason, voluntary_at)
    site.classes = {**site.classes, plan.name: entry}
    carry(site)
    if voluntary_at != -math.inf or not all(s.meets for s in after):
        # What was decided just now changes what time alone may bring next.
        again = choose(plan, standings, entry, draft.now)
        site.review_at = min(site.review_at, again.review_at)
    _warn_class(draft, site, plan, standings, after)


def assign(
    site: SiteDraft,
    after: list[Standing],
    second: Standing | None = None,
    *,
    is_bonded: bool = False,
) -> Assignment:
    """The assignment of these paths. Each carries all flows of a bond, so there are no weights."""
    weights = [1 if is_bonded else s.candidate.weight for s in after]
    paths = [PathId(site.name, s.candidate.plane) for s in after]
    all_of_them = after if second is None else [*after, second]
    sizes = [s.path.mtu for s in all_of_them if s.path.mtu is not None]
    return Assignment(
        tuple([Carrier(path, weight) for path, weight in zip(paths, weights, strict=True)]),
        min(sizes, default=None),
        None if second is None else PathId(site.name, second.candidate.plane),
    )


def carry(site: SiteDraft) -> None:
    """Take note of the planes that carry anything."""
    site.carrying = frozenset(
        [path.plane for held in site.classes.values() for path in held.assignment.paths]
    )


def _warn_class(
    draft: Draft,
    site: SiteDraft,
    plan: ClassPlan,
    standings: list[Standing],
    carriers: list[Standing],
) -> None:
    subject = f"{plan.name} to {site.name}"
    is_decided = plan.name in site.classes
    if is_decided and not carriers and plan.is_fail_closed:
        text = f"no path meets the SLA of {subject}: its packets are discarded"
        draft.warn("class-discarded", subject, Severity.CRITICAL, text)
    elif is_decided and not carriers and _is_reachable(draft, site):
        text = f"no path that the policy of {subject} permits works: its packets are discarded"
        draft.warn("class-discarded", subject, Severity.CRITICAL, text)
    else:
        draft.clear("class-discarded", subject)
    violators = [s for s in carriers if s.is_usable and not s.meets]
    if violators and not any(s.meets and s.is_up for s in standings):
        text = f"no path meets the SLA of {subject}: {reasons.carries(plan, violators[:1])}"
        if ("sla-unmet", subject) not in draft.warnings:
            draft.warn("sla-unmet", subject, Severity.WARNING, text)
    else:
        draft.clear("sla-unmet", subject)


def clear_warnings(draft: Draft, plan: ClassPlan, site: SiteDraft) -> None:
    """Nothing is chosen for the class there any more."""
    for code in ("class-discarded", "sla-unmet"):
        draft.clear(code, f"{plan.name} to {site.name}")


def _is_reachable(draft: Draft, site: SiteDraft) -> bool:
    """May packets of any class get there?"""
    return any(
        site.paths[plane].liveness is not Liveness.DOWN and draft.is_usable(plane.local)
        for plane in site.shape.used
    )


def _warn_unreachable(draft: Draft, site: SiteDraft) -> None:
    if _is_reachable(draft, site):
        draft.clear("no-path", site.name)
    else:
        draft.warn("no-path", site.name, Severity.CRITICAL, f"no path to {site.name} works")
