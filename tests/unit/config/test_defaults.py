"""A file that names no classes gets a set that is right without it."""

from dataclasses import replace

import pytest

from appliance.config.defaults import SLAS
from appliance.config.intent import DefaultClass, Intent, Match, Sla
from appliance.config.load import parse_config
from appliance.config.scalars import DSCP
from appliance.core.classify import classify
from appliance.core.mos import mos
from tests.flows import ANY, FLOWS, flow
from tests.unit.config.files import SOUND, changed, problems_of

# Without the key, and the policy that goes with it.
UNNAMED = SOUND[: SOUND.index("classes:")]


def parsed(more: str = "") -> Intent:
    return parse_config(UNNAMED + more, "box.yaml")


def class_of(intent: Intent, protocol: str, to: str, port: int | None, dscp: int = 0) -> str:
    return classify(intent, replace(flow(protocol, to, port), dscp=dscp)).traffic_class.name


def test_the_classes_stand_in_their_order_and_have_marks_of_their_own() -> None:
    told = parsed()
    assert [each.name for each in told.classes] == list(DefaultClass)
    assert [each.index for each in told.classes] == [1, 2, 3, 4, 15]
    marks = [each.matches[0].dscp for each in told.classes[:-1]]
    assert len({code for some in marks for code in some}) == sum(map(len, marks)) == 19
    assert 0 not in marks


def test_an_empty_list_is_the_class_default_alone() -> None:
    told = parsed("classes: []\n")
    assert [each.name for each in told.classes] == ["default"]
    assert told.policies[0].sla == Sla()


@pytest.mark.parametrize(("name", "class_name", "protocol", "to", "port"), FLOWS)
def test_a_flow_without_a_mark_goes_by_its_application(
    name: str, class_name: str, protocol: str, to: str, port: int | None
) -> None:
    found = classify(parsed(), flow(protocol, to, port))
    assert found.traffic_class.name == class_name
    if class_name != "default":
        assert found.match is not None
        assert found.match.rule == f"by default, application {name}"


@pytest.mark.parametrize(
    ("mark", "class_name"),
    [
        *(("ef", "realtime"), ("va", "realtime"), ("cs5", "realtime"), ("af42", "realtime")),
        *(("cs6", "interactive"), ("cs2", "interactive"), ("af21", "interactive")),
        *(("af31", "business"), ("cs3", "business"), ("cs1", "bulk"), ("le", "bulk")),
        *(("af11", "default"), ("df", "interactive")),
    ],
)
def test_the_mark_of_the_sender_counts_more_than_the_port(mark: str, class_name: str) -> None:
    assert class_of(parsed(), "tcp", ANY, 3389, DSCP[mark]) == class_name


def test_an_application_of_the_file_comes_before_what_is_shipped() -> None:
    own = (
        "applications:\n"
        "  - {name: till, class: bulk, match: [{protocol: tcp, ports: 3389, to: 192.0.2.0/24}]}\n"
        "  - {name: ssh, class: business, match: [{protocol: tcp, ports: 2222}]}\n"
    )
    told = parsed(own)
    assert class_of(told, "tcp", "192.0.2.9", 3389) == "bulk"
    assert class_of(told, "tcp", "192.0.2.9", 3389, DSCP["ef"]) == "realtime"
    assert class_of(told, "tcp", ANY, 3389) == "interactive"
    assert class_of(told, "tcp", ANY, 2222) == "business"
    assert class_of(told, "tcp", ANY, 22) == "default"  # replaced as a whole


def test_policies_of_the_file_count_and_the_rest_have_slas() -> None:
    told = parsed("policies:\n  - {class: realtime, mode: share, sla: {loss: 5 %}}\n")
    slas = {each.class_name: each.sla for each in told.policies}
    assert slas == {**SLAS, "realtime": Sla(loss_ratio=0.05)}
    (problem,) = problems_of(UNNAMED + "policies: [{class: voice}]\n")
    assert problem.message == "there is no class `voice`"
    assert problem.hint == "one of: realtime, interactive, business, bulk, default"


def test_classes_of_the_file_have_no_sla_of_ours() -> None:
    text = changed("    sla: {loss: 1 %, delay: 150 ms}\n", "")
    told = parse_config(
        changed("name: voice", "name: bulk", changed("class: voice", "class: bulk", text)), "b"
    )
    assert {each.sla for each in told.policies} == {Sla()}
    assert [each.matches for each in told.classes] == [(Match(dscp=(46,), rule="match 1"),), ()]


def test_a_path_that_meets_the_sla_of_calls_carries_good_calls() -> None:
    sla = SLAS["realtime"]
    assert sla.delay_us is not None
    assert sla.jitter_us is not None
    assert sla.loss_ratio is not None
    # G.109: above 3.6 most users are satisfied. Half the jitter, for all at once is the worst case.
    assert mos(sla.delay_us, sla.jitter_us / 2, sla.loss_ratio / 2) >= 3.6
