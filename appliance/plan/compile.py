"""Intent, facts and steering become one plan: everything that we own in the kernel.

Pure and deterministic. The plan depends on facts only as far as the kernel objects do: uplink
addresses and gateways, and which devices exist.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from appliance.config.intent import Intent
from appliance.contract.ids import SiteName, Slot
from appliance.core.events import UplinkFacts
from appliance.core.steering import Steering
from appliance.plan.counters import COUNTERS_KEY, render_counters
from appliance.plan.filter import FILTER_KEY, render_filter
from appliance.plan.overlay import overlay_items
from appliance.plan.plan import Item, Key, Plan
from appliance.plan.steer import Steerer
from appliance.plan.underlay import underlay_items, uplink_addresses

_NOBODY: Mapping[SiteName, str] = MappingProxyType({})


def compile_plan(
    intent: Intent,
    facts: Mapping[Slot, UplinkFacts],
    steering: Steering,
    public_key: str,
    *,
    preshared: Mapping[SiteName, str] = _NOBODY,
    absent: Collection[str] = frozenset(),
) -> Plan:
    """The plan of a box.

    `public_key` is the box's own, base64. `preshared` has the digest of each preshared key by site
    (see `WireguardPeer`). `absent` names LAN devices that do not exist: what hangs on them is left
    out, so that one missing device does not keep the rest from working. An uplink without facts is
    one without a device.
    """
    plan: dict[Key, Item] = {}
    plan.update(underlay_items(intent, facts, absent))
    plan.update(overlay_items(intent, uplink_addresses(intent, facts), public_key, preshared))
    plan.update(Steerer(intent).items(steering))
    plan[FILTER_KEY] = render_filter(intent, absent)
    plan[COUNTERS_KEY] = render_counters(intent)
    return MappingProxyType(plan)
