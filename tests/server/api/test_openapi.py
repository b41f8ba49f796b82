"""The OpenAPI document says what the server does: requests nobody thinks of, made from it."""

import json
import re
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from jsonschema import Draft202012Validator
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


ASKING = [
    pytest.param(path, model, id=f"{path} {model}")
    for path, models in {
        "/api/generate": ("smol", "thinks", "channels"),
        "/api/chat": ("smol", "tools", "thinks", "channels"),
        "/api/embed": ("minilm",),
        "/api/embeddings": ("smol",),
        "/api/tokenize": ("tools",),
        "/api/detokenize": ("smol",),
        "/api/show": ("thinks",),
        "/v1/chat/completions": ("smol", "tools", "channels"),
        "/v1/completions": ("smol",),
        "/v1/embeddings": ("minilm",),
        "/v1/responses": ("tools", "thinks"),
        "/v1/messages": ("tools", "thinks"),
        "/v1/messages/count_tokens": ("tools",),
        "/v1/rerank": ("minilm",),
    }.items()
    for model in models
]
"""Routes whose requests mean something only with a model that is there."""


def with_model(body: Any, path: str, model: str) -> Any:
    """The same request, of a model that is there, for a short answer."""
    if not isinstance(body, dict):
        return body
    body = {**body, "model": model}
    if path.startswith("/v1/"):
        limits = {"/v1/responses": "max_output_tokens", "/v1/embeddings": None, "/v1/rerank": None}
        limit = limits.get(path, "max_tokens")
        body |= {limit: 4} if limit is not None else {}
        body.pop("max_completion_tokens", None)
    if isinstance(body.get("options"), dict):
        # a context of another size would load the model anew for every request
        body["options"] = {**body["options"], "num_predict": 4, "num_ctx": 256}
    body.pop("num_ctx", None)
    return body


def fuzz(
    schema: BaseSchema, method: str, path: str, *, examples: int, repeatable: bool, model: str | None = None
) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=repeatable,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema[path][method].as_strategy())
    def run(case: Case[Any]) -> None:
        if model is not None:
            case.body = with_model(case.body, path, model)
        answer = case.call(timeout=60)
        assert answer.status_code < 500, f"{answer.status_code}: {answer.text[:500]}"
        case.validate_response(answer, checks=[status_code_conformance, response_schema_conformance])

    run()


@pytest.mark.parametrize(("method", "path"), FUZZED)
def test_few_requests(api_schema: BaseSchema, method: str, path: str) -> None:
    fuzz(api_schema, method, path, examples=4, repeatable=True)


@pytest.mark.parametrize(("path", "model"), ASKING)
def test_few_requests_to_a_model(api_schema: BaseSchema, path: str, model: str) -> None:
    fuzz(api_schema, "POST", path, examples=3, repeatable=True, model=model)


@pytest.mark.slow
@pytest.mark.parametrize(("path", "model"), ASKING)
def test_many_requests_to_a_model(api_schema: BaseSchema, path: str, model: str) -> None:
    fuzz(api_schema, "POST", path, examples=100, repeatable=False, model=model)


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


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}], "logprobs": True}),
        ("/v1/completions", {"prompt": "hi", "logprobs": 1, "n": 2}),
        ("/v1/messages", {"messages": [{"role": "user", "content": "hi"}]}),
        ("/v1/responses", {"input": "hi"}),
    ],
)
def test_events_are_what_the_document_says(http: httpx2.Client, path: str, body: dict[str, Any]) -> None:
    document = http.get("/openapi.json").json()
    schema = document["paths"][path]["post"]["responses"]["200"]["content"]["text/event-stream"]["schema"]
    held = schema["properties"]["data"]["anyOf"][1]["contentSchema"]
    check = Draft202012Validator({**held, "components": document["components"]})
    limit = "max_output_tokens" if path == "/v1/responses" else "max_tokens"
    usage = {"stream_options": {"include_usage": True}} if "completions" in path else {}
    text = http.post(path, json={"model": "smol", "stream": True, limit: 4, **usage, **body}).text
    events = [line[len("data: ") :] for line in text.splitlines() if line.startswith("data: ")]
    assert len(events) > 3
    for event in events:
        if event != "[DONE]":
            check.validate(json.loads(event))
    assert not check.is_valid({})
