"""Events as text: one line of JSON each, so that a recording can be read and decided again.

    {"now": 5021.25, "event": "ProbeOverdue", "path": ["hq", [1, 1]], "sent_age_s": 0.024, ...}

Derived from the types of the events themselves, so that a new field needs nothing here. Fields at
their defaults are left out; what is there is checked strictly: an unknown name, a wrong type or
a number out of bounds is a `RecordingError`, whatever the line holds.
"""

import json
import math
import types
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from enum import StrEnum
from functools import cache
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
)
from typing import Any, NewType, Union, get_args, get_origin, get_type_hints

from appliance.core.events import Event

MOST_OCTETS = 8 << 20  # of a line: the intent of a hub with thousands of sites fits
MOST_INTEGER = 1 << 63
_ADDRESSES = (IPv4Address, IPv6Address, IPv4Interface, IPv6Interface, IPv4Network, IPv6Network)
_KINDS = {kind.__name__: kind for kind in get_args(Event)}

Encoder = Callable[[Any], Any]
Decoder = Callable[[Any], Any]


class RecordingError(Exception):
    """A line is no event. The message says which part of it, and why."""


def encode_event(now: float, event: Event) -> bytes:
    """One line, without its line feed."""
    kind: Any = type(event)
    body = _encoder(kind)(event)
    line = {"now": now, "event": type(event).__name__, **body}
    return json.dumps(line, allow_nan=False, separators=(",", ":")).encode()


