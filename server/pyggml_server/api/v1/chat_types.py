"""The types of ``POST /v1/chat/completions``: what is asked, and what is answered outside a stream.

Fields of OpenAI's reference that cannot act here are read all the same, so that they can be refused by name
(:func:`~pyggml_server.api.v1.refuse.refuse`); what is not named at all is ignored, as Ollama does.
"""

from typing import Any

import msgspec

from pyggml_server.api.v1.common_types import Extras, LogProbItem, StreamOptions, Usage

__all__ = [
    "Answer",
    "ChatRequest",
    "Choice",
    "Completion",
    "FunctionCall",
    "InMessage",
    "InToolCall",
    "LogProbList",
    "OutToolCall",
    "Reasoning",
]


class InFunction(msgspec.Struct):
    """A call's function; the arguments are JSON in a string (some clients send the object itself)."""

    name: str
    arguments: str | dict[str, Any] = "{}"


class InToolCall(msgspec.Struct):
    """A call that an assistant made earlier."""

    function: InFunction
    id: str = ""
    type: str = "function"


class InMessage(msgspec.Struct):
    """One message: the content is text, a list of parts, or nothing."""

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[InToolCall] | None = None
    tool_call_id: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class Reasoning(msgspec.Struct):
    """How hard to think."""

    effort: str | None = None


class ChatRequest(Extras, kw_only=True):
    """The body; fields and defaults as in OpenAI's reference, and :class:`Extras`."""

    model: str
    messages: list[InMessage] = msgspec.field(default_factory=list)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    n: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    reasoning: Reasoning | None = None
    reasoning_effort: str | None = None
    # refused when set
    audio: Any = None
    function_call: Any = None
    functions: Any = None
    modalities: list[str] | None = None
    prediction: Any = None
    store: bool | None = None
    web_search_options: Any = None


# -- answers --------------------------------------------------------------------------------------------------------


class FunctionCall(msgspec.Struct):
    """A call that the model makes: the arguments are JSON in a string."""

    name: str
    arguments: str


class OutToolCall(msgspec.Struct):
    """A call with its id."""

    id: str
    function: FunctionCall
    type: str = "function"


class Answer(msgspec.Struct):
    """The message of a choice; what is UNSET is left out."""

    content: str | None
    role: str = "assistant"
    reasoning: str | msgspec.UnsetType = msgspec.UNSET
    tool_calls: list[OutToolCall] | msgspec.UnsetType = msgspec.UNSET


class LogProbList(msgspec.Struct):
    """Log-probabilities of the tokens of a choice."""

    content: list[LogProbItem]
    refusal: None = None


class Choice(msgspec.Struct):
    """One of ``n`` answers."""

    index: int
    message: Answer
    finish_reason: str
    logprobs: LogProbList | None = None


class Completion(msgspec.Struct):
    """The whole answer."""

    id: str
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    object: str = "chat.completion"
    system_fingerprint: str = "fp_ollama"
