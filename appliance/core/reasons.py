"""Why something was decided, in one plain sentence with the numbers that decided.

It words decisions and makes none. Paths are called by uplink label and plane: "fibre (1-1)".
"""

from collections.abc import Mapping, Sequence

from appliance.config.intent import Internet, Policy, Uplink
from appliance.contract.ids import OUTSIDE, Plane, SiteName, Slot
from appliance.core.actions import Cause
from appliance.core.layout import ClassPlan
from appliance.core.selection import Standing
from appliance.core.state import ClassState, Liveness, PathState, UplinkState
from appliance.core.steering import Assignment
from appliance.core.verdict import ms, percent

FEW = 3  # missing answers that prove nothing by themselves


def move(
    plan: ClassPlan,
    site: SiteName,
    names: Mapping[Plane, str],
    uplinks: Mapping[Slot, UplinkState],
    held: ClassState | None,
    standings: Sequence[Standing],
    after: Sequence[Standing],
    cause: Cause,
    now: float,
) -> str:
    """The sentence of a `MoveClass`."""
    who = f"{plan.name} to {site}"
    before = [c.path.plane for c in held.assignment.carriers] if held else []
    by_plane = {s.candidate.plane: s for s in standings}
    staying = {s.candidate.plane for s in after}
    left = [plane for plane in before if plane not in staying]
    lost = [by_plane[plane] for plane in left if plane in by_plane]
    left_names = join([names.get(plane, f"plane {plane}") for plane in left])
    joined = [s for s in after if s.candidate.plane not in before]
    target = carries(plan, after)
    if cause is Cause.INITIAL:
        if any(s.path.estimate.answered for s in after):
            return f"{who} takes {_names(after)}: nothing carried it before; {target}"
        return f"{who} starts on {_names(after)}, the first choice of its policy"
    if cause is Cause.NO_PATH or not after:
        troubles = "; ".join([f"{s.candidate.name}: {trouble(s, uplinks)}" for s in standings])
        if standings and not plan.is_fail_closed:
            return f"{who} is discarded until a path works: {troubles}"
        return f"{who} is discarded, as its policy says: {troubles or 'no path is permitted'}"
    if cause is Cause.CONFIGURED:
        if not left:
            return f"{who} takes {_names(joined or after)} by a change of configuration"
        return f"{who} leaves {left_names}: the configuration does not want it there; {target}"
    if cause in (Cause.RECOVERED, Cause.BETTER_PATH):
        clean = min([now - max(s.path.up_since, s.verdict.since) for s in joined], default=0.0)
        verb = "returns to" if cause is Cause.RECOVERED else "moves to"
        if not left:
            return f"{who} also takes {_names(joined)}: clean for {seconds(clean)}; {target}"
        return (
            f"{who} {verb} {_names(after)} from {left_names}: clean for {seconds(clean)}; {target}"
        )
    why = "; ".join([trouble(s, uplinks) for s in lost])
    if cause is Cause.REORDERING:
        slow = join([ms(s.path.estimate.long_delay_us) for s in lost])
        quick = min(after, key=lambda s: s.path.estimate.long_delay_us)
        why = (
            f"a round trip of {slow} is too long beside {ms(quick.path.estimate.long_delay_us)} of "
            f"{quick.candidate.name} for one flow over all of them"
        )
    if not joined:
        return f"{who} drops {left_names}: {why}; {target}"
    return f"{who} leaves {left_names}: {why}; {target}"


def second(
    plan: ClassPlan,
    site: SiteName,
    names: Mapping[Plane, str],
    before: Assignment,
    after: Standing | None,
    uplinks: Mapping[Slot, UplinkState],
) -> str:
    """The sentence of another second path."""
    who = f"{plan.name} to {site}"
    was = names.get(before.second.plane, "another path") if before.second else ""
    if not plan.is_duplicated:
        return f"{who} sends no copies any more: its policy does not want them"
    if after is None and plan.is_wary:
        return f"{who} sends no copies any more: nothing was lost for a minute, or none can be sent"
    if after is None:
        return f"{who} sends no copies any more: no second path works"
    more = f" and not over {was}" if was else ""
    return (
        f"{who} sends copies over {after.candidate.name}{more}: that is {trouble(after, uplinks)}"
    )


def led(plan: ClassPlan, site: SiteName, after: Sequence[Standing], was: Standing) -> str:
    """The sentence of a bond whose flows begin on another member."""
    first = after[0]
    return (
        f"{plan.name} to {site} begins its flows on {first.candidate.name}: it has "
        f"{numbers(first.path)}, {was.candidate.name} {numbers(was.path)}"
    )


def mtu(plan: ClassPlan, site: SiteName, after: Sequence[Standing], octets: int | None) -> str:
    """The sentence of a change of packet size."""
    size = f"packets of at most {octets} octets" if octets else "packets of full size again"
    return f"{plan.name} to {site} stays on {_names(after)} with {size}"


def carries(plan: ClassPlan, after: Sequence[Standing]) -> str:
    """What takes over, with its numbers: "dsl (2-1) meets its SLA with 0.0 % loss and 24 ms"."""
    if len(after) > 1 and all(s.meets and s.path.estimate.answered for s in after):
        loss = max([s.path.estimate.recent().ratio for s in after])
        delay = max([s.path.estimate.delay_us for s in after])
        return f"{_names(after)} share it with at most {percent(loss)} loss and {ms(delay)}"
    parts = []
    for standing in after:
        name = standing.candidate.name
        if standing.candidate.plane.remote == OUTSIDE:
            parts.append(f"{name} {_way_out(standing)}")
        elif not standing.path.estimate.answered:
            parts.append(f"{name} is there, not yet measured")
        elif standing.meets:
            parts.append(f"{name} {_how_it_meets(plan, standing.path)}")
        else:
            values = f"{numbers(standing.path)}, though {standing.verdict.evidence}"
            parts.append(f"{name} carries it with {values}")
    return "; ".join(parts)


