"""Errors on the wire: problem details (RFC 9457), each with what to do next."""

from dataclasses import dataclass
from typing import Annotated, Final

from annotated_types import Ge, Le

from appliance.contract.wire import STRICT, Count

PROBLEM_TYPE: Final = "application/problem+json"


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One thing that is wrong in a configuration. Line and column count from 1."""

    __pydantic_config__ = STRICT

    pointer: str  # JSON pointer (RFC 6901), empty for the whole document
    line: Count
    column: Count
    message: str
    hint: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Problem details (RFC 9457 section 3.1) with two members of our own at the end."""

    __pydantic_config__ = STRICT

    type: str  # a URI reference that answers with what such a problem is
    title: str
    status: Annotated[int, Ge(400), Le(599)]
    detail: str
    next_step: str
    errors: tuple[ConfigProblem, ...] = ()
