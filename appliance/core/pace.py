"""How often each path is probed: enough to notice in time, and no more.

A path that carries a class, or could take one over, is probed at the base interval. While a loss
test has some suspicion, the paths that carry classes are probed much faster for a moment, because
the test needs samples and not seconds. Token buckets bound what that costs, one for each path and
one for the box, whose processor and lines all paths share.
"""

from appliance.config.intent import Probing
from appliance.core.draft import Draft
from appliance.core.liveness import end_boost
from appliance.core.state import Bucket, Liveness, PathState

# The fast pace, where the base interval is short. Reflectors answer 500/s; at 5 ms the loss of 3 %
# would be left within 3.6 s at the 95th percentile, at 2.5 ms it is within 2.6 s.
BOOST_S = 0.0025
BOOST_LONGEST_BASE_S = 0.1  # with longer base intervals the pace is only ten times faster
BOOST_METERED = 2  # times faster than the base interval on a metered line
BOOSTS = 6.0  # token bucket: seconds of fast probing
BOOSTS_RATE = 0.2  # seconds of it per second: a brownout takes two or three, and may come each 20 s
BOOST_LEAST = 0.2  # not worth starting with less in the bucket
BOOST_RESERVE = 3.0  # what a lone loss leaves for the case that a second follows it
GRAVE = 2.0  # score of a loss test that takes more than one loss
BOOST_MIN_S = 1.0  # 400 probes show a loss of 1 % at all, forty-nine times in fifty
# Of the box: how many paths may begin to be probed fast at once, and how many more a second. One in
# doubt takes up to three: those that share an uplink with it are looked at too.
BOX_BOOSTS = 4.0
BOX_BOOSTS_RATE = 0.5
DOWN_S = 1.0  # RFC 8085: a path that is down


def interval(
    path: PathState,
    probing: Probing,
    *,
    is_attached: bool,
    is_used: bool,
    is_metered: bool,
    is_carrying: bool,
) -> float:
    """Seconds between probes of a path in this state."""
    base = probing.interval_s
    idle = max(base, probing.idle_interval_s)
    if not is_attached or path.liveness is Liveness.DOWN:
        return max(base, DOWN_S)
    if not is_used:
        return idle
    if path.boosted_at is not None:
        return _fast(base, is_metered)
    if is_metered and not is_carrying and path.liveness is not Liveness.RISING:
        return max(base, probing.metered_interval_s)
    return base


def _fast(base: float, is_metered: bool) -> float:
    if is_metered:
        return base / BOOST_METERED
    return min(base, BOOST_S) if base <= BOOST_LONGEST_BASE_S else base / 10


def boost(draft: Draft, path: PathState) -> PathState:
    """Probe at the fast pace from now on, if there are tokens. Returns `path` when not."""
    now = draft.now
    if path.boosted_at is not None or path.liveness not in (Liveness.UP, Liveness.SUSPECT):
        return path
    level = path.boosts.level(now, BOOSTS_RATE, BOOSTS)
    of_box = draft.boosts.level(now, BOX_BOOSTS_RATE, BOX_BOOSTS)
    if level < _reserve(path) + BOOST_LEAST or of_box < 1.0:
        return path
    draft.boosts = Bucket(of_box - 1.0, now)
    return path._replace(boosts=Bucket(level, now), boosted_at=now)


def _reserve(path: PathState) -> float:
    """What must stay in the bucket: nothing, once it is more than a lone loss."""
    return 0.0 if is_grave(path) else BOOST_RESERVE


def is_grave(path: PathState) -> bool:
    """Is it more than a lone loss that speaks against the path, and no verdict yet?"""
    return any(
        not t.is_violated and max(t.forward.score, t.backward.score) >= GRAVE for t in path.tests
    )


def unboost(path: PathState, now: float) -> PathState:
    """Back to the usual pace when the suspicion is gone, or the tokens are."""
    if path.boosted_at is None:
        return path
    used = now - path.boosted_at
    is_open = any(not (t.is_calm or t.is_violated) for t in path.tests)
    left = path.boosts.tokens - used - _reserve(path)
    if left > 0 and (is_open or used < BOOST_MIN_S):
        return path
    return end_boost(path, now)
