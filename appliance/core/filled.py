"""A queue of our own in the line of an uplink: for a moment, no path is blamed for it.

What we send ourselves waits in the line when a rate is too high, for as long as it takes to find
out. Its delay and its losses say nothing of the path, and whoever moved a class for them would move
it back a minute later, or take the queue along to the next line. So judging rests, but not for
long: a queue that stays is one that a call must be taken out of, whoever made it.
"""

from dataclasses import replace

from appliance.contract.ids import Slot
from appliance.core.draft import Draft
from appliance.core.events import LineFilled
from appliance.core.state import Bucket, Filled

EXCUSE_S = 5.0  # the longest
EXCUSE_RATE = 0.1  # s: so much of the time in the long run
AFTER_S = 2.0  # until what was measured meanwhile is forgotten


def filled(draft: Draft, event: LineFilled) -> None:
    """A queue of our own has begun, or has ended."""
    uplink = draft.uplinks.get(event.slot)
    if uplink is None or event.is_full == (uplink.filled.since is not None):
        return
    now, before = draft.now, uplink.filled
    left_s = before.budget.level(now, EXCUSE_RATE, EXCUSE_S)
    if event.is_full:
        after = Filled(now, now + left_s, Bucket(left_s, now))
    else:
        begun = now if before.since is None else before.since
        spent_s = min(now - begun, before.budget.tokens)
        is_over = before.until < now  # judged already
        until = before.until if is_over else now + AFTER_S
        after = Filled(None, until, Bucket(before.budget.tokens - spent_s, now))
    draft.put_uplink(event.slot, replace(uplink, filled=after))


def is_excused(draft: Draft, slot: Slot) -> bool:
    """Do delay and loss over this uplink say nothing of its paths now?"""
    uplink = draft.uplinks.get(slot)
    return uplink is not None and draft.now < uplink.filled.until
