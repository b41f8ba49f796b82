"""What the events of streams below ``/v1`` hold, for the OpenAPI document; the streams write it from encoded bytes."""

from typing import Any

import msgspec

from pyggml_server.api.v1.chat_types import LogProbList, OutToolCall
from pyggml_server.api.v1.common_types import Usage

__all__ = ["ChatChunk", "TextChunk", "TypedEvent"]


class DeltaToolCall(OutToolCall, kw_only=True):
    """A call, whole, with its place among the calls of the answer."""

    index: int


class Delta(msgspec.Struct):
    """What is new of a message."""

    role: str | msgspec.UnsetType = msgspec.UNSET
    reasoning: str | msgspec.UnsetType = msgspec.UNSET
    content: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[DeltaToolCall] | msgspec.UnsetType = msgspec.UNSET


class ChunkChoice(msgspec.Struct):
    """What is new of one of ``n`` answers; the last one tells why it ended."""

    index: int
    delta: Delta
    finish_reason: str | None
    logprobs: LogProbList | None = None


class ChatChunk(msgspec.Struct):
    """One event of ``/v1/chat/completions``; without choices, it carries the counts."""

    id: str
    created: int
    model: str
    choices: list[ChunkChoice]
    system_fingerprint: str
    object: str = "chat.completion.chunk"
    usage: Usage | None = None


class TextChunkChoice(msgspec.Struct):
    """What is new of one of ``n`` texts."""

    index: int
    text: str
    finish_reason: str | None
    logprobs: dict[str, Any] | None


class TextChunk(msgspec.Struct):
    """One event of ``/v1/completions``; without choices, it carries the counts."""

    id: str
    created: int
    model: str
    choices: list[TextChunkChoice]
    system_fingerprint: str
    object: str = "text_completion"
    usage: Usage | None = None


class TypedEvent(msgspec.Struct):
    """One event of ``/v1/messages`` and ``/v1/responses``; fields beyond depend on its type."""

    type: str
