"""Whatever happens in whatever order: what must hold of every decision."""

from collections.abc import Sequence
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config.intent import Fallback, Intent, Mode
from appliance.contract.ids import PathId, Plane, Slot
from appliance.core.actions import Action, Cause, DetourPlanes, MoveClass
from appliance.core.codec import encode_event
from appliance.core.decide import decide, initial_state, next_deadline
from appliance.core.events import (
    AnswerLate,
    AnswerReturned,
    DeadlinePassed,
    Event,
    FarEndReported,
    IntentChanged,
    LineFilled,
    LoopStalled,
    PathMtuChanged,
    PathsSampled,
    ProbeOverdue,
    SteeringAdopted,
    TrafficSampled,
    UplinkChanged,
    UplinkProbed,
)
from appliance.core.replay import replay
from appliance.core.state import Liveness, State, everywhere, shape_of
from appliance.core.steering import Assignment, Carrier
from appliance.stamp.sample import Sample
from tests.unit.core.examples import (
    DEFAULT,
    DEFAULT_POLICY,
    HQ,
    VOICE,
    VOICE_POLICY,
    facts,
    intent,
    path,
    peer,
    policy,
    uplink,
)

HOLD_S = 20.0
PATHS = [path(site, x, y) for site in ("hq", "shop") for x in (1, 2, 3) for y in (1, 2)]
UPLINKS = (uplink(1, "fibre"), uplink(2, "dsl", weight=2), uplink(3, "lte", metered=True))
PEERS = (peer("hq", 3), peer("shop", 4))


def _intent(mode: Mode, fallback: Fallback, *, metered: bool = True) -> Intent:
    return intent(
        uplinks=UPLINKS,
        peers=PEERS,
        voice=policy(VOICE_POLICY, hold_s=HOLD_S, mode=mode, fallback=fallback, metered=metered),
        default=policy(DEFAULT_POLICY, hold_s=HOLD_S),
    )


GOOD = Sample(5, 5, delay_us=20_000, delay_min_us=19_000, delay_max_us=21_000, span_us=100_000)
SAMPLES = [
    GOOD,
    GOOD._replace(sent=40, answered=40),
    GOOD._replace(answered=4, lost=1, lost_forward=1),
    GOOD._replace(sent=40, answered=30, lost=10, lost_forward=6, lost_backward=4),
    GOOD._replace(delay_us=90_000, delay_min_us=80_000, delay_max_us=95_000),
    GOOD._replace(delay_us=25_000, jitter_forward_us=40_000),
    Sample(sent=5, lost=5, span_us=100_000),
    GOOD._replace(recovered=4, recovered_forward=2),
    Sample(recovered=3, delay_us=100_000, delay_min_us=99_000, delay_max_us=101_000),
]

paths = st.sampled_from(PATHS)
samples = st.sampled_from(SAMPLES)
facts_changes = st.builds(
    UplinkChanged,
    st.builds(lambda slot, up: facts(slot, carrier=up), st.sampled_from([1, 2, 3]), st.booleans()),
)
overdue = st.builds(
    ProbeOverdue,
    paths,
    st.sampled_from([0.02, 0.1]),
    st.sampled_from([1, 2, 4, 7]),
    st.sampled_from([0.01, 0.05, 5.0, float("inf")]),
)
events: st.SearchStrategy[Event] = st.one_of(
    facts_changes,
    overdue,
    overdue,
    st.builds(PathsSampled, st.lists(st.tuples(paths, samples), max_size=6).map(tuple)),
    st.builds(PathsSampled, st.just(tuple((p, GOOD) for p in PATHS))),
    st.builds(AnswerLate, paths, st.just(0.002)),
    st.builds(AnswerReturned, paths, st.sampled_from([1, 5])),
    st.builds(FarEndReported, paths, st.sampled_from([0, 3, 4]), st.sampled_from([0, 3])),
    st.builds(TrafficSampled, paths, st.just(50), st.sampled_from([0, 1, 5, 50])),
    st.builds(PathMtuChanged, paths, st.sampled_from([1280, 1420])),
    st.builds(UplinkProbed, st.just(Slot(1)), st.just(1), st.just(3), st.booleans(), st.just("x")),
    st.builds(LineFilled, st.sampled_from([Slot(1), Slot(2)]), st.booleans()),
    st.just(LoopStalled(0.2)),
    st.just(DeadlinePassed()),
    st.builds(
        lambda mode, fallback, metered: IntentChanged(_intent(mode, fallback, metered=metered)),
        st.sampled_from(Mode),
        st.sampled_from(Fallback),
        st.booleans(),
    ),
)
ADOPTED = SteeringAdopted(
    (
        (VOICE, HQ, Assignment((Carrier(path("hq", 2, 1)),))),
        (DEFAULT, HQ, Assignment((Carrier(path("hq", 3, 2)),), 1380)),
    )
)
steps = st.lists(st.tuples(st.sampled_from([0.0, 0.01, 0.1, 1.0, 5.0, 21.0]), events), max_size=40)
starts = st.tuples(
    st.builds(_intent, st.sampled_from(Mode), st.sampled_from(Fallback), metered=st.booleans()),
    st.booleans(),
)
first_facts = st.lists(st.booleans(), min_size=3, max_size=3)


