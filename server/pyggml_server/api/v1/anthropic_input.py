"""Turns of Anthropic's messages as the messages that templates render."""

from collections.abc import Mapping, Sequence
from typing import Any

from pyggml_server.api.v1.anthropic_types import CountRequest, InMessage
from pyggml_server.api.v1.content import Content
from pyggml_server.api.v1.conversation import Conversation
from pyggml_server.api.v1.errors import FieldError
from pyggml_server.api.v1.options import think_of
from pyggml_server.templates import Message

__all__ = ["read_thinking", "read_turns"]


def read_turns(system: str | Sequence[Mapping[str, Any]] | None, turns: Sequence[InMessage]) -> list[Message]:
    """The conversation, the system's text first.

    Raises:
        FieldError: there are no turns, or one is damaged.
    """
    conversation = Conversation()
    if system:
        conversation.add("system", Content.read(system, path="system"))
    if not turns:
        raise FieldError("messages: at least one message is required", param="messages")
    for index, turn in enumerate(turns):
        path = f"messages.{index}"
        if turn.role == "assistant":
            _add_assistant(conversation, turn, path=path)
        elif turn.role in ("user", "system"):
            _add_user(conversation, turn, path=path)
        else:
            raise FieldError(f"{path}.role must be user or assistant", param=f"{path}.role")
    return conversation.messages


def read_thinking(request: CountRequest) -> bool | str | None:
    """Whether and how hard to think: off unless asked for, as in Anthropic's reference.

    Raises:
        FieldError: unknown words.
    """
    effort = request.output_config.effort if request.output_config else None
    level = think_of(effort, param="output_config.effort")
    kind = request.thinking.type if request.thinking else None
    if kind not in (None, "enabled", "disabled", "adaptive"):
        raise FieldError("thinking.type must be enabled, disabled or adaptive", param="thinking.type")
    if kind in ("enabled", "adaptive"):
        return level or True
    return False if kind == "disabled" else level or False


def _blocks(turn: InMessage) -> Sequence[Mapping[str, Any]]:
    return [{"type": "text", "text": turn.content}] if isinstance(turn.content, str) else turn.content


def _add_assistant(conversation: Conversation, turn: InMessage, *, path: str) -> None:
    content, thoughts, calls = Content(), [], []
    for index, block in enumerate(_blocks(turn)):
        place = f"{path}.content.{index}"
        kind = block.get("type")
        if kind == "thinking":
            thoughts.append(str(block.get("thinking", "")))
        elif kind == "tool_use":
            calls.append((block, place))
        elif kind != "redacted_thinking":  # which nobody but its author can read
            content.add(block, path=place)
    message = conversation.add("assistant", content, thinking="\n\n".join(thoughts))
    for block, place in calls:
        name, given = block.get("name"), block.get("input")
        if not isinstance(name, str) or not isinstance(given, dict):
            raise FieldError(f"{place}: a tool_use has a name and an input (an object)", param=place)
        conversation.call(message, call_id=str(block.get("id", "")), name=name, arguments=given)


def _add_user(conversation: Conversation, turn: InMessage, *, path: str) -> None:
    content = Content()
    for index, block in enumerate(_blocks(turn)):
        place = f"{path}.content.{index}"
        if block.get("type") != "tool_result":
            content.add(_flat_document(block), path=place)
            continue
        result = Content.read(block.get("content"), path=f"{place}.content")
        if block.get("is_error"):
            # templates know no failed results; the model has to read it
            result.texts.insert(0, "Error:")
        conversation.result(str(block.get("tool_use_id", "")), result)
    if content.texts or content.images:
        conversation.add(turn.role, content)


def _flat_document(block: Mapping[str, Any]) -> Mapping[str, Any]:
    """A document that is plain text is text; other blocks are left as they are."""
    source = block.get("source")
    if block.get("type") == "document" and isinstance(source, Mapping) and source.get("type") == "text":
        return {"type": "text", "text": source.get("data")}
    return block
