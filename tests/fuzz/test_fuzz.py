"""A short run over every target, the same each time. For a long one: python -m tests.fuzz.run."""

from itertools import islice
from pathlib import Path

import pytest

from tests.fuzz.harness import FuzzFailure, Target, known_inputs, mutations, try_one
from tests.fuzz.targets import TARGETS

ITERATIONS = 2000


@pytest.mark.parametrize("target", TARGETS.values(), ids=list(TARGETS))
def test_a_parser_accepts_or_raises_its_declared_error(target: Target) -> None:
    fuzz(target)


def fuzz(target: Target) -> None:
    for octets in known_inputs(target):
        try_one(target, octets)
    for octets in islice(mutations(target, seed=0), ITERATIONS):
        try_one(target, octets)


def parse_badly(octets: bytes) -> int:
    """A parser that trusts a length."""
    if len(octets) < 2:
        return 0
    return octets[octets[1] + 2] if octets[0] == 0x80 else 0


def test_the_harness_finds_a_fault_and_keeps_the_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = Target("planted", parse_badly, (bytes.fromhex("8001aabb"),))
    with pytest.raises(FuzzFailure) as failure:
        fuzz(target)
    assert isinstance(failure.value.__cause__, IndexError)
    monkeypatch.chdir(tmp_path)
    assert failure.value.save().read_bytes() == failure.value.octets


def test_the_same_seed_gives_the_same_inputs() -> None:
    target = next(iter(TARGETS.values()))

    def first(seed: int) -> list[bytes]:
        return list(islice(mutations(target, seed), 200))

    assert first(1) == first(1)
    assert first(1) != first(2)
