"""Decide a recording again: the same events give the same actions, and with another intent
it shows what would have differed.
"""

from collections.abc import Generator, Iterable, Iterator

from appliance.config.intent import Intent
from appliance.core.actions import Action
from appliance.core.codec import RecordingError, decode_event
from appliance.core.decide import decide, initial_state, next_deadline
from appliance.core.events import DeadlinePassed, Event, IntentChanged
from appliance.core.state import State

__all__ = ["RecordingError", "replay", "replay_events"]


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
