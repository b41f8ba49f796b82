"""How the families mark calls of tools, and their answers proper."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from pyggml_server.templates.messages import Message
from pyggml_server.templates.probing import CallShape, written_call
from pyggml_server.templates.writers import Writer

__all__ = ["CallFormat", "find_format", "spell_calls"]


@dataclass(frozen=True, slots=True, kw_only=True)
class CallFormat:
    """The marks around calls.

    Attributes:
        opens: Tags that begin a call; one that ends in ``=`` is a part of it.
        closes: The tags that end it, one per opening tag; empty: it ends with its JSON value.
        ignored: Tags that stand around calls and mean nothing to a client.
        wraps: Tags that stand around answers proper, also where there are no tools.
        bare: A JSON object at the beginning of the answer is a call as well, if it names a tool.
        mark: What tells the family; empty: one of ``opens``.
    """

    opens: tuple[str, ...] = ()
    closes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    wraps: tuple[str, ...] = ()
    bare: bool = False
    mark: str = ""


_KNOWN: Final = (
    CallFormat(
        opens=("<｜tool▁call▁begin｜>",),
        closes=("<｜tool▁call▁end｜>",),
        ignored=("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"),
    ),
    CallFormat(
        opens=("<|tool_call_begin|>",),
        closes=("<|tool_call_end|>",),
        ignored=("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>"),
    ),
    CallFormat(
        opens=("<|START_ACTION|>",),
        closes=("<|END_ACTION|>",),
        wraps=("<|START_RESPONSE|>", "<|END_RESPONSE|>", "<|START_TEXT|>", "<|END_TEXT|>"),
    ),
    CallFormat(
        opens=("<|open|>call tool=",),
        closes=("<|close|>call<|sep|>",),
        ignored=("<|open|>tools<|sep|>", "<|close|>tools<|sep|>"),
        wraps=("<|open|>response<|sep|>", "<|close|>response<|sep|>", "<|close|>message<|sep|>"),
        bare=True,
    ),
    CallFormat(
        opens=("<|tool_call:begin|>",),
        closes=("<|tool_call:end|>",),
        ignored=("<|tool_calls|>", "<|calls|>"),
        wraps=("<|begin|>assistant", "<|content|>", "<|end|>"),
    ),
    CallFormat(
        opens=("<｜DSML｜function_calls>", "<｜DSML｜tool_calls>"),
        closes=("</｜DSML｜function_calls>", "</｜DSML｜tool_calls>"),
        mark="<｜DSML｜",
    ),
    CallFormat(opens=("]<]minimax[>[<tool_call>",), closes=("]<]minimax[>[</tool_call>",)),
    CallFormat(opens=("<minimax:tool_call>",), closes=("</minimax:tool_call>",)),
    CallFormat(opens=("<seed:tool_call>",), closes=("</seed:tool_call>",)),
    CallFormat(opens=("<|tool_call_start|>",), closes=("<|tool_call_end|>",)),
    CallFormat(opens=("<|tool_call_start|>",), closes=("<|tool_call_end|>",), mark="<|tool_list_start|>"),
    CallFormat(opens=("<start_function_call>",), closes=("<end_function_call>",)),
    CallFormat(opens=("<|tool_call>",), closes=("<tool_call|>",)),
    CallFormat(opens=("[TOOL_CALLS]",), closes=("",)),
    # the outer tag is left out now and then
    CallFormat(opens=("<tool_call>", "<function="), closes=("</tool_call>", "</function>"), mark="<function="),
    CallFormat(opens=("<function name=",), closes=("</function>",), bare=True),
    CallFormat(opens=("<tool_calls>",), closes=("</tool_calls>",)),
    CallFormat(opens=("<tool_call>",), closes=("</tool_call>",)),
    CallFormat(opens=("<|tool_call|>",), closes=("",), wraps=("<response>", "</response>"), mark="</response>"),
    CallFormat(opens=("<|tool_call|>",), closes=("",)),
    CallFormat(opens=("<|function_call|>",), closes=("",)),
    CallFormat(opens=("<|message_sep|>\n\nfunction call<|role_sep|>\n",), closes=("",)),
    CallFormat(opens=("<|tools_prefix|>",), closes=("<|tools_suffix|>",)),
    CallFormat(opens=("<TOOLCALL>",), closes=("</TOOLCALL>",)),
    CallFormat(opens=("functools",), closes=("",)),
    CallFormat(opens=("Action:\n```json", "Action: ```json", "Action:```json"), closes=("```", "```", "```")),
    CallFormat(opens=("<|python_tag|>",), closes=("",), bare=True),
    CallFormat(opens=("<toolcall>",), closes=("</toolcall>",)),
)
"""The more particular before those whose tags they share."""


def find_format(
    writer: Writer, shape: CallShape | None, think_tags: tuple[str, str] | None, controls: Iterable[str] = ()
) -> CallFormat:
    """The format of a model's calls: by how its template writes them, by what the template says, by its vocabulary.

    Args:
        writer: Its template.
        shape: How the template writes calls; None: not with arguments as JSON.
        think_tags: What thoughts stand between: those are no marks of calls.
        controls: Texts of the model's control tokens.
    """
    if shape is not None:
        shape = replace(shape, begin=_without(shape.begin, think_tags))
    written = shape.begin if shape is not None else _without(written_call(writer) or "", think_tags)
    texts = [written] if shape is not None and shape.tag else [written, writer.source, " ".join(controls)]
    for text in texts:
        for known in _KNOWN:
            marks = (known.mark,) if known.mark else known.opens
            if any(mark in text or mark.replace("\n", "\\n") in text for mark in marks):
                return known
    if shape is not None and shape.tag:
        return CallFormat(opens=(shape.tag,), closes=(shape.closing_tag,))
    tags = re.search(r"<([^<>/\s]+)>.*</\1>", written, re.DOTALL)
    if tags is not None:
        return CallFormat(opens=(f"<{tags[1]}>",), closes=(f"</{tags[1]}>",))
    return CallFormat(bare=True)


def _without(text: str, think_tags: tuple[str, str] | None) -> str:
    return text.rpartition(think_tags[1])[2] if think_tags is not None else text


def spell_calls(messages: Sequence[Message], format: CallFormat) -> list[Message]:
    """Calls as text, for templates that tell of tools but leave calls out of the history."""
    return [
        replace(message, content=_spelled(message, format), tool_calls=()) if message.tool_calls else message
        for message in messages
    ]


def _spelled(message: Message, format: CallFormat) -> str:
    calls = [{"name": call.name, "arguments": dict(call.arguments)} for call in message.tool_calls]
    text = json.dumps(calls if len(calls) > 1 else calls[0], ensure_ascii=False)
    opening = format.opens[0] if format.opens and not format.opens[0].endswith("=") else ""
    closing = format.closes[0] if opening else ""
    return "\n".join(part for part in (message.content, f"{opening}{text}{closing}") if part)
