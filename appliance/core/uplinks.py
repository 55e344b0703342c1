"""Local uplinks as a whole: attached or not, condemned by shared fate, stood in for by another.

Paths over one local uplink fail together. When probes over several of its paths, and to several
sites where there are several, are overdue and none sent later was answered, the uplink is dead:
its planes are pointed at another uplink with one message each, whatever the number of sites, and
the classes follow one by one.
"""

from collections.abc import Iterable
from dataclasses import replace

from appliance.contract.ids import PathId, Plane, SiteName, Slot
from appliance.core import reasons
from appliance.core.actions import DetourPlanes, Severity
from appliance.core.draft import Draft
from appliance.core.events import ProbeOverdue, UplinkChanged, UplinkProbed
from appliance.core.liveness import A_MOMENT_S, moment
from appliance.core.settle import enqueue_all
from appliance.core.state import Liveness

FATE_PROBES = 4  # overdue probes that condemn an uplink: see `liveness` for what chance may do
FATE_PATHS = 2
FATE_SITES = 2
FATE_TOGETHER_S = 0.2  # what fails within this time may have one reason
FATE_EXTRA_PATHS = 50  # one more probe for so many paths: chance has more opportunities
FATE_MOST_EXTRA = 8
KEPT = FATE_PROBES + FATE_MOST_EXTRA


def changed(draft: Draft, event: UplinkChanged) -> None:
    """The kernel or a lease says something new of an uplink."""
    slot = event.facts.slot
    before = draft.uplinks.get(slot)
    if before is None:
        return  # not in the intent (any more)
    was_attached = before.facts is not None and before.facts.is_attached
    is_attached = event.facts.is_attached
    after = replace(before, facts=event.facts)
    if not (is_attached and was_attached):
        after = replace(after, condemned_at=None, overdue=())
    if is_attached and not was_attached:
        after = replace(after, attached_at=draft.now)
    draft.put_uplink(slot, after)
    if not draft.is_settled:
        if all(u.facts is not None for u in draft.uplinks.values()):
            settle(draft)
        return
    if was_attached == is_attached and before.facts is not None:
        return
    _warn(draft, slot)
    if not is_attached:
        _stand_in(draft)
    enqueue_all(draft)
    undo_detours(draft)


def settle(draft: Draft) -> None:
    """The facts of all uplinks are known, or were waited for: decide for the first time."""
    draft.is_settled = True
    for slot in draft.uplinks:
        _warn(draft, slot)
    _stand_in(draft)
    enqueue_all(draft)
    undo_detours(draft)


def probed(draft: Draft, event: UplinkProbed) -> None:
    """Targets outside the tunnels were asked. It explains trouble; paths are judged themselves."""
    uplink = draft.uplinks.get(event.slot)
    if uplink is None:
        return
    draft.put_uplink(event.slot, replace(uplink, probed=event))
    name = draft.layout.uplinks[event.slot].name
    if event.is_healthy:
        draft.clear("uplink-unhealthy", name)
    else:
        draft.warn("uplink-unhealthy", name, Severity.WARNING, f"uplink {name}: {event.evidence}")


