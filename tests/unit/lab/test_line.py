import pytest

from lab.line import Line


@pytest.mark.parametrize(
    ("line", "netem"),
    [
        (Line(), "limit 10000 rate 0bit seed 7"),
        (Line(delay_ms=12.5), "limit 10000 delay 12500us 0us rate 0bit seed 7"),
        (Line(loss=0.003), "limit 10000 loss 0.300000% rate 0bit seed 7"),
        (
            Line(loss=0.1, loss_burst=4),
            "limit 10000 loss gemodel 2.777778% 25.000000% 100% 0% rate 0bit seed 7",
        ),
        (Line(loss=1, loss_burst=4), "limit 10000 loss 100.000000% rate 0bit seed 7"),
        (
            Line(delay_ms=20, jitter_ms=5),
            "limit 10000 delay 20000us 5000us rate 100gbit seed 7",
        ),
        (
            Line(delay_ms=20, reorder=0.01, duplicate=0.02),
            "limit 10000 delay 20000us 0us duplicate 2.000000% reorder 1.000000% rate 0bit seed 7",
        ),
        (
            Line(jitter_ms=2, delay_ms=10, rate_mbit=1.5, buffer_packets=50),
            "limit 50 delay 10000us 2000us rate 1500000bit seed 7",
        ),
    ],
)
def test_a_line_as_netem_parameters(line: Line, netem: str) -> None:
    assert line.netem(seed=7) == netem


def test_the_mean_burst_and_ratio_of_the_gilbert_model() -> None:
    """Bad share = enter / (enter + leave) must be the loss asked for."""
    words = Line(loss=0.02, loss_burst=5).netem(seed=1).split()
    enter, leave = (float(word.rstrip("%")) / 100 for word in words[4:6])
    assert enter / (enter + leave) == pytest.approx(0.02, rel=1e-4)
    assert 1 / leave == pytest.approx(5)


def test_only_a_line_that_does_nothing_is_clean() -> None:
    assert Line().is_clean
    assert Line(buffer_packets=10).is_clean
    assert not Line(delay_ms=1).is_clean
    assert not Line(rate_mbit=10).is_clean
