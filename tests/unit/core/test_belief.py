from hypothesis import given
from hypothesis import strategies as st

from appliance.core.belief import MEMORY_S, MOST_PROBES, NOTHING, Heard, compare, hear, is_agreed


def heard(sent: int, lost: int, probes: int, missed: int) -> Heard:
    return compare(hear(NOTHING, sent, lost, 1.0), probes, missed)


def test_probes_that_lose_as_much_agree_and_so_do_too_few_to_tell():
    assert is_agreed(heard(1000, 30, 400, 12))
    assert is_agreed(heard(1000, 30, 400, 1))
    assert is_agreed(heard(1000, 30, 100, 0))  # 1.5 losses were to be expected
    assert is_agreed(NOTHING)


def test_probes_that_lose_nothing_contradict_a_large_loss():
    assert not is_agreed(heard(100, 100, 10, 0))
    assert not is_agreed(heard(100, 50, 30, 0))
    assert not is_agreed(heard(1000, 30, 800, 0))


def test_a_loss_after_a_quiet_time_is_another_matter():
    old = heard(1000, 1000, 900, 0)
    assert hear(old, 50, 2, 1.0 + MEMORY_S / 2).probes == 900
    assert hear(old, 50, 2, 1.1 + MEMORY_S) == Heard(50, 2, lost_at=1.1 + MEMORY_S)
    assert hear(old, 50, 0, 1.1 + MEMORY_S) == NOTHING


@given(
    st.lists(
        st.tuples(st.integers(0, 5000), st.integers(0, 5000), st.integers(0, 900), st.integers()),
        max_size=30,
    )
)
def test_whatever_comes_it_is_bounded_and_judged(batches):
    now, held = 0.0, NOTHING
    for sent, lost, probes, missed in batches:
        now += 1
        held = compare(hear(held, sent, min(sent, lost), now), probes, missed)
        assert held.probes <= MOST_PROBES
        assert is_agreed(held) in (True, False)
