"""What the text of an answer consists of."""

from dataclasses import dataclass

from pyggml_server.templates.messages import ToolCall

__all__ = ["Content", "Event", "Thinking"]


@dataclass(frozen=True, slots=True)
class Content:
    """Text of the answer proper."""

    text: str


@dataclass(frozen=True, slots=True)
class Thinking:
    """Text of the model's thoughts."""

    text: str


Event = Content | Thinking | ToolCall
