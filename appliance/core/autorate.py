"""The rate of a line that varies, learned from one-way delay: one direction of one uplink.

Probes pass by everything that waits in our own shaper, so what delays them is a queue in the line:
the rate is too high. What the line delivered meanwhile is what it carries. So the rate sinks to a
share of that at once, small enough to empty the queue in a moment, and comes back to just below it;
from there it grows slowly for as long as traffic wants more and no queue builds up, and fast once
it is clear that the line carries more than it did (docs/adr/0014).

Pure: whoever calls it reads counters and clocks. It judges no path and steers nothing.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from appliance.contract.ids import PathId

# Of a queue, in microseconds. More than the first and three times the usual noise is congestion.
THRESHOLD_US = 5_000.0
NOISE_FACTOR = 3.0
NOISE_GAIN = 1 / 32  # for each probe
NOISE_STEP_US = 20_000.0  # more between two probes is no noise
NOISE_MOST_US = 30_000.0
GRAVE = 4.0  # one probe this many times over the threshold is enough, else it takes two
NOTABLE_US = 20_000.0  # less is found again and again while the rate grows, and hurts nobody
IMPOSSIBLE_US = 5_000.0  # a queue so much longer than the whole two-way delay: a clock was set
SKEW_US = 100.0  # by which clocks may drift apart in a second (100 ppm)

DRAIN_S = 0.5  # the time in which a queue is to be emptied
SHARE_LEAST, SHARE_MOST = 0.3, 0.92  # of what the line delivers, while there is a queue
SHARE_AFTER = 0.95  # when the queue is gone
GENTLY = 0.7  # a cut of a rate that was not used goes no further in one step
STEP = 0.03  # smaller changes are not worth a message

WINDOW_S = 0.3  # over which traffic is counted
SPAN_S = 0.15  # probes this far apart tell how a queue grows
HISTORY_S = 4.0
FRESH_S = 0.4  # or two and a half intervals of probes, whichever is longer
FRESH_SPACING_S = 1.0  # of a path that is probed more slowly nobody knows between two of them
KEPT_S = 12.0  # longer than the slowest interval of probes: a path without any is not followed
RECENT = 12  # probes remembered of a path

LOADED, IDLE, OWN = 0.8, 0.3, 0.1  # shares of the rate that traffic uses
OWN_LEAST = 0.5  # from which a queue is surely our own
HOLD_S = 2.0  # after a queue, before the rate grows over what the line carried
NEAR = 1.03  # so far over it the rate grows slowly, ...
SLOWLY, QUICKLY = 0.05, 1.0  # per second
FASTER = 4.0  # ... and from there by so much more a second for each part that it is beyond
SLOWER_S = 5.0  # for so long a queue or none says whether the line carries a rate that is given
LEAST = 1.1  # so little over it is the least rate as well
REST_S = 3.0  # a delay that lasts at the least rate is the line's own
FORGET_S = 60.0  # time constant by which an unused rate goes back to where it began
FORGET_AFTER_S = 30.0


class Bounds(NamedTuple):
    """Between which the rate is learned, in bit/s."""

    least_bps: int
    most_bps: int

    @property
    def start_bps(self) -> float:
        """Where to begin knowing nothing: so many times the least as the most is more."""
        return float((self.least_bps * self.most_bps) ** 0.5)

    @property
    def is_learned(self) -> bool:
        return self.least_bps < self.most_bps

    def clamp(self, rate_bps: float) -> float:
        return min(max(rate_bps, float(self.least_bps)), float(self.most_bps))


class Probe(NamedTuple):
    """An answered probe, seen in one direction."""

    sent: float  # s
    transit_us: int  # the delay of this direction, plus an unknown difference of two clocks
    delay_us: int  # of both directions


class Seen(NamedTuple):
    """What one probe says of the queue."""

    sent: float
    received: float
    queue_us: float


class PathView(NamedTuple):
    """The least transit of a path, and its latest probes."""

    base_us: float
    recent: tuple[Seen, ...] = ()

    def is_fresh(self, now: float) -> bool:
        if not self.recent:
            return False
        spacing = self.recent[-1].sent - self.recent[-2].sent if len(self.recent) > 1 else 0.0
        fresh_s = max(FRESH_S, 2.5 * min(spacing, FRESH_SPACING_S))
        return now - self.recent[-1].received <= fresh_s


class Line(NamedTuple):
    """What is known of one direction of an uplink."""

    rate_bps: float
    counted: tuple[tuple[float, int], ...] = ()  # (s, octets so far) of the last moments
    paths: Mapping[PathId, PathView] = {}
    noise_us: float = 0.0  # by which delays of successive probes differ while there is no queue
    queue_us: float | None = None  # None: nobody knows
    used_bps: float = 0.0
    capacity_bps: float | None = None  # what the line carried when it was last full
    capacity_at: float = 0.0
    full_since: float | None = None  # there is a queue since then
    cut_at: float = 0.0  # when the rate was last set because of it
    clear_at: float = 0.0  # when the last queue was gone
    used_at: float = 0.0  # when the rate was last used
    is_own: bool = False  # it is of what passed our shaper, most of which was used
    peak_us: float = 0.0  # the longest that it was
    is_slower: bool = False  # than a rate that is given

    @property
    def is_filled(self) -> bool:
        """Is there a queue of our own in the line, long enough that somebody may mind?"""
        return self.full_since is not None and self.is_own and self.peak_us >= NOTABLE_US

    @property
    def threshold_us(self) -> float:
        return THRESHOLD_US + NOISE_FACTOR * self.noise_us


def begin(rate_bps: float, now: float) -> Line:
    """A line of which nothing but the rate is known."""
    return Line(rate_bps, cut_at=now, clear_at=now - HOLD_S, used_at=now)


def follow(
    line: Line,
    bounds: Bounds,
    octets: int,
    probes: Mapping[PathId, Sequence[Probe]],
    now: float,
    *,
    is_down: bool,
) -> Line:
    """Take in what a moment brought, and set the rate.

    `octets` has passed so far, as the line counts them: into it, or with `is_down` out of it, what
    our shaper dropped included. `probes` are the answers since the call before, of the paths over
    this uplink. A queue in the line delays all of them, so the least of their delays counts: what
    delays some only is at their far ends.
    """
    before = line.counted[-1][0] if line.counted else now
    counted = (*(c for c in line.counted if now - c[0] <= HISTORY_S), (now, octets))
    used_bps = _rate(counted, now - WINDOW_S, now) or 0.0
    span_s = min(now - before, 1.0)
    is_idle = used_bps < IDLE * line.rate_bps
    line = line._replace(counted=counted, used_bps=used_bps)
    paths = _measured(line, probes, now, is_idle=is_idle)
    line = line._replace(paths=paths, noise_us=_noise(line, paths, probes))
    fresh = [view for view in line.paths.values() if view.is_fresh(now)]
    if used_bps >= OWN * line.rate_bps:
        line = line._replace(used_at=now)
    if not fresh:
        return line._replace(queue_us=None)
    queue_us, least = min((_queue(view, line.threshold_us), view) for view in fresh)
    line = line._replace(queue_us=queue_us)
    if queue_us > line.threshold_us and (
        line.full_since is not None or used_bps >= OWN * line.rate_bps
    ):
        return _full(line, bounds, least, now, is_down=is_down)
    if line.full_since is not None:
        if queue_us > line.threshold_us / 2:
            return _full(line, bounds, least, now, is_down=is_down)
        return _emptied(line, bounds, now)
    return _clear(line, bounds, now, span_s)


def _measured(
    line: Line, probes: Mapping[PathId, Sequence[Probe]], now: float, *, is_idle: bool
) -> Mapping[PathId, PathView]:
    """The views of the paths that are followed, with what is new."""
    views = {
        path: view
        for path, view in line.paths.items()
        if view.recent and now - view.recent[-1].received <= KEPT_S
    }
    # Who joins while there is a queue waits in it like the others, and must not hide it from them.
    queued_us = (line.queue_us or 0.0) if line.full_since is not None else 0.0
    for path, answered in probes.items():
        view = views.get(path)
        for probe in answered:
            view = _seen(view, probe, queued_us, is_idle=is_idle)
        if view is not None:
            views[path] = view
    return views


def _noise(
    line: Line, paths: Mapping[PathId, PathView], probes: Mapping[PathId, Sequence[Probe]]
) -> float:
    """By how much successive delays differ, though no queue grows or shrinks."""
    noise = line.noise_us
    if line.full_since is not None:
        return noise
    for path, answered in probes.items():
        seen = paths[path].recent[-1 - len(answered) :] if answered else ()
        for one, other in pairwise(seen):
            step = min(abs(other.queue_us - one.queue_us), NOISE_STEP_US)
            noise += NOISE_GAIN / len(probes) * (step - noise)
    return min(noise, NOISE_MOST_US)


def _seen(view: PathView | None, probe: Probe, queued_us: float, *, is_idle: bool) -> PathView:
    """The base follows what is faster at once, and what is slower as far as clocks may drift.

    While hardly anything is sent, no queue of ours is in what is slower: it follows in seconds.
    """
    transit = float(probe.transit_us)
    received = probe.sent + probe.delay_us / 1e6
    if view is None or not view.recent:
        return PathView(transit - queued_us, (Seen(probe.sent, received, queued_us),))
    base, last = view.base_us, view.recent[-1]
    age = min(max(probe.sent - last.sent, 0.0), 10.0)
    base += SKEW_US * age
    if transit - base > probe.delay_us + IMPOSSIBLE_US:
        return PathView(transit - queued_us, (Seen(probe.sent, received, queued_us),))
    if transit < base:
        base = transit
    elif is_idle:
        base += (transit - base) * min(1.0, age / 10.0)
    seen = Seen(probe.sent, received, transit - base)
    return PathView(base, (*view.recent[1 - RECENT :], seen))


def _queue(view: PathView, threshold_us: float) -> float:
    """The queue by the last probe, if another one agrees or it says so much that none has to."""
    last = view.recent[-1].queue_us
    if last > GRAVE * threshold_us or len(view.recent) < 2:
        return last
    return min(last, view.recent[-2].queue_us)


def _rate(counted: Sequence[tuple[float, int]], start: float, end: float) -> float | None:
    """Bits per second between two moments; those of the history when it is shorter.

    None when nothing was counted between them, which is no line that carries nothing.
    """
    start = max(start, counted[0][0])
    span = end - start
    rate = 8 * (_at(counted, end) - _at(counted, start)) / span if span > 0 else 0.0
    return rate if rate > 0 else None


def _at(counted: Sequence[tuple[float, int]], when: float) -> float:
    """Octets so far at a moment, as if they had come evenly between two readings."""
    later = counted[-1]
    for earlier in reversed(counted):
        if earlier[0] <= when:
            span = later[0] - earlier[0]
            part = (when - earlier[0]) / span if span > 0 else 0.0
            return earlier[1] + min(part, 1.0) * (later[1] - earlier[1])
        later = earlier
    return float(counted[0][1])


def _delivered(line: Line, view: PathView, now: float, *, is_down: bool) -> float | None:
    """What came out of the line lately, in bit/s. None when too little is known.

    What we receive can be counted. Of what we send it is known how much went in between two probes,
    and how much further apart they came out.
    """
    if is_down:
        return _rate(line.counted, now - WINDOW_S, now)
    start = now - HISTORY_S if line.full_since is None else line.cut_at
    last = view.recent[-1]
    first = next(
        (s for s in reversed(view.recent[:-1]) if last.sent - s.sent >= SPAN_S), view.recent[0]
    )
    if first.sent < start:
        first = next((s for s in view.recent if s.sent >= start), last)
    span = last.sent - first.sent
    if span < (SPAN_S if line.full_since is not None else SPAN_S / 4):
        return None
    if first.sent < line.counted[0][0]:
        return None  # it is not known what went in
    took = span + (last.queue_us - first.queue_us) / 1e6
    entered = _rate(line.counted, first.sent, last.sent)
    return None if entered is None else entered * span / max(took, span / 8)


def _full(line: Line, bounds: Bounds, view: PathView, now: float, *, is_down: bool) -> Line:
    """There is a queue in the line: send less than it delivers."""
    queue_us = line.queue_us or 0.0
    delivered = _delivered(line, view, now, is_down=is_down)
    is_first = line.full_since is None
    since = now if line.full_since is None else line.full_since
    if delivered is None:
        if is_first:
            delivered = line.used_bps
        else:
            return _rested(line, bounds, now)
    known = line.capacity_bps
    capacity = delivered if is_first or known is None else (known + delivered) / 2
    line = line._replace(full_since=since, capacity_bps=capacity, capacity_at=now)
    if is_first:
        line = line._replace(is_own=line.used_bps >= OWN_LEAST * line.rate_bps, peak_us=0.0)
    line = line._replace(peak_us=max(line.peak_us, queue_us))
    rate = delivered * min(SHARE_MOST, max(SHARE_LEAST, 1 - queue_us / 1e6 / DRAIN_S))
    if line.used_bps < line.rate_bps / 2:
        rate = max(rate, GENTLY * line.rate_bps)
    if is_first:
        rate = min(rate, line.rate_bps)
    rate = bounds.clamp(rate)
    if is_first or abs(rate - line.rate_bps) > STEP * line.rate_bps:
        return line._replace(rate_bps=rate, cut_at=now)
    return _rested(line, bounds, now)


def _rested(line: Line, bounds: Bounds, now: float) -> Line:
    """A delay that lasts though we send as little as we may is none of ours: it is usual here."""
    since = line.full_since
    if since is None or line.queue_us is None or line.rate_bps > LEAST * bounds.least_bps:
        return line
    if not bounds.is_learned:
        carried = line.capacity_bps or line.rate_bps
        is_slower = now - since >= SLOWER_S and carried < SHARE_AFTER * line.rate_bps
        return line._replace(is_slower=line.is_slower or is_slower)
    if now - max(since, line.cut_at) < REST_S:
        return line
    paths = {path: PathView(v.base_us + line.queue_us) for path, v in line.paths.items()}
    noise_us = min(NOISE_MOST_US, max(line.noise_us, line.queue_us / NOISE_FACTOR))
    return line._replace(paths=paths, noise_us=noise_us, full_since=None, clear_at=now)


def _emptied(line: Line, bounds: Bounds, now: float) -> Line:
    """The queue is gone."""
    rate = line.rate_bps
    if line.capacity_bps is not None:
        rate = bounds.clamp(max(rate, SHARE_AFTER * line.capacity_bps))
    return line._replace(rate_bps=rate, full_since=None, clear_at=now)


def _clear(line: Line, bounds: Bounds, now: float, span_s: float) -> Line:
    """There is no queue: send more, if anybody wants to."""
    queue_us = line.queue_us or 0.0
    if now - line.used_at > FORGET_AFTER_S:
        towards = (bounds.clamp(bounds.start_bps) - line.rate_bps) * span_s / FORGET_S
        return line._replace(rate_bps=bounds.clamp(line.rate_bps + towards))
    if line.used_bps < LOADED * line.rate_bps or queue_us > line.threshold_us / 2:
        return line
    if now - line.clear_at > SLOWER_S:
        line = line._replace(is_slower=False)
    known = line.capacity_bps
    if known is not None and line.rate_bps >= SHARE_AFTER * known:
        if now - line.clear_at < HOLD_S:
            return line
        beyond = max(0.0, line.rate_bps / known - NEAR)
        gain = min(QUICKLY, SLOWLY + FASTER * beyond)
    else:
        gain = QUICKLY
    return line._replace(rate_bps=bounds.clamp(line.rate_bps * (1 + gain * span_s)))
