"""The reader of recordings: a line is an event or a RecordingError, and an event can be decided."""

from appliance.contract.ids import Slot
from appliance.core.codec import RecordingError, decode_event, encode_event
from appliance.core.decide import decide, initial_state
from appliance.core.events import (
    AnswerReturned,
    FarEndReported,
    IntentChanged,
    LineFilled,
    LoopStalled,
    PathMtuChanged,
    PathsSampled,
    ProbeOverdue,
    TrafficSampled,
    UplinkChanged,
)
from appliance.core.state import State
from appliance.stamp.sample import Sample
from tests.fuzz.harness import Target
from tests.unit.core.examples import facts, intent, path

_PATH = path("hq", 1, 1)
_EVENTS = (
    IntentChanged(intent()),
    UplinkChanged(facts(1)),
    PathsSampled(((_PATH, Sample(5, 4, 1, lost_forward=1, delay_us=20_000, span_us=100_000)),)),
    ProbeOverdue(_PATH, 0.024, 2, float("inf")),
    AnswerReturned(_PATH, 1),
    FarEndReported(_PATH, 4, 0),
    TrafficSampled(_PATH, 100, 1),
    PathMtuChanged(_PATH, 1280),
    LineFilled(Slot(1), is_full=True),
    LoopStalled(0.2),
)
SEEDS = tuple(encode_event(100.0 + n, event) for n, event in enumerate(_EVENTS))


def _running() -> State:
    state = initial_state()
    for slot in (1, 2):
        state, _ = decide(state, _EVENTS[0], 100.0)
        state, _ = decide(state, UplinkChanged(facts(slot)), 100.0)
    return state


_STATE = _running()


def fuzz_line(octets: bytes) -> None:
    """Read it back as it was, or refuse it; whatever was read can be decided."""
    try:
        now, event = decode_event(octets)
    except RecordingError:
        return
    assert decode_event(encode_event(now, event)) == (now, event)
    if not isinstance(event, IntentChanged):  # an intent is validated before it is one
        decide(_STATE, event, now)


TARGETS = (Target("recording", fuzz_line, SEEDS),)