def share_fate(draft: Draft, event: ProbeOverdue, sent_at: float) -> bool:
    """Count an overdue probe against its local uplink. True when that condemns the uplink."""
    slot = event.path.plane.local
    uplink = draft.uplinks[slot]
    answered_at = draft.now - event.uplink_answered_age_s
    kept = tuple([entry for entry in uplink.overdue if entry[0] > answered_at])
    if sent_at > answered_at:
        if len(kept) >= KEPT:
            kept = (kept[0], *kept[2:])  # the first says since when
        kept = (*kept, (sent_at, event.path))
    elif kept == uplink.overdue:
        return False
    paths, sites = draft.layout.reach[slot]
    is_dead = (
        len(kept) >= FATE_PROBES + min(FATE_MOST_EXTRA, paths // FATE_EXTRA_PATHS)
        and len({path for _, path in kept}) >= min(FATE_PATHS, paths)
        and len({path.site for _, path in kept}) >= min(FATE_SITES, sites)
        and paths > 1
        and max(kept)[0] - min(kept)[0] >= _moment(draft, kept)
        and (sites > 1 or not _others_suffer(draft, slot, kept[0][0]))
    )
    condemned_at = draft.now if is_dead else None
    draft.put_uplink(slot, replace(uplink, condemned_at=condemned_at, overdue=kept))
    if is_dead:
        _warn(draft, slot)
        _stand_in(draft)
        enqueue_all(draft)
    return is_dead


def refute(draft: Draft, slot: Slot, sent_at: float) -> None:
    """A probe sent then was answered: what was overdue until then accuses its uplink no more.

    Nor does it excuse another one, by speaking against the far end that both lead to.
    """
    uplink = draft.uplinks[slot]
    kept = tuple([entry for entry in uplink.overdue if entry[0] > sent_at + A_MOMENT_S])
    if kept != uplink.overdue:
        draft.put_uplink(slot, replace(uplink, overdue=kept))


def _moment(draft: Draft, overdue: Iterable[tuple[float, PathId]]) -> float:
    return max([moment(draft.paths(path.site)[path.plane], draft.now) for _, path in overdue])


def _others_suffer(draft: Draft, slot: Slot, since: float) -> bool:
    """With one far end only: are answers missing over other uplinks too? Then it is the far end."""
    return any(
        sent_at > since - FATE_TOGETHER_S
        for other, uplink in draft.uplinks.items()
        if other != slot
        for sent_at, _ in uplink.overdue
    )


def acquit(draft: Draft, slot: Slot) -> None:
    """A path over a condemned uplink answered."""
    uplink = draft.uplinks[slot]
    draft.put_uplink(slot, replace(uplink, condemned_at=None, overdue=()))
    _warn(draft, slot)
    undo_detours(draft)


def forgive(draft: Draft) -> None:
    """What was overdue until now is our own fault."""
    draft.uplinks = {
        slot: u  # a verdict keeps its reasons
        if u.condemned_at is not None
        else replace(u, overdue=())
        for slot, u in draft.uplinks.items()
    }


def _stand_in(draft: Draft) -> None:
    """Point the planes of dead uplinks, and those they stood in for, at the best other one."""
    carried = {plane.local for _, planes in draft.carrying() for plane in planes}
    reasons_of = []
    wanted: dict[Plane, Plane] = {}
    for slot in draft.layout.uplinks:
        if slot not in carried or draft.is_usable(slot):
            continue
        spare = _spare(draft, slot)
        if spare is None:
            continue
        for remote in draft.layout.remote_slots:
            plane, other = Plane(slot, remote), Plane(spare, remote)
            if draft.detours.get(plane) != other:
                wanted[plane] = other
        uplinks = draft.layout.uplinks
        reasons_of.append(reasons.detour(uplinks[slot], draft.uplinks[slot], uplinks[spare]))
    if wanted:
        draft.detours = {**draft.detours, **wanted}
        draft.actions.append(DetourPlanes(tuple(wanted.items()), "; ".join(reasons_of)))


def _spare(draft: Draft, dead: Slot) -> Slot | None:
    """The uplink that stands in for a dead one: the best one over which something answers.

    When nothing answers anywhere, it may well be the far end that says nothing: then only an
    uplink that the kernel calls dead is left, for one that at least the kernel calls alive.
    """
    usable = [slot for slot in draft.layout.stand_ins[dead] if draft.is_usable(slot)]
    for slot in usable:
        if _answers(draft, slot):
            return slot
    facts = draft.uplinks[dead].facts
    is_certain = facts is None or not facts.is_attached
    return usable[0] if usable and is_certain else None


def undo_detours(draft: Draft) -> None:
    """Give planes their own devices back, once their uplink works or nothing refers to them."""
    if not draft.detours or draft.pending:
        return
    slots = {plane.local for plane in draft.detours if draft.is_usable(plane.local)}
    if not slots:
        return
    carried = {plane.local for _, planes in draft.carrying() for plane in planes}
    back = {slot for slot in slots if slot not in carried or _answers(draft, slot)}
    planes = tuple([plane for plane in draft.detours if plane.local in back])
    if planes:
        draft.detours = {p: o for p, o in draft.detours.items() if p not in planes}
        names = reasons.join([draft.layout.uplinks[slot].name for slot in sorted(back)])
        draft.actions.append(
            DetourPlanes(
                tuple([(plane, plane) for plane in planes]),
                f"uplink {names} works again: its planes are its own",
            )
        )


def _answers(draft: Draft, slot: Slot) -> bool:
    """Does any path over this uplink answer?"""
    alive = (Liveness.UP, Liveness.SUSPECT, Liveness.RISING)
    names: list[SiteName] = list(draft.sites)
    return any(
        path.liveness in alive
        for name in names
        for plane, path in draft.paths(name).items()
        if plane.local == slot
    )


def warn_all(draft: Draft) -> None:
    """Say again what is wrong with each uplink, of which something was told."""
    for slot, uplink in draft.uplinks.items():
        if uplink.facts is not None:
            _warn(draft, slot)


def _warn(draft: Draft, slot: Slot) -> None:
    uplink = draft.uplinks[slot]
    name = draft.layout.uplinks[slot].name
    if uplink.is_usable:
        draft.clear("uplink-down", name)
    else:
        text = f"uplink {name} {reasons.uplink_trouble(uplink)}"
        draft.warn("uplink-down", name, Severity.WARNING, text)
