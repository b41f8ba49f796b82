"""The types of ``POST /v1/responses`` (OpenAI's Responses API, without its memory)."""

from typing import Any

import msgspec

from pyggml_server.api.v1.common_types import Extras

__all__ = ["ResponsesReasoning", "ResponsesRequest", "TextConfig", "usage_of_response"]


class ResponsesReasoning(msgspec.Struct):
    """How hard to think. Thoughts are shown as they are; a ``summary`` of another length does not exist."""

    effort: str | None = None
    summary: str | None = None


class TextConfig(msgspec.Struct):
    """What the answer must look like."""

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ResponsesRequest(Extras, kw_only=True):
    """The body; fields and defaults as in OpenAI's reference, and :class:`Extras`."""

    model: str
    input: str | list[dict[str, Any]] = ""
    instructions: str | None = None
    max_output_tokens: int | None = None
    reasoning: ResponsesReasoning | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    include: list[str] | None = None
    text: TextConfig | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    truncation: str | None = None
    stream: bool | None = None
    seed: int | None = None
    metadata: dict[str, Any] | None = None
    user: str | None = None
    # refused when set
    background: bool | None = None
    context_management: Any = None
    conversation: Any = None
    max_tool_calls: int | None = None
    previous_response_id: str | None = None
    prompt: Any = None
    store: bool | None = None


def usage_of_response(*, prompt: int, cached: int, answer: int, reasoning: int) -> dict[str, Any]:
    """Counts of tokens in the words of this API."""
    return {
        "input_tokens": prompt,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": answer,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": prompt + answer,
    }
