"""Prompts by the Jinja template of a model's file."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import Any, Final

from pyggml.chat import ChatTemplate
from pyggml.errors import TemplateError
from pyggml_server.templates.collation import merge_neighbours
from pyggml_server.templates.messages import Message, ToolCall

__all__ = ["JinjaWriter"]

_SHORT_ID: Final = re.compile(r"[A-Za-z0-9]{9}")


class JinjaWriter:
    """Writes conversations by a Jinja template.

    Many templates refuse what others accept: system messages, two messages of one role in a row, several calls at once.
    A conversation that is refused is offered again in an equivalent form before the refusal counts.

    Args:
        source: The template.
        bos: Text of the BOS token.
        eos: Text of the EOS token.

    Raises:
        TemplateError: it cannot be parsed.
    """

    def __init__(self, source: str, *, bos: str, eos: str) -> None:
        self.source: Final = source
        self._template: Final = ChatTemplate(source, bos_token=bos, eos_token=eos)

    def write(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]],
        think: bool | str | None,
        add_generation_prompt: bool,
    ) -> str:
        """The prompt of a conversation.

        Raises:
            TemplateError: the template refuses every form of it; the error is that of the first.
        """
        first: TemplateError | None = None
        for form in _forms(messages):
            try:
                return self._template.render(
                    [_as_json(message) for message in form],
                    tools=list(tools) or None,
                    add_generation_prompt=add_generation_prompt,
                    **_thinking(think),
                )
            except TemplateError as error:
                first = first or error
        if first is None:
            raise TemplateError("there is no form of the conversation to render")
        raise first


def _thinking(think: bool | str | None) -> dict[str, Any]:
    """The variables by which the families' templates are told whether to think; none of them is standard."""
    if think is None:
        return {}
    variables: dict[str, Any] = {"enable_thinking": bool(think), "thinking": bool(think)}
    if isinstance(think, str):
        variables["reasoning_effort"] = think
    return variables


def _as_json(message: Message) -> dict[str, Any]:
    value: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thinking:
        value |= {"reasoning_content": message.thinking, "thinking": message.thinking}
    if message.tool_calls:
        value["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_name:
        value["name"] = message.tool_name
    if message.tool_call_id:
        value["tool_call_id"] = message.tool_call_id
    return value


def _call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": dict(call.arguments)}}


def _forms(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    """A conversation as it is, then in forms that stricter templates accept, each on top of the one before."""
    yield messages
    form = messages
    for change in _CHANGES:
        changed = change(form)
        if changed != form:
            form = changed
            yield form


def _shorten_ids(messages: Sequence[Message]) -> list[Message]:
    """Ids of calls as Mistral's templates want them: nine letters or digits."""
    return [
        replace(
            message,
            tool_calls=[replace(call, id=_short(call.id)) for call in message.tool_calls],
            tool_call_id=_short(message.tool_call_id) if message.role == "tool" else message.tool_call_id,
        )
        for message in messages
    ]


def _short(id: str) -> str:
    return id if _SHORT_ID.fullmatch(id) else sha256(id.encode()).hexdigest()[:9]


def _split_calls(messages: Sequence[Message]) -> list[Message]:
    """One call per message, each followed by its result, for templates that know no parallel calls."""
    found: list[Message] = []
    rest = list(messages)
    while rest:
        message = rest.pop(0)
        if len(message.tool_calls) < 2:
            found.append(message)
            continue
        results: list[Message] = []
        while rest and rest[0].role == "tool":
            results.append(rest.pop(0))
        for index, call in enumerate(message.tool_calls):
            text = message.content if index == 0 else ""
            found.append(replace(message, content=text, tool_calls=[replace(call, index=0)]))
            own = next((r for r in results if r.tool_call_id and r.tool_call_id == call.id), None)
            own = own or (results[0] if results else None)
            if own is not None:
                results.remove(own)
                found.append(own)
        found += results
    return found


def _fold_system(messages: Sequence[Message]) -> list[Message]:
    """System messages in front of the first message of the user, for templates that have no such role."""
    systems = [message.content for message in messages if message.role == "system"]
    others = [message for message in messages if message.role != "system"]
    first = next((i for i, message in enumerate(others) if message.role == "user"), None)
    if not systems or first is None:
        return list(messages)
    others[first] = replace(others[first], content="\n\n".join([*systems, others[first].content]))
    return others


def _merge(messages: Sequence[Message]) -> list[Message]:
    return merge_neighbours(messages)


_CHANGES: Final[tuple[Callable[[Sequence[Message]], list[Message]], ...]] = (
    _shorten_ids,
    _split_calls,
    _merge,
    _fold_system,
)
