"""Does a path carry packets at all? Pure steps from one `PathState` to the next.

Suspect, then verify: the first missing answer makes a path suspect and is followed by a burst;
the path is down when so many probes in a row went unanswered that chance cannot explain it. How
many that takes depends on how lossy the path is by habit. With independent losses of 0.3 % the
verdict takes 4, which chance brings about with probability 0.003^4 = 8.1e-11 per probe, or 7e-6
in the 90,000 probes of half an hour; a path that loses 3 % takes 6 (6.6e-5).

That is so of losses. A line that stands still for a moment loses nothing, but several answers are
missing at once: it is taken for dead, which cannot be known sooner, and is back in two seconds.
From then on it is given more time (`patience`), so that standing still again, for a tenth of a
second at most, moves nothing.

The way back is slower: answers for a while (`RISING`), then the class's hold time, and a minute at
least for a path that fell again. The price of that is up to a minute more on the second choice, for
a class with a shorter hold time and a line that fails twice in ten minutes. A verdict that
turns out to be wrong, because the answers come after all, is taken back with the path's history.
"""

import math
from collections.abc import Iterable

from appliance.core.estimate import UNMEASURED, Estimate
from appliance.core.sequential import UNTROUBLED
from appliance.core.state import Bucket, Liveness, PathState

CHANCE = 1e-9  # per probe: what chance may explain
PROOF = -math.log(CHANCE)
# What holds up one probe, a full queue or a busy processor at either end, holds up those that are
# sent soon after it too: the missing ones prove something when they were sent over so long a time.
MOMENT_S = 0.018  # less than the shortest usual interval: a blackout is not noticed later for it
BUSY_MOMENT_S = 0.05  # while they are sent every 2.5 ms, which itself keeps both ends busy
USUAL_LOSS = 0.003  # nobody's habit is believed to be better
MOST_HABIT = 0.35  # nor to be worse, else no number of missing answers would do
MOST_UNANSWERED = 20
RISE_ANSWERS = 5
RISE_S = 1.0
RISE_FALL = 2  # overdue probes in a row that end a rise
FALL_MEMORY_S = 600.0  # falls within this time of each other are counted
WRONG_ANSWERS = 3  # late answers, or all that were missing, that show a verdict to be wrong ...
WRONG_S = 3.0  # ... if they come this soon
A_MOMENT_S = 0.001  # what two readings of a clock may differ by
DOUBT_S = 2.0  # after such an error, how long before anything returns voluntarily
# A line that stood still once will again (a queue elsewhere, a radio link): it may be silent for
# longer than it was then. The price is that its death is noticed so much later.
PATIENCE = 1.5  # times as long
MOST_PATIENCE_S = 0.15
AGAIN_S = 60.0  # the least hold time of a path that fell again: nobody follows a line that flaps
PATIENT_FALLS = 3  # falls in close succession before the hold time doubles with each
MOST_DOUBLINGS = 3

BURSTS = 3.0  # token bucket of verifying bursts, per path
BURSTS_RATE = 0.5  # per second
HINT_BURSTS = 2.0  # a late answer may not spend the last token: it is for a missing one
# Of the box: more than a branch's few paths could spend. When it is our own processor or line that
# makes answers late, a burst on each of a hub's thousands of paths would keep it so for minutes.
BOX_BURSTS = 64.0
BOX_BURSTS_RATE = 32.0
BOX_HINT_BURSTS = 32.0


def needed(estimate: Estimate) -> int:
    """How many probes in a row must go unanswered for the path to be down."""
    return min(MOST_UNANSWERED, math.ceil(PROOF / weight(estimate)))


def weight(estimate: Estimate) -> float:
    """What one missing answer says against a path: little where many are missing by habit."""
    habit = max(USUAL_LOSS, estimate.minute().two_way_ratio)
    return -math.log(min(habit, MOST_HABIT))


def miss(path: PathState, unanswered: int, sent_at: float) -> PathState:
    """One more answer is overdue: `unanswered` in a row by now, this one sent at `sent_at`."""
    liveness = Liveness.SUSPECT if path.liveness is Liveness.UP else path.liveness
    unanswered = max(1, unanswered - path.forgiven)
    missed_at = min(path.missed_at, sent_at) if path.unanswered else sent_at
    return path._replace(liveness=liveness, unanswered=unanswered, missed_at=missed_at)


def is_dying_with_others(path: PathState, others: Iterable[PathState], sent_at: float) -> bool:
    """Do missing answers of this path and of others over the same uplink prove together?

    They fail together, so their missing answers add up, each by what it says of its own path.
    """
    proof, first_at = path.unanswered * weight(path.estimate), path.missed_at
    least_s = moment(path, sent_at)
    for other in others:
        if other.liveness is Liveness.SUSPECT and other.unanswered:
            proof += other.unanswered * weight(other.estimate)
            first_at = min(first_at, other.missed_at)
            least_s = max(least_s, moment(other, sent_at))
    return proof >= PROOF and sent_at - first_at >= least_s


def moment(path: PathState, now: float) -> float:
    """Over how long a time, at least, the missing probes of a path must have been sent."""
    was_busy = path.boosted_at is not None and path.boosted_at < path.missed_at
    return max(BUSY_MOMENT_S if was_busy else MOMENT_S, patience(path, now))


def patience(path: PathState, now: float) -> float:
    """How much longer a path may be silent that was wrongly taken for dead; 0 else."""
    return path.patience_s if now - path.erred_at <= FALL_MEMORY_S else 0.0


