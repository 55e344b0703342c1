from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from appliance.stamp.pmtu import (
    BASE,
    CONFIRM_NS,
    FIRST_RAISE_NS,
    MAX_PROBES,
    RAISE_NS,
    STEP,
    PathMtu,
    Phase,
)

SECOND = 1_000_000_000


def play(search: PathMtu, passes: int, now: int, until: int) -> int:
    """Let the search run against a path that carries `passes` octets, until a time."""
    while search.next_deadline_ns() <= until:
        now = max(now, search.next_deadline_ns())
        size = search.next_probe(now)
        assert size is not None
        if size <= passes:
            search.answered(size, now + 1000)
        else:
            search.lost(size, now + 1000)
    return until


@given(st.integers(BASE, 1420))
def test_finds_what_passes_to_within_a_step(passes):
    search = PathMtu(1420, 0)
    play(search, passes, 0, 60 * SECOND)
    assert search.phase is Phase.COMPLETE
    assert search.mtu <= passes < search.mtu + STEP


def test_a_path_that_carries_everything_needs_one_probe():
    search = PathMtu(1420, 0)
    assert search.next_probe(0) == 1420
    assert not search.answered(1420, 1000)
    assert (search.phase, search.mtu) == (Phase.COMPLETE, 1420)
    assert search.next_probe(SECOND) is None
    assert search.next_deadline_ns() == 1000 + CONFIRM_NS


@given(st.integers(BASE, 1419))
def test_a_drop_in_use_falls_to_the_base_at_once_and_climbs_again(passes):
    search = PathMtu(1420, 0)
    now = play(search, 1420, 0, 20 * SECOND)
    changes = []
    for _ in range(MAX_PROBES):
        now = search.next_deadline_ns()
        size = search.next_probe(now)
        assert size == 1420
        changes.append(search.lost(size, now + 1000))
    assert changes == [False, False, True]
    assert search.mtu == BASE
    play(search, passes, now, now + 60 * SECOND)
    assert search.mtu <= passes < search.mtu + STEP


def test_a_single_lost_probe_changes_nothing():
    search = PathMtu(1420, 0)
    play(search, 1420, 0, 20 * SECOND)
    now = search.next_deadline_ns()
    assert search.next_probe(now) == 1420
    assert not search.lost(1420, now + 1000)
    play(search, 1420, now, now + 20 * SECOND)
    assert search.mtu == 1420


def test_what_a_busy_moment_lost_is_tried_again_soon():
    search = PathMtu(1420, 0)
    now = play(search, 1420, 0, 20 * SECOND)
    for _ in range(MAX_PROBES):
        now = search.next_deadline_ns()
        size = search.next_probe(now)
        search.lost(size, now + 1000)
    assert search.mtu == BASE
    now = play(search, 1420, now, now + 2 * SECOND)
    assert 1420 - STEP <= search.mtu < 1420, "just below what is taken for a black hole"
    play(search, 1420, now, now + FIRST_RAISE_NS + CONFIRM_NS)
    assert search.mtu == 1420


def test_a_path_that_loses_large_probes_again_and_again_is_left_alone_for_longer():
    search = PathMtu(1420, 0)
    changes, now = 0, 0
    while now < RAISE_NS:
        now = max(now, search.next_deadline_ns())
        size = search.next_probe(now)
        is_busy = now % (20 * SECOND) > 13 * SECOND and size > BASE
        changes += (search.lost if is_busy else search.answered)(size, now + 1000)
    assert 2 < changes < 25


def test_a_size_in_doubt_is_not_given_up_for_a_raise():
    search = PathMtu(1420, 0)
    now = play(search, 1400, 0, 5 * SECOND)
    size = search.mtu
    asked: list[int] = []
    while search.mtu == size:
        now = max(now, search.next_deadline_ns())
        asked.append(search.next_probe(now))
        (search.lost if asked[-1] > 1300 else search.answered)(asked[-1], now + 1000)
    assert asked[-MAX_PROBES:] == [size] * MAX_PROBES


def test_a_narrow_path_is_asked_for_more_ever_less_often():
    search = PathMtu(1420, 0)
    asked, now = [], 0
    while now < 3 * RAISE_NS:
        now = max(now, search.next_deadline_ns())
        size = search.next_probe(now)
        if size <= 1300:
            search.answered(size, now + 1000)
            continue
        if size == 1420 and (not asked or now - asked[-1] > SECOND):
            asked.append(now)
        search.lost(size, now + 1000)
    gaps = [(later - earlier) // SECOND for earlier, later in pairwise(asked)]
    assert gaps == sorted(gaps)
    assert gaps[0] < 20
    assert RAISE_NS // SECOND <= gaps[-1] <= RAISE_NS // SECOND + 20


def test_a_healed_path_is_raised_after_the_raise_timer():
    search = PathMtu(1420, 0)
    now = play(search, 1300, 0, 3 * RAISE_NS)
    assert search.mtu < 1420
    play(search, 1420, now, now + RAISE_NS + 2 * CONFIRM_NS)
    assert search.mtu == 1420


@given(
    st.integers(1280, 1500),
    st.lists(st.tuples(st.booleans(), st.integers(0, 3 * SECOND)), max_size=80),
)
def test_any_pattern_of_answers_stays_within_base_and_ceiling(ceiling, pattern):
    search, now = PathMtu(ceiling, 0), 0
    for passes, gap in pattern:
        now += gap
        size = search.next_probe(now)
        if size is not None:
            (search.answered if passes else search.lost)(size, now)
            assert BASE <= size <= ceiling
        assert BASE <= search.mtu <= ceiling
