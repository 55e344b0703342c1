import random

import pytest

from appliance.config.intent import Sla
from appliance.core.estimate import UNMEASURED, directions, observe
from appliance.core.layout import SlaPlan
from appliance.core.mos import loss_at
from appliance.core.sequential import UNTROUBLED, feed, loss_limit
from appliance.core.verdict import MEETS, Limit, Verdict, judge, ms, percent
from appliance.stamp.sample import Sample
from tests.unit.core.box import GOOD, SLOW


class Judge:
    """One SLA on one path, sample by sample."""

    def __init__(self, sla: Sla) -> None:
        ratios = [r for r in (sla.loss_ratio,) if r is not None]
        if sla.mos is not None:
            ratios.append(loss_at(sla.mos, 100_000))
        self.limits = tuple(loss_limit(r) for r in ratios)
        self.plan = SlaPlan(
            sla,
            0 if sla.loss_ratio is not None else None,
            len(ratios) - 1 if sla.mos is not None else None,
        )
        self.tests = (UNTROUBLED,) * len(ratios)
        self.estimate = UNMEASURED
        self.verdict = MEETS
        self.now = 100.0

    def sample(self, sample: Sample, times: int = 1) -> Verdict:
        for _ in range(times):
            self.now += 0.1
            told = directions(self.estimate, sample)
            self.tests = tuple(
                feed(t, limit, sample.sent, *told)
                for t, limit in zip(self.tests, self.limits, strict=True)
            )
            self.estimate = observe(self.estimate, sample, told, self.now)
            self.verdict = judge(
                self.verdict, self.plan, self.estimate, self.tests, self.limits, self.now
            )
        return self.verdict


def test_a_good_path_meets_and_nothing_new_is_made_of_it() -> None:
    judge_ = Judge(Sla(loss_ratio=0.01, delay_us=60_000, jitter_us=30_000, mos=3.6))
    assert judge_.sample(GOOD, 50) is MEETS


def test_a_delay_over_the_limit_is_seen_within_three_tenths_of_a_second() -> None:
    judge_ = Judge(Sla(delay_us=60_000))
    judge_.sample(GOOD, 50)
    start = judge_.now
    while judge_.sample(SLOW).meets:
        pass
    assert judge_.now - start <= 0.31
    assert judge_.verdict.violated is Limit.DELAY
    assert judge_.verdict.evidence == "delay 99 ms violates 60 ms"


def test_one_slow_sample_is_not_a_violation() -> None:
    judge_ = Judge(Sla(delay_us=60_000))
    judge_.sample(GOOD, 50)
    assert judge_.sample(SLOW).meets
    assert judge_.sample(GOOD, 5).meets


def test_jitter_of_five_milliseconds_breaks_no_limit_far_from_it() -> None:
    rng = random.Random(3)
    judge_ = Judge(Sla(loss_ratio=0.01, delay_us=60_000, jitter_us=30_000))
    for _ in range(6000):
        mean = 20_000 + rng.randint(-4000, 4000)
        noisy = GOOD._replace(
            delay_us=mean,
            delay_min_us=mean - 3000,
            delay_max_us=mean + 5000,
            jitter_forward_us=3300,
        )
        assert judge_.sample(noisy).meets


def test_the_way_back_has_a_margin() -> None:
    judge_ = Judge(Sla(delay_us=60_000))
    judge_.sample(SLOW, 10)
    since = judge_.verdict.since
    at_limit = GOOD._replace(delay_us=58_000, delay_min_us=57_000, delay_max_us=59_000)
    assert judge_.sample(at_limit, 30).violated is Limit.DELAY
    assert judge_.verdict.since == since
    below = GOOD._replace(delay_us=50_000, delay_min_us=49_000, delay_max_us=51_000)
    cleared = judge_.sample(below, 10)
    assert cleared.meets
    assert cleared.since > since


def test_a_delay_is_over_when_the_last_answers_are_all_better() -> None:
    judge_ = Judge(Sla(delay_us=60_000))
    judge_.sample(SLOW, 20)
    assert judge_.sample(GOOD, 1).violated is Limit.DELAY
    assert judge_.sample(GOOD, 1).meets  # though the smoothed delay is still above


def test_worse_is_not_newer() -> None:
    judge_ = Judge(Sla(delay_us=60_000))
    first = judge_.sample(SLOW, 5)
    worse = GOOD._replace(delay_us=400_000, delay_min_us=390_000, delay_max_us=410_000)
    second = judge_.sample(worse, 20)
    assert second.severity > first.severity
    assert second.since == first.since


def test_jitter_is_the_worse_directions() -> None:
    judge_ = Judge(Sla(jitter_us=10_000))
    judge_.sample(GOOD, 10)
    verdict = judge_.sample(GOOD._replace(jitter_backward_us=30_000), 10)
    assert verdict.violated is Limit.JITTER
    assert verdict.evidence.endswith("ms violates 10 ms")


def test_loss_is_what_the_sequential_test_says_and_the_sentence_has_its_numbers() -> None:
    judge_ = Judge(Sla(loss_ratio=0.01))
    judge_.sample(GOOD, 50)
    verdict = judge_.sample(GOOD._replace(sent=20, answered=19, lost=1, lost_forward=1), 12)
    assert verdict.violated is Limit.LOSS
    assert verdict.evidence == "loss 5 % over 180 packets (forward) violates 1 %"


def test_a_score_is_violated_by_delay_alone() -> None:
    judge_ = Judge(Sla(mos=3.6))
    far = GOOD._replace(delay_us=700_000, delay_min_us=690_000, delay_max_us=710_000)
    verdict = judge_.sample(far, 5)
    assert verdict.violated is Limit.MOS
    assert verdict.evidence.startswith("MOS 3.3 at 693 ms violates 3.6")


def test_a_score_is_violated_by_loss_alone_as_soon_as_the_loss_is_sure() -> None:
    judge_ = Judge(Sla(mos=3.6))
    judge_.sample(GOOD, 100)
    assert judge_.sample(GOOD._replace(answered=4, lost=1, lost_forward=1)).meets
    verdict = judge_.sample(GOOD._replace(sent=10, answered=7, lost=3, lost_backward=3), 12)
    assert verdict.violated is Limit.MOS
    assert "(backward)" in verdict.evidence


def test_severity_tells_bad_from_worse() -> None:
    grades = []
    for delay in (61_000, 130_000, 250_000, 900_000, 3_000_000):
        judge_ = Judge(Sla(delay_us=60_000))
        slow = GOOD._replace(delay_us=delay, delay_min_us=delay, delay_max_us=delay)
        grades.append(judge_.sample(slow, 20).severity)
    assert grades == [1, 2, 3, 4, 4]


def test_a_path_that_goes_silent_keeps_its_verdict() -> None:
    judge_ = Judge(Sla(delay_us=60_000))
    before = judge_.sample(SLOW, 10)
    assert judge_.sample(Sample(5, 0, 5, span_us=100_000), 5) is before


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(0.0, "0.0 %"), (0.01, "1 %"), (0.0312, "3.1 %"), (0.0003, "0.03 %"), (1.0, "100 %")],
)
def test_ratios_for_people(ratio, text) -> None:
    assert percent(ratio) == text


@pytest.mark.parametrize(("us", "text"), [(800, "0.8 ms"), (24_400, "24 ms"), (9_490, "9.5 ms")])
def test_delays_for_people(us, text) -> None:
    assert ms(us) == text
