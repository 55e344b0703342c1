"""How problems read."""

import pytest

from appliance.config.errors import HIDDEN, ConfigError, Malformed, Problem, pointer_of, quoted


def test_an_error_prints_every_problem_on_a_line_of_its_own() -> None:
    error = ConfigError(
        "box.yaml", [Problem("/a", 1, 2, "wrong", "mend it"), Problem("", 3, 1, "empty")]
    )
    assert str(error) == "box.yaml:1:2 /a: wrong (mend it)\nbox.yaml:3:1: empty"


def test_a_pointer_escapes_what_would_end_a_part() -> None:
    assert pointer_of(("a/b", "c~d", 0)) == "/a~1b/c~0d/0"
    assert pointer_of(()) == ""


def test_nothing_in_a_problem_moves_the_cursor() -> None:
    text = str(Problem("/a\nb\x1b[2J", 1, 1, quoted("x\x1b[2J\ny")))
    assert text.isprintable()
    assert "\\x1b" in text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "nothing"),
        (True, "true"),
        (False, "false"),
        ({"a": 1}, "a mapping"),
        ([1], "a list"),
        (7, "7"),
        ("x", '"x"'),
        ("x y" * 700, '"' + "x y" * 15 + '..."'),
        (HIDDEN, "the value"),
    ],
)
def test_values_are_shown_short(value: object, shown: str) -> None:
    assert quoted(value) == shown


@pytest.mark.parametrize(
    "secret",
    [
        "+4hzXczQNV1K7/nIAqDlvLUUdYy7a/Hq3I2PEx0KfFM=",
        "4hzXczQNV1K7nIAqDlvLUUdYy7aHq3I2PEx0KfFM7f",
        "0123456789abcdef" * 4,
        "-----BEGIN PRIVATE KEY-----\nMC4C\n",
    ],
)
def test_what_could_be_a_key_is_not_shown(secret: str) -> None:
    assert quoted(secret) == "a text that could be a key"
    assert secret not in str(Malformed(secret, "is wrong"))
