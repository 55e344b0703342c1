"""Why does a class go to a site the way it does? All candidates with their numbers, and the
sentence that decided. It reads the state and decides nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

from appliance.config.intent import Internet
from appliance.contract.ids import INTERNET, OUTSIDE, ClassName, PathId, Plane, SiteName
from appliance.core import reasons
from appliance.core.actions import Cause
from appliance.core.bond import near, together
from appliance.core.layout import ClassPlan, Shape
from appliance.core.liveness import holding
from appliance.core.mos import mos
from appliance.core.selection import Standing, stand_all
from appliance.core.state import (
    ClassState,
    Liveness,
    PathState,
    SiteState,
    State,
    entry_of,
    shape_of,
)
from appliance.core.steering import Carrier

NO_LINE = "adds no line to those that carry the class"
TOO_SLOW = "too slow beside the others for one flow over all of them"

VerdictWord = Literal["meets", "violates", "unmeasured", "unusable", "not-permitted"]


@dataclass(frozen=True, slots=True)
class CandidateView:
    """A path as one class sees it. Numbers are None until measured."""

    path: PathId
    name: str  # "fibre (1-1)"
    liveness: Liveness
    is_attached: bool  # the local uplink works
    verdict: VerdictWord
    tier: int | None  # 0 is the best; None: not permitted
    is_metered: bool
    is_carrying: bool
    delay_us: float | None  # two-way
    jitter_us: float | None  # the worse direction
    loss_ratio: float | None  # the worse direction, of the last seconds
    mos: float | None
    remarks: tuple[str, ...]  # "loss 3.1 % over 96 probes (forward) violates 1 %"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a class goes to a site the way it does. Times are of the core's clock."""

    class_name: ClassName
    site: SiteName
    carriers: tuple[Carrier, ...]
    reason: str  # the sentence that decided
    cause: Cause | None  # None: adopted, or not decided yet
    since: float | None
    policy: str  # in words
    candidates: tuple[CandidateView, ...]  # best first, then those that are not permitted


def explain(state: State, class_name: ClassName, site: SiteName) -> Explanation:
    """Explain as of the last event. Raises KeyError for a class or site that does not exist."""
    entry, shape = entry_of(state, site), shape_of(state, site)
    if entry is None:
        raise KeyError(site)
    plan = next((p for p in shape.classes if p.name == class_name), None)
    if plan is None:
        raise KeyError(class_name)
    held = entry.classes.get(class_name)
    gateway = state.internet.gateway
    if site == INTERNET and plan.policy.internet is Internet.GATEWAY and gateway is not None:
        # Out through another site: the paths there are what there is to choose from.
        through = explain(state, class_name, gateway)
        reason = held.reason if held else through.reason
        return replace(through, site=site, reason=reason)
    standings = _standings(state, entry, plan)
    alone = _alone(plan, held, standings)
    permitted = [
        _view(state, site, plan, held, s, alone.get(s.candidate.plane, ""))
        for s in sorted(standings, key=lambda s: s.rank)
    ]
    known = {view.path.plane for view in permitted}
    others = [
        _not_permitted(state, site, shape, plan, entry.paths[plane])
        for plane in shape.planes
        if plane not in known and plane in entry.paths
    ]
    return Explanation(
        class_name,
        site,
        held.assignment.carriers if held else (),
        held.reason if held else _undecided(state, class_name, site, standings),
        held.cause if held else None,
        held.since if held else None,
        reasons.policy(plan.policy),
        (*permitted, *others),
    )


def _standings(state: State, entry: SiteState, plan: ClassPlan) -> list[Standing]:
    usable = {slot for slot, uplink in state.uplinks.items() if uplink.is_usable}
    if entry is state.internet.site:
        if not entry.paths:
            return []  # nothing is decided yet
        usable |= {p.local for p, s in entry.paths.items() if s.liveness is Liveness.UP}
    return stand_all(plan, entry.paths, usable)


