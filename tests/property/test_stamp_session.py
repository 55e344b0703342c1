"""A session over any network: every probe is accounted for, and only StampError is raised.

The network below loses, delays, reorders and duplicates in both directions, and the caller looks at
its timer whenever it likes. What a session counted is compared with what the network did.
"""

import contextlib
import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from appliance.stamp.errors import StampError, UnexpectedAnswer
from appliance.stamp.reflector import SessionReflector
from appliance.stamp.sample import Sample
from appliance.stamp.sender import SessionSender

NOW = 1_700_000_000 * 10**9
MS = 1_000_000
SOURCE = b"[2001:db8::1]:40000"
SSID = 7


@dataclass(frozen=True)
class Fate:
    """What happens to one probe: delays of each copy in milliseconds; no copy is lost."""

    forth: tuple[int, ...]
    back: tuple[int, ...]
    gap: int  # until the next probe


@dataclass
class Outcome:
    """What a run gave, by the network's own book-keeping and by the session's."""

    samples: list[Sample] = field(default_factory=list)
    answered: set[int] = field(default_factory=set)  # probes of which an answer arrived
    recovered: int = 0  # answers said to be late
    duplicates: int = 0
    verdicts: list[int] = field(default_factory=list)

    def total(self, name: str) -> int:
        return sum(getattr(sample, name) for sample in self.samples)


def copies(most: int, slowest: int) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.integers(0, slowest), max_size=most).map(tuple)


def one_way(slowest: int) -> st.SearchStrategy[tuple[int, ...]]:
    """Mostly one copy: a network that loses half of everything says little about the rest."""
    delay = st.integers(0, slowest)
    return st.one_of(st.tuples(delay), st.tuples(delay), copies(2, slowest))


fates = st.lists(
    st.builds(Fate, one_way(120), one_way(120), st.sampled_from([0, 1, 20, 50])), max_size=40
)


def run(
    fates: list[Fate], sender: SessionSender, reflector: SessionReflector, every: int
) -> Outcome:
    """Play the fates; look at the timer and take samples after every so many events."""
    outcome = Outcome()
    events: list[tuple[int, int, str, bytes | Fate, tuple[int, ...]]] = []
    now, ties = NOW, iter(range(10**6))
    for fate in fates:
        heapq.heappush(events, (now, next(ties), "send", fate, ()))
        now += fate.gap * MS
    steps = 0
    while events:
        now, _, what, cargo, back = heapq.heappop(events)
        for event in step(outcome, sender, reflector, now, what, cargo, back):
            heapq.heappush(events, (event[0], next(ties), *event[1:]))
        steps += 1
        if steps % every == 0:
            look(outcome, sender, now)
    look(outcome, sender, now + 10**10)
    return outcome


Event = tuple[int, str, bytes | Fate, tuple[int, ...]]


def step(
    outcome: Outcome,
    sender: SessionSender,
    reflector: SessionReflector,
    now: int,
    what: str,
    cargo: bytes | Fate,
    back: tuple[int, ...],
) -> Iterator[Event]:
    if isinstance(cargo, Fate):
        probe = sender.probe(now)
        for delay in cargo.forth:
            yield now + delay * MS, "reflect", probe, cargo.back
    elif what == "reflect":
        answer = reflector.reflect(cargo, SOURCE, now, now, 64)
        assert answer is not None
        for delay in back:
            yield now + delay * MS, "receive", answer, ()
    else:
        try:
            answered = sender.receive(cargo, now)
        except UnexpectedAnswer:
            outcome.duplicates += 1
        else:
            assert answered.sequence not in outcome.answered
            outcome.answered.add(answered.sequence)
            outcome.recovered += answered.was_overdue


def look(outcome: Outcome, sender: SessionSender, now: int) -> None:
    outcome.verdicts += [sequence for sequence, _ in sender.handle_timer(now)]
    sample = sender.take_sample(now)
    if sample is not None:
        outcome.samples.append(sample)


def expect_answers(fates: list[Fate]) -> tuple[set[int], int]:
    """Probes of which an answer arrives, and how many answers arrive beyond the first."""
    arriving = {i for i, fate in enumerate(fates) if fate.forth and fate.back}
    copies = sum(len(fate.forth) * len(fate.back) for fate in fates)
    return arriving, copies - len(arriving)


