"""The reader of configurations: any octets are taken or refused with reasons, and nothing else."""

from pathlib import Path

from appliance.config.errors import ConfigError
from appliance.config.load import parse_config

_ROOT = Path(__file__).resolve().parents[2]

SEEDS = tuple(
    (_ROOT / name).read_bytes()
    for name in ("examples/branch.yaml", "examples/gateway.yaml", "tests/golden/config_errors.yaml")
)


def fuzz_one(data: bytes) -> None:
    """Accept, or give reasons, one printable line each, with places that lie in the text."""
    text = data.decode(errors="surrogateescape")
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
