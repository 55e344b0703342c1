"""The local API: status for people and programs on this box, never for the network.

It reads the supervisor's StatusSource and decides nothing. It listens on a Unix socket only
(`appliance/api/listen.py`); who may open the socket may ask. Every error is answered with problem
details (RFC 9457) that say what to do next.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from aiohttp import web

from appliance import __version__
from appliance.api.openapi import render
from appliance.api.problems import (
    PROBLEM_KINDS,
    ApiError,
    DiskHangsError,
    Kind,
    UnknownName,
    config_problems,
    problem,
)
from appliance.api.requests import BODY_OCTETS, config_text, parameters
from appliance.api.routes import JSON, METRICS, ROUTES, Route
from appliance.api.source import FlowQuery, HistoryQuery, StatusSource
from appliance.api.stream import STREAMS, end_streams, stream_events
from appliance.config.errors import ConfigError, Malformed
from appliance.config.flow import parse_flow
from appliance.config.intent import Intent, paths
from appliance.config.load import parse_config
from appliance.contract.codec import adapter, encode
from appliance.contract.decision import Move
from appliance.contract.problem import PROBLEM_TYPE, Problem
from appliance.contract.status import (
    Change,
    ClassStatus,
    ConfigStatus,
    ConfigSummary,
    Counters,
    PathStatus,
    PlanText,
    RecorderStatus,
    UplinkStatus,
    WarningStatus,
)
from appliance.turns import encode_in_turns, encode_rows

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

log = logging.getLogger(__name__)

# What is told by itself rather than as a part of an answer.
_PARTS = {
    *(Change, Move, UplinkStatus, PathStatus, ClassStatus, WarningStatus),
    *(ConfigStatus, RecorderStatus, Counters),
}


class Call(NamedTuple):
    """One request, with its parameters read."""

    source: StatusSource
    route: Route
    request: web.Request
    asked: dict[str, Any]


def create_app(source: StatusSource) -> web.Application:
    """The application of every route in the table."""
    app = web.Application(middlewares=[_problems], client_max_size=BODY_OCTETS)
    app[STREAMS] = set()
    app.on_shutdown.append(end_streams)
    for kind in {route.answer for route in ROUTES if route.answer is not None} | _PARTS:
        adapter(kind)  # now, when no packet waits, rather than at the first request
    for route in ROUTES:
        app.router.add_route(route.method, route.path, partial(_answer, source, route))
    return app


async def _answer(source: StatusSource, route: Route, request: web.Request) -> web.StreamResponse:
    call = Call(source, route, request, parameters(request, route))
    async with asyncio.timeout(route.timeout_s):
        return await _ANSWERS[route.operation](call)


@web.middleware
async def _problems(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Turn what went wrong into problem details."""
    try:
        return await handler(request)
    except ApiError as error:
        return _problem_response(error.problem)
    except UnknownName as error:
        return _problem_response(problem(Kind.UNKNOWN_NAME, str(error)))
    except ConfigError as error:
        errors = config_problems(error)
        text = f"{error.name}: {len(errors)} error{'s' if len(errors) != 1 else ''}."
        return _problem_response(problem(Kind.CONFIG_REFUSED, text, errors))
    except DiskHangsError as error:
        return _problem_response(problem(Kind.DISK_HANGS, f"{str(error).capitalize()}."))
    except TimeoutError:
        return _problem_response(problem(Kind.TIMED_OUT, f"{request.path} took too long."))
    except web.HTTPException as error:  # aiohttp's own: no route, wrong method, body too large
        kind = _KIND_OF_STATUS.get(error.status, Kind.BAD_REQUEST)
        response = _problem_response(problem(kind, f"{request.method} {request.path}"))
        if "Allow" in error.headers:
            response.headers["Allow"] = error.headers["Allow"]
        return response
    except Exception:  # the rim of a request: it must not take the connection down unanswered
        log.exception("request failed", extra={"path": request.path})
        return _problem_response(problem(Kind.INTERNAL, "The log of the supervisor says more."))


_KIND_OF_STATUS = {404: Kind.NOT_FOUND, 405: Kind.METHOD_NOT_ALLOWED, 413: Kind.TOO_LARGE}


def _problem_response(details: Problem) -> web.Response:
    return web.Response(body=encode(details), status=details.status, content_type=PROBLEM_TYPE)


