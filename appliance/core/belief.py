"""May counted traffic be believed? As far as the probes of the same time agree.

The ends tell traffic between them by its addresses. Packets from a network that the far end does
not know as ours count as sent and never as received, because WireGuard drops them there: on a
perfect path they look like a loss of 100 %, and would drive every class over every path.
So what traffic loses counts only while it is likely that the probes lose half of that too.
"""

import math
from typing import NamedTuple

LEAST_PROBES = 10  # before these nothing can be said
TELLING = 20  # packets; fewer may be what questions overtook on the way
UNLIKELY = math.log(1000)
MERCY = 0.5  # probes are smaller than traffic, and lost less
MEMORY_S = 5.0  # without a loss for so long, a new one is another matter
MOST_PROBES = 2000  # more are forgotten by halves


class Heard(NamedTuple):
    """Traffic, and the probes of the same time; both in our direction of sending."""

    sent: float = 0.0
    lost: float = 0.0
    probes: float = 0.0
    missed: float = 0.0
    lost_at: float = -math.inf

    @property
    def is_enough(self) -> bool:
        """Are there probes enough to go by?"""
        return self.probes >= LEAST_PROBES

    @property
    def is_telling(self) -> bool:
        """Was enough lost to speak of it?"""
        return self.lost >= TELLING


NOTHING = Heard()


def hear(heard: Heard, sent: int, lost: int, now: float) -> Heard:
    """Take in counted traffic."""
    if now - heard.lost_at > MEMORY_S:
        return Heard(sent, lost, lost_at=now) if lost else NOTHING
    return heard._replace(
        sent=heard.sent + sent,
        lost=heard.lost + lost,
        lost_at=now if lost else heard.lost_at,
    )


def compare(heard: Heard, probes: int, missed: int) -> Heard:
    """Take in probes, if any traffic was lost lately."""
    if not heard.sent:
        return heard
    heard = heard._replace(
        probes=heard.probes + probes, missed=max(0.0, heard.missed + min(missed, probes))
    )
    if heard.probes <= MOST_PROBES:
        return heard
    sent, lost, probes_, missed_, lost_at = heard
    return Heard(sent / 2, lost / 2, probes_ / 2, missed_ / 2, lost_at)


def is_agreed(heard: Heard) -> bool:
    """Is what the probes lost likely, were their loss half of the traffic's? (Chernoff's bound.)"""
    if not heard.sent:
        return True
    expected = MERCY * min(1.0, heard.lost / heard.sent)
    seen = heard.missed / heard.probes if heard.probes else 0.0
    if seen >= expected:
        return True
    passed = (1 - seen) * math.log((1 - seen) / (1 - expected))
    divergence = passed + (seen * math.log(seen / expected) if seen else 0.0)
    return heard.probes * divergence <= UNLIKELY
