"""What is wrong with a configuration, said so that the person who wrote it can mend it.

A message may repeat what stands in the file, but never anything that could be a key.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Path = tuple[str | int, ...]  # keys and list indices from the root of the document

_LIKE_A_KEY = re.compile(r"[A-Za-z0-9+/]{40}|-----BEGIN")
HIDDEN = object()  # stands for a value that no message may repeat
_SHOWN = 48  # characters of a value that a message repeats


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong at a path of the document. The document knows on which line that is."""

    path: Path
    message: str
    hint: str = ""  # what to do about it


@dataclass(frozen=True, slots=True)
class Problem:
    """A finding with its place in the file. Line and column count from 1."""

    pointer: str  # JSON pointer (RFC 6901), empty for the whole document
    line: int
    column: int
    message: str
    hint: str = ""

    def __str__(self) -> str:
        pointer = f" {_printable(self.pointer)}" if self.pointer else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.line}:{self.column}{pointer}: {self.message}{hint}"


class ConfigError(Exception):
    """A configuration that must not be used. Carries every problem found, in file order."""

    def __init__(self, name: str, problems: Sequence[Problem]) -> None:
        super().__init__(name, tuple(problems))
        self.name = name
        self.problems = tuple(problems)

    def __str__(self) -> str:
        """One problem a line: `FILE:LINE:COLUMN POINTER: MESSAGE (HINT)`."""
        return "\n".join(f"{self.name}:{problem}" for problem in self.problems)


class Malformed(ValueError):  # noqa: N818 - a verdict on a value; pydantic wants a ValueError
    """A value that does not follow its grammar: `SUBJECT VERDICT`."""

    def __init__(self, subject: object, verdict: str, hint: str = "") -> None:
        super().__init__(f"{quoted(subject)} {verdict}")
        self.hint = hint


def pointer_of(path: Iterable[str | int]) -> str:
    """A path as a JSON pointer (RFC 6901 section 3)."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def quoted(value: object) -> str:
    """A value as a message may repeat it: short, on one line, printable, and no secret."""
    match value:
        case _ if value is HIDDEN:
            return "the value"
        case None:
            return "nothing"
        case bool():
            return "true" if value else "false"
        case dict():
            return "a mapping"
        case list():
            return "a list"
        case str() if _LIKE_A_KEY.search(value):
            return "a text that could be a key"
        case str():
            return f'"{_printable(_shortened(value))}"'
        case _:
            return _shortened(str(value))


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _printable(text: str) -> str:
    """Escape what could move a cursor or end the line."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