def _json(value: object) -> web.Response:
    return web.Response(body=encode(value), content_type=JSON)


def _long_json(value: "DataclassInstance") -> web.Response:
    """An answer that may have megabytes: it is sent while it is encoded."""
    return web.Response(body=encode_in_turns(value), content_type=JSON)


async def _status(call: Call) -> web.Response:
    return _long_json(await call.source.status())


async def _rows(call: Call) -> web.Response:
    """Uplinks, paths, classes or warnings: a part of the status, filtered by the parameters."""
    call.source.look_up(call.asked.get("class"), call.asked.get("site"))
    wanted = {
        {"class": "class_name"}.get(name, name): value
        for name, value in call.asked.items()
        if value is not None
    }
    part: Any = call.route.operation  # its name is that of the part
    rows = (
        row if all(getattr(row, name) == value for name, value in wanted.items()) else None
        for row in call.source.rows(part)
    )
    return web.Response(body=encode_rows(rows), content_type=JSON)


async def _why(call: Call) -> web.Response:
    return _json(call.source.why(call.asked["class"], call.asked["site"]))


async def _classify(call: Call) -> web.Response:
    asked = {{"from": "source", "to": "destination"}.get(n, n): v for n, v in call.asked.items()}
    try:
        flow = parse_flow(**asked)
    except Malformed as error:
        hint = f" ({error.hint})" if error.hint else ""
        raise ApiError(Kind.BAD_REQUEST, f"{error}{hint}.") from error
    return _json(await call.source.classify(flow))


async def _flows(call: Call) -> web.Response:
    query = FlowQuery(call.asked["limit"], call.asked["class"])
    call.source.look_up(query.class_name, None)
    return _long_json(await call.source.flows(query))


async def _history(call: Call) -> web.Response:
    asked = call.asked
    query = HistoryQuery(asked["limit"], asked["class"], asked["site"], asked["since"])
    return _long_json(await call.source.history(query))


async def _plan(call: Call) -> web.Response:
    dry_run = call.asked["dry_run"]
    candidate = await _candidate(call.request) if call.route.takes_config else None
    commands = await call.source.plan_text(dry_run=dry_run, candidate=candidate)
    return _long_json(PlanText(commands, dry_run))


async def _validate(call: Call) -> web.Response:
    intent = await _candidate(call.request)
    return _json(
        ConfigSummary(
            site=intent.site,
            site_id=intent.site_id,
            uplinks=len(intent.uplinks),
            peers=len(intent.peers),
            classes=len(intent.classes),
            paths=len(paths(intent)),
        )
    )


async def _candidate(request: web.Request) -> Intent:
    """The configuration in the body. A thread reads it: a hub's file takes seconds."""
    text = await config_text(request)
    return await asyncio.to_thread(parse_config, text, "candidate")


async def _reload(call: Call) -> web.Response:
    return _json(await call.source.reload())


async def _healthz(call: Call) -> web.Response:
    health = call.source.health()
    if health.stage != "running":
        raise ApiError(Kind.NOT_READY, f"It is {health.stage}.")
    return _json(health)


async def _metrics(call: Call) -> web.Response:
    return web.Response(body=await call.source.metrics(), headers={"Content-Type": METRICS})


async def _openapi(call: Call) -> web.Response:  # noqa: ARG001 - says the same to everybody
    return web.Response(text=render(__version__), content_type=JSON)


async def _problem(call: Call) -> web.Response:
    kind = call.asked["kind"]
    if kind not in PROBLEM_KINDS:
        raise ApiError(Kind.NOT_FOUND, f"There is no problem {kind!r}.")
    return web.Response(text=json.dumps(asdict(PROBLEM_KINDS[kind])), content_type=JSON)


async def _events(call: Call) -> web.StreamResponse:
    return await stream_events(call.source, call.request)


_ANSWERS: dict[str, Callable[[Call], Awaitable[web.StreamResponse]]] = {
    "status": _status,
    "uplinks": _rows,
    "paths": _rows,
    "classes": _rows,
    "warnings": _rows,
    "why": _why,
    "classify": _classify,
    "flows": _flows,
    "history": _history,
    "plan": _plan,
    "plan_candidate": _plan,
    "events": _events,
    "validate": _validate,
    "reload": _reload,
    "healthz": _healthz,
    "metrics": _metrics,
    "openapi": _openapi,
    "problem": _problem,
}
