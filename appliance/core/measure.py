"""What samples and counted traffic say of one path. The hottest code of the core.

An ordinary sample changes an estimate and nothing else: no ranking, no other site, no action.
"""

from appliance.contract.ids import PathId, Plane
from appliance.core.actions import Severity
from appliance.core.belief import compare, hear, is_agreed
from appliance.core.draft import Draft, SiteDraft
from appliance.core.estimate import directions, observe
from appliance.core.events import TrafficSampled
from appliance.core.filled import is_excused
from appliance.core.layout import are_neighbours
from appliance.core.liveness import answer
from appliance.core.pace import boost, is_grave, unboost
from appliance.core.second import trouble
from appliance.core.sequential import LossTest, feed
from appliance.core.settle import repace
from appliance.core.state import Liveness, PathState
from appliance.core.verdict import Verdict, judge
from appliance.stamp.sample import Sample

UNCOUNTED = (
    "packets to {0} are not counted there, though probes arrive: "
    "does {0} list all networks of this box as its prefixes?"
)
SILENCE_S = 1.0  # answers in a sample this long after a fall are new ones


def take(draft: Draft, site: SiteDraft, before: PathState, sample: Sample) -> bool:
    """Take in a sample. True when the site's steering should be looked at again."""
    now = draft.now
    tests = before.tests
    if not before.estimate.answered:
        # The first answers since the path began, or came back: what was lost is of the time before.
        sample = sample._replace(
            sent=sample.answered,
            lost=sample.recovered,
            lost_forward=sample.recovered_forward,
            lost_backward=sample.recovered_backward,
        )
    told = directions(before.estimate, sample)
    is_judged = not is_excused(draft, before.plane.local)
    if tests and is_judged and before.liveness is not Liveness.DOWN:
        tests = _feed(draft, before, sample.sent, *told)
    path = before._replace(estimate=observe(before.estimate, sample, told, now), tests=tests)
    if before.heard.sent:
        path = path._replace(heard=compare(before.heard, sample.sent, told[0]))
    if path.liveness is not Liveness.UP:
        path = _live(draft, path, sample)
    verdicts = _judge(draft, path) if is_judged else before.verdicts
    if verdicts is not before.verdicts:
        path = path._replace(verdicts=verdicts)
    site.paths[path.plane] = path
    if path.boosted_at is not None or tests is not before.tests:
        _pace(draft, site, path)
    if site.shape.is_wary and path.plane in site.carrying and trouble(path) != trouble(before):
        return True
    if path.liveness is before.liveness:
        return verdicts is not before.verdicts
    if path.liveness is not Liveness.DOWN:
        draft.clear("one-way-loss", str(PathId(site.name, path.plane)))
    return before.liveness is not Liveness.SUSPECT or verdicts is not before.verdicts


def count(draft: Draft, site: SiteDraft, before: PathState, event: TrafficSampled) -> bool:
    """Take in real packets, counted in our direction of sending. True as in `take`."""
    if before.liveness is Liveness.DOWN or not before.tests:
        return False
    if is_excused(draft, before.plane.local):
        return False
    if event.lost or before.heard.sent:
        before = before._replace(heard=hear(before.heard, event.sent, event.lost, draft.now))
        site.paths[before.plane] = before
        if not _is_believed(draft, site, before, event.lost):
            return False
    tests = _feed(draft, before, event.sent, event.lost, None)
    if tests is before.tests:
        return False
    path = before._replace(tests=tests)
    verdicts = _judge(draft, path)
    site.paths[path.plane] = path = path._replace(verdicts=verdicts)
    _pace(draft, site, path)
    return verdicts is not before.verdicts


def _is_believed(draft: Draft, site: SiteDraft, path: PathState, lost: int) -> bool:
    """Does it count what traffic lost? Not before there are probes to compare it with."""
    subject = str(PathId(site.name, path.plane))
    heard = path.heard
    if not heard.sent:
        draft.clear("traffic-uncounted", subject)
        return True
    if not heard.is_enough:
        if path.plane in site.carrying and path.boosted_at is None:
            site.paths[path.plane] = boost(draft, path)
            repace(draft, site)
        return False
    if is_agreed(heard):
        return True
    if lost and heard.is_telling:
        draft.warn("traffic-uncounted", subject, Severity.WARNING, UNCOUNTED.format(site.name))
    return False


def _feed(
    draft: Draft, path: PathState, sent: int, forward: int, backward: int | None
) -> tuple[LossTest, ...]:
    if not (forward or backward) and all(t.is_calm for t in path.tests):
        return path.tests
    limits = draft.layout.limits
    return tuple(
        [
            feed(test, limit, sent, forward, backward)
            for test, limit in zip(path.tests, limits, strict=True)
        ]
    )


def _judge(draft: Draft, path: PathState) -> tuple[Verdict, ...]:
    """The verdicts of all SLAs; the very same tuple when none changed."""
    changed: list[Verdict] | None = None
    layout = draft.layout
    for place in layout.judged:
        before = path.verdicts[place]
        after = judge(
            before, layout.slas[place], path.estimate, path.tests, layout.limits, draft.now
        )
        if after is not before:
            if changed is None:
                changed = list(path.verdicts)
            changed[place] = after
    return path.verdicts if changed is None else tuple(changed)


def _live(draft: Draft, path: PathState, sample: Sample) -> PathState:
    """What a sample says of a path that is not simply up."""
    now = draft.now
    slot = path.plane.local
    if path.liveness is Liveness.DOWN:
        is_new = now - path.since > SILENCE_S + sample.span_us / 1e6
        if is_new and sample.answered and not sample.lost and draft.is_usable(slot):
            return answer(path, now, sample.answered)
        return path
    if not sample.answered or not draft.is_usable(slot):
        return path
    if path.liveness is Liveness.SUSPECT and sample.lost:
        return path  # the answers may be older than the loss
    return answer(path, now, sample.answered)


def _pace(draft: Draft, site: SiteDraft, path: PathState) -> None:
    """Look closer while there is some suspicion, and no longer."""
    now, plane = draft.now, path.plane
    if path.boosted_at is not None:
        paced = unboost(path, now)
    elif plane in site.carrying and any(not (t.is_calm or t.is_violated) for t in path.tests):
        paced = boost(draft, path)
    else:
        return
    changed = paced is not path
    site.paths[plane] = paced
    if paced.boosted_at is not None and plane in site.carrying and is_grave(path):
        changed |= _look_around(draft, site, plane)
    if changed:
        repace(draft, site)


def _look_around(draft: Draft, site: SiteDraft, plane: Plane) -> bool:
    """Look closer at paths that share an uplink with one in doubt: are they any better?

    Else a class would be moved to the next path over the same bad uplink, and then once more.
    """
    changed = False
    for other, path in site.paths.items():
        if not are_neighbours(other, plane) or other not in site.shape.used:
            continue
        if other not in site.shape.metered:
            site.paths[other] = faster = boost(draft, path)
            changed |= faster is not path
    return changed