def _undecided(
    state: State, class_name: ClassName, site: SiteName, standings: list[Standing]
) -> str:
    who = f"{class_name} to {site}"
    if not standings:
        return f"{who} has no path that its policy permits"
    if not state.is_settled:
        return f"{who} is not decided yet: the uplinks are not known"
    troubles = [f"{s.candidate.name}: {reasons.trouble(s, state.uplinks)}" for s in standings]
    return f"{who} is not decided yet: {'; '.join(troubles)}"


def _alone(
    plan: ClassPlan, held: ClassState | None, standings: list[Standing]
) -> Mapping[Plane, str]:
    """Why good paths stay out of a bond."""
    if not plan.is_bonded or held is None:
        return {}
    planes = {c.path.plane for c in held.assignment.carriers}
    members = [s for s in standings if s.candidate.plane in planes]
    tiers = {s.candidate.tier for s in members}
    said = {}
    for standing in standings:
        plane = standing.candidate.plane
        if plane not in planes and standing.candidate.tier in tiers:
            close = near([*members, standing], planes)
            if standing not in close:
                said[plane] = TOO_SLOW
            elif standing not in together(close, planes):
                said[plane] = NO_LINE
    return said


def _view(
    state: State,
    site: SiteName,
    plan: ClassPlan,
    held: ClassState | None,
    standing: Standing,
    alone: str,
) -> CandidateView:
    path, candidate = standing.path, standing.candidate
    planes = {c.path.plane for c in held.assignment.carriers} if held else set()
    remarks = []
    if not standing.is_usable or path.liveness is Liveness.UNKNOWN:
        remarks.append(reasons.trouble(standing, state.uplinks))
    if not standing.meets:
        remarks.append(standing.verdict.evidence)
    second = held.assignment.second if held else None
    if second is not None and second.plane == candidate.plane:
        remarks.append("copies go over it")
    waits = "" if candidate.plane in planes else _waits(state, plan, standing)
    if waits or (alone and standing.is_up and standing.meets):
        remarks.append(waits or alone)
    return CandidateView(
        PathId(site, candidate.plane),
        candidate.name,
        path.liveness,
        standing.is_attached,
        _word(standing),
        candidate.tier,
        candidate.is_metered,
        candidate.plane in planes,
        *_numbers(path),
        tuple(remarks),
    )


def _word(standing: Standing) -> VerdictWord:
    if not standing.is_usable:
        return "unusable"
    if not standing.meets:
        return "violates"
    return "meets" if standing.path.estimate.answered else "unmeasured"


def _waits(state: State, plan: ClassPlan, standing: Standing) -> str:
    """How far a good path is with its hold time."""
    path = standing.path
    if path.liveness is Liveness.RISING:
        return "answers again, not yet for long enough"
    if not standing.is_up or not standing.meets:
        return ""
    hold_s = holding(path, plan.policy.hold_s, state.now)
    clean_s = state.now - max(path.up_since, standing.verdict.since)
    if clean_s >= hold_s:
        return ""
    return f"clean for {reasons.seconds(clean_s)} of {reasons.seconds(hold_s)}"


def _not_permitted(
    state: State, site: SiteName, shape: Shape, plan: ClassPlan, path: PathState
) -> CandidateView:
    plane = path.plane
    is_metered = plane in shape.metered
    remark = "metered, and the policy never uses that" if is_metered else "in no tier of the policy"
    if site == INTERNET and plan.policy.internet is Internet.NONE:
        remark = "the policy has no internet"
    elif site == INTERNET and plan.policy.internet is Internet.GATEWAY:
        remark = "the policy wants a gateway"
    return CandidateView(
        PathId(site, plane),
        shape.names[plane],
        path.liveness,
        state.uplinks[plane.local].is_usable,
        "not-permitted",
        None,
        is_metered,
        False,
        *_numbers(path),
        (remark,),
    )


def _numbers(path: PathState) -> tuple[float | None, float | None, float | None, float | None]:
    estimate = path.estimate
    if not estimate.answered:
        return None, None, None, None
    if path.plane.remote == OUTSIDE:
        return estimate.delay_us, None, None, None  # targets tell no more
    loss = estimate.recent().ratio
    score = mos(estimate.delay_us, estimate.jitter_us, loss)
    return estimate.delay_us, estimate.jitter_us, loss, score
