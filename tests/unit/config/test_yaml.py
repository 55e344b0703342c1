"""YAML 1.2 core as a configuration needs it, with the C parser and without."""

from math import isinf, isnan
from typing import Any

import pytest
import yaml

from appliance.config import yaml as config_yaml
from appliance.config.yaml import MAX_DEPTH, MAX_NODES, MAX_OCTETS, Unreadable, parse_yaml


@pytest.fixture(autouse=True, params=["CSafeLoader", "SafeLoader"])
def _parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config_yaml, "LOADER", getattr(yaml, request.param))


def _items(text: str) -> list[Any]:
    value = parse_yaml(text).value
    assert isinstance(value, list)
    return value


def test_this_machine_has_the_c_parser() -> None:
    assert config_yaml.HAS_C_PARSER


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("11:22:33:44:55:06", "11:22:33:44:55:06"),
        ("2001:db8::1", "2001:db8::1"),
        ("1 %", "1 %"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("true", True),
        ("FALSE", False),
        ("010", 10),
        ("0o10", 8),
        ("0x1f", 31),
        ("-7", -7),
        ("+7", 7),
        ("3.6", 3.6),
        (".5", 0.5),
        ("1e3", 1000.0),
        ("1.", 1.0),
        ("'7'", "7"),
        ('"true"', "true"),
        ("10000-20000", "10000-20000"),
    ],
)
def test_plain_scalars_follow_the_core_schema(text: str, value: Any) -> None:
    (read,) = _items(f"[{text}]")
    assert read == value
    assert type(read) is type(value)


def test_the_words_for_no_number_and_infinity() -> None:
    nan, *infinities = _items("[.nan, .inf, -.INF, +.inf]")
    assert isinstance(nan, float)
    assert isnan(nan)
    assert all(isinstance(each, float) and isinf(each) for each in infinities)
    assert infinities[1] == float("-inf")


def test_an_endless_number_stays_text() -> None:
    assert parse_yaml("1" * 5000).value == "1" * 5000


def test_every_node_has_a_place() -> None:
    document = parse_yaml("a:\n  - x\n  - {b: 1,\n     c: 2}\nd: [e]\n")
    assert document.value == {"a": ["x", {"b": 1, "c": 2}], "d": ["e"]}

    def place(*path: str | int) -> tuple[int, int]:
        problem = document.problem(path, "here")
        return problem.line, problem.column

    assert place() == (1, 1)
    assert place("a") == (1, 1)
    assert place("a", 0) == (2, 5)
    assert place("a", 1) == (3, 5)
    assert place("a", 1, "c") == (4, 6)
    assert place("d", 0) == (5, 5)


def test_a_problem_points_at_the_deepest_node_that_exists() -> None:
    document = parse_yaml("a:\n  b: [1]\n")
    assert str(document.problem(("a", "b", 7, "c"), "gone", "look")) == "2:3 /a/b: gone (look)"


def test_a_key_given_twice_is_found_and_the_first_one_kept() -> None:
    document = parse_yaml("a: 1\nb: 2\na: 3\n")
    assert document.value == {"a": 1, "b": 2}
    assert [str(problem) for problem in document.problems] == [
        "3:1 /a: given twice; first on line 1 (keep one of the two)"
    ]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: &x 1\nb: *x\n", "2:4 /b: an alias is not followed"),
        ("a: !!str 1\n", "1:4 /a: a tag has no meaning here"),
        ("a: !!python/object:os.system {}\n", "1:4 /a: a tag has no meaning here"),
        ("a:\n", "there is no value"),
        ("a: ~\n", "1:4 /a: there is no value"),
        ("[1, null]\n", "1:5 /1: there is no value"),
        ("1: 2\n", '1:1 /1: the key "1" is not text'),
    ],
)
def test_what_has_no_meaning_is_found(text: str, said: str) -> None:
    (problem,) = parse_yaml(text).problems
    assert said in str(problem)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a: 1\n\tb: 2\n", 2, "not YAML"),
        ("a: b: c\n", 1, "quote a text that contains a colon"),
        ("a: [1, 2\n", None, "not YAML"),
        ("a: 'x\n", None, "a quote is not closed"),
        ("a: @x\n", 1, "needs quotes"),
        ("? [a]\n: b\n", 1, "a key that is not text"),
        ("a: 1\n---\nb: 2\n", 2, "a second document"),
        ("a: 1\nb: \x07\n", 2, "U+0007"),
        ("a: \ud800\n", 1, "U+D800"),
        ("[" * (MAX_DEPTH + 1), 1, "nested deeper"),
        ("[" * 100_000, 1, "nested deeper"),
        ("{a: " * 100_000, 1, "nested deeper"),
        ("[" + "1," * MAX_NODES + "]", 1, "more than 100000 values"),
        ("#" * (MAX_OCTETS + 1), 1, "at most 1048576"),
    ],
)
def test_what_is_not_a_document_is_refused(text: str, line: int | None, said: str) -> None:
    with pytest.raises(Unreadable) as caught:
        parse_yaml(text)
    problem = caught.value.problems[-1]
    assert said in str(problem)
    assert line is None or problem.line == line


def test_a_bomb_of_aliases_costs_nothing() -> None:
    levels = "".join(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 9)}]\n" for n in range(1, 20))
    document = parse_yaml("l0: &l0 lol\n" + levels)
    assert len(document.problems) == 19 * 9


def test_problems_found_before_the_end_are_kept() -> None:
    with pytest.raises(Unreadable) as caught:
        parse_yaml("a: 1\na: 2\nb: [")
    twice, open_list = caught.value.problems
    assert "given twice" in twice.message
    assert "not YAML" in open_list.message


def test_depth_up_to_the_bound_is_read() -> None:
    assert parse_yaml("[" * MAX_DEPTH + "]" * MAX_DEPTH).problems == ()


def test_an_empty_text_is_nothing() -> None:
    assert parse_yaml("").value is None
    assert parse_yaml("# only words\n").problems == ()