def run(
    start: tuple[Intent, bool],
    story: Sequence[tuple[float, Event]],
    attached: Sequence[bool] = (True, True, True),
) -> list[tuple[float, Event, State, tuple[Action, ...]]]:
    """Decide a story as the supervisor does: deadlines are kept between the events."""
    first, adopts = start
    now = 100.0
    queue: list[tuple[float, Event]] = [(0.0, IntentChanged(first))]
    if adopts:
        queue.append((0.0, ADOPTED))
    queue += [
        (0.0, UplinkChanged(facts(slot, carrier=up))) for slot, up in enumerate(attached, start=1)
    ]
    state = initial_state()
    log = []
    for gap, event in (*queue, *story):
        for _ in range(1000):
            due = next_deadline(state)
            if due is None or due > now + gap:
                break
            at = max(due, state.now)
            state, actions = decide(state, DeadlinePassed(), at)
            log.append((at, DeadlinePassed(), state, actions))
        else:
            msg = "deadlines without end"
            raise AssertionError(msg)
        now += gap
        state, actions = decide(state, event, now)
        log.append((now, event, state, actions))
    return log


def _is_usable(state: State, path_id: PathId) -> bool:
    entry = state.sites[path_id.site].paths[path_id.plane]
    return state.uplinks[path_id.plane.local].is_usable and entry.liveness is not Liveness.DOWN


@settings(max_examples=300, deadline=None)
@given(starts, steps)
def test_no_two_voluntary_moves_within_the_hold_time(start, story):
    last: dict[tuple[str, str], float] = {}
    for at, _, _, actions in run(start, story):
        for action in actions:
            if isinstance(action, MoveClass) and action.is_voluntary:
                key = (action.class_name, action.site)
                # 140.01 - 120.01 is less than 20 to a computer.
                assert at - last.get(key, -1e9) >= HOLD_S - 1e-9
                last[key] = at


@settings(max_examples=300, deadline=None)
@given(starts, steps)
def test_a_dead_path_is_never_kept_while_another_works(start, story):
    for _, _, state, _ in run(start, story):
        if not state.is_settled or state.pending:
            continue
        for site, entry in state.sites.items():
            for plan in state.layout.shapes[site].classes:
                works = [
                    c.plane for c in plan.candidates if _is_usable(state, PathId(site, c.plane))
                ]
                held = entry.classes.get(plan.name)
                carriers = held.assignment.carriers if held else ()
                dead = [c for c in carriers if not _is_usable(state, c.path)]
                if plan.is_fail_closed:
                    assert not dead
                elif works:
                    assert carriers
                    assert not dead


@settings(max_examples=300, deadline=None)
@given(starts, first_facts, steps)
def test_every_class_has_an_assignment_that_its_policy_permits(start, attached, story):
    """What has none falls through to the routes of the default class, whatever its own policy."""
    for _, _, state, actions in run(start, story, attached):
        if not state.is_settled:
            assert not any(isinstance(action, MoveClass) for action in actions)
        if not state.is_settled or state.pending:
            continue
        for site, entry in state.sites.items():
            shape = state.layout.shapes[site]
            is_reachable = any(_is_usable(state, PathId(site, plane)) for plane in shape.used)
            for plan in shape.classes:
                permitted = {c.plane for c in plan.candidates}
                if plan.name not in entry.classes:
                    assert not is_reachable  # for no class, so there is nothing to fall through to
                    continue
                held = entry.classes[plan.name]
                assert {c.path.plane for c in held.assignment.carriers} <= permitted
                works = any(_is_usable(state, PathId(site, plane)) for plane in permitted)
                if works and not plan.is_fail_closed:
                    assert held.assignment.carriers


