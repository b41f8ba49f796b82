"""Types that several of the routes share."""

from typing import Any

import msgspec

from pyggml_server.api.bodies import Int32

__all__ = ["Extras", "LogProbItem", "PromptDetails", "StreamOptions", "TopLogProb", "Usage"]


class Extras(msgspec.Struct, kw_only=True):
    """What every generating route takes beyond its reference: the fields of Ollama's own API, under their names.

    Attributes:
        options: options of the sampler and the runner; a field of the route's own (``temperature``) wins over them.
        num_ctx: short for ``options.num_ctx``.
        top_k: short for ``options.top_k``.
        min_p: short for ``options.min_p``.
        keep_alive: how long the model stays loaded afterwards.
        truncate: whether a conversation that is too long loses its oldest messages, or is refused.
        shift: whether an answer may go on when the context is full, forgetting its oldest part.
        priority: requests with a higher number are served first.
    """

    options: dict[str, Any] | None = None
    num_ctx: int | None = None
    top_k: int | None = None
    min_p: float | None = None
    keep_alive: str | float | None = None
    truncate: bool | None = None
    shift: bool | None = None
    priority: Int32 = 0


class StreamOptions(msgspec.Struct):
    """What a stream carries besides the answer."""

    include_usage: bool = False


class PromptDetails(msgspec.Struct):
    """How much of the prompt was remembered from earlier requests."""

    cached_tokens: int = 0


class Usage(msgspec.Struct):
    """Counts of tokens.

    ``truncated`` is ours, and only there when the conversation did not fit: how many messages were left out and how
    many tokens were cut from the prompt.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails
    truncated: dict[str, int] | msgspec.UnsetType = msgspec.UNSET


class TopLogProb(msgspec.Struct):
    """One of the most likely tokens: its text, natural logarithm and UTF-8 bytes."""

    token: str
    logprob: float
    bytes: list[int]


class LogProbItem(msgspec.Struct):
    """A token of the answer, and what else it might have been."""

    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[TopLogProb]
