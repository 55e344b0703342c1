"""Through which gateway site classes get to the internet, when their policy says so.

One at a time for the whole box: in a tunnel's device only one site can be the one that everything
else comes from. The box stays with a gateway for as long as it can be reached, because connections
are known to that gateway alone and none would live through a move. What carries a class to the
gateway carries it to the internet, so tiers, SLA and share are those of the class toward that site.
"""

import math
from collections.abc import Mapping

from appliance.config.intent import Internet
from appliance.contract.ids import ClassName, SiteName
from appliance.core.actions import Cause, MoveClass, UseGateway
from appliance.core.draft import Draft, SiteDraft
from appliance.core.layout import ClassPlan
from appliance.core.settle import NOTHING, clear_warnings
from appliance.core.state import ClassState, InternetState, Liveness

# After the first was found a better one is still taken: tunnels come up in any order.
EARLY_S = 10.0
_ALIVE = (Liveness.UP, Liveness.SUSPECT)


def classes_of(draft: Draft, internet: InternetState) -> Mapping[ClassName, ClassState] | None:
    """What carries classes to the gateway, the same object while nothing moves; else None."""
    name = internet.gateway
    return draft.classes(name) if name is not None and name in draft.sites else None


def chosen(draft: Draft, internet: InternetState) -> tuple[SiteName | None, float]:
    """The gateway from now on, and since when it is used."""
    wanted = draft.intent.gateways
    if not wanted:
        return None, -math.inf
    held, since = internet.gateway, internet.gateway_since
    if held not in wanted:
        others, since = wanted, draft.now
    elif not _may_work(draft, held):
        others, since = tuple(name for name in wanted if name != held), -math.inf
    elif draft.now < since + EARLY_S:
        others = wanted[: wanted.index(held)]
    else:
        return held, since
    found = next((name for name in others if _works(draft, name)), None)
    if found is not None:
        return found, since
    return (held, internet.gateway_since) if held in wanted else (None, -math.inf)


def use(draft: Draft, before: SiteName | None, after: SiteName | None) -> None:
    """Have the tunnels follow."""
    if before == after:
        return
    reason = f"the internet is reached through {after}" if after else "there is no gateway any more"
    if before is not None and before in draft.intent.gateways:
        reason += (
            f": no path to {before} works" if not _works(draft, before) else ", the first choice"
        )
    draft.actions.append(UseGateway(before, after, reason))


def follow_gateway(
    draft: Draft, site: SiteDraft, plan: ClassPlan, left: SiteName | None, gateway: SiteName | None
) -> None:
    """A class goes to the internet as it goes to the gateway, and not through the one it `left`."""
    clear_warnings(draft, plan, site)  # those of the way to the gateway are told of that site
    held = site.classes.get(plan.name)
    before = held.assignment if held else NOTHING
    there = draft.classes(gateway).get(plan.name) if gateway is not None else None
    after = there.assignment if there is not None else NOTHING
    if held is not None and before == after:
        return
    if there is None or gateway is None:
        cause, reason = Cause.NO_PATH, f"{plan.name} to {site.name} has no gateway that is reached"
    elif left in draft.intent.gateways and left != gateway and not _works(draft, left):
        cause = Cause.PATH_DOWN
        reason = f"{plan.name} to {site.name} goes through {gateway}: no path to {left} works"
    else:
        cause = Cause.INITIAL if not before.carriers else there.cause or Cause.CONFIGURED
        reason = f"{plan.name} to {site.name} goes through {gateway}: {there.reason}"
    draft.actions.append(MoveClass(plan.name, site.name, before, after, cause, reason))
    site.classes = {**site.classes, plan.name: ClassState(after, draft.now, cause, reason)}


def is_through(plan: ClassPlan) -> bool:
    return plan.policy.internet is Internet.GATEWAY


def _works(draft: Draft, name: SiteName) -> bool:
    """Does a path to the site answer?"""
    return any(
        path.liveness in _ALIVE and draft.is_usable(plane.local)
        for plane, path in draft.paths(name).items()
        if plane in draft.layout.shapes[name].used
    )


def _may_work(draft: Draft, name: SiteName) -> bool:
    """Is a path to the site not known to be dead?"""
    return any(
        path.liveness is not Liveness.DOWN and draft.is_usable(plane.local)
        for plane, path in draft.paths(name).items()
        if plane in draft.layout.shapes[name].used
    )
