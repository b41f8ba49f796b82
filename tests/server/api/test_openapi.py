"""The OpenAPI document says what the server does: requests nobody thinks of, made from it."""

import re
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import Case
from schemathesis.schemas import BaseSchema
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from helpers.live_server import LiveServer
from pyggml_server.api import v1
from pyggml_server.api.openapi import build_document
from pyggml_server.api.routes import OPERATIONS, describe

pytestmark = pytest.mark.model

NETWORK = ("/api/pull", "/api/push", "/api/create")
"""Routes that would ask other machines."""

FUZZED = [
    pytest.param(one.method, re.sub(r":\w+}", "}", one.path), id=f"{one.method} {one.path}")
    for one in (*map(describe, OPERATIONS), *v1.describe())
    if one.path not in NETWORK
]


@pytest.fixture(scope="session")
def api_schema(live: LiveServer) -> BaseSchema:
    return schemathesis.openapi.from_url(f"{live.url}/openapi.json")


def fuzz(schema: BaseSchema, method: str, path: str, *, examples: int, repeatable: bool) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=repeatable,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path][method].as_strategy())
    def run(case: Case[Any]) -> None:
        answer = case.call(timeout=60)
        assert answer.status_code < 500, f"{answer.status_code}: {answer.text[:500]}"
        case.validate_response(answer, checks=[status_code_conformance, response_schema_conformance])

    run()


@pytest.mark.parametrize(("method", "path"), FUZZED)
def test_few_requests(api_schema: BaseSchema, method: str, path: str) -> None:
    fuzz(api_schema, method, path, examples=4, repeatable=True)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "path"), FUZZED)
def test_many_requests(api_schema: BaseSchema, method: str, path: str) -> None:
    fuzz(api_schema, method, path, examples=200, repeatable=False)


def test_every_route_is_in_the_document(http: httpx2.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    for operation in OPERATIONS:
        assert operation.method.lower() in paths[operation.path]
    for path in ("/v1/chat/completions", "/v1/embeddings", "/v1/models", "/v1/responses", "/v1/messages"):
        assert path in paths
    ids = [operation["operationId"] for methods in paths.values() for operation in methods.values()]
    assert len(ids) == len(set(ids))


def test_bodies_are_described() -> None:
    document = build_document(map(describe, OPERATIONS), version="0")
    chat = document["paths"]["/api/chat"]["post"]
    assert chat["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/ChatRequest"}
    assert set(chat["responses"]["200"]["content"]) == {"application/json", "application/x-ndjson"}
    properties = document["components"]["schemas"]["ChatRequest"]["properties"]
    assert {"model", "messages", "tools", "think", "_debug_render_only", "load_progress"} <= set(properties)
    blob = document["paths"]["/api/blobs/{digest}"]
    assert blob["post"]["parameters"][0]["name"] == "digest"
