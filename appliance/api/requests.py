"""What a request says, checked: parameters and bodies of the API. Raises ApiError for the rest."""

from typing import Any
from urllib.parse import parse_qsl

from aiohttp import web

from appliance.api.problems import ApiError, Kind
from appliance.api.routes import JSON, YAML, Parameter, Route

BODY_OCTETS = 1 << 20
_CONFIG_TYPES = (YAML, JSON, "text/yaml", "text/plain", "application/x-yaml")


def parameters(request: web.Request, route: Route) -> dict[str, Any]:
    """Every parameter of the route by name; None when it is absent and has no default."""
    given: dict[str, str] = {}
    try:
        pairs = parse_qsl(
            request.rel_url.raw_query_string,
            keep_blank_values=True,
            max_num_fields=32,
            errors="strict",
        )
    except ValueError as error:
        raise ApiError(Kind.BAD_REQUEST, f"The query cannot be read: {error}.") from error
    in_query = {p.name for p in route.parameters if not p.is_in_path}
    for name, value in pairs:
        if name not in in_query:
            raise ApiError(Kind.BAD_REQUEST, f"{route.path} has no parameter {name!r}.")
        if name in given:
            raise ApiError(Kind.BAD_REQUEST, f"The parameter {name!r} stands twice.")
        given[name] = value
    given |= request.match_info
    for parameter in route.parameters:
        if parameter.is_required and parameter.name not in given:
            raise ApiError(Kind.BAD_REQUEST, f"The parameter {parameter.name!r} is missing.")
    return {
        p.name: _value(p, given[p.name]) if p.name in given else p.schema.get("default")
        for p in route.parameters
    }


def _value(parameter: Parameter, text: str) -> object:
    schema = parameter.schema
    if schema["type"] == "boolean":
        if text in ("true", "false"):
            return text == "true"
        raise ApiError(Kind.BAD_REQUEST, f"{parameter.name} is true or false.")
    if schema["type"] == "string":
        if schema["minLength"] <= len(text) <= schema["maxLength"]:
            return text
        raise ApiError(
            Kind.BAD_REQUEST,
            f"{parameter.name} has {schema['minLength']} to {schema['maxLength']} characters.",
        )
    try:
        number = int(text) if schema["type"] == "integer" else float(text)
    except ValueError:
        number = float("nan")
    if schema["minimum"] <= number <= schema["maximum"]:
        return number
    raise ApiError(
        Kind.BAD_REQUEST,
        f"{parameter.name} is a number from {schema['minimum']} to {schema['maximum']:.0f}.",
    )


async def config_text(request: web.Request) -> str:
    """The configuration in the body, at most BODY_OCTETS in UTF-8."""
    if request.content_type not in _CONFIG_TYPES:
        raise ApiError(Kind.UNSUPPORTED_MEDIA_TYPE, f"This is {request.content_type}.")
    if "Content-Encoding" in request.headers:
        raise ApiError(Kind.UNSUPPORTED_MEDIA_TYPE, "The body must not be compressed.")
    try:
        return (await request.read()).decode()
    except UnicodeDecodeError as error:
        raise ApiError(Kind.BAD_REQUEST, f"The body is not UTF-8: {error.reason}.") from error
