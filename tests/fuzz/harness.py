"""Throws mutated octets at a parser and expects it to accept them or to raise its declared error.

A target's `fuzz_one(data)` swallows the one error that the parser declares; whatever escapes it is
a fault. All randomness comes from one seed, so that a failure repeats. There is no coverage
guidance: the seeds of a target should show every shape that its parser knows.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

CORPUS = Path(__file__).parent / "corpus"  # corpus/TARGET/*: inputs that once found a fault
FAILURES = Path("build/fuzz")
INTERESTING = (0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF)
LONGEST = 1 << 16


@dataclass(frozen=True)
class Target:
    """A parser, with valid inputs to start from."""

    name: str
    fuzz_one: Callable[[bytes], object]
    seeds: tuple[bytes, ...]


class FuzzFailure(AssertionError):  # noqa: N818 - what pytest calls a failure
    """An input made a target raise what it had not declared. The cause is chained."""

    def __init__(self, target: Target, octets: bytes) -> None:
        digest = hashlib.sha256(octets).hexdigest()[:12]
        self.path = FAILURES / f"{target.name}-{digest}"
        super().__init__(f"{target.name} failed on {octets!r}")
        self.octets = octets

    def save(self) -> Path:
        """Keep the input, to be moved into the corpus once the fault is mended."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_bytes(self.octets)
        return self.path


def try_one(target: Target, octets: bytes) -> None:
    try:
        target.fuzz_one(octets)
    except Exception as error:
        raise FuzzFailure(target, octets) from error


def known_inputs(target: Target) -> Iterator[bytes]:
    """The seeds as they are, and everything that once found a fault."""
    yield b""
    yield from target.seeds
    for path in sorted((CORPUS / target.name).glob("*")):
        yield path.read_bytes()


def mutations(target: Target, seed: int) -> Iterator[bytes]:
    """Endless mutated inputs, the same for the same seed."""
    random = Random(f"{target.name} {seed}")
    pool = list(known_inputs(target))
    while True:
        octets = bytearray(random.choice(pool))
        for _ in range(random.choice((1, 1, 2, 3, 8))):
            random.choice(MUTATORS)(octets, random)
        if random.random() < 0.1:
            octets += random.choice(pool)
        yield bytes(octets[:LONGEST])


def _flip_bit(octets: bytearray, random: Random) -> None:
    if octets:
        octets[random.randrange(len(octets))] ^= 1 << random.randrange(8)


def _set_octet(octets: bytearray, random: Random) -> None:
    if octets:
        octets[random.randrange(len(octets))] = random.choice((*INTERESTING, random.randrange(256)))


def _set_word(octets: bytearray, random: Random) -> None:
    """Two or four octets at once: lengths and numbers at their limits."""
    size = random.choice((2, 4))
    if len(octets) >= size:
        at = random.randrange(len(octets) - size + 1)
        value = random.choice((0, 1, len(octets), (1 << 8 * size) - 1, 1 << 8 * size - 1))
        octets[at : at + size] = value.to_bytes(size)


def _insert(octets: bytearray, random: Random) -> None:
    at = random.randrange(len(octets) + 1)
    octets[at:at] = random.randbytes(random.choice((1, 2, 4, 16)))


def _delete(octets: bytearray, random: Random) -> None:
    start, end = _slice(octets, random)
    del octets[start:end]


def _repeat(octets: bytearray, random: Random) -> None:
    start, end = _slice(octets, random)
    octets[end:end] = octets[start:end] * random.choice((1, 2, 16))


def _cut(octets: bytearray, random: Random) -> None:
    del octets[random.randrange(len(octets) + 1) :]


def _slice(octets: bytearray, random: Random) -> tuple[int, int]:
    start = random.randrange(len(octets) + 1)
    return start, min(len(octets), start + random.choice((1, 2, 4, 8, 64)))


MUTATORS = (_flip_bit, _set_octet, _set_word, _insert, _delete, _repeat, _cut)
