"""Learns how a template writes calls of tools, by letting it write some."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from pyggml.errors import TemplateError
from pyggml_server.templates.messages import Message, ToolCall
from pyggml_server.templates.writers import Writer

__all__ = ["DEFAULT_SHAPE", "PROBE_ID", "CallShape", "probe_calls", "written_call"]

_ANSWER: Final = "probing answer text"
_CALLS: Final = (
    # nine letters and digits: Mistral's templates accept no other ids
    ToolCall("probe0001", 0, "probe_first_tool", {"probe_key": "probe_first_value"}),
    ToolCall("probe0002", 1, "probe_second_tool", {"probe_key": "probe_second_value"}),
)
PROBE_ID: Final = _CALLS[0].id
"""Stands for an id wherever a template writes one."""

_OBJECT: Final = r'\{\s*"probe_key"\s*:\s*"%s"\s*\}'
_TAG: Final = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]|[^\s{\[]+")
_CUT_TAG: Final = re.compile(r"<[^<>]*$")


@dataclass(frozen=True, slots=True)
class CallShape:
    """How a template writes calls whose arguments are JSON.

    A call is ``begin``, the name, ``middle``, the arguments, ``end``. Further calls follow after ``joint`` instead of
    ``end`` and ``begin``.

    Attributes:
        begin: From the beginning of the answer to the first name.
        middle: Between a name and its arguments.
        end: From the last arguments to the end of the answer.
        joint: Between arguments and the next name; None: there can be only one call.
    """

    begin: str
    middle: str
    end: str
    joint: str | None

    @property
    def tag(self) -> str:
        """The text that marks a call, up to its JSON; empty: there is only JSON."""
        found = _TAG.match(self.begin.lstrip())
        return found.group() if found is not None else ""

    @property
    def closing_tag(self) -> str:
        """The tag that ends a call; empty: it ends with its JSON."""
        found = re.search(r"</?[^<>\s]+>|\[/[A-Z_]+\]", self.end)
        return found.group() if found is not None else ""


DEFAULT_SHAPE: Final = CallShape('{"name": "', '", "arguments": ', "}", None)
"""Plain JSON, for templates that show no calls."""


def probe_calls(writer: Writer) -> CallShape | None:
    """How a template writes calls; None: it does not, or not with arguments as JSON."""
    try:
        one = _probe(writer, _CALLS[:1])
    except (TemplateError, ValueError):
        return None
    try:
        two = _probe(writer, _CALLS)
    except (TemplateError, ValueError):
        two = None
    if one is None:
        return None
    begin, middle, end = one[:3]
    joint = two[3] if two is not None and two[:2] == one[:2] else None
    return CallShape(begin, middle, end, joint)


def written_call(writer: Writer) -> str | None:
    """How a template writes one call, whatever the form; None: it writes none."""
    try:
        text, head, tail = _write(writer, _CALLS[:1])
    except TemplateError:
        return None
    start = len(_aligned_prefix(head, text))
    found = text[start : len(text) - len(_aligned_suffix(text[start:], tail))]
    return found if _CALLS[0].name in found else None


def _write(writer: Writer, calls: Sequence[ToolCall]) -> tuple[str, str, str]:
    """An answer that consists of calls, and what stands around an answer of text."""
    user = Message(role="user", content="probing question")
    options: dict[str, Any] = {"tools": [_tool(call) for call in calls], "think": None, "add_generation_prompt": False}
    answer = writer.write([user, Message(role="assistant", content=_ANSWER)], **options)
    text = writer.write([user, Message(role="assistant", tool_calls=list(calls))], **options)
    head, _, tail = answer.rpartition(_ANSWER)
    return text.replace(_CALLS[1].id, PROBE_ID), head, tail


def _probe(writer: Writer, calls: Sequence[ToolCall]) -> tuple[str, str, str, str] | None:
    """Begin, middle, end and joint of some calls."""
    text, head, tail = _write(writer, calls)
    spans = []
    at = len(_aligned_prefix(head, text))
    start = at
    for call in calls:
        name = text.index(call.name, at)
        found = re.compile(_OBJECT % call.arguments["probe_key"]).search(text, name)
        if found is None:
            return None
        spans.append((name, name + len(call.name), *found.span()))
        at = found.end()
    begin, middle = text[start : spans[0][0]], text[spans[0][1] : spans[0][2]]
    end = text[at : len(text) - len(_aligned_suffix(text[at:], tail))].rstrip("\n")
    joint = text[spans[0][3] : spans[1][0]] if len(spans) > 1 else ""
    if len(spans) > 1 and text[spans[1][1] : spans[1][2]] != middle:
        raise ValueError("the calls differ in form")
    if tail.strip() and tail.strip() in joint:
        raise ValueError("the calls are in different messages")
    return begin, middle, end, joint


def _tool(call: ToolCall) -> dict[str, Any]:
    properties = {key: {"type": "string", "description": "Text."} for key in call.arguments}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    function = {"name": call.name, "description": "A probe.", "parameters": parameters}
    return {"type": "function", "function": function}


def _common_prefix(first: str, second: str) -> str:
    pairs = zip(first, second, strict=False)
    n = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second)))
    return first[:n]


def _aligned_prefix(head: str, text: str) -> str:
    """What two texts begin with, without half a tag at its end."""
    return _CUT_TAG.sub("", _common_prefix(head, text))


def _aligned_suffix(text: str, tail: str) -> str:
    """What two texts end with, without half a tag at its beginning."""
    common = _common_prefix(text[::-1], tail[::-1])[::-1]
    rest = text[: len(text) - len(common)]
    if _CUT_TAG.search(rest) is None:
        return common
    return common[common.index(">") + 1 :] if ">" in common else ""
