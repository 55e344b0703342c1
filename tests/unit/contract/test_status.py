"""The wire types: they survive the wire, refuse what does not belong, and agree with the core."""

import json
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from appliance.contract.codec import decode, encode
from appliance.contract.decision import Candidate, Move
from appliance.contract.problem import Problem
from appliance.contract.status import ClassStatus, PathStatus, UplinkStatus, WarningStatus
from appliance.contract.wire import MoveCause, PathState, SeverityName
from appliance.core.actions import Cause, Severity
from appliance.core.state import Liveness

WIRE_TYPES = (UplinkStatus, PathStatus, ClassStatus, WarningStatus, Candidate, Move, Problem)


@pytest.mark.parametrize("kind", WIRE_TYPES)
@settings(max_examples=25, deadline=None)
@given(draw=st.data())
def test_a_wire_value_survives_the_wire(kind: type, draw: st.DataObject) -> None:
    value = draw.draw(st.from_type(kind))
    assert decode(kind, encode(value)) == value


def test_an_unknown_member_is_refused() -> None:
    warning = WarningStatus("uplink-down", "fibre", "critical", "fibre has no carrier.", 0.0)
    text = json.loads(encode(warning)) | {"colour": "red"}
    with pytest.raises(ValidationError, match="colour"):
        decode(WarningStatus, json.dumps(text))


@pytest.mark.parametrize(("member", "value"), [("severity", "bad"), ("since", -1), ("text", None)])
def test_a_value_outside_its_range_is_refused(member: str, value: object) -> None:
    warning = WarningStatus("uplink-down", "fibre", "critical", "fibre has no carrier.", 0.0)
    text = json.loads(encode(warning)) | {member: value}
    with pytest.raises(ValidationError, match=member):
        decode(WarningStatus, json.dumps(text))


def test_the_words_of_the_wire_are_the_words_of_the_core() -> None:
    assert set(get_args(MoveCause)) == {cause.value for cause in Cause}
    assert set(get_args(SeverityName)) == {severity.value for severity in Severity}
    assert set(get_args(PathState)) == {liveness.value for liveness in Liveness}
