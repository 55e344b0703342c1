"""The OpenAPI 3.1 description of the local API, made from the routes and the wire types."""

import json
from typing import Any

from pydantic import TypeAdapter

from appliance.api.problems import PROBLEM_KINDS, Kind
from appliance.api.routes import JSON, ROUTES, YAML, Parameter, Route
from appliance.contract.codec import adapter
from appliance.contract.problem import PROBLEM_TYPE, Problem
from appliance.contract.status import Change

_COMMON_PROBLEMS = (Kind.BAD_REQUEST, Kind.INTERNAL, Kind.TIMED_OUT)
_CONFIG_PROBLEMS = (Kind.TOO_LARGE, Kind.UNSUPPORTED_MEDIA_TYPE, Kind.CONFIG_REFUSED)


def describe(version: str) -> dict[str, Any]:
    """The whole description of the API of this version of Branchline."""
    kinds: dict[Any, TypeAdapter[Any]] = {
        kind: adapter(kind) for kind in (*_answers(), Problem, Change)
    }
    schemas, definitions = TypeAdapter.json_schemas(
        [(repr(kind), "serialization", one) for kind, one in kinds.items()],
        ref_template="#/components/schemas/{model}",
    )
    by_kind = {kind: schemas[repr(kind), "serialization"] for kind in kinds}
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_kind)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Branchline local API",
            "version": version,
            "summary": "Status and control of one box, on a Unix socket.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://localhost/", "description": "over the Unix socket"}],
        "paths": paths,
        "components": {"schemas": definitions.get("$defs", {})},
    }


def render(version: str) -> str:
    """The description as it is published in docs/openapi.json."""
    return json.dumps(describe(version), indent=2) + "\n"


def _answers() -> tuple[Any, ...]:
    return tuple({route.answer: None for route in ROUTES if route.answer is not None})


def _operation(route: Route, schemas: dict[Any, Any]) -> dict[str, Any]:
    answer = schemas[route.answer] if route.answer is not None else _free_form(route)
    operation: dict[str, Any] = {
        "operationId": route.operation,
        "summary": route.summary,
        "responses": {
            "200": {
                "description": route.summary,
                "content": {route.content_type.split(";")[0]: {"schema": answer}},
            }
        }
        | _problem_responses(route, schemas[Problem]),
    }
    if route.parameters:
        operation["parameters"] = [_parameter(p) for p in route.parameters]
    if route.takes_config:
        operation["requestBody"] = {
            "description": "A configuration file, see docs/CONFIGURATION.md",
            "required": True,
            "content": {YAML: {"schema": {"type": "string"}}, JSON: {"schema": {"type": "object"}}},
        }
    return operation


def _free_form(route: Route) -> dict[str, Any]:
    return {"type": "object"} if route.content_type == JSON else {"type": "string"}


def _parameter(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": "path" if parameter.is_in_path else "query",
        "required": parameter.is_in_path or parameter.is_required,
        "description": parameter.text,
        "schema": parameter.schema,
    }


def _problem_responses(route: Route, schema: dict[str, Any]) -> dict[str, Any]:
    kinds = route.problems + _COMMON_PROBLEMS + (_CONFIG_PROBLEMS if route.takes_config else ())
    titles: dict[str, list[str]] = {}
    for kind in kinds:
        titles.setdefault(str(PROBLEM_KINDS[kind].status), []).append(PROBLEM_KINDS[kind].title)
    return {
        status: {
            "description": "; ".join(titles[status]),
            "content": {PROBLEM_TYPE: {"schema": schema}},
        }
        for status in sorted(titles)
    }
