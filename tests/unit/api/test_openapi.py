"""The OpenAPI description: valid, published, and true of the real server."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from requests.adapters import HTTPAdapter
from schemathesis.specs.openapi.checks import positive_data_acceptance
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from appliance import __version__
from appliance.api.openapi import describe, render
from appliance.api.routes import ROUTES
from tests.unit.api.running import Server, running
from tests.unit.api.scripted import ScriptedSource

PUBLISHED = Path(__file__).parents[3] / "docs" / "openapi.json"


def test_it_is_a_valid_openapi_3_1_description() -> None:
    errors = list(OpenAPIV31SpecValidator(describe(__version__)).iter_errors())
    assert errors == []


def test_the_published_one_is_not_stale() -> None:
    """`python -m tools.publish_openapi` renews it."""
    assert PUBLISHED.read_text() == render(__version__)


def test_every_object_says_whether_more_may_be_in_it() -> None:
    for name, schema in describe(__version__)["components"]["schemas"].items():
        if schema["type"] == "object":
            assert schema["additionalProperties"] is False, name


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with running(ScriptedSource(), tmp_path_factory.mktemp("api")) as server:
        yield server


def test_the_server_publishes_it(server: Server) -> None:
    assert server.get("/v1/openapi.json").json() == json.loads(render(__version__))


class UnixAdapter(HTTPAdapter):
    """Lets `requests`, and so schemathesis, talk to the real socket."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    def get_connection_with_tls_context(self, *_: Any, **__: Any) -> HTTPConnectionPool:
        server = self._server

        class Connection(HTTPConnection):
            def connect(self) -> None:
                self.sock = server.connect()

        class Pool(HTTPConnectionPool):
            ConnectionCls = Connection

        return Pool("localhost")


SCHEMA = schemathesis.openapi.from_dict(describe(__version__))
SCHEMA.config.update(base_url="http://localhost")


# An endless answer is no case for it (see test_stream.py), nor can it know a valid configuration or
# which parts of a flow go together.
@SCHEMA.exclude(operation_id="events").parametrize()
@settings(
    max_examples=30,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_answer_breaks_the_description(case: schemathesis.Case, server: Server) -> None:
    beyond = {route.operation for route in ROUTES if route.takes_config} | {"classify"}
    operation = case.operation.definition.raw["operationId"]
    with requests.Session() as session:
        session.mount("http://localhost", UnixAdapter(server))
        case.call_and_validate(
            session=session,
            excluded_checks=[positive_data_acceptance] if operation in beyond else [],
        )
