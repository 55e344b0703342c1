"""The reader of configurations: any octets are taken or refused with reasons, and nothing else."""

from pathlib import Path

from appliance.config.errors import ConfigError
from appliance.config.load import parse_config
from tests.fuzz.harness import Target

_ROOT = Path(__file__).resolve().parents[2]
_FILES = ("examples/branch.yaml", "examples/gateway.yaml", "tests/golden/config_errors.yaml")

SEEDS = (
    *((_ROOT / name).read_bytes() for name in _FILES),
    b"version: 1\nsite: {name: a, id: 1}\n",
    b"- &a [*a, !!str 1, ~, .nan, 0x1f, 1e3, 'x', \"\\u00e9\"]\n--- |\n  text\n...\n",
    b"? [a]\n: {b: >-\n c}\n%YAML 1.2\n",
)


def fuzz_octets(octets: bytes) -> None:
    """Anything at all, lone surrogates in place of what is not UTF-8."""
    _judge(octets.decode(errors="surrogateescape"))


def fuzz_text(octets: bytes) -> None:
    """Only what YAML allows, so that more of the inputs get past the first look."""
    text = octets.decode(errors="replace")
    _judge("".join(c if c.isprintable() or c in "\n\t" else "\n" for c in text))


def _judge(text: str) -> None:
    """Accept, or give reasons: each on one printable line, with a place that can be looked up."""
    refusal = _refusal(text)
    if refusal is None:
        return
    assert refusal.problems
    assert all(problem.line >= 1 and problem.column >= 1 for problem in refusal.problems)
    lines = str(refusal).splitlines()
    assert len(lines) == len(refusal.problems)
    assert all(line.isprintable() for line in lines)


def _refusal(text: str) -> ConfigError | None:
    try:
        parse_config(text, "fuzz.yaml")
    except ConfigError as error:
        return error
    return None


TARGETS = (
    Target("config-octets", fuzz_octets, SEEDS),
    Target("config-text", fuzz_text, SEEDS),
)
