"""Wire types to JSON and back: the one place where pydantic looks at them."""

from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter

T = TypeVar("T")


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """The validator and serializer of a wire type, built at the first use: some are never used."""
    return TypeAdapter(kind)


def encode(value: object, kind: object | None = None) -> bytes:
    """JSON of a wire value. `kind` is needed for containers: `tuple[PathStatus, ...]`."""
    return adapter(kind or type(value)).dump_json(value)


def decode(kind: type[T], body: bytes | str) -> T:
    """The wire value in a JSON text. Raises pydantic's ValidationError, a ValueError."""
    key: Any = kind
    value: T = adapter(key).validate_json(body)
    return value