def _how_it_meets(plan: ClassPlan, path: PathState) -> str:
    sla = plan.policy.sla
    if sla.is_empty:
        return f"carries it with {numbers(path)}"
    if sla.loss_ratio is not None and path.estimate.recent().ratio > sla.loss_ratio:
        # More is lost than the SLA allows, of so few probes that it may be chance.
        return f"carries it with {numbers(path)}, not yet enough to say that its SLA is violated"
    return f"meets its SLA with {numbers(path)}"


def numbers(path: PathState) -> str:
    """Loss and delay of a path for people."""
    estimate = path.estimate
    return f"{percent(estimate.recent().ratio)} loss and {ms(estimate.delay_us)}"


def trouble(standing: Standing, uplinks: Mapping[Slot, UplinkState]) -> str:
    """What is wrong with a path, or what it is like when nothing is."""
    path = standing.path
    if not standing.is_attached:
        return f"its uplink {uplink_trouble(uplinks.get(path.plane.local))}"
    if path.plane.remote == OUTSIDE:
        if standing.is_usable:
            return _way_out(standing)
        return exit_trouble(uplinks.get(path.plane.local))
    if path.liveness is Liveness.DOWN:
        more = "" if path.unanswered >= FEW else " and others over the same uplink"
        count = f"{path.unanswered} probe{'s' if path.unanswered != 1 else ''} in a row"
        return f"down, {count}{more} unanswered{far_end(path)}"
    if path.liveness is Liveness.UNKNOWN:
        return "never answered"
    if not standing.meets:
        return standing.verdict.evidence
    if not path.estimate.answered:
        return "not yet measured"
    return numbers(path)


def far_end(path: PathState) -> str:
    """What the far end said about the direction that is cut."""
    if path.far is None:
        return ""
    sent, received = path.far
    if not received:
        return f" and none of {sent} arrived there"
    if received >= sent:
        return f", though all {sent} arrived there: the way back is cut"
    return f" and {received} of {sent} arrived there"


def uplink_trouble(uplink: UplinkState | None) -> str:
    """What is wrong with an uplink, as the end of a sentence."""
    if uplink is None or uplink.facts is None:
        return "is not known yet"
    if not uplink.facts.has_device:
        return "has lost its device"
    if not uplink.facts.has_carrier:
        return "has no carrier"
    if not uplink.facts.addresses:
        return "has no address"
    if uplink.condemned_at is not None:
        paths = len({path for _, path in uplink.overdue})
        return f"is silent: {len(uplink.overdue)} probes on {paths} paths unanswered, none answered"
    return "works"


def _way_out(standing: Standing) -> str:
    """What an uplink that works is like outside its tunnels."""
    if not standing.meets:
        return f"works, though {standing.verdict.evidence}"
    if standing.path.estimate.answered:
        return f"answers outside within {ms(standing.path.estimate.delay_us)}"
    return "works"


def exit_trouble(uplink: UplinkState | None) -> str:
    """What keeps an uplink from leading to the internet, as the end of a sentence."""
    if uplink is None or not uplink.is_usable:
        return uplink_trouble(uplink)
    if uplink.probed is not None and not uplink.probed.is_healthy:
        return f"is not answered outside the tunnels: {uplink.probed.evidence}"
    if uplink.facts is not None and not uplink.facts.gateways:
        return "has no gateway"
    return "is silent in its tunnels while others are not"


def detour(dead: Uplink, uplink: UplinkState, spare: Uplink) -> str:
    """The sentence of a `DetourPlanes`."""
    return f"uplink {dead.name} {uplink_trouble(uplink)}; its planes go over {spare.name}"


def policy(plan: Policy) -> str:
    """A policy in words: "fibre, then lte; loss at most 1 %; best effort"."""
    parts = [", then ".join([" or ".join(tier) for tier in plan.tiers]) or "no uplink at all"]
    sla = plan.sla
    if sla.loss_ratio is not None:
        parts.append(f"loss at most {percent(sla.loss_ratio)}")
    if sla.delay_us is not None:
        parts.append(f"delay at most {ms(sla.delay_us)}")
    if sla.jitter_us is not None:
        parts.append(f"jitter at most {ms(sla.jitter_us)}")
    if sla.mos is not None:
        parts.append(f"MOS at least {sla.mos}")
    if plan.mode.value == "share":
        parts.append("shared by weight")
    if plan.mode.value == "bond":
        parts.append("bonded")
    if plan.mode.value == "duplicate":
        parts.append("sent twice" if plan.when.value == "always" else "sent twice while impaired")
    parts.append(plan.fallback.value.replace("-", " "))
    if not plan.metered:
        parts.append("never metered")
    if plan.internet is Internet.NONE:
        parts.append("no internet")
    elif plan.internet is Internet.GATEWAY:
        parts.append("internet through a gateway")
    return "; ".join(parts)


def join(names: Sequence[str]) -> str:
    """A list for people: "a, b and c"."""
    if len(names) < 2:
        return "".join(names)
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _names(standings: Sequence[Standing]) -> str:
    return join([s.candidate.name for s in standings])


def seconds(value: float) -> str:
    """A duration for people."""
    return f"{value:.0f} s" if value >= 10 else f"{value:.1f} s"