@given(fates, st.integers(1, 7), st.sampled_from([None, b"0123456789abcdef"]))
def test_every_probe_is_accounted_for(fates: list[Fate], every: int, key: bytes | None) -> None:
    sender = SessionSender(SSID, key=key, initial_timeout_ns=60 * MS)
    outcome = run(fates, sender, SessionReflector(key=key), every)
    arriving, duplicates = expect_answers(fates)
    assert outcome.answered == arriving
    assert outcome.duplicates == duplicates
    # Each probe is resolved once, and never answered means lost and not taken back.
    assert outcome.total("sent") == len(fates)
    assert outcome.total("answered") + outcome.total("recovered") == len(arriving)
    assert outcome.total("lost") - outcome.total("recovered") == len(fates) - len(arriving)
    assert outcome.total("recovered") <= outcome.recovered <= len(outcome.verdicts)
    assert len(outcome.verdicts) == len(set(outcome.verdicts))
    assert outcome.verdicts == sorted(outcome.verdicts)


@given(fates, st.integers(1, 7))
def test_every_sample_holds_together(fates: list[Fate], every: int) -> None:
    sender = SessionSender(SSID, initial_timeout_ns=60 * MS)
    outcome = run(fates, sender, SessionReflector(), every)
    forward = backward = net = 0
    for sample in outcome.samples:
        assert all(value >= 0 for value in sample)
        assert sample.sent == sample.answered + sample.lost
        assert sample.delay_min_us <= sample.delay_us <= sample.delay_max_us <= 240_000
        net += sample.lost - sample.recovered
        forward += sample.lost_forward - sample.recovered_forward
        backward += sample.lost_backward - sample.recovered_backward
        # A loss has one direction, once it is known, and is never told of twice.
        assert forward >= 0
        assert backward >= 0
        assert forward + backward <= net


ordered = st.lists(st.sampled_from("....fb"), max_size=40).map("".join)


@given(ordered, st.integers(1, 7))
def test_in_order_losses_have_their_true_direction(fate_of: str, every: int) -> None:
    fate = {".": Fate((10,), (10,), 20), "f": Fate((), (), 20), "b": Fate((10,), (), 20)}
    fates = [fate[letter] for letter in fate_of + "."]  # a last answer tells of all before it
    sender = SessionSender(SSID, initial_timeout_ns=60 * MS)
    outcome = run(fates, sender, SessionReflector(), every)
    assert outcome.total("recovered") == 0
    # What a later answer came for before its own verdict is told with the next sample.
    sender.probe(NOW + 10**12)
    sender.handle_timer(NOW + 10**13)
    look(outcome, sender, NOW + 10**13)
    forward = outcome.total("lost_forward") - outcome.total("recovered_forward")
    backward = outcome.total("lost_backward") - outcome.total("recovered_backward")
    assert (forward, backward) == (fate_of.count("f"), fate_of.count("b"))


@given(fates, st.integers(1, 7))
def test_what_watchers_read_is_true(fates: list[Fate], every: int) -> None:
    sender = SessionSender(SSID, initial_timeout_ns=60 * MS)
    outcome = run(fates, sender, SessionReflector(), every)
    newest = max(outcome.answered, default=-1)
    tail = [sequence for sequence in range(len(fates)) if sequence > newest]
    assert sender.unanswered == len(tail)
    assert sender.next_deadline_ns() is None


@given(st.lists(st.binary(max_size=130)), st.sampled_from([None, b"0123456789abcdef"]))
def test_octets_from_anywhere_change_nothing(junk: list[bytes], key: bytes | None) -> None:
    sender, reflector = SessionSender(SSID, key=key), SessionReflector(key=key)
    answer = reflector.reflect(sender.probe(NOW), SOURCE, NOW, NOW, 64)
    assert answer is not None
    for octets in junk:
        with contextlib.suppress(StampError):
            sender.receive(octets, NOW + MS)
        reflector.reflect(octets, SOURCE, NOW, NOW, 64)
    assert sender.receive(answer, NOW + MS).sequence == 0
