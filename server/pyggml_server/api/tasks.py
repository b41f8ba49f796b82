"""What both APIs ask the generator for, and what they get back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyggml_server.config import KeepAlive
from pyggml_server.protocol import LogProbs
from pyggml_server.templates import Message, ToolCall

__all__ = ["ChatTask", "Chunk", "Final", "PromptTask", "Settings", "Task"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """What chat and plain prompts have in common.

    Attributes:
        options: Options by Ollama's names; they override the model's parameters.
        format: As in Ollama's API: ``"json"``, a JSON schema, or a grammar (see :mod:`pyggml_server.api.formats`).
        think: Whether or how much to think; None: a model that can does.
        logprobs: Report each token's log-probability and those of so many of the most likely ones; None: none.
        keep_alive: How long the model stays loaded afterwards; None: as configured.
        truncate: Drop old messages, then tokens, of a prompt that does not fit; False: refuse it.
        shift: Forget the oldest part when the context is full and go on; False: stop there.
        priority: Higher ones are served first.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    format: Any = None
    think: bool | str | None = None
    logprobs: int | None = None
    keep_alive: KeepAlive | None = None
    truncate: bool = True
    shift: bool = True
    priority: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatTask:
    """Answer a conversation.

    Attributes:
        model: Name of the model.
        messages: The conversation; the model's own system message and first messages are put in front of it.
        tools: Tools, as in the API (``{"type": "function", "function": {…}}``).
        tool_choice: None or ``"auto"``: the model decides; ``"none"``; ``"required"``; or the name of one tool as
            ``{"name": …}`` or ``{"type": "function", "function": {"name": …}}``. The last two are enforced by grammar.
        parallel_tool_calls: Whether several calls may be made in one answer.
        settings: The rest.
    """

    model: str
    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: str | Mapping[str, Any] | None = None
    parallel_tool_calls: bool = True
    settings: Settings = field(default_factory=Settings)


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptTask:
    """Continue a text.

    Attributes:
        model: Name of the model.
        prompt: The text, or its tokens, which are taken as they are.
        suffix: What the answer must lead to (fill in the middle).
        system: System message instead of the model's.
        template: Template instead of the model's.
        context: Tokens of the conversation so far, from an earlier answer.
        images: Number of images that came along.
        raw: Give the text to the model without any template.
        settings: The rest.
    """

    model: str
    prompt: str | Sequence[int]
    suffix: str = ""
    system: str | None = None
    template: str | None = None
    context: Sequence[int] = ()
    images: int = 0
    raw: bool = False
    settings: Settings = field(default_factory=Settings)


Task = ChatTask | PromptTask


@dataclass(slots=True)
class Chunk:
    """What one message of the runner brought: any of the fields may be empty.

    Attributes:
        content: Text of the answer.
        thinking: Text of the model's thoughts; they come before content.
        tool_calls: Complete calls; they come after content.
        tokens: Ids of the tokens.
        logprobs: One per token, where asked for.
    """

    content: str = ""
    thinking: str = ""
    tool_calls: list[ToolCall] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    logprobs: list[LogProbs] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class Final:
    """How an answer ended. Durations are nanoseconds.

    Attributes:
        reason: ``stop`` or ``length``.
        stop_string: The text of ``stop`` that ended it.
        prompt_tokens: Tokens of the prompt that was computed or found in the cache.
        cached_tokens: Those that were found.
        eval_tokens: Tokens of the answer.
        drafted_tokens: Tokens proposed by a draft model or by prompt lookup.
        accepted_tokens: Those that the model confirmed.
        dropped_messages: Messages left out of the prompt because it was too long.
        dropped_tokens: Tokens left out of the prompt.
        shifts: How often the oldest part of the context was forgotten while answering.
        n_ctx: The context that held.
        total_ns: From the request to the end.
        load_ns: Loading the model; 0 when it was there.
        queue_ns: Waiting for a free sequence.
        prompt_ns: Computing the prompt.
        eval_ns: Computing the answer.
    """

    reason: str
    stop_string: str | None = None
    prompt_tokens: int = 0
    cached_tokens: int = 0
    eval_tokens: int = 0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    dropped_messages: int = 0
    dropped_tokens: int = 0
    shifts: int = 0
    n_ctx: int = 0
    total_ns: int = 0
    load_ns: int = 0
    queue_ns: int = 0
    prompt_ns: int = 0
    eval_ns: int = 0

    @property
    def truncated(self) -> bool:
        """Whether the model did not see, or forgot, a part of what it was given."""
        return bool(self.dropped_messages or self.dropped_tokens or self.shifts)
