"""Answers of Ollama's API. Optional fields at their zero value are left out, as Go's ``omitempty`` does."""

from datetime import datetime
from typing import Any

import msgspec

__all__ = [
    "ChatAnswer",
    "Details",
    "EmbedAnswer",
    "EmbeddingsAnswer",
    "Error",
    "GenerateAnswer",
    "LogProb",
    "Models",
    "OutFunction",
    "OutMessage",
    "OutToolCall",
    "Progress",
    "RerankAnswer",
    "RunningModel",
    "RunningModels",
    "Score",
    "ShowAnswer",
    "TagModel",
    "TensorLine",
    "Text",
    "TokenText",
    "Tokens",
    "TopLogProb",
    "Version",
]


class Error(msgspec.Struct, kw_only=True):
    """Any error."""

    error: str


class Version(msgspec.Struct, kw_only=True):
    """``/api/version``."""

    version: str


class Progress(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A line of pull, push and create."""

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0


class OutFunction(msgspec.Struct, kw_only=True):
    """A call that the model makes."""

    index: int
    name: str
    arguments: dict[str, Any]


class OutToolCall(msgspec.Struct, kw_only=True):
    """A call that the model makes."""

    id: str
    function: OutFunction


class OutMessage(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The model's message, or a part of it."""

    role: str
    content: str
    thinking: str = ""
    tool_calls: list[OutToolCall] = []


class TopLogProb(msgspec.Struct, kw_only=True):
    """A token and its natural logarithm of probability."""

    token: str
    logprob: float
    bytes: list[int]


class LogProb(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A token of the answer, and the most likely ones in its place."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogProb] = []


class _Part(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A line of an answer; what follows ``done_reason`` stands in the last one."""

    model: str
    created_at: datetime
    done: bool
    done_reason: str = ""
    logprobs: list[LogProb] = []
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    prompt_eval_cached_count: int = 0
    prompt_eval_duration: int = 0
    eval_count: int = 0
    eval_duration: int = 0
    truncated: bool = False
    dropped_messages: int = 0
    dropped_tokens: int = 0
    context_shifts: int = 0
    num_ctx: int = 0
    stop_string: str = ""
    load_progress: dict[str, Any] | None = None
    debug_info: dict[str, Any] | None = msgspec.field(name="_debug_info", default=None)


class ChatAnswer(_Part, kw_only=True, omit_defaults=True):
    """A line of ``/api/chat``."""

    message: OutMessage


class GenerateAnswer(_Part, kw_only=True, omit_defaults=True):
    """A line of ``/api/generate``."""

    response: str
    thinking: str = ""
    context: list[int] = []


class EmbedAnswer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``/api/embed``."""

    model: str
    embeddings: list[list[float]]
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    truncated: int = 0


class EmbeddingsAnswer(msgspec.Struct, kw_only=True):
    """``/api/embeddings``."""

    embedding: list[float]


class Score(msgspec.Struct, kw_only=True, omit_defaults=True):
    """How well a document answers the query."""

    index: int
    relevance_score: float
    document: str | None = None


class RerankAnswer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``/api/rerank``, the best first."""

    model: str
    results: list[Score]
    total_duration: int = 0
    load_duration: int = 0
    prompt_eval_count: int = 0
    truncated: int = 0


class TokenText(msgspec.Struct, kw_only=True):
    """A token and what it stands for."""

    id: int
    text: str
    bytes: list[int]


class Tokens(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``/api/tokenize``."""

    model: str
    tokens: list[int]
    count: int
    prompt: str | None = None
    pieces: list[TokenText] = []


class Text(msgspec.Struct, kw_only=True):
    """``/api/detokenize``."""

    model: str
    text: str


class Details(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A model in a few words."""

    parent_model: str
    format: str
    family: str
    families: list[str] | None
    parameter_size: str
    quantization_level: str
    context_length: int = 0
    embedding_length: int = 0


class TagModel(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A line of ``/api/tags``."""

    name: str
    model: str
    modified_at: str
    size: int
    digest: str
    details: Details
    capabilities: list[str] = []


class Models(msgspec.Struct, kw_only=True):
    """``/api/tags``."""

    models: list[TagModel]


class RunningModel(msgspec.Struct, kw_only=True, omit_defaults=True):
    """A line of ``/api/ps``."""

    name: str
    model: str
    size: int
    digest: str
    details: Details
    expires_at: str
    size_vram: int
    context_length: int
    state: str = ""
    parallel: int = 0
    active: int = 0
    queued: int = 0
    flash_attention: bool | None = None
    kv_cache_type: str = ""
    notes: list[str] = []


class RunningModels(msgspec.Struct, kw_only=True):
    """``/api/ps``."""

    models: list[RunningModel]


class TensorLine(msgspec.Struct, kw_only=True):
    """A tensor; its shape in ggml's order, the contiguous dimension first."""

    name: str
    type: str
    shape: list[int]


class ShowAnswer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``/api/show``."""

    license: str = ""
    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    system: str = ""
    details: Details
    messages: list[dict[str, str]] = []
    model_info: dict[str, Any]
    projector_info: dict[str, Any] = {}
    tensors: list[TensorLine] = []
    capabilities: list[str]
    modified_at: str
    renderer: str = ""
    parser: str = ""
    requires: str = ""
