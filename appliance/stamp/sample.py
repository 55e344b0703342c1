"""What a path was like in one measurement interval: what the sender hands to the core.

It only counts. Whether a number is good enough, and what to do about it, is decided in `core`.
Nothing here is a verdict: a probe counted lost whose answer comes after all is taken back.
"""

from typing import NamedTuple


class Sample(NamedTuple):
    """The probes of one path that were resolved, by an answer or a verdict, in one interval.

    "Forward" is from us to the far end. Delays of one direction are what exceeds the best two-way
    delay of the session, so that no clock needs to agree with another. `recovered` counts probes
    that an earlier sample counted as lost and that were answered after all; their delays are part
    of this sample. Summed over all samples of a session, `lost - recovered` is the number of
    probes never answered, and the same holds for each direction.

    A lost probe belongs to a direction once a later answer has told which: `lost_forward` and
    `lost_backward` may trail `lost`, and after a blackout arrive in one piece.
    """

    sent: int = 0  # resolved: answered + lost
    answered: int = 0
    lost: int = 0  # no answer by the deadline
    recovered: int = 0
    lost_forward: int = 0
    lost_backward: int = 0
    recovered_forward: int = 0
    recovered_backward: int = 0
    delay_us: int = 0  # two-way, mean, without the time spent in the reflector
    delay_min_us: int = 0
    delay_max_us: int = 0
    delay_forward_us: int = 0  # mean above the session's best
    delay_backward_us: int = 0
    ipdv_forward_us: int = 0  # mean of |D| between successive answers (RFC 3393)
    ipdv_backward_us: int = 0
    jitter_forward_us: int = 0  # J of RFC 3550 section 6.4.1 when the interval closed
    jitter_backward_us: int = 0
    span_us: int = 0  # length of the interval
