"""Conversations as the service handles them, whatever API they came through."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FittedPrompt", "Message", "RenderedPrompt", "ToolCall"]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call of a tool: in a message, and as an event of an answer.

    Attributes:
        id: Names the call, so that the tool's result can refer to it.
        index: Position among the calls of the same answer.
        name: The tool.
        arguments: By name.
    """

    id: str
    index: int
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Message:
    """One message of a conversation.

    Attributes:
        role: ``system``, ``user``, ``assistant`` or ``tool``; others reach the template as they are.
        content: Text.
        images: Images that belong to it; only their number matters here.
        tool_calls: Calls that the assistant made.
        thinking: Thoughts that led to the content.
        tool_name: In a tool's result: the tool.
        tool_call_id: In a tool's result: the call it answers.
    """

    role: str
    content: str = ""
    images: Sequence[Any] = ()
    tool_calls: Sequence[ToolCall] = ()
    thinking: str = ""
    tool_name: str = ""
    tool_call_id: str = ""


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt for the tokenizer.

    Attributes:
        text: The prompt.
        adds_bos: The text begins with the BOS token, which the tokenizer must not add again.
        n_images: Number of images that the text refers to.
    """

    text: str
    adds_bos: bool = False
    n_images: int = 0


@dataclass(frozen=True, slots=True)
class FittedPrompt:
    """A prompt that fits, as far as whole messages can be left out.

    Attributes:
        prompt: The prompt.
        n_dropped: Messages that were left out.
        n_tokens: Length of the prompt, without what the tokenizer adds.
    """

    prompt: RenderedPrompt
    n_dropped: int
    n_tokens: int
