"""The plan of a configuration by itself: no supervisor, no kernel and no key file is asked.

What the file does not say is assumed, and said. Classes go where a box that has just started sends
them: every uplink with addresses in the file works, and no path has been measured yet.
"""

from collections.abc import Iterable

from appliance.config.intent import Intent, Method
from appliance.core.decide import decide, initial_state, next_deadline
from appliance.core.events import DeadlinePassed, IntentChanged, UplinkChanged, UplinkFacts
from appliance.core.state import State, steering
from appliance.plan.compile import compile_plan
from appliance.plan.plan import Add
from appliance.plan.text import render_op

NOT_READ = "not read"  # stands for the box's public key and for digests of preshared keys


def plan_alone(intent: Intent) -> tuple[str, ...]:
    """Everything that a box with this configuration would own, as commands."""
    facts = {
        uplink.slot: UplinkFacts(
            uplink.slot,
            has_device=True,
            has_carrier=True,
            addresses=uplink.addresses,
            gateways=uplink.gateways,
        )
        for uplink in intent.uplinks
    }
    preshared = {p.name: NOT_READ for p in intent.peers if p.preshared_key_file is not None}
    first = steering(_started(intent, facts.values()))
    plan = compile_plan(intent, facts, first, NOT_READ, preshared=preshared)
    return tuple(render_op(Add(key, item)) for key, item in sorted(plan.items()))


def assumptions(intent: Intent) -> tuple[str, ...]:
    """What `plan_alone` takes for granted, a sentence each."""
    leased = [uplink.name for uplink in intent.uplinks if uplink.method is Method.DHCP]
    told = ["all devices are there and have a carrier", "no path has been measured yet"]
    if leased:
        told.append(f"no lease: {', '.join(leased)} has neither addresses nor gateways")
    told.append(f"keys are {NOT_READ}")
    return tuple(told)


def _started(intent: Intent, facts: Iterable[UplinkFacts]) -> State:
    """A core that knows its uplinks and has made its first decisions."""
    state, _ = decide(initial_state(), IntentChanged(intent), 0.0)
    for each in facts:
        state, _ = decide(state, UplinkChanged(each), 0.0)
    while state.pending or not state.is_settled:
        state, _ = decide(state, DeadlinePassed(), next_deadline(state) or 0.0)
    return state
