"""The types of ``POST /v1/messages`` (Anthropic's Messages API)."""

from typing import Any

import msgspec

from pyggml_server.api.v1.common_types import Extras

__all__ = ["CountRequest", "InMessage", "MessagesRequest", "OutputConfig", "Reply", "Thinking", "TokenCounts"]


class InMessage(msgspec.Struct):
    """One turn: the content is text or a list of blocks."""

    role: str
    content: str | list[dict[str, Any]]


class Thinking(msgspec.Struct):
    """Whether to think. The budget bounds nothing here: ``max_tokens`` bounds thinking and answer together."""

    type: str
    budget_tokens: int | None = None


class OutputConfig(msgspec.Struct):
    """How hard to try, and what the answer must look like."""

    effort: str | None = None
    format: dict[str, Any] | None = None


class CountRequest(Extras, kw_only=True):
    """The body of ``/v1/messages/count_tokens``: what makes the prompt."""

    model: str
    messages: list[InMessage]
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    # refused when set
    container: Any = None
    context_management: Any = None
    mcp_servers: Any = None


class MessagesRequest(CountRequest, kw_only=True):
    """The body; ``metadata`` and ``service_tier`` say nothing to a server of one's own and are not read."""

    max_tokens: int
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop_sequences: list[str] | None = None


class TokenCounts(msgspec.Struct):
    """Counts of tokens in Anthropic's words: ``input_tokens`` are those that were computed, without cached ones."""

    input_tokens: int
    output_tokens: int
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0


class Reply(msgspec.Struct):
    """The whole answer."""

    id: str
    model: str
    content: list[dict[str, Any]]
    stop_reason: str | None
    stop_sequence: str | None
    usage: TokenCounts
    type: str = "message"
    role: str = "assistant"