def decode_event(line: bytes) -> tuple[float, Event]:
    """The time and the event of a line. Raises RecordingError and nothing else."""
    if len(line) > MOST_OCTETS:
        msg = f"a line of {len(line)} octets is too long"
        raise RecordingError(msg)
    try:
        body = json.loads(line.decode(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        msg = f"no JSON: {error}"
        raise RecordingError(msg) from None
    if not isinstance(body, dict):
        msg = "a line must be an object"
        raise RecordingError(msg)
    kind = _KINDS.get(str(body.pop("event", None)))
    if kind is None:
        msg = "no such event"
        raise RecordingError(msg)
    now = _float(body.pop("now", None))
    if not math.isfinite(now):
        msg = "a time must be finite"
        raise RecordingError(msg)
    return now, _decoder(kind)(body)


def _refuse(text: str) -> None:
    msg = f"{text} is no number"
    raise ValueError(msg)


# -- what the types of events are made of -----------------------------------------------------


@cache
def _encoder(kind: Any) -> Encoder:
    if isinstance(kind, NewType):
        return _encoder(kind.__supertype__)
    if kind is float:
        return _plain_float
    if kind in (int, str, bool) or (isinstance(kind, type) and issubclass(kind, StrEnum)):
        return _same
    if kind in _ADDRESSES:
        return str
    if get_origin(kind) in (Union, types.UnionType):
        choices = [_encoder(c) for c in get_args(kind) if c is not type(None)]
        one = choices[0]  # addresses of both families are written alike
        return lambda value: None if value is None else one(value)
    if get_origin(kind) is tuple:
        return _tuple_encoder(get_args(kind))
    if is_dataclass(kind):
        return _dataclass_encoder(kind)
    return _tuple_encoder(_hints(kind))  # a NamedTuple


def _tuple_encoder(kinds: tuple[Any, ...]) -> Encoder:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        one = _encoder(kinds[0])
        return lambda value: [one(part) for part in value]
    each = [_encoder(kind) for kind in kinds]
    return lambda value: [encode(part) for encode, part in zip(each, value, strict=True)]


def _dataclass_encoder(kind: Any) -> Encoder:
    parts = [
        (field.name, _encoder(hint), field.default)
        for field, hint in zip(fields(kind), _hints(kind), strict=True)
    ]

    def encode(value: Any) -> dict[str, Any]:
        found = {}
        for name, one, default in parts:
            part = getattr(value, name)
            if default is MISSING or part != default:
                found[name] = one(part)
        return found

    return encode


def _same(value: Any) -> Any:
    return value


def _plain_float(value: float) -> float | str:
    return value if math.isfinite(value) else repr(float(value))


@cache
def _hints(kind: Any) -> tuple[Any, ...]:
    return tuple(get_type_hints(kind).values())


@cache
def _decoder(kind: Any) -> Decoder:
    if isinstance(kind, NewType):
        return _decoder(kind.__supertype__)
    if kind in _SCALARS:
        return _SCALARS[kind]
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return lambda value: _convert(kind, _str(value))
    if kind in _ADDRESSES:
        return lambda value: _address(kind, value)
    if get_origin(kind) in (Union, types.UnionType):
        return _union_decoder(get_args(kind))
    if get_origin(kind) is tuple:
        return _tuple_decoder(get_args(kind))
    if is_dataclass(kind):
        return _dataclass_decoder(kind)
    parts = _tuple_decoder(_hints(kind))
    return lambda value: kind(*parts(value))


def _union_decoder(kinds: tuple[Any, ...]) -> Decoder:
    has_none = type(None) in kinds
    choices = [_decoder(kind) for kind in kinds if kind is not type(None)]

    def decode(value: Any) -> Any:
        if value is None and has_none:
            return None
        trouble = None
        for one in choices:
            try:
                return one(value)
            except RecordingError as error:
                trouble = error
        raise trouble or RecordingError("nothing fits")

    return decode


def _tuple_decoder(kinds: tuple[Any, ...]) -> Decoder:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        one = _decoder(kinds[0])
        return lambda value: tuple([one(part) for part in _list(value)])
    each = [_decoder(kind) for kind in kinds]

    def decode(value: Any) -> tuple[Any, ...]:
        parts = _list(value)
        if len(parts) != len(each):
            msg = f"{len(parts)} parts where {len(each)} belong"
            raise RecordingError(msg)
        return tuple([one(part) for one, part in zip(each, parts, strict=True)])

    return decode


def _dataclass_decoder(kind: Any) -> Decoder:
    decoders = {
        field.name: _decoder(hint) for field, hint in zip(fields(kind), _hints(kind), strict=True)
    }
    required = {f.name for f in fields(kind) if f.default is MISSING}

    def decode(value: Any) -> Any:
        if not isinstance(value, dict):
            msg = f"{kind.__name__} must be an object"
            raise RecordingError(msg)
        if not value.keys() <= decoders.keys():
            msg = f"{kind.__name__} has no {', '.join(sorted(value.keys() - decoders.keys()))}"
            raise RecordingError(msg)
        if not required <= value.keys():
            msg = f"{kind.__name__} lacks {', '.join(sorted(required - value.keys()))}"
            raise RecordingError(msg)
        return kind(**{name: decoders[name](part) for name, part in value.items()})

    return decode


def _int(value: Any) -> int:
    if type(value) is not int or abs(value) > MOST_INTEGER:
        msg = f"{value!r:.40} is no integer"
        raise RecordingError(msg)
    return value


def _float(value: Any) -> float:
    if value in ("inf", "-inf"):
        return float(value)
    if type(value) is int and abs(value) <= MOST_INTEGER:
        return float(value)
    if type(value) is not float or not math.isfinite(value):
        msg = f"{value!r:.40} is no number"
        raise RecordingError(msg)
    return value


def _str(value: Any) -> str:
    if type(value) is not str:
        msg = f"{value!r:.40} is no text"
        raise RecordingError(msg)
    return value


def _bool(value: Any) -> bool:
    if type(value) is not bool:
        msg = f"{value!r:.40} is neither true nor false"
        raise RecordingError(msg)
    return value


def _list(value: Any) -> list[Any]:
    if type(value) is not list:
        msg = f"{value!r:.40} is no list"
        raise RecordingError(msg)
    return value


def _address(kind: Any, value: Any) -> Any:
    text = _str(value)
    if len(text) > 64:
        msg = "an address is not that long"
        raise RecordingError(msg)
    return _convert(kind, text)


def _convert(kind: Callable[[str], Any], text: str) -> Any:
    try:
        return kind(text)
    except ValueError as error:
        raise RecordingError(str(error)) from None


_SCALARS: dict[Any, Decoder] = {int: _int, float: _float, str: _str, bool: _bool}
