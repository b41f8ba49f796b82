"""Prompts by the Jinja template of a model's file."""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from hashlib import sha256
from itertools import product
from typing import Any, Final

from jinja2.exceptions import SecurityError

from pyggml.chat import ChatTemplate, TemplateLimits
from pyggml.errors import TemplateError
from pyggml_server.templates.collation import merge_neighbours
from pyggml_server.templates.messages import Message, ToolCall

__all__ = ["JinjaWriter"]

_PROBE_LIMITS: Final = TemplateLimits(steps=200_000, seconds=2.0)
_SHORT_ID: Final = re.compile(r"[A-Za-z0-9]{9}")


class JinjaWriter:
    """Writes conversations by a Jinja template.

    Many templates refuse what others accept: system messages, two messages of one role in a row, several calls at once.
    A conversation that is refused is offered again in an equivalent form before the refusal counts.

    Args:
        source: The template.
        bos: Text of the BOS token.
        eos: Text of the EOS token.
        limits: What a rendering may use.

    Raises:
        TemplateError: it cannot be parsed.
    """

    def __init__(self, source: str, *, bos: str, eos: str, limits: TemplateLimits | None = None) -> None:
        self.source: Final = source
        self._tokens: Final = (bos, eos)
        self._template: Final = ChatTemplate(source, bos_token=bos, eos_token=eos, limits=limits)
        # the one that worked last is tried first
        self._style = _STYLES[0]

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
        styles = _STYLES if self._style is _STYLES[0] else _STYLES[::-1]
        if not self._writes_all_calls and any(len(message.tool_calls) > 1 for message in messages):
            messages = _split_calls(messages)
        for variables in _thinking(think, self.source):
            # a form that loses nothing, in either style, before one that does
            for form, style in product(_forms(messages), styles):
                try:
                    text = self._template.render(
                        [style.message(message) for message in form],
                        tools=list(tools) or style.no_tools,
                        add_generation_prompt=add_generation_prompt,
                        **variables,
                        **style.extra(tools),
                    )
                except TemplateError as error:
                    if isinstance(error.__cause__, SecurityError):
                        # it went beyond a limit, as it would in every form
                        raise
                    first = first or error
                else:
                    self._style = style
                    return text
        if first is None:
            raise TemplateError("there is no form of the conversation to render")
        raise first

    def for_probes(self) -> "JinjaWriter":
        """One for conversations of a few words: what is slow with those is given up soon, and only once."""
        bos, eos = self._tokens
        return _ProbeWriter(self.source, bos=bos, eos=eos, limits=_PROBE_LIMITS)

    @cached_property
    def _writes_all_calls(self) -> bool:
        """Whether more than the first call of a message is written; a template that refuses such messages says so."""
        calls = [ToolCall("probe0001", 0, "probe_first_tool", {}), ToolCall("probe0002", 1, "probe_second_tool", {})]
        talk = [Message("user", "probe"), Message("assistant", tool_calls=calls)]
        try:
            text = self._template.render(
                [self._style.message(message) for message in talk],
                tools=self._style.no_tools,
                add_generation_prompt=False,
                **self._style.extra(()),
            )
        except TemplateError:
            return True
        return calls[0].name not in text or calls[1].name in text


class _ProbeWriter(JinjaWriter):
    """Tries no second time what went beyond the limits."""

    _refusal: TemplateError | None = None

    def write(self, messages: Sequence[Message], **options: Any) -> str:
        if self._refusal is not None:
            raise self._refusal
        try:
            return super().write(messages, **options)
        except TemplateError as error:
            if isinstance(error.__cause__, SecurityError):
                self._refusal = error
            raise


@dataclass(frozen=True, slots=True)
class _Style:
    """What templates disagree on.

    Attributes:
        no_tools: The value of ``tools`` where there are none.
        text_arguments: Arguments of calls are JSON as text, not objects.
    """

    no_tools: tuple[()] | None
    text_arguments: bool

    def extra(self, tools: Sequence[Mapping[str, Any]]) -> dict[str, str]:
        """What only templates of the second kind ask for: the functions and the date as text."""
        if not self.text_arguments:
            return {}
        functions = [tool.get("function", tool) for tool in tools]
        return {"functions": json.dumps(functions, ensure_ascii=False), "datetime": f"{datetime.now():%Y-%m-%d}"}

    def message(self, message: Message) -> dict[str, Any]:
        """A message as JSON."""
        value: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.thinking:
            # none of these names is standard
            value |= dict.fromkeys(("reasoning_content", "reasoning", "thinking"), message.thinking)
        if message.tool_calls:
            value["tool_calls"] = [self._call(call) for call in message.tool_calls]
        if message.tool_name:
            value["name"] = message.tool_name
        if message.tool_call_id:
            value["tool_call_id"] = message.tool_call_id
        return value

    def _call(self, call: ToolCall) -> dict[str, Any]:
        given = dict(call.arguments)
        arguments = json.dumps(given, ensure_ascii=False) if self.text_arguments else given
        return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}


_STYLES: Final = (_Style(None, text_arguments=False), _Style((), text_arguments=True))


def _thinking(think: bool | str | None, source: str) -> Iterator[dict[str, Any]]:
    """The variables by which the families' templates are told whether to think; none of them is standard.

    Some refuse levels that they do not know: the second try is without one.
    """
    if think is None:
        yield {}
        return
    variables: dict[str, Any] = {"enable_thinking": bool(think), "thinking": bool(think), "reasoning": bool(think)}
    variables["thinking_mode"] = "enabled" if think else "disabled"
    if not think:
        variables["thinking_budget"] = 0
    level = think if isinstance(think, str) else _level(think, source)
    if level is not None:
        yield {**variables, **dict.fromkeys(("reasoning_effort", "thinking_effort", "reasoning_strength"), level)}
    if not isinstance(level, str) or isinstance(think, str):
        yield variables


def _level(think: bool, source: str) -> str | None:
    """The level that stands for yes or no in templates that have no switch."""
    if "'no_think'" in source:
        return "high" if think else "no_think"
    return "minimal" if not think and '"minimal"' in source else None


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


def _merge_thoughts(messages: Sequence[Message]) -> list[Message]:
    """The text before a call as a thought, for templates that have room for one of the two."""
    return [
        replace(message, content="", thinking=f"{message.thinking}\n\n{message.content}")
        if message.tool_calls and message.thinking and message.content
        else message
        for message in messages
    ]


def _without_tools(messages: Sequence[Message]) -> list[Message]:
    """Calls and results as text, for templates that know no tools."""
    found = []
    for message in messages:
        calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in message.tool_calls]
        texts = [message.content, *(json.dumps(call, ensure_ascii=False) for call in calls)]
        role = "user" if message.role == "tool" else message.role
        content = "\n".join(text for text in texts if text)
        found.append(replace(message, role=role, content=content, tool_calls=(), tool_call_id=""))
    return merge_neighbours(found)


def _merge(messages: Sequence[Message]) -> list[Message]:
    return merge_neighbours(messages)


_CHANGES: Final[tuple[Callable[[Sequence[Message]], list[Message]], ...]] = (
    _shorten_ids,
    _split_calls,
    _merge,
    _fold_system,
    _merge_thoughts,
    _without_tools,
)
