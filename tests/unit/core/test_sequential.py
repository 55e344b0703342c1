"""The loss test: its promises as exact run lengths, and as simulations with seeded randomness."""

import random

import pytest

from appliance.core.sequential import (
    ALARM,
    CLEAR,
    UNTROUBLED,
    LossLimit,
    LossTest,
    feed,
    loss_limit,
)

ONE_PERCENT = loss_limit(0.01)


def mean_run(limit: LossLimit, loss: float) -> float:
    """Mean number of probes until the alarm, from the Markov chain of the score.

    On a grid of one step down per probe that passes: from state i a probe goes to i - 1 (not below
    0), a loss to i + k, and beyond the top is the alarm. E(i) = 1 + (1 - p) E(i-1) + p E(i+k), with
    E = a + b x for the unknown x = E(top), solved downwards.
    """
    unit = -limit.passed
    top, up = int(ALARM / unit), round(limit.lost / unit)
    a, b = {top: 0.0}, {top: 1.0}
    for i in range(top, 0, -1):
        ahead = (a.get(i + up, 0.0), b.get(i + up, 0.0))
        a[i - 1] = (a[i] - 1 - loss * ahead[0]) / (1 - loss)
        b[i - 1] = (b[i] - loss * ahead[1]) / (1 - loss)
    # At 0: loss * E(0) = 1 + loss * E(up).
    x = (1 / loss + a[up] - a[0]) / (b[0] - b[up])
    return a[0] + b[0] * x


@pytest.mark.parametrize(
    ("loss", "least", "most"),
    [(0.003, 1.2e7, 1.3e7), (0.005, 2.6e5, 2.8e5), (0.01, 3600, 3800), (0.03, 270, 280)],
)
def test_the_run_lengths_are_those_that_the_module_documents(loss, least, most) -> None:
    assert least < mean_run(ONE_PERCENT, loss) < most


def simulate(loss: float, batch: int, most: int, rng: random.Random) -> int | None:
    """Probes until the alarm, or None. Losses of one direction."""
    test, sent = UNTROUBLED, 0
    while sent < most:
        lost = sum(rng.random() < loss for _ in range(batch))
        test = feed(test, ONE_PERCENT, batch, lost, 0)
        sent += batch
        if test.is_violated:
            return sent
    return None


def test_half_an_hour_of_noise_is_no_violation() -> None:
    """90,000 probes at 0.3 %, ten times over, in batches as the prober makes them."""
    rng = random.Random(20)
    alarms = [simulate(0.003, 5, 90_000, rng) for _ in range(10)]
    assert alarms == [None] * 10


def test_three_percent_is_found_in_about_three_hundred_probes() -> None:
    rng = random.Random(21)
    runs = sorted(simulate(0.03, 5, 90_000, rng) or 90_000 for _ in range(300))
    print(f"probes until 3 % violates 1 %: median {runs[150]}, p95 {runs[285]}")
    assert runs[150] <= 300
    assert runs[285] <= 620  # 2.5 s with 200 packets a second of traffic and 50 probes


def test_what_drifts_neither_way_is_the_limit_itself() -> None:
    for ratio in (0.001, 0.01, 0.05):
        limit = loss_limit(ratio)
        still = -limit.passed / (limit.lost - limit.passed)
        assert still == pytest.approx(ratio, rel=0.06)


def test_batches_only_add_up() -> None:
    """Where the score does not touch zero in between, one batch says what its parts say."""
    start = feed(UNTROUBLED, ONE_PERCENT, 10, 2, 0)
    whole = feed(start, ONE_PERCENT, 40, 1, 0)
    parts = feed(feed(start, ONE_PERCENT, 25, 0, 0), ONE_PERCENT, 15, 1, 0)
    assert whole.forward.score == pytest.approx(parts.forward.score)
    assert whole.forward[1:] == parts.forward[1:]


def test_a_burst_counts_for_little_more_than_one_loss() -> None:
    test = feed(UNTROUBLED, ONE_PERCENT, 5, 5, 0)
    assert not test.is_violated
    assert test.forward.score < 3.4


def test_directions_are_tested_apart() -> None:
    test = UNTROUBLED
    for _ in range(4):
        test = feed(test, ONE_PERCENT, 20, 1, 1)
    assert not test.is_violated  # 5 % each way would have been one; 4 of 80 twice is not
    for _ in range(4):
        test = feed(test, ONE_PERCENT, 5, 0, 2)
    assert test.is_violated
    assert test.worse[1] == "backward"


def test_traffic_speaks_of_the_way_forth_only() -> None:
    before = feed(UNTROUBLED, ONE_PERCENT, 10, 0, 1)
    after = feed(before, ONE_PERCENT, 200, 3, None)
    assert after.backward == before.backward
    assert after.forward.sent == 200


def test_a_late_answer_takes_its_loss_back() -> None:
    lost = feed(UNTROUBLED, ONE_PERCENT, 5, 1, 0)
    taken_back = feed(lost, ONE_PERCENT, 1, -1, 0)
    assert taken_back == UNTROUBLED


def violated() -> LossTest:
    test = UNTROUBLED
    while not test.is_violated:
        test = feed(test, ONE_PERCENT, 10, 2, 0)
    return test


def test_it_clears_after_enough_clean_probes_and_starts_afresh() -> None:
    test, probes = violated(), 0
    while test.is_violated:
        test = feed(test, ONE_PERCENT, 10, 0, 0)
        probes += 10
    assert test == UNTROUBLED
    assert probes == pytest.approx(CLEAR / -ONE_PERCENT.passed, abs=10)


def test_it_does_not_clear_while_a_violating_loss_goes_on() -> None:
    rng = random.Random(22)
    test, cleared = violated(), 0
    for _ in range(400):  # 4,000 probes at 3 %
        test = feed(test, ONE_PERCENT, 10, sum(rng.random() < 0.03 for _ in range(10)), 0)
        if not test.is_violated:
            cleared += 1
            test = violated()
    assert cleared <= 1


def test_traffic_alone_cannot_clear_the_way_back() -> None:
    test = violated()
    for _ in range(100):
        test = feed(test, ONE_PERCENT, 100, 0, None)
    assert test.is_violated


def test_nothing_lost_and_nothing_suspected_costs_nothing() -> None:
    assert feed(UNTROUBLED, ONE_PERCENT, 5, 0, 0) is UNTROUBLED


@pytest.mark.parametrize("ratio", [0.0, 1e-9, 0.5, 1.0])
def test_absurd_limits_still_make_a_test(ratio) -> None:
    limit = loss_limit(ratio)
    assert limit.lost > 0 > limit.passed


def test_no_more_is_lost_than_was_sent_when_losses_are_told_late() -> None:
    limit, test = loss_limit(0.02), UNTROUBLED
    for _ in range(10):
        test = feed(test, limit, 3, 0, 49)
        assert test.backward.lost > 0
        assert test.backward.ratio <= 1
    assert test.is_violated