@settings(max_examples=300, deadline=None)
@given(starts, steps)
def test_moves_join_up_and_stay_within_the_policy(start, story):
    """Each move begins where the one before it ended, and the state says the same as the moves."""
    known: dict[tuple[str, str], Assignment] = {}
    adopted = {(c, s): a for c, s, a in ADOPTED.assignments} if start[1] else {}
    detours: dict[object, object] = {}
    for _, event, state, actions in run(start, story):
        if isinstance(event, SteeringAdopted):
            known |= adopted
        for action in actions:
            if isinstance(action, MoveClass):
                key = (action.class_name, action.site)
                assert action.before == known.get(key, Assignment())
                assert action.before != action.after or not action.after.carriers
                assert action.reason
                known[key] = action.after
                shape = shape_of(state, action.site)
                (plan,) = [p for p in shape.classes if p.name == action.class_name]
                weights = {c.plane: c.weight for c in plan.candidates}
                for carrier in action.after.carriers:
                    weight = 1 if plan.is_bonded else weights[carrier.path.plane]
                    assert carrier.weight == weight
                if plan.is_single:
                    assert len(action.after.carriers) <= 1
            elif isinstance(action, DetourPlanes):
                detours.update(action.detours)
        held = {
            (name, site): entry.assignment
            for site, each in everywhere(state)
            for name, entry in each.classes.items()
        }
        assert held == known
        assert dict(state.detours) == {p: o for p, o in detours.items() if p != o}


@settings(max_examples=300, deadline=None)
@given(starts, steps)
def test_every_member_of_a_bond_adds_a_line(start, story):
    """They share an uplink only where the other end has a line more: never all of two paths'."""
    for _, _, state, actions in run(start, story):
        for action in actions:
            if not isinstance(action, MoveClass) or not action.after.carriers:
                continue
            shape = shape_of(state, action.site)
            (plan,) = [p for p in shape.classes if p.name == action.class_name]
            if plan.is_bonded and action.cause is not Cause.MTU_CHANGED:
                planes = [carrier.path.plane for carrier in action.after.carriers]
                ends = {(place, end) for plane in planes for place, end in enumerate(plane)}
                assert len(planes) <= len(ends) - _parts(planes)


def _parts(planes: Sequence[Plane]) -> int:
    """How many sets of planes there are that share no uplink with one another."""
    parts: list[list[Plane]] = []
    for plane in planes:
        joined = [
            p for p in parts if any(q.local == plane.local or q.remote == plane.remote for q in p)
        ]
        parts = [p for p in parts if p not in joined]
        parts.append([plane, *(other for part in joined for other in part)])
    return len(parts)


@settings(max_examples=200, deadline=None)
@given(starts, steps)
def test_a_recording_gives_the_same_decisions(start, story):
    log = run(start, story)
    lines = [encode_event(at, event) for at, event, _, _ in log]
    assert list(replay(lines)) == [(at, actions) for at, _, _, actions in log if actions]


@settings(max_examples=100, deadline=None)
@given(starts, steps)
def test_deciding_leaves_earlier_states_as_they_were(start, story):
    log = run(start, story)
    before = [repr(state) for _, _, state, _ in log]
    state = log[-1][2]
    for event in (
        UplinkChanged(facts(1, carrier=False)),
        UplinkChanged(facts(1)),
        DeadlinePassed(),
    ):
        for path_id in PATHS[:4]:
            decide(state, event, log[-1][0] + 1)
            decide(state, PathsSampled(((path_id, SAMPLES[3]),)), log[-1][0] + 1)
    assert before == [repr(state) for _, _, state, _ in log]


@settings(max_examples=200, deadline=None)
@given(starts, steps)
def test_a_detour_leads_to_an_uplink_that_works_or_worked_when_it_was_made(start, story):
    for _, _, state, actions in run(start, story):
        for action in actions:
            if not isinstance(action, DetourPlanes):
                continue
            for plane, other in action.detours:
                assert plane.remote == other.remote
                if plane == other:
                    assert state.uplinks[plane.local].is_usable
                else:
                    assert not state.uplinks[plane.local].is_usable
                    assert state.uplinks[other.local].is_usable


@settings(max_examples=100, deadline=None)
@given(starts, steps)
def test_events_of_paths_and_uplinks_that_do_not_exist_change_nothing(start, story):
    state = run(start, story)[-1][2]
    ghost = path("nowhere", 9, 9)
    for event in (
        PathsSampled(((ghost, GOOD), (replace_plane(ghost), GOOD))),
        ProbeOverdue(ghost, 0.1, 9, 9.0),
        ProbeOverdue(replace_plane(ghost), 0.1, 9, 9.0),
        AnswerReturned(ghost, 1),
        AnswerLate(ghost, 1.0),
        FarEndReported(ghost, 4, 0),
        TrafficSampled(ghost, 100, 100),
        PathMtuChanged(ghost, 1280),
        UplinkChanged(replace(facts(1), slot=Slot(9))),
        UplinkProbed(Slot(9), 0, 3, False, ""),
        LineFilled(Slot(9), is_full=True),
    ):
        after, actions = decide(state, event, state.now)
        assert actions == ()
        assert after == state


def replace_plane(ghost: PathId) -> PathId:
    return PathId(HQ, ghost.plane)
