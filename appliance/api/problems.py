"""The kinds of problem that the local API answers with, each with what to do next."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from appliance.config.errors import ConfigError
from appliance.contract.problem import ConfigProblem, Problem
from appliance.contract.wire import STRICT


class Kind(StrEnum):
    """The last part of a problem's type."""

    BAD_REQUEST = "bad-request"
    UNKNOWN_NAME = "unknown-name"
    NOT_FOUND = "not-found"
    METHOD_NOT_ALLOWED = "method-not-allowed"
    TOO_LARGE = "too-large"
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type"
    CONFIG_REFUSED = "config-refused"
    INTERNAL = "internal"
    NOT_READY = "not-ready"
    TOO_MANY_STREAMS = "too-many-streams"
    DISK_HANGS = "disk-hangs"
    TIMED_OUT = "timed-out"


@dataclass(frozen=True, slots=True)
class ProblemKind:
    """What all problems of a kind have in common."""

    __pydantic_config__ = STRICT

    status: int
    title: str
    next_step: str


PROBLEM_KINDS: Final[dict[Kind, ProblemKind]] = {
    Kind.BAD_REQUEST: ProblemKind(
        400, "The request cannot be understood", "Compare it with GET /v1/openapi.json."
    ),
    Kind.UNKNOWN_NAME: ProblemKind(
        404, "No such class or site", "`branchline classes` lists the classes and sites."
    ),
    Kind.NOT_FOUND: ProblemKind(
        404, "There is nothing at this address", "GET /v1/openapi.json lists what there is."
    ),
    Kind.METHOD_NOT_ALLOWED: ProblemKind(
        405, "The address does not take this method", "GET /v1/openapi.json lists the methods."
    ),
    Kind.TOO_LARGE: ProblemKind(
        413, "The request is too large", "A configuration may have 1 MiB at most."
    ),
    Kind.UNSUPPORTED_MEDIA_TYPE: ProblemKind(
        415, "The body is of an unknown kind", "Send it as application/yaml or application/json."
    ),
    Kind.CONFIG_REFUSED: ProblemKind(
        422,
        "The configuration has errors",
        "Mend all that is listed and try again; nothing was changed.",
    ),
    Kind.INTERNAL: ProblemKind(
        500,
        "The supervisor failed to answer",
        "Forwarding goes on. Save `branchline diagnostics` and report the fault.",
    ),
    Kind.NOT_READY: ProblemKind(
        503,
        "The supervisor is starting or stopping",
        "Try again in a few seconds; if it lasts, see `journalctl -u branchline`.",
    ),
    Kind.TOO_MANY_STREAMS: ProblemKind(
        503, "Too many event streams are open", "Close one, or poll GET /v1/status."
    ),
    Kind.DISK_HANGS: ProblemKind(
        503,
        "The disk does not answer",
        "Forwarding goes on. Look at the disk (`dmesg`); what waits for it ends when it answers.",
    ),
    Kind.TIMED_OUT: ProblemKind(
        504,
        "The supervisor did not finish in time",
        "Try again; if it lasts, save `branchline diagnostics` and restart the supervisor.",
    ),
}


class ApiError(Exception):
    """A request that is answered with problem details."""

    def __init__(self, kind: Kind, detail: str, errors: tuple[ConfigProblem, ...] = ()) -> None:
        super().__init__(kind, detail)
        self.problem = problem(kind, detail, errors)


class UnknownName(LookupError):  # noqa: N818 - said as the source says it
    """A class or site that the configuration in force does not have."""


class DiskHangsError(OSError):
    """A disk that the answer is on does not answer."""


def problem(kind: Kind, detail: str, errors: tuple[ConfigProblem, ...] = ()) -> Problem:
    """The details of one problem."""
    known = PROBLEM_KINDS[kind]
    return Problem(
        f"/v1/problems/{kind}", known.title, known.status, detail, known.next_step, errors
    )


def config_problems(error: ConfigError) -> tuple[ConfigProblem, ...]:
    """What is wrong in a configuration, as it goes over the wire."""
    return tuple(
        ConfigProblem(p.pointer, p.line, p.column, p.message, p.hint) for p in error.problems
    )
