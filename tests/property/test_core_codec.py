"""Every event, with whatever it holds, survives the way through text."""

from ipaddress import ip_interface

from hypothesis import given
from hypothesis import strategies as st

from appliance.contract.ids import ClassName, PathId, Plane, SiteName, Slot
from appliance.core.codec import RecordingError, decode_event, encode_event
from appliance.core.events import (
    AnswerLate,
    AnswerReturned,
    DeadlinePassed,
    Event,
    FarEndReported,
    LineFilled,
    LoopStalled,
    PathMtuChanged,
    PathsSampled,
    ProbeOverdue,
    SteeringAdopted,
    TrafficSampled,
    UplinkChanged,
    UplinkFacts,
    UplinkProbed,
)
from appliance.core.steering import Assignment, Carrier
from appliance.stamp.sample import Sample

slots = st.integers(1, 15).map(Slot)
planes = st.builds(Plane, slots, slots)
paths = st.builds(PathId, st.text(max_size=20).map(SiteName), planes)
seconds = st.floats(0, 1e6)
counts = st.integers(0, 1 << 40)
samples = st.builds(Sample, *[counts] * len(Sample._fields))
addresses = st.ip_addresses()
interfaces = st.one_of(
    st.builds(lambda a, n: ip_interface(f"{a}/{n}"), st.ip_addresses(v=4), st.integers(0, 32)),
    st.builds(lambda a, n: ip_interface(f"{a}/{n}"), st.ip_addresses(v=6), st.integers(0, 128)),
)
assignments = st.builds(
    Assignment,
    st.lists(st.builds(Carrier, paths, st.integers(1, 255)), max_size=3).map(tuple),
    st.none() | st.integers(576, 1420),
)
facts = st.builds(
    UplinkFacts,
    slots,
    st.booleans(),
    st.booleans(),
    st.lists(interfaces, max_size=3).map(tuple),
    st.lists(addresses, max_size=3).map(tuple),
)
adoptions = st.tuples(
    st.text(max_size=9).map(ClassName), st.text(max_size=9).map(SiteName), assignments
)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        SteeringAdopted,
        st.lists(adoptions, max_size=3).map(tuple),
        st.lists(st.tuples(planes, planes), max_size=3).map(tuple),
    ),
    st.builds(UplinkChanged, facts),
    st.builds(UplinkProbed, slots, counts, counts, st.booleans(), st.text()),
    st.builds(PathsSampled, st.lists(st.tuples(paths, samples), max_size=4).map(tuple)),
    st.builds(AnswerLate, paths, seconds),
    st.builds(ProbeOverdue, paths, seconds, counts, seconds | st.just(float("inf"))),
    st.builds(AnswerReturned, paths, counts),
    st.builds(FarEndReported, paths, counts, counts),
    st.builds(TrafficSampled, paths, counts, counts),
    st.builds(PathMtuChanged, paths, counts),
    st.builds(LineFilled, slots, st.booleans()),
    st.builds(LoopStalled, seconds),
    st.just(DeadlinePassed()),
)


@given(seconds, events)
def test_an_event_reads_back_as_it_was(now, event) -> None:
    line = encode_event(now, event)
    assert b"\n" not in line
    assert decode_event(line) == (now, event)


@given(seconds, events, st.data())
def test_a_damaged_line_is_refused_or_is_another_event(now, event, data) -> None:
    line = bytearray(encode_event(now, event))
    at = data.draw(st.integers(0, len(line) - 1))
    line[at] = data.draw(st.integers(0, 255))
    try:
        decoded = decode_event(bytes(line))
    except RecordingError:
        return
    assert decode_event(encode_event(*decoded)) == decoded


@given(seconds, events, st.data())
def test_a_truncated_line_is_refused(now, event, data) -> None:
    line = encode_event(now, event)
    cut = line[: data.draw(st.integers(0, len(line) - 1))]
    try:
        decode_event(cut)
    except RecordingError:
        return
    raise AssertionError


def test_every_kind_of_event_is_among_the_examples() -> None:
    kinds = {kind.__name__ for kind in Event.__args__} - {"IntentChanged"}  # in test_replay.py
    drawn = {DeadlinePassed, SteeringAdopted, UplinkChanged, UplinkProbed, PathsSampled}
    drawn |= {AnswerLate, ProbeOverdue, AnswerReturned, FarEndReported, TrafficSampled}
    assert kinds == {k.__name__ for k in drawn | {LineFilled, PathMtuChanged, LoopStalled}}
