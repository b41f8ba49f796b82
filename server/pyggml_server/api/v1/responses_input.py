"""Items of a response's input as the messages that templates render."""

from collections.abc import Mapping, Sequence
from typing import Any

from pyggml_server.api.v1.content import Content, arguments_of
from pyggml_server.api.v1.conversation import Conversation
from pyggml_server.api.v1.errors import FieldError
from pyggml_server.templates import Message

__all__ = ["read_items"]


def read_items(instructions: str | None, items: str | Sequence[Mapping[str, Any]]) -> list[Message]:
    """The conversation, the instructions first.

    What an assistant thought, said and called comes as items of its own; neighbours become one message.

    Raises:
        FieldError: an item of an unknown type, or a damaged one.
    """
    reader = _Reader()
    if instructions:
        reader.conversation.add("system", Content([instructions]))
    if isinstance(items, str):
        reader.conversation.add("user", Content([items]))
        return reader.conversation.messages
    if not items:
        raise FieldError("input is empty: text, or at least one item", param="input")
    for index, item in enumerate(items):
        reader.read(item, path=f"input[{index}]")
    return reader.conversation.messages


class _Reader:
    def __init__(self) -> None:
        self.conversation = Conversation()
        self._open: Message | None = None  # the assistant's turn that items are still added to

    def read(self, item: Mapping[str, Any], *, path: str) -> None:
        """Take one item."""
        kind = item.get("type", "message")
        if kind == "message":
            self._message(item, path=path)
        elif kind == "reasoning":
            self._turn(new=True).thinking = _thoughts(item, path=path)
        elif kind == "function_call":
            arguments = arguments_of(item.get("arguments") or "{}", path=f"{path}.arguments")
            name = item.get("name")
            if not isinstance(name, str) or not name:
                raise FieldError(f"{path}.name is missing", param=f"{path}.name")
            self.conversation.call(self._turn(), call_id=str(item.get("call_id", "")), name=name, arguments=arguments)
        elif kind == "function_call_output":
            self._open = None
            content = Content.read(item.get("output"), path=f"{path}.output")
            self.conversation.result(str(item.get("call_id", "")), content)
        else:
            message = f"{path}: items of type {str(kind)[:40]!r} are not supported"
            raise FieldError(message, param=f"{path}.type")

    def _message(self, item: Mapping[str, Any], *, path: str) -> None:
        role = item.get("role")
        if not isinstance(role, str) or not role:
            raise FieldError(f"{path}.role is missing", param=f"{path}.role")
        content = Content.read(item.get("content"), path=f"{path}.content")
        if role.lower() != "assistant":
            self._open = None
            self.conversation.add(role, content)
        elif self._open is not None and not self._open.content and not self._open.tool_calls:
            self._open.content = content.text
        else:
            self._open = self.conversation.add(role, content)

    def _turn(self, *, new: bool = False) -> Message:
        if self._open is None or new:
            self._open = self.conversation.add("assistant", Content())
        return self._open


def _thoughts(item: Mapping[str, Any], *, path: str) -> str:
    parts = item.get("content") or item.get("summary") or []
    if not isinstance(parts, list):
        raise FieldError(f"{path}.summary is not a list", param=f"{path}.summary")
    return Content.read(parts, path=f"{path}.summary").text
