"""Messages of OpenAI's and Anthropic's requests as the messages that templates render."""

from collections.abc import Sequence
from typing import Any

from pyggml_server.api.v1.chat_types import InMessage
from pyggml_server.api.v1.content import Content, arguments_of
from pyggml_server.api.v1.errors import FieldError
from pyggml_server.templates import Message, ToolCall

__all__ = ["Conversation", "chat_messages"]

_ROLES = {"developer": "system", "function": "tool"}


class Conversation:
    """Messages under construction. It remembers the names of calls, for results that only give an id."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._names: dict[str, str] = {}

    def add(self, role: str, content: Content, *, thinking: str = "") -> Message:
        """A message of ``role``; the roles developer and function are Ollama's system and tool."""
        role = role.lower()
        message = Message(role=_ROLES.get(role, role), content=content.text, images=content.images, thinking=thinking)
        self.messages.append(message)
        return message

    def call(self, message: Message, *, call_id: str, name: str, arguments: dict[str, Any]) -> None:
        """Let an assistant's message make a call."""
        index = len(message.tool_calls)
        message.tool_calls = [*message.tool_calls, ToolCall(id=call_id, index=index, name=name, arguments=arguments)]
        self._names[call_id] = name

    def result(self, call_id: str, content: Content, *, name: str = "") -> None:
        """What a tool has answered; without a ``name`` it is that of the call with this id."""
        message = self.add("tool", content)
        message.tool_call_id = call_id
        message.tool_name = name or self._names.get(call_id, "")


def chat_messages(messages: Sequence[InMessage]) -> list[Message]:
    """The messages of a chat completion.

    Raises:
        FieldError: there are none, or one is damaged.
    """
    if not messages:
        raise FieldError("[] is too short - 'messages'", param="messages")
    conversation = Conversation()
    for index, message in enumerate(messages):
        _add_chat_message(conversation, message, path=f"messages[{index}]")
    return conversation.messages


def _add_chat_message(conversation: Conversation, message: InMessage, *, path: str) -> None:
    if not message.role:
        raise FieldError(f"{path}.role is missing", param=f"{path}.role")
    content = Content.read(message.content, path=f"{path}.content")
    if message.role.lower() in ("tool", "function"):
        conversation.result(message.tool_call_id or "", content, name=message.name or "")
        return
    if message.content is None and not message.tool_calls and message.role.lower() != "assistant":
        raise FieldError(f"{path}.content is missing", param=f"{path}.content")
    thinking = message.reasoning or message.reasoning_content or ""
    added = conversation.add(message.role, content, thinking=thinking)
    for number, call in enumerate(message.tool_calls or ()):
        arguments = arguments_of(call.function.arguments, path=f"{path}.tool_calls[{number}].function.arguments")
        conversation.call(added, call_id=call.id, name=call.function.name, arguments=arguments)
