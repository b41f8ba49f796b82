"""The routes below ``/v1``: one table, for the server and for the OpenAPI document."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from starlette.routing import Route

from pyggml_server.api.openapi import Description
from pyggml_server.api.state import ApiState
from pyggml_server.api.v1.anthropic import CountTokens, Messages
from pyggml_server.api.v1.anthropic_types import CountRequest, MessagesRequest, Reply
from pyggml_server.api.v1.chat import ChatCompletions
from pyggml_server.api.v1.chat_types import ChatRequest, Completion
from pyggml_server.api.v1.chunk_types import ChatChunk, TextChunk, TypedEvent
from pyggml_server.api.v1.completion_types import CompletionRequest, TextCompletion
from pyggml_server.api.v1.completions import Completions
from pyggml_server.api.v1.connection import AnthropicForm, Endpoint, Handler, OpenAIForm
from pyggml_server.api.v1.embeddings import EmbeddingList, EmbeddingRequest, Embeddings
from pyggml_server.api.v1.models import ModelCard, ModelList, Models, OneModel
from pyggml_server.api.v1.rerank import Rerank, Reranking, RerankRequest
from pyggml_server.api.v1.responses import Responses
from pyggml_server.api.v1.responses_types import ResponsesRequest

__all__ = ["describe", "routes"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Line:
    path: str
    summary: str
    make: Callable[[ApiState], Handler]
    method: str = "POST"
    body: Any = None
    answer: Any = None
    event: Any = None
    tag: str = "openai"


_TABLE: Final = (
    _Line(
        path="/v1/chat/completions",
        summary="Answer a conversation",
        make=lambda state: ChatCompletions(state.generator),
        body=ChatRequest,
        answer=Completion,
        event=ChatChunk,
    ),
    _Line(
        path="/v1/completions",
        summary="Continue texts",
        make=lambda state: Completions(state.generator),
        body=CompletionRequest,
        answer=TextCompletion,
        event=TextChunk,
    ),
    _Line(
        path="/v1/embeddings",
        summary="Vectors of texts",
        make=lambda state: Embeddings(state.vectors),
        body=EmbeddingRequest,
        answer=EmbeddingList,
    ),
    _Line(
        path="/v1/messages",
        summary="Answer a conversation, in Anthropic's form",
        make=lambda state: Messages(state.generator),
        body=MessagesRequest,
        answer=Reply,
        event=TypedEvent,
        tag="anthropic",
    ),
    _Line(
        path="/v1/messages/count_tokens",
        summary="Count the tokens of a conversation, without loading the model's weights",
        make=lambda state: CountTokens(state.generator),
        body=CountRequest,
        answer=dict[str, int],
        tag="anthropic",
    ),
    _Line(
        path="/v1/models",
        summary="All models",
        make=lambda state: Models(state.catalog),
        method="GET",
        answer=ModelList,
    ),
    _Line(
        path="/v1/models/{model:path}",
        summary="One model",
        make=lambda state: OneModel(state.catalog),
        method="GET",
        answer=ModelCard,
    ),
    _Line(
        path="/v1/rerank",
        summary="Order documents by how well they answer a query",
        make=lambda state: Rerank(state.vectors),
        body=RerankRequest,
        answer=Reranking,
        tag="cohere",
    ),
    _Line(
        path="/v1/responses",
        summary="Answer a conversation, in the form of OpenAI's Responses API",
        make=lambda state: Responses(state.generator),
        body=ResponsesRequest,
        answer=dict[str, Any],
        event=TypedEvent,
    ),
)


def routes(state: ApiState) -> list[Route]:
    """The routes, each with its handler."""
    return [
        Route(
            line.path,
            Endpoint(line.make(state), AnthropicForm if line.tag == "anthropic" else OpenAIForm),
            methods=[line.method],
        )
        for line in _TABLE
    ]


def describe() -> list[Description]:
    """The routes as the OpenAPI document tells of them."""
    return [_description(line) for line in _TABLE]


def _description(line: _Line) -> Description:
    statuses = {404: "There is no model of that name."}
    if line.body is not None:
        statuses |= {400: "The request cannot be served as it stands.", 503: "Too many requests wait already."}
    return Description(
        method=line.method,
        path=line.path,
        summary=line.summary,
        body=line.body,
        answer=line.answer,
        stream_type="text/event-stream" if line.event is not None else None,
        event=line.event,
        statuses=statuses,
        tag=line.tag,
    )
