"""Has a path lost too much? A sequential test, fed by every probe and packet there is.

A pair of CUSUM tests per direction of sending (Page 1954) on the log likelihood ratio between
"loses LEAST times the limit" and "loses MOST times the limit". While a path meets the limit, the
one that looks for violation runs; while it violates, the one that looks for the return. The two
ratios are chosen so that the drift changes its sign at the limit itself: a line that loses a
little more is found, a line that loses a little less is not.

Numbers for a limit of 1 %, from the run lengths of the Markov chain of the score (exact to the
grid, recomputed in tests/unit/core/test_sequential.py):

    true loss      0.3 %        0.5 %      1 %      3 %
    mean probes    1.2e7        2.7e5      3,700    275   until the verdict "violates"

so 90,000 probes of a line that loses 0.3 % condemn it less than once in 130 times. At least six
losses are needed, and one batch counts for no more than a few: losses in a burst are one
misfortune, not many. Both directions are tested apart; either violates. It compares counts and
never times, so probes and real traffic (counted in our direction of sending only) simply add up.
"""

import math
from typing import NamedTuple

LEAST, MOST = 0.4, 2.1  # times the limit: what is surely good, and what is surely bad
ALARM = 9.0  # score at which the limit counts as violated: run lengths above
CLEAR = 4.6  # score at which a violated limit counts as met again: 268 clean probes at 1 %
BURST_LOSSES = 2  # losses of one batch that always count
SMALLEST_LIMIT = 1e-4  # a limit of nothing at all could never be told from luck
LARGEST_LIMIT = 0.45  # above, "surely bad" would exceed 1


class LossLimit(NamedTuple):
    """A loss limit with what one lost and one answered probe say about it."""

    ratio: float
    lost: float  # log likelihood ratio of a loss, > 0
    passed: float  # of a packet that came through, < 0

    def most_losses(self, sent: int) -> int:
        """How many losses of a batch count as independent ones."""
        return max(BURST_LOSSES, math.ceil(4 * MOST * self.ratio * sent))


def loss_limit(ratio: float) -> LossLimit:
    """The test's weights for a limit, a ratio 0..1."""
    ratio = min(max(ratio, SMALLEST_LIMIT), LARGEST_LIMIT)
    low, high = LEAST * ratio, MOST * ratio
    return LossLimit(ratio, math.log(high / low), math.log((1 - high) / (1 - low)))


class Run(NamedTuple):
    """One direction's score, and the evidence since it last was zero."""

    score: float = 0.0
    sent: int = 0
    lost: int = 0

    @property
    def ratio(self) -> float:
        return self.lost / self.sent if self.sent else 0.0


CALM = Run()


class LossTest(NamedTuple):
    """The state of the test of one limit on one path."""

    is_violated: bool = False
    forward: Run = CALM
    backward: Run = CALM

    @property
    def is_calm(self) -> bool:
        """Nothing is suspected: the next packet without loss changes nothing."""
        return not (self.is_violated or self.forward.sent or self.backward.sent)

    @property
    def worse(self) -> tuple[Run, str]:
        """The direction that says most against the path, and its name."""
        if self.is_violated:
            is_forward = self.forward.ratio >= self.backward.ratio
        else:
            is_forward = self.forward.score >= self.backward.score
        return (self.forward, "forward") if is_forward else (self.backward, "backward")


UNTROUBLED = LossTest()


def feed(
    test: LossTest, limit: LossLimit, sent: int, forward: int, backward: int | None
) -> LossTest:
    """Take in a batch: of `sent` packets so many were lost on the way forth and on the way back.

    Negative losses take back what a late answer showed not to have been lost. `backward` None
    says nothing of that direction, as real traffic does. Returns `test` itself when nothing
    changed, which costs next to nothing.
    """
    if not (forward or backward or test.is_violated or test.forward.sent or test.backward.sent):
        return test
    if test.is_violated:
        away = _return(test.forward, limit, sent, forward)
        back = test.backward if backward is None else _return(test.backward, limit, sent, backward)
        if away.score >= CLEAR and back.score >= CLEAR:
            return UNTROUBLED
        return LossTest(True, away, back)
    away = _accuse(test.forward, limit, sent, forward)
    back = test.backward if backward is None else _accuse(test.backward, limit, sent, backward)
    if away.score >= ALARM or back.score >= ALARM:
        return LossTest(True, away._replace(score=0.0), back._replace(score=0.0))
    return LossTest(False, away, back)


def _accuse(run: Run, limit: LossLimit, sent: int, lost: int) -> Run:
    if not (lost > 0 or run.sent):
        return run
    score = run.score + _evidence(limit, sent, lost)
    if score <= 0:
        return CALM
    return _added(run, score, sent, lost)


def _return(run: Run, limit: LossLimit, sent: int, lost: int) -> Run:
    score = max(0.0, run.score - _evidence(limit, sent, lost))
    return _added(run, min(score, CLEAR), sent, lost)


def _added(run: Run, score: float, sent: int, lost: int) -> Run:
    """What is told to be lost may have been sent before the batch that tells it."""
    return Run(score, run.sent + max(sent, lost), max(0, run.lost + lost))


def _evidence(limit: LossLimit, sent: int, lost: int) -> float:
    passed = max(0, sent - max(0, lost))
    lost = min(lost, limit.most_losses(sent))
    return lost * limit.lost + passed * limit.passed
