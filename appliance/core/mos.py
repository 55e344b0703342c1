"""Voice quality of a path as a mean opinion score, by the E-model of ITU-T G.107.

It computes and decides nothing. The codec is G.711 with packet loss concealment.
"""

R_BEST = 93.2  # the rating left by G.107's default values for everything we do not measure
DELAY_KNEE_MS = 177.3
JITTER_BUFFER = 2  # a receiver waits for about this many times the jitter ...
PACKETIZATION_MS = 10.0  # ... and a sender until its packet of speech is full
MOS_BEST = 4.5
ROBUSTNESS = 25.1  # Bpl of the codec against independent losses (ITU-T G.113 appendix I); Ie is 0


def mos(delay_us: float, jitter_us: float, loss_ratio: float) -> float:
    """Mean opinion score, 1..4.5, of speech over a path.

    `delay_us` is two-way (half of it is taken as one-way, since clocks are not shared),
    `jitter_us` the worse direction's.
    """
    one_way_ms = delay_us / 2000 + JITTER_BUFFER * jitter_us / 1000 + PACKETIZATION_MS
    percent = 100 * loss_ratio
    suffered = 95 * percent / (percent + ROBUSTNESS)
    return _score(R_BEST - _delay_impairment(one_way_ms) - suffered)


def loss_at(limit: float, delay_us: float) -> float:
    """The loss ratio, 0..1, at which speech over a path of this two-way delay falls to `limit`.

    0 when the delay alone is too much. A MOS limit is judged as this limit on loss, so that a few
    lost packets say as little against a score as they say against a ratio.
    """
    least, most = 0.0, 1.0
    if mos(delay_us, 0, least) <= limit:
        return 0.0
    for _ in range(40):  # the score falls steadily with loss: halve until the digits end
        middle = (least + most) / 2
        if mos(delay_us, 0, middle) > limit:
            least = middle
        else:
            most = middle
    return least


def _delay_impairment(one_way_ms: float) -> float:
    beyond = one_way_ms - DELAY_KNEE_MS
    return 0.024 * one_way_ms + (0.11 * beyond if beyond > 0 else 0.0)


def _score(rating: float) -> float:
    if rating <= 0:
        return 1.0
    if rating >= 100:
        return MOS_BEST
    return max(1.0, 1 + 0.035 * rating + 7e-6 * rating * (rating - 60) * (100 - rating))
