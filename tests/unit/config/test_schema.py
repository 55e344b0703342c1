"""The surface: its defaults are those of the intent, and what is published of it is fresh."""

import json
from typing import Any

import jsonschema
import pytest
import yaml

from appliance.config import intent
from appliance.config.addressing import listen_port
from appliance.config.load import parse_config
from appliance.config.schema import Config, Wireguard
from appliance.contract.ids import Plane, Slot
from tests.unit.config.files import ROOT, SOUND, changed
from tools.publish_config import DOCS, json_schema, with_tables

MINIMAL = """\
version: 1
site: {name: a, id: 1}
fleet: {overlay: "fd12:3456:789a::/48"}
uplinks: [{name: fibre, device: eth0, address: dhcp}]
classes: []
policies: [{class: default}]
"""


def test_defaults_are_those_of_the_intent() -> None:
    told = parse_config(MINIMAL, "box.yaml")
    (uplink,) = told.uplinks
    assert uplink == intent.Uplink(uplink.name, Slot(1), uplink.label, "eth0", intent.Method.DHCP)
    assert told.probing == intent.Probing()
    default = told.policy(told.default_class.name)
    assert default == intent.Policy(default.class_name, ((uplink.label,),))
    assert told == intent.Intent(
        told.site,
        told.site_id,
        told.overlay,
        (uplink,),
        (),
        (),
        (intent.TrafficClass(default.class_name, 15, ()),),
        (default,),
    )


def test_the_highest_listen_port_exists() -> None:
    schema = Wireguard.model_json_schema()["properties"]["listen_port_base"]
    assert listen_port(schema["maximum"], Plane(Slot(15), Slot(15))) == 65535


def test_the_published_schema_is_fresh() -> None:
    published = (DOCS / "config.schema.json").read_text()
    assert json.loads(published) == json_schema(), "run python -m tools.publish_config"


def test_the_tables_of_the_manual_are_fresh() -> None:
    manual = (DOCS / "CONFIGURATION.md").read_text()
    assert manual == with_tables(manual), "run python -m tools.publish_config"


def test_the_manual_has_a_table_for_every_section() -> None:
    manual = (DOCS / "CONFIGURATION.md").read_text()
    sections = ["Config", *json_schema()["$defs"]]
    assert [name for name in sections if f"<!-- keys of {name} -->" not in manual] == []


def test_every_value_in_the_tables_has_an_example_that_its_grammar_takes() -> None:
    published = json_schema()
    seen = 0
    for section in (published, *published["$defs"].values()):
        for key, rules in section["properties"].items():
            for example in rules.get("examples", []):
                jsonschema.validate(example, {**rules, "$defs": published["$defs"]})
                seen += 1
            is_value = "$ref" not in rules and "$ref" not in rules.get("items", {})
            assert rules.get("examples") or not is_value, f"{key} has no example"
    assert seen > 40


def test_the_published_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json_schema())


@pytest.mark.parametrize("text", [SOUND, MINIMAL])
def test_the_published_schema_takes_what_is_sound(text: str) -> None:
    jsonschema.validate(yaml.safe_load(text), json_schema())


@pytest.mark.parametrize("name", ["branch.yaml", "gateway.yaml"])
def test_the_published_schema_takes_the_examples(name: str) -> None:
    jsonschema.validate(yaml.safe_load((ROOT / "examples" / name).read_text()), json_schema())


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("version: 1", "version: 2"),
        ("device: eth0", "devcie: eth0"),
        ("id: 1}", "id: 0}"),
        ("quorum: 2", "quorum: '2'"),
        ("interval: 50 ms", "interval: 50"),
        ("loss: 1 %", "loss: 1"),
        ("dscp: ef", "dscp: EF"),
        ("dscp: ef", "dscp: 64"),
        ("tiers: [fibre, lte]", "tiers: []"),
        ("tiers: [fibre, lte]", "tiers: fibre"),
        ("icmp 192.0.2.1,", "ping 192.0.2.1,"),
        ("address: 192.168.1.1/24", "address: 192.168.1.1"),
        ("device: lan0", "device: a-name-with-more-than-15"),
        ("metered: true", "metered: null"),
    ],
)
def test_the_published_schema_refuses_what_the_box_refuses(old: str, new: str) -> None:
    document: Any = yaml.safe_load(changed(old, new))
    assert not jsonschema.Draft202012Validator(json_schema()).is_valid(document)


def test_sections_are_frozen_and_strict() -> None:
    for name in json_schema()["$defs"]:
        assert json_schema()["$defs"][name]["additionalProperties"] is False
    assert Config.model_config["frozen"]
