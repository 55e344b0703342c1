"""Every address of the local API in one table: the server and the OpenAPI text are made from it."""

from dataclasses import dataclass
from typing import Any, Final

from appliance.api.problems import Kind
from appliance.config.intent import Protocol
from appliance.config.scalars import MAC_PATTERN
from appliance.contract.decision import Classified, Flows, History, Why
from appliance.contract.status import (
    ClassStatus,
    ConfigSummary,
    Health,
    PathStatus,
    PlanText,
    Reloaded,
    Status,
    UplinkStatus,
    WarningStatus,
)

JSON: Final = "application/json"
YAML: Final = "application/yaml"  # RFC 9512
EVENT_STREAM: Final = "text/event-stream"
METRICS: Final = "text/plain; version=0.0.4; charset=utf-8"
HISTORY_LIMIT: Final = 10_000
FLOWS_LIMIT: Final = 1000
NAME: Final = {"type": "string", "minLength": 1, "maxLength": 64}


@dataclass(frozen=True, slots=True)
class Parameter:
    """A part of the path, or of the query; in the path it is always required."""

    name: str
    text: str
    schema: dict[str, Any]
    is_in_path: bool = False
    is_required: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One operation. `answer` is a wire type, or None for a text of the content type."""

    operation: str
    method: str
    path: str
    summary: str
    answer: Any
    content_type: str = JSON
    parameters: tuple[Parameter, ...] = ()
    takes_config: bool = False  # the body is a configuration
    problems: tuple[Kind, ...] = ()
    timeout_s: float | None = 10.0  # None: as long as the client stays


_SITE = Parameter("site", "Only rows of this site", NAME)
_CLASS = Parameter("class", "Only rows of this class", NAME)
_DRY_RUN = Parameter(
    "dry_run",
    "true: the operations outstanding in the kernel; false: the whole plan",
    {"type": "boolean", "default": False},
)

ROUTES: Final = (
    Route("status", "GET", "/v1/status", "Everything at once", Status),
    Route("uplinks", "GET", "/v1/uplinks", "The uplinks of this box", tuple[UplinkStatus, ...]),
    Route(
        "paths",
        "GET",
        "/v1/paths",
        "The measured paths to all sites",
        tuple[PathStatus, ...],
        parameters=(_SITE,),
        problems=(Kind.UNKNOWN_NAME,),
    ),
    Route(
        "classes",
        "GET",
        "/v1/classes",
        "Which paths carry each class to each site",
        tuple[ClassStatus, ...],
        parameters=(_CLASS, _SITE),
        problems=(Kind.UNKNOWN_NAME,),
    ),
    Route(
        "warnings", "GET", "/v1/warnings", "Trouble that a user can see", tuple[WarningStatus, ...]
    ),
    Route(
        "why",
        "GET",
        "/v1/why/{class}/{site}",
        "Why a class goes to a site the way it does",
        Why,
        parameters=(
            Parameter("class", "A class of the configuration", NAME, is_in_path=True),
            Parameter("site", "A peer of the configuration", NAME, is_in_path=True),
        ),
        problems=(Kind.UNKNOWN_NAME,),
    ),
    Route(
        "classify",
        "GET",
        "/v1/classify",
        "Which class a flow is in that begins now, by which rule, and what carries it",
        Classified,
        parameters=(
            Parameter("from", "Address of the host that begins it", NAME, is_required=True),
            Parameter("to", "Address of the host that is called", NAME, is_required=True),
            Parameter(
                "port",
                "Port of the host that is called",
                {"type": "integer", "minimum": 1, "maximum": 65535},
            ),
            Parameter(
                "protocol",
                "With a port it is tcp unless said otherwise",
                NAME | {"enum": list(Protocol)},
            ),
            Parameter("dscp", "DSCP by name or number, as it is sent; 0 unless said", NAME),
            Parameter("lan", "Name of the LAN; the one of the address unless said", NAME),
            Parameter("device", "MAC address of the sender", NAME | {"pattern": MAC_PATTERN}),
            Parameter("name", "Name that the host was asked for by, if by one", NAME),
        ),
        problems=(Kind.UNKNOWN_NAME,),
    ),
    Route(
        "flows",
        "GET",
        "/v1/flows",
        "Live flows with class, path, rates and the likely rule, the fastest first",
        Flows,
        parameters=(
            Parameter(
                "limit",
                "At most so many, the fastest",
                {"type": "integer", "minimum": 1, "maximum": FLOWS_LIMIT, "default": 50},
            ),
            _CLASS,
        ),
        problems=(Kind.UNKNOWN_NAME,),
        timeout_s=30.0,
    ),
    Route(
        "history",
        "GET",
        "/v1/history",
        "Moves with their evidence, the newest last",
        History,
        parameters=(
            Parameter(
                "limit",
                "At most so many, the newest",
                {"type": "integer", "minimum": 1, "maximum": HISTORY_LIMIT, "default": 100},
            ),
            _CLASS,
            _SITE,
            Parameter(
                "since",
                "Not before this time, in seconds since 1970",
                {"type": "number", "minimum": 0, "maximum": 1e11},
            ),
        ),
        problems=(Kind.DISK_HANGS,),
        timeout_s=30.0,
    ),
    Route(
        "plan",
        "GET",
        "/v1/plan",
        "The plan in force as commands",
        PlanText,
        parameters=(_DRY_RUN,),
        timeout_s=60.0,
    ),
    Route(
        "plan_candidate",
        "POST",
        "/v1/plan",
        "The plan that another configuration would have; nothing is applied",
        PlanText,
        parameters=(_DRY_RUN,),
        takes_config=True,
        timeout_s=60.0,
    ),
    Route(
        "events",
        "GET",
        "/v1/events",
        "Server-sent events: `status` with a Status first, then `change` with a Change each. When "
        "configuration or stage change another `status` comes, in place of all that was told "
        "before; after `overrun` connect again",
        None,
        EVENT_STREAM,
        problems=(Kind.TOO_MANY_STREAMS,),
        timeout_s=None,
    ),
    Route(
        "validate",
        "POST",
        "/v1/config/validate",
        "Check a configuration; nothing is changed",
        ConfigSummary,
        takes_config=True,
        timeout_s=60.0,
    ),
    Route(
        "reload",
        "POST",
        "/v1/reload",
        "Read the configuration file again and put it in force",
        Reloaded,
        problems=(Kind.CONFIG_REFUSED,),
        timeout_s=120.0,
    ),
    Route(
        "healthz", "GET", "/v1/healthz", "Is the supervisor up?", Health, problems=(Kind.NOT_READY,)
    ),
    Route("metrics", "GET", "/metrics", "Prometheus metrics", None, METRICS, timeout_s=30.0),
    Route("openapi", "GET", "/v1/openapi.json", "This description", None),
    Route(
        "problem",
        "GET",
        "/v1/problems/{kind}",
        "What a kind of problem means",
        None,
        parameters=(Parameter("kind", "The last part of a problem's type", NAME, is_in_path=True),),
        problems=(Kind.NOT_FOUND,),
    ),
)
