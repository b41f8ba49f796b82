"""Requests of Ollama's API. What is null counts as absent, as in Go."""

from typing import Any

import msgspec

from pyggml_server.api.bodies import Int32

__all__ = [
    "ChatRequest",
    "CopyRequest",
    "CreateRequest",
    "DeleteRequest",
    "DetokenizeRequest",
    "EmbedRequest",
    "EmbeddingsRequest",
    "GenerateRequest",
    "InFunction",
    "InMessage",
    "InToolCall",
    "PullRequest",
    "PushRequest",
    "RerankRequest",
    "ShowRequest",
    "TokenizeRequest",
]


class InFunction(msgspec.Struct, kw_only=True):
    """A call in a message of the history."""

    name: str
    arguments: dict[str, Any] | None = None
    index: int | None = None


class InToolCall(msgspec.Struct, kw_only=True):
    """A call in a message of the history."""

    function: InFunction
    id: str | None = None


class InMessage(msgspec.Struct, kw_only=True):
    """A message."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[InToolCall] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class _Model(msgspec.Struct, kw_only=True):
    """What every request about a model has."""

    model: str | None = None


class _Answering(_Model, kw_only=True):
    """What chat and generate have in common."""

    stream: bool | None = None
    format: Any = None
    options: dict[str, Any] | None = None
    keep_alive: int | float | str | None = None
    think: bool | str | None = None
    truncate: bool | None = None
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    priority: Int32 | None = None
    load_progress: bool | None = None
    debug_render_only: bool | None = msgspec.field(name="_debug_render_only", default=None)


class ChatRequest(_Answering, kw_only=True):
    """Body of ``POST /api/chat``."""

    messages: list[InMessage] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None


class GenerateRequest(_Answering, kw_only=True):
    """Body of ``POST /api/generate``."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    template: str | None = None
    context: list[int] | None = None
    raw: bool | None = None
    images: list[str] | None = None


class EmbedRequest(_Model, kw_only=True):
    """Body of ``POST /api/embed``."""

    input: Any = None
    truncate: bool | None = None
    dimensions: Int32 | None = None
    options: dict[str, Any] | None = None
    keep_alive: int | float | str | None = None
    priority: Int32 | None = None


class EmbeddingsRequest(_Model, kw_only=True):
    """Body of ``POST /api/embeddings``."""

    prompt: str | None = None
    options: dict[str, Any] | None = None
    keep_alive: int | float | str | None = None


class RerankRequest(_Model, kw_only=True):
    """Body of ``POST /api/rerank``."""

    query: str
    documents: list[str]
    top_n: int | None = None
    return_documents: bool | None = None
    truncate: bool | None = None
    options: dict[str, Any] | None = None
    keep_alive: int | float | str | None = None
    priority: Int32 | None = None


class TokenizeRequest(_Model, kw_only=True):
    """Body of ``POST /api/tokenize``: a text, or the messages of a chat, whose template is applied first."""

    text: str | None = None
    content: str | None = None
    messages: list[InMessage] | None = None
    tools: list[dict[str, Any]] | None = None
    think: bool | str | None = None
    add_special: bool | None = None
    parse_special: bool | None = None
    with_pieces: bool | None = None


class DetokenizeRequest(_Model, kw_only=True):
    """Body of ``POST /api/detokenize``."""

    tokens: list[int]
    skip_special: bool | None = None


class ShowRequest(_Model, kw_only=True):
    """Body of ``POST /api/show``."""

    name: str | None = None
    system: str | None = None
    template: str | None = None
    verbose: bool | None = None
    options: dict[str, Any] | None = None


class CopyRequest(msgspec.Struct, kw_only=True):
    """Body of ``POST /api/copy``."""

    source: str
    destination: str


class DeleteRequest(_Model, kw_only=True):
    """Body of ``DELETE /api/delete``."""

    name: str | None = None


class PullRequest(_Model, kw_only=True):
    """Body of ``POST /api/pull``."""

    name: str | None = None
    insecure: bool | None = None
    stream: bool | None = None
    username: str | None = None
    password: str | None = None


class PushRequest(PullRequest, kw_only=True):
    """Body of ``POST /api/push``."""


class CreateRequest(_Model, kw_only=True):
    """Body of ``POST /api/create``."""

    name: str | None = None
    stream: bool | None = None
    quantize: str | None = None
    quantization: str | None = None
    from_: str | None = msgspec.field(name="from", default=None)
    files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    draft_files: dict[str, str] | None = None
    draft_quantize: str | None = None
    remote_host: str | None = None
    template: str | None = None
    license: str | list[str] | None = None
    system: str | None = None
    parameters: dict[str, Any] | None = None
    messages: list[InMessage] | None = None
    renderer: str | None = None
    parser: str | None = None
    requires: str | None = None
    info: dict[str, Any] | None = None
