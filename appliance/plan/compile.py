"""Intent, facts and steering become one plan: everything that we own in the kernel.

Pure and deterministic. The plan depends on facts only as far as the kernel objects do: uplink
addresses and gateways, and which devices exist. What depends on the intent alone is kept between
calls, because on a hub it is thousands of objects, and plans are made while probes must go out.
"""

from collections.abc import Collection, Mapping
from functools import lru_cache
from types import MappingProxyType

from appliance.config.intent import Intent
from appliance.contract.ids import SiteName, Slot
from appliance.core.events import UplinkFacts
from appliance.core.steering import Steering
from appliance.plan.counters import COUNTERS_KEY, render_counters
from appliance.plan.duplicate import duplicating_items
from appliance.plan.exits import exit_items, exits
from appliance.plan.filter import FILTER_KEY, render_filter
from appliance.plan.overlay import Attachment, overlay_items
from appliance.plan.plan import Item, Key, Plan
from appliance.plan.shape import NOTHING_LEARNED, Rates, shaping_items
from appliance.plan.steer import Steerer
from appliance.plan.underlay import attachments, backstop_items, underlay_items

_NOBODY: Mapping[SiteName, str] = MappingProxyType({})


def compile_plan(
    intent: Intent,
    facts: Mapping[Slot, UplinkFacts],
    steering: Steering,
    public_key: str,
    *,
    preshared: Mapping[SiteName, str] = _NOBODY,
    absent: Collection[str] = frozenset(),
    rates: Rates = NOTHING_LEARNED,
    is_kept: bool = True,
) -> Plan:
    """The plan of a box.

    `public_key` is the box's own, base64. `preshared` has the digest of each preshared key by site
    (see `WireguardPeer`). `absent` names LAN devices that do not exist: what hangs on them is left
    out, so that one missing device does not keep the rest from working. An uplink without facts is
    one without a device. `rates` are those that were learned.

    A plan that is only looked at is not `is_kept`: it neither pushes out what is kept of the plan
    in force nor shares anything with it that changes, so that it may be compiled in a thread.
    """
    this = _ThisIntent(intent)
    overlay = _overlay if is_kept else _overlay.__wrapped__
    intended = _intended if is_kept else _intended.__wrapped__
    steerer = _steerer if is_kept else _steerer.__wrapped__
    attachment_of = attachments(intent, facts)
    attached = tuple(attachment_of.items())
    plan: dict[Key, Item] = dict(
        overlay(this, attached, public_key, tuple(preshared.items()), steering.gateway)
    )
    plan.update(intended(this, frozenset(absent)))
    plan.update(underlay_items(intent, facts, absent))
    plan.update(shaping_items(intent, facts, attachment_of, rates))
    plan.update(exit_items(intent, facts))
    plan.update(steerer(this).items(steering, exits(intent, facts)))
    plan.update(duplicating_items(intent, steering))
    return MappingProxyType(plan)


class _ThisIntent:
    """An intent by identity: hashing a thousand sites would cost what remembering them saves."""

    __slots__ = ("intent",)

    def __init__(self, intent: Intent) -> None:
        self.intent = intent

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ThisIntent) and self.intent is other.intent

    def __hash__(self) -> int:
        return id(self.intent)


@lru_cache(maxsize=2)
def _overlay(
    this: _ThisIntent,
    attached: tuple[tuple[Slot, Attachment], ...],
    public_key: str,
    preshared: tuple[tuple[SiteName, str], ...],
    gateway: SiteName | None,
) -> Mapping[Key, Item]:
    return overlay_items(this.intent, dict(attached), public_key, dict(preshared), gateway)


@lru_cache(maxsize=2)
def _intended(this: _ThisIntent, absent: frozenset[str]) -> Mapping[Key, Item]:
    return {
        **backstop_items(this.intent),
        FILTER_KEY: render_filter(this.intent, absent),
        COUNTERS_KEY: render_counters(this.intent),
    }


@lru_cache(maxsize=2)
def _steerer(this: _ThisIntent) -> Steerer:
    return Steerer(this.intent)
