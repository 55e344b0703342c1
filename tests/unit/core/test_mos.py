import pytest

from appliance.core.mos import MOS_BEST, loss_at, mos


def test_a_perfect_path_is_as_good_as_the_codec() -> None:
    # R = 93.2 - 0.024 * 10 ms of packetization; G.107 gives 4.41 for R = 93.2.
    assert mos(0, 0, 0) == pytest.approx(4.40, abs=0.01)


@pytest.mark.parametrize(
    ("delay_us", "jitter_us", "loss", "expected"),
    [
        (40_000, 0, 0.0, 4.39),  # R = 93.2 - 0.024 * 30 = 92.48
        (300_000, 0, 0.0, 4.32),  # 160 ms one way: R = 89.36
        (600_000, 0, 0.0, 3.67),  # beyond the knee of 177.3 ms: R = 71.17
        (40_000, 0, 0.01, 4.30),  # Ie,eff = 95 * 1 / 26.1 = 3.64
        (40_000, 0, 0.05, 3.89),  # 95 * 5 / 30.1 = 15.78
        (40_000, 20_000, 0.0, 4.37),  # 40 ms of jitter buffer
        (40_000, 0, 1.0, 1.16),
    ],
)
def test_scores_worked_out_by_hand_from_the_formulas(delay_us, jitter_us, loss, expected) -> None:
    one_way = delay_us / 2000 + 2 * jitter_us / 1000 + 10
    r = 93.2 - 0.024 * one_way - max(0, 0.11 * (one_way - 177.3))
    p = 100 * loss
    r -= 95 * p / (p + 25.1)
    by_hand = 1 + 0.035 * r + 7e-6 * r * (r - 60) * (100 - r)
    assert mos(delay_us, jitter_us, loss) == pytest.approx(max(1, by_hand), abs=1e-9)
    assert mos(delay_us, jitter_us, loss) == pytest.approx(expected, abs=0.02)


def test_it_stays_within_the_scale() -> None:
    assert mos(5_000_000, 0, 1.0) == 1.0
    assert 1.0 <= mos(0, 0, 0) <= MOS_BEST


@pytest.mark.parametrize("limit", [2.0, 3.0, 3.6, 4.0])
def test_the_loss_at_a_score_gives_that_score(limit) -> None:
    loss = loss_at(limit, 100_000)
    assert mos(100_000, 0, loss) == pytest.approx(limit, abs=1e-6)
    assert mos(100_000, 0, loss * 0.99) > limit


def test_no_loss_at_all_is_allowed_where_the_delay_is_too_much_already() -> None:
    assert loss_at(4.0, 800_000) == 0.0