def fall(path: PathState, now: float) -> PathState:
    """The path is down. That counts as a fall unless it has not answered yet, as after a start."""
    if path.liveness is Liveness.DOWN:
        return path
    before = path.falls if now - path.fell_at < FALL_MEMORY_S else 0
    is_again = before > 0 or now - path.erred_at < FALL_MEMORY_S
    return end_boost(path, now)._replace(
        liveness=Liveness.DOWN,
        since=now,
        up_since=path.up_since if not is_again else math.inf,
        answers=0,
        falls=before if path.liveness is Liveness.UNKNOWN else before + 1,
        fell_at=now,
        fell_before=path.fell_at,
        missing=path.unanswered,
        late=0,
    )


def end_boost(path: PathState, now: float) -> PathState:
    """Fast probing ends, and what it cost is taken from the path's tokens."""
    if path.boosted_at is None:
        return path
    left = max(0.0, path.boosts.tokens - (now - path.boosted_at))
    return path._replace(boosts=Bucket(left, now), boosted_at=None)


def answer(path: PathState, now: float, count: int) -> PathState:
    """The path answered `count` probes that were sent after all overdue ones."""
    liveness = path.liveness
    if liveness is Liveness.SUSPECT:
        return path._replace(liveness=Liveness.UP, unanswered=0, forgiven=0, far=None)
    if liveness is Liveness.DOWN or (liveness is Liveness.UNKNOWN and path.falls):
        return path._replace(
            liveness=Liveness.RISING,
            since=now,
            answers=count,
            unanswered=0,
            forgiven=0,
        )
    if liveness is Liveness.UNKNOWN:
        return path._replace(
            liveness=Liveness.UP,
            since=now,
            up_since=now,
            answers=count,
            unanswered=0,
            forgiven=0,
        )
    if liveness is Liveness.RISING:
        answers = path.answers + count
        if answers < RISE_ANSWERS or now - path.since < RISE_S:
            return path._replace(answers=answers, unanswered=0, forgiven=0)
        return path._replace(
            liveness=Liveness.UP,
            up_since=path.since,
            answers=answers,
            unanswered=0,
            forgiven=0,
            far=None,
            estimate=UNMEASURED,
            tests=(UNTROUBLED,) * len(path.tests),
        )
    if path.unanswered or path.forgiven:
        return path._replace(unanswered=0, forgiven=0)
    return path


def came_late(path: PathState, sent_at: float) -> PathState:
    """An answer of a path that is said to be dead came after all, to a probe sent then.

    One that was asked for before the silence says nothing of it.
    """
    was_before = sent_at < path.missed_at - A_MOMENT_S
    if was_before or path.liveness not in (Liveness.DOWN, Liveness.RISING):
        return path
    return path._replace(late=path.late + 1)


def is_wrong(path: PathState, now: float) -> bool:
    """Do late answers show that the verdict "down" was an error?"""
    enough = min(WRONG_ANSWERS, max(1, path.missing))
    return path.late >= enough and now - path.fell_at <= WRONG_S


def acquit(path: PathState, now: float) -> PathState:
    """The verdict was wrong: the path stood still and was not dead. Its history stands.

    The fall counts all the same when it stood still for longer than patience covers the next time:
    it would be left and returned to again and again.
    """
    is_first = math.isfinite(path.up_since)
    stood_still_s = now - path.missed_at - path.estimate.delay_us / 1e6
    patience_s = min(MOST_PATIENCE_S, PATIENCE * max(0.0, stood_still_s))
    is_covered = PATIENCE * stood_still_s <= MOST_PATIENCE_S
    return path._replace(
        liveness=Liveness.UP,
        since=now,
        up_since=path.up_since if is_first else now,
        unanswered=0,
        forgiven=0,
        far=None,
        falls=max(0, path.falls - 1) if is_covered else path.falls,
        fell_at=path.fell_before if is_covered else path.fell_at,
        erred_at=now,
        patience_s=max(patience_s, patience(path, now)),
    )


def forget(path: PathState, now: float) -> PathState:
    """The uplink came back: what the path was like before says nothing now."""
    return path._replace(
        liveness=Liveness.UNKNOWN, since=now, up_since=math.inf, unanswered=0, forgiven=0, far=None
    )


def doubted_until(path: PathState) -> float:
    """After a wrong verdict, when anything may return to the path voluntarily."""
    return path.erred_at + DOUBT_S


def holding(path: PathState, hold_s: float, now: float) -> float:
    """The hold time of a path: longer the more often it fell of late."""
    if path.falls < 2 or now - path.fell_at > FALL_MEMORY_S:
        return hold_s
    doublings = max(0, min(MOST_DOUBLINGS, path.falls - PATIENT_FALLS))
    return float(max(AGAIN_S, hold_s * 2**doublings))


def spend_burst(path: PathState, now: float, *, is_hint: bool) -> PathState | None:
    """Take a token for a verifying burst, or None when there is none or one is under way."""
    level = path.bursts.level(now, BURSTS_RATE, BURSTS)
    if level < (HINT_BURSTS if is_hint else 1.0):
        return None
    # A burst that could not have been answered yet says all that another would.
    if now - path.verified_at < 1.5e-6 * path.estimate.delay_us + 0.01:
        return None
    return path._replace(bursts=Bucket(level - 1.0, now), verified_at=now)
