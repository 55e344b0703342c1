"""YAML 1.2 core, reduced to what a configuration needs, with the place of every node.

PyYAML follows YAML 1.1, which reads `no` as false, `12:30` as 750 and a MAC address as a number.
Here only the plain scalars of the YAML 1.2 core schema (section 10.3.2) are anything but text. A
key given twice, an alias, a tag or a second document is a problem, never a surprise. Size, depth
and number of nodes are bounded, so that no text is expensive to read.

Nothing in a configuration may be null, so a null, too, is a problem.

The document is built from the parser's events, which PyYAML's C parser makes quickly. Without the
C parser the same text gives the same value some fifteen times slower: see `HAS_C_PARSER`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import yaml

from appliance.config.errors import Path, Problem, pointer_of, quoted

MAX_OCTETS = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 100_000  # a site takes about 20, and 3,000 sites fill the octets
MAX_NUMBER = 20  # characters; a longer number stays text, and no key takes it

HAS_C_PARSER = hasattr(yaml, "CSafeLoader")
LOADER: Any = yaml.CSafeLoader if HAS_C_PARSER else yaml.SafeLoader

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]

_CONSTANTS: dict[str, Value] = {"": None, "~": None}
_CONSTANTS |= dict.fromkeys(("null", "Null", "NULL"), None)
_CONSTANTS |= dict.fromkeys(("true", "True", "TRUE"), True)
_CONSTANTS |= dict.fromkeys(("false", "False", "FALSE"), False)
_CONSTANTS |= dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan"))
for _word in (".inf", ".Inf", ".INF"):
    _CONSTANTS |= {_word: float("inf"), f"+{_word}": float("inf"), f"-{_word}": float("-inf")}

_INTEGER = re.compile(r"[-+]?[0-9]+\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_NUMBER_STARTS = frozenset("+-.0123456789")

# What is not c-printable (YAML 1.2 section 5.1); lone surrogates are not either.
_FORBIDDEN = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

# What the parser says of frequent slips, and what the slip mostly was.
_ADVICE = (
    (
        "cannot start any token",
        "indent with spaces, not tabs; a text beginning with @ ` % needs quotes",
    ),
    (
        "mapping values are not allowed",
        "check the indentation, and quote a text that contains a colon",
    ),
    ("did not find expected", "check the indentation, and that every bracket and quote is closed"),
    ("could not find expected ':'", "a key needs a colon and a space after it"),
    ("unexpected end of stream", "a quote is not closed"),
)


@dataclass(slots=True)
class Place:
    """Where a node stands, counted from 0 as the parser does, and where its children stand."""

    line: int
    column: int
    children: "dict[str, Place] | list[Place] | None" = None


@dataclass(frozen=True, slots=True)
class Document:
    """A text that could be read. `problems` are the faults that left something to go on with, and
    `broken` the paths of the nodes that have them."""

    value: Value
    place: Place
    problems: tuple[Problem, ...] = ()
    broken: tuple[Path, ...] = ()

    def problem(self, path: Path, message: str, hint: str = "") -> Problem:
        """A problem at the deepest node of the path that exists."""
        place, found = self.place, 0
        for part in path:
            child = _child(place, part)
            if child is None:
                break
            place, found = child, found + 1
        pointer = pointer_of(path[:found])
        return Problem(pointer, place.line + 1, place.column + 1, message, hint)


def _child(place: Place, part: str | int) -> Place | None:
    children = place.children
    if isinstance(children, dict):
        return children.get(str(part))
    if isinstance(children, list) and isinstance(part, int) and part < len(children):
        return children[part]
    return None


class Unreadable(Exception):  # noqa: N818 - what the text is
    """A text that could not be read to its end."""

    def __init__(self, *problems: Problem) -> None:
        super().__init__(*problems)
        self.problems = problems


def parse_yaml(text: str) -> Document:
    """Read one document. Raises Unreadable, and nothing else, for a text that is not one."""
    if forbidden := _FORBIDDEN.search(text):
        at = forbidden.start()
        line, column = text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)
        message = f"character U+{ord(text[at]):04X} is not allowed in YAML"
        raise Unreadable(Problem("", line, column, message))
    octets = text.encode()
    if len(octets) > MAX_OCTETS:
        message = f"the file has {len(octets)} octets; at most {MAX_OCTETS} are read"
        raise Unreadable(Problem("", 1, 1, message))
    builder = _Builder(LOADER(octets).get_event)
    try:
        return builder.document()
    except yaml.MarkedYAMLError as error:
        said = ", ".join(filter(None, (error.context, error.problem)))
        hint = next((advice for sign, advice in _ADVICE if sign in said), "")
        raise builder.end(error.problem_mark, f"not YAML: {said}", hint) from None


@dataclass(slots=True)
class _Builder:
    """Turns the parser's events into values and places."""

    next_event: Callable[[], Any]
    problems: list[Problem] = field(default_factory=list)
    broken: list[Path] = field(default_factory=list)
    path: list[str | int] = field(default_factory=list)
    nodes: int = 0

    def document(self) -> Document:
        self.next_event()  # the stream starts
        if isinstance(self.next_event(), yaml.StreamEndEvent):
            return Document(None, Place(0, 0))
        value, place = self.node(self.next_event())
        self.next_event()  # the document ends
        event = self.next_event()
        if not isinstance(event, yaml.StreamEndEvent):
            raise self.end(event.start_mark, "a second document", "keep one document in a file")
        return Document(value, place, tuple(self.problems), tuple(self.broken))

    def node(self, event: Any) -> tuple[Value, Place]:
        mark = event.start_mark
        place = Place(mark.line, mark.column)
        kind = event.__class__
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise self.end(mark, f"more than {MAX_NODES} values")
        if kind is yaml.AliasEvent:
            self.find(mark, "an alias is not followed", "write the value out")
            return None, place
        if event.tag is not None:
            self.find(mark, "a tag has no meaning here", "leave it out; quotes make a text")
        if kind is yaml.ScalarEvent:
            value = _resolve(event.value) if event.implicit[0] else event.value
            if value is None and self.path:
                self.find(mark, "there is no value", "give one, or leave the key out")
            return value, place
        if len(self.path) >= MAX_DEPTH:
            raise self.end(mark, f"nested deeper than {MAX_DEPTH} levels")
        if kind is yaml.SequenceStartEvent:
            return self.sequence(place), place
        return self.mapping(place), place

    def sequence(self, place: Place) -> list[Value]:
        values: list[Value] = []
        places: list[Place] = []
        place.children = places
        while (event := self.next_event()).__class__ is not yaml.SequenceEndEvent:
            self.path.append(len(values))
            value, child = self.node(event)
            values.append(value)
            places.append(child)
            self.path.pop()
        return values

    def mapping(self, place: Place) -> dict[str, Value]:
        values: dict[str, Value] = {}
        places: dict[str, Place] = {}
        place.children = places
        while (event := self.next_event()).__class__ is not yaml.MappingEndEvent:
            mark = event.start_mark
            if event.__class__ is not yaml.ScalarEvent:
                hint = "a text that begins with [ { * or & needs quotes"
                raise self.end(mark, "a key that is not text", hint)
            key: str = event.value
            self.path.append(key)
            if event.implicit[0] and not isinstance(_resolve(key), str):
                self.find(mark, f"the key {quoted(key)} is not text", "put it into quotes")
            value, child = self.node(self.next_event())
            child.line, child.column = mark.line, mark.column  # people look for the key
            if key in values:
                first = places[key].line + 1
                self.find(mark, f"given twice; first on line {first}", "keep one of the two")
            else:
                values[key] = value
                places[key] = child
            self.path.pop()
        return values

    def find(self, mark: Any, message: str, hint: str = "") -> None:
        self.broken.append(tuple(self.path))
        pointer = pointer_of(self.path)
        self.problems.append(Problem(pointer, mark.line + 1, mark.column + 1, message, hint))

    def end(self, mark: Any, message: str, hint: str = "") -> Unreadable:
        self.find(mark, message, hint)
        return Unreadable(*self.problems)


def _resolve(text: str) -> Value:
    """The value of a plain scalar (YAML 1.2 section 10.3.2)."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if text[0] not in _NUMBER_STARTS or len(text) > MAX_NUMBER:
        return text
    if _INTEGER.match(text):
        return int(text, 0) if text[1:2] in ("o", "x") else int(text)
    return float(text) if _FLOAT.match(text) else text
