"""Any file is taken or refused with places that exist, and what is taken is what was written."""

import json
from copy import deepcopy
from typing import Any

import jsonschema
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.config.errors import ConfigError, Problem
from appliance.config.intent import Intent
from appliance.config.load import parse_config
from appliance.config.scalars import parse_duration, render_duration
from appliance.config.yaml import parse_yaml
from tests.unit.config.files import ROOT, SOUND
from tools.publish_config import json_schema

BRANCH = yaml.safe_load((ROOT / "examples" / "branch.yaml").read_text())
untimed = settings(deadline=None)  # a busy machine is no fault of the reader

PUBLISHED = jsonschema.Draft202012Validator(json_schema())

# What JSON and YAML 1.2 write alike. Nothing may be null.
printable = st.text(
    st.characters(min_codepoint=0x20, max_codepoint=0xFFFD, exclude_categories=["Cs", "Cc"]),
    max_size=12,
)
tempting = st.sampled_from(["no", "null", "~", "", "12:30", "0o17", "1e3", "- a", "a: b", "*x"])
values = st.recursive(
    st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.integers(-(10**6), 10**6).map(lambda n: n / 1000)
    | printable
    | tempting,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(printable | tempting, inner, max_size=4)
    ),
    max_leaves=20,
)

# What people put where something else belongs.
WORDS = (
    "x dhcp fibre lte default voice cloud eth0 wwan0 lan0 bl-1-1 hq.psk ef tcp share fail-closed"
)
ADDRESSES = "192.0.2.1 192.168.1.0/24 192.168.2.7/24 ::/0 fe80::1 2001:db8:1::9/64 198.51.100.1"
misplaced = st.one_of(
    st.sampled_from([None, [], {}, [[]], [{}], True, False, "", 0.5]),
    st.sampled_from([-1, 0, 1, 2, 3, 15, 16, 255, 256, 65535, 65536]),
    st.sampled_from([*WORDS.split(), *ADDRESSES.split(), "1 %", "50 ms", "10 s", "icmp 192.0.2.1"]),
)


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every (container, key or index) of a tree."""
    keys = tree.keys() if isinstance(tree, dict) else range(len(tree))
    found = [(tree, key) for key in keys]
    for key in keys:
        if isinstance(tree[key], dict | list):
            found += _places(tree[key])
    return found


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """The example with up to three things replaced, removed, renamed or repeated."""
    tree: dict[str, Any] = deepcopy(BRANCH)
    for _ in range(draw(st.integers(0, 3))):
        places = _places(tree)
        if not places:
            break
        container, key = places[draw(st.integers(0, len(places) - 1))]
        match draw(st.sampled_from(["replace", "remove", "rename", "repeat"])):
            case "replace":
                container[key] = deepcopy(draw(misplaced))  # two of one object dump as an alias
            case "remove":
                del container[key]
            case "rename" if isinstance(container, dict):
                container[draw(st.sampled_from(["nmae", "id", "label", "key"]))] = deepcopy(
                    container[key]
                )
            case _ if isinstance(container, list):
                container.append(deepcopy(container[key]))
    return tree


def _judged(text: str) -> Intent | tuple[Problem, ...]:
    try:
        return parse_config(text, "box.yaml")
    except ConfigError as error:
        return error.problems


def _at(tree: Any, pointer: str) -> Any:
    for part in pointer.split("/")[1:]:
        part = part.replace("~1", "/").replace("~0", "~")
        tree = tree[int(part) if isinstance(tree, list) else part]
    return tree


@untimed
@given(values)
def test_what_json_writes_is_read_back(value: Any) -> None:
    document = parse_yaml(json.dumps(value))
    assert document.value == value
    assert json.dumps(document.value) == json.dumps(value)  # 1, 1.0 and true are equal in Python
    assert document.problems == ()


@untimed
@given(mutated())
def test_a_changed_file_is_taken_or_refused_with_places_that_exist(tree: dict[str, Any]) -> None:
    text = json.dumps(tree, indent=1)
    lines = text.split("\n")
    judged = _judged(text)
    if isinstance(judged, Intent):
        assert PUBLISHED.is_valid(tree), "the published schema is stricter than the box"
        return
    assert judged
    for problem in judged:
        _at(tree, problem.pointer)
        assert problem.message
        assert 1 <= problem.line <= len(lines)
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1
        key = problem.pointer.rpartition("/")[2]
        here = lines[problem.line - 1][problem.column - 1 :]
        assert key.isdecimal() or here.startswith((f'"{key}"', "null") if key else "{")


@untimed
@given(mutated())
def test_block_style_is_judged_like_flow_style(tree: dict[str, Any]) -> None:
    flow, block = _judged(json.dumps(tree)), _judged(yaml.safe_dump(tree, sort_keys=False))
    if isinstance(flow, Intent):
        assert block == flow
    else:
        assert not isinstance(block, Intent)
        assert {(p.pointer, p.message) for p in block} == {(p.pointer, p.message) for p in flow}


@untimed
@given(st.randoms(use_true_random=False))
def test_the_order_of_keys_does_not_matter(random: Any) -> None:
    def shuffled(tree: Any) -> Any:
        if isinstance(tree, list):
            return [shuffled(each) for each in tree]
        if not isinstance(tree, dict):
            return tree
        keys = random.sample(list(tree), len(tree))
        return {key: shuffled(tree[key]) for key in keys}

    assert _judged(json.dumps(shuffled(BRANCH))) == _judged(json.dumps(BRANCH))


@untimed
@given(st.text(max_size=200) | st.text("{}[]:,-*&!|>'\"%@`#? \n\tab1~", max_size=60))
def test_any_text_is_taken_or_refused(text: str) -> None:
    assert _judged(text)


@untimed
@given(st.integers(0, len(SOUND)), st.integers(0, 12), st.text(max_size=6))
def test_any_slip_in_a_sound_file_is_taken_or_refused(at: int, cut: int, put: str) -> None:
    assert _judged(SOUND[:at] + put + SOUND[at + cut :])


@untimed
@given(st.integers(0, 10**9 - 1))
def test_durations_are_read_as_they_are_shown(us: int) -> None:
    assert parse_duration(render_duration(us)) == us
