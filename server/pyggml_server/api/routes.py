"""The table of routes: Ollama's, and those that it lacks."""

from typing import Any, Final

from pyggml_server.api import answers as out
from pyggml_server.api import embedding, inference, management, status, tokens
from pyggml_server.api import schema as into
from pyggml_server.api.endpoint import Operation
from pyggml_server.api.openapi import Description

__all__ = ["OPERATIONS", "describe"]

_BUSY: Final = {400: "The request cannot be served.", 404: "No such model.", 503: "Too many requests wait."}
_FIND: Final = {400: "The request cannot be served.", 404: "No such model."}
_TEXT: Final = "text/plain"
_CLOUD: Final = {403: "Needs an account at ollama.com."}


def _post(path: str, handler: Any, summary: str, body: Any, answer: Any, **more: Any) -> Operation:
    more.setdefault("statuses", _BUSY)
    return Operation(method="POST", path=path, handler=handler, summary=summary, body=body, answer=answer, **more)


def _stream(path: str, handler: Any, summary: str, body: Any, answer: Any, **more: Any) -> Operation:
    return _post(path, handler, summary, body, answer, streams=True, **more)


def _get(path: str, handler: Any, summary: str, answer: Any = None, **more: Any) -> Operation:
    return Operation(method="GET", path=path, handler=handler, summary=summary, answer=answer, **more)


OPERATIONS: Final = (
    _get("/", status.banner, "Banner.", content_type=_TEXT),
    _get("/api/version", status.version, "Versions.", out.Version),
    _get("/api/status", status.status, "What goes on."),
    _get("/health", status.health, "Whether the server answers."),
    _get("/metrics", status.metrics, "Counters for Prometheus.", content_type=_TEXT),
    _stream("/api/generate", inference.generate, "Continue a prompt.", into.GenerateRequest, out.GenerateAnswer),
    _stream("/api/chat", inference.chat, "Answer a conversation.", into.ChatRequest, out.ChatAnswer),
    _post("/api/embed", embedding.embed, "Vectors of texts.", into.EmbedRequest, out.EmbedAnswer),
    _post("/api/embeddings", embedding.embeddings, "Vector of a text.", into.EmbeddingsRequest, out.EmbeddingsAnswer),
    _post("/api/rerank", embedding.rerank, "Order documents by a query.", into.RerankRequest, out.RerankAnswer),
    _post("/api/tokenize", tokens.tokenize, "Tokens of a text.", into.TokenizeRequest, out.Tokens, statuses=_FIND),
    _post("/api/detokenize", tokens.detokenize, "Text of tokens.", into.DetokenizeRequest, out.Text, statuses=_FIND),
    _get("/api/tags", management.tags, "Models in the store.", out.Models),
    _get("/api/ps", status.ps, "Models in memory.", out.RunningModels),
    _post("/api/show", management.show, "About a model.", into.ShowRequest, out.ShowAnswer, statuses=_FIND),
    _post("/api/copy", management.copy, "A second name.", into.CopyRequest, None, statuses=_FIND),
    Operation(
        method="DELETE", path="/api/delete", handler=management.delete, summary="Remove a model.",
        body=into.DeleteRequest, statuses=_FIND,
    ),
    _stream("/api/pull", management.pull, "Bring a model.", into.PullRequest, out.Progress, statuses=_FIND),
    _stream("/api/push", management.push, "Send a model.", into.PushRequest, out.Progress, statuses=_FIND),
    _stream("/api/create", management.create, "Make a model.", into.CreateRequest, out.Progress, statuses=_FIND),
    Operation(
        method="HEAD", path="/api/blobs/{digest}", handler=management.find_blob, summary="Whether a blob is there.",
        statuses={400: "No digest.", 404: "No such blob."},
    ),
    Operation(
        method="POST", path="/api/blobs/{digest}", handler=management.put_blob, summary="Store a blob.", upload=True,
        statuses={201: "Stored.", 400: "The digest is not that of the content."},
    ),
    *(
        Operation(method=method, path=path, handler=status.cloud_only, summary="Not here.", statuses=_CLOUD)
        for method, path in (
            ("POST", "/api/me"),
            ("POST", "/api/signout"),
            ("DELETE", "/api/user/keys/{key}"),
            ("POST", "/api/experimental/web_search"),
            ("POST", "/api/experimental/web_fetch"),
            ("GET", "/api/experimental/model-recommendations"),
        )
    ),
)  # fmt: skip
"""Every route but those below ``/v1``."""


def describe(operation: Operation) -> Description:
    """An operation for the OpenAPI document."""
    return Description(
        method=operation.method,
        path=operation.path,
        summary=operation.summary,
        body=operation.body,
        answer=operation.answer,
        stream_type="application/x-ndjson" if operation.streams else None,
        statuses=operation.statuses,
        content_type=operation.content_type,
        upload=operation.upload,
    )
