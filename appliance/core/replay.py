"""Decide a recording again: the same events give the same actions, and with another intent
it shows what would have differed.

A recording is bounded, so its beginning goes some day. `recall` gives the events that bring a new
core to where another was: what carries what, and the facts. What is measured is not among them,
because samples come every moment: paths begin unknown and holding times anew, as after a restart.
So until a hold time has passed, such a recording may not tell a return that was decided. Rates that
are learned are no matter of decisions: of a line the core hears only that it is full.
"""

from collections.abc import Generator, Iterable, Iterator

from appliance.config.intent import Intent
from appliance.contract.ids import PathId
from appliance.core.actions import Action
from appliance.core.codec import RecordingError, decode_event
from appliance.core.decide import decide, initial_state, next_deadline
from appliance.core.events import (
    DeadlinePassed,
    Event,
    IntentChanged,
    LineFilled,
    PathMtuChanged,
    SteeringAdopted,
    UplinkChanged,
)
from appliance.core.state import State, steering
from appliance.core.steering import DEVICE_MTU

__all__ = ["RecordingError", "recall", "replay", "replay_events"]


def replay(
    lines: Iterable[bytes], intent_override: Intent | None = None
) -> Iterator[tuple[float, tuple[Action, ...]]]:
    """Decide the events of a recording again: when, and what, for each that led to actions.

    `lines` are as `encode_event` wrote them. Raises RecordingError for a line that is no event,
    and when the first is not the intent.
    """
    return replay_events(map(decode_event, lines), intent_override)


def replay_events(
    events: Iterable[tuple[float, Event]], intent_override: Intent | None = None
) -> Iterator[tuple[float, tuple[Action, ...]]]:
    """The same for events that are decoded already.

    Another intent takes the place of each recorded one. The deadlines that were recorded are then
    not those that the other intent's decisions would have asked for, so these are kept instead.
    """
    state = initial_state()
    is_first = True
    for now, event in events:
        if is_first and not isinstance(event, IntentChanged):
            msg = "a recording must begin with the intent"
            raise RecordingError(msg)
        is_first = False
        if intent_override is not None:
            if isinstance(event, DeadlinePassed):
                continue
            state = yield from _pass_deadlines(state, now)
            if isinstance(event, IntentChanged):
                event = IntentChanged(intent_override)
        state, actions = decide(state, event, now)
        if actions:
            yield now, actions


def _pass_deadlines(
    state: State, until: float
) -> Generator[tuple[float, tuple[Action, ...]], None, State]:
    """Let the time up to the next event pass."""
    while (due := next_deadline(state)) is not None and due <= until:
        now = max(due, state.now)
        state, actions = decide(state, DeadlinePassed(), now)
        if actions:
            yield now, actions
    return state


def recall(state: State) -> list[Event]:
    """What a starting core must be told to go on from here, in the order that it is told in.

    What carries something has its size told even where it is the device's own: adopting believes
    of all paths of a class what the smallest of them lets through.
    """
    held = steering(state)
    adopted = SteeringAdopted(
        tuple([(name, site, assigned) for (name, site), assigned in held.assignments.items()]),
        tuple(held.detours.items()),
        held.gateway,
    )
    uplinks = list(state.uplinks.items())
    return [
        IntentChanged(state.intent),
        adopted,
        *[
            PathMtuChanged(PathId(name, plane), path.mtu or DEVICE_MTU)
            for name, site in state.sites.items()
            for plane, path in site.paths.items()
            if path.mtu is not None or plane in site.carrying
        ],
        *[uplink.probed for _, uplink in uplinks if uplink.probed is not None],
        *[UplinkChanged(uplink.facts) for _, uplink in uplinks if uplink.facts is not None],
        *[LineFilled(slot, True) for slot, uplink in uplinks if uplink.filled.since is not None],
    ]
