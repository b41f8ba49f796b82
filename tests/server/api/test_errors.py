"""Statuses and texts of errors: clients compare them."""

import json
from typing import Any

import httpx2
import pytest

from helpers.live_server import LiveServer
from pyggml_server.names import Name

pytestmark = pytest.mark.model

MODEL = "smol"
ASK = [{"role": "user", "content": "hello"}]
STRICT = {"type": "json_schema", "schema": {"type": "array", "uniqueItems": True}, "strict": True}


@pytest.mark.parametrize(
    ("path", "body", "status", "error"),
    [
        ("/api/chat", {"model": "none", "messages": ASK}, 404, "model 'none' not found"),
        ("/api/generate", {"model": "none", "prompt": "a"}, 404, "model 'none' not found"),
        ("/api/generate", {"model": "a/b/c/d/e", "prompt": "a"}, 404, "model 'a/b/c/d/e' not found"),
        ("/api/embed", {"model": "none", "input": "a"}, 404, "model 'none' not found"),
        ("/api/show", {"model": "none"}, 404, "model 'none' not found"),
        ("/api/push", {"model": "none"}, 404, "model 'none' not found"),
        ("/api/copy", {"source": "none", "destination": "b"}, 404, 'model "none" not found'),
        ("/api/copy", {"source": "a b", "destination": "b"}, 400, 'source "a b" is invalid'),
        ("/api/copy", {"source": MODEL, "destination": "b:"}, 400, 'destination "b:" is invalid'),
        ("/api/chat", {"messages": ASK}, 400, "model is required"),
        ("/api/generate", {"model": "", "prompt": "a"}, 400, "model is required"),
        ("/api/show", {}, 400, "model is required"),
        ("/api/pull", {"model": ""}, 400, "invalid model name"),
        ("/api/create", {"model": "../x", "from": "y"}, 400, "invalid model name"),
        ("/api/chat", {"model": "big:cloud", "messages": ASK}, 403, "model 'big:cloud' runs in a cloud"),
        ("/api/chat", {"model": MODEL, "messages": ASK, "top_logprobs": 21}, 400,
         "top_logprobs must be between 0 and 20"),
        ("/api/chat", {"model": MODEL, "messages": ASK, "think": True}, 400, '"smol" does not support thinking'),
        ("/api/chat", {"model": MODEL, "messages": ASK, "think": "hard"}, 400, 'invalid think value: "hard"'),
        ("/api/generate", {"model": MODEL, "prompt": "a", "suffix": "b"}, 400,
         "registry.ollama.ai/library/smol:latest does not support insert"),
        ("/api/generate", {"model": MODEL, "prompt": "a", "template": "{{"}, 400, "the Go template cannot be parsed"),
        ("/api/generate", {"model": "minilm", "prompt": "a"}, 400, '"minilm" does not support generate'),
        ("/api/chat", {"model": "minilm", "messages": ASK}, 400, '"minilm" does not support chat'),
        ("/api/generate", {"model": MODEL, "prompt": "a", "images": ["aGk="]}, 400, '"smol" does not support images'),
        ("/api/chat", {"model": MODEL, "messages": [{**ASK[0], "images": ["aGk="]}]}, 400,
         '"smol" does not support images'),
        ("/api/chat", {"model": MODEL, "messages": ASK, "format": "xml"}, 400,
         'invalid format: "xml"; expected "json" or a valid JSON Schema object'),
        ("/api/chat", {"model": MODEL, "messages": ASK, "format": {"type": "gbnf", "grammar": "root ::= ("}}, 400, ""),
        ("/api/chat", {"model": MODEL, "messages": ASK, "format": STRICT}, 400, "the JSON schema is refused"),
        ("/api/chat", {"model": MODEL, "messages": ASK, "options": {"top_k": "x"}}, 400,
         'option "top_k" must be of type integer'),
        ("/api/chat", {"model": MODEL, "messages": ASK, "options": {"repeat_penalty": 0}}, 400, "repeat_penalty"),
        ("/api/chat", {"model": MODEL, "messages": ASK, "keep_alive": "soon"}, 400, "keep_alive: "),
        ("/api/rerank", {"model": MODEL, "query": "a", "documents": ["b"]}, 400, "does not support rerank"),
        ("/api/me", {}, 403, "/api/me needs an account"),
    ],
)  # fmt: skip
def test_error(http: httpx2.Client, path: str, body: dict[str, Any], status: int, error: str) -> None:
    answer = http.post(path, json=body)
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json; charset=utf-8"
    assert set(answer.json()) == {"error"}
    assert answer.json()["error"].startswith(error) or (path == "/api/rerank" and error in answer.json()["error"])


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"", "missing request body"), (b"{", "Input data was truncated"), (b"[]", "Expected `object`")],
)
def test_bad_bodies(http: httpx2.Client, content: bytes, error: str) -> None:
    answer = http.post("/api/chat", content=content)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(error)


def test_weights_that_are_gone(live: LiveServer, http: httpx2.Client) -> None:
    """Clients pull again what is not found."""
    source, broken = (live.store.manifests.path(Name.parse(name)) for name in (MODEL, "gone"))
    document = json.loads(source.read_text())
    for layer in document["layers"]:
        if layer["mediaType"].endswith(".model"):
            layer["digest"] = f"sha256:{'7' * 64}"
    broken.parent.mkdir(parents=True)
    broken.write_text(json.dumps(document))
    for path, body in (("/api/chat", {"messages": ASK}), ("/api/embed", {"input": "a"}), ("/api/show", {})):
        answer = http.post(path, json={"model": "gone", **body})
        assert (answer.status_code, answer.json()) == (404, {"error": 'model "gone" not found, try pulling it first'})
    assert http.request("DELETE", "/api/delete", json={"model": "gone"}).status_code == 200


def test_delete(http: httpx2.Client) -> None:
    answer = http.request("DELETE", "/api/delete", json={"model": "none"})
    assert (answer.status_code, answer.json()) == (404, {"error": "model 'none' not found"})
    answer = http.request("DELETE", "/api/delete", json={"model": "a b"})
    assert (answer.status_code, answer.json()) == (400, {"error": 'name "a b" is invalid'})


def test_blobs(http: httpx2.Client) -> None:
    assert http.head(f"/api/blobs/sha256:{'0' * 64}").status_code == 404
    for digest in ("sha256:12", "..%2f..%2fetc%2fpasswd", "md5:" + "0" * 32):
        assert http.head(f"/api/blobs/{digest}").status_code in (400, 404)
    wrong = http.post(f"/api/blobs/sha256:{'0' * 64}", content=b"hello")
    assert wrong.status_code == 400
    digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"
    assert http.post(f"/api/blobs/{digest}", content=b"hello").status_code == 201
    assert http.post(f"/api/blobs/{digest}", content=b"hello").status_code == 200
    assert http.head(f"/api/blobs/{digest}").status_code == 200
