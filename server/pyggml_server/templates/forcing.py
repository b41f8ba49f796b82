"""Grammars that make a model call tools, in the form in which its family writes calls."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from pyggml_server.errors import BadRequestError
from pyggml_server.protocol import GrammarText
from pyggml_server.templates.formats import CallFormat
from pyggml_server.templates.go_writer import GoWriter
from pyggml_server.templates.probing import DEFAULT_SHAPE, PROBE_ID, CallShape
from pyggml_server.templates.renderer import PromptRenderer
from pyggml_server.templates.schemas import close_schema

__all__ = ["tool_choice_grammar"]

_ENDS: Final = (
    "<|eom_id|>", "<|eot_id|>", "<|im_end|>", "<|call|>", "<|calls|>", "<|return|>", "<｜end▁of▁sentence｜>", "</s>",
    "<SPECIAL_12>",
)  # fmt: skip
"""End-of-generation tokens: a grammar ends before them, which lets the model write them."""

_ID: Final = "/[a-zA-Z0-9]{9}/"


def tool_choice_grammar(
    renderer: PromptRenderer, tools: Sequence[Mapping[str, Any]], choice: str | Mapping[str, Any], *, parallel: bool
) -> GrammarText:
    """The grammar of answers that consist of calls of tools, one at least.

    Names and arguments are those of the tools, whose schemas hold; what stands around them is what the model's template
    writes around calls, so that the parser of its answers reads them.

    Args:
        renderer: Of the model.
        tools: The tools.
        choice: ``"required"``: any of them; ``{"name": …}``: this one.
        parallel: Several calls are allowed, if the template knows that.

    Raises:
        BadRequestError: there is no such tool.
    """
    functions = [tool["function"] for tool in tools]
    if isinstance(choice, Mapping):
        functions = [function for function in functions if function["name"] == choice["name"]]
    if not functions:
        raise BadRequestError(f"tool_choice: there is no such tool: {str(choice)[:200]}")
    shape, style = forced_shape(renderer), _style(renderer)
    controls = renderer.facts.controls
    joint = shape.joint if parallel else None
    lines = [
        f"start: {_literals(shape.begin, controls)} call{_repeat(joint, controls)} {_literals(shape.end, controls)}",
        "call: " + " | ".join(f"call_{index}" for index in range(len(functions))),
    ]
    middle = _literals(shape.middle, controls)
    for index, function in enumerate(functions):
        schema = function.get("parameters") or {"type": "object", "properties": {}}
        lines.append(f"call_{index}: {_quoted(function['name'])} {middle} arguments_{index}")
        # keywords that cannot be enforced are better ignored than refused: the schemas are made for many servers
        lines.append(f"arguments_{index}: %json {json.dumps({'x-guidance': style, **_plain(schema)})}")
    return GrammarText(kind="lark", text="\n".join(lines))


def _style(renderer: PromptRenderer) -> dict[str, Any]:
    """JSON on one line, with the blanks that the template's own JSON has."""
    blank = "" if isinstance(renderer.writer, GoWriter) else " "
    return {
        "lenient": True,
        "whitespace_flexible": False,
        "item_separator": f",{blank}",
        "key_separator": f":{blank}",
    }


_REMARKS: Final = frozenset({"description", "title", "examples", "default", "$comment", "$schema", "$id"})
_MAPS: Final = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_VALUES: Final = frozenset({"const", "enum"})


def _plain(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A schema of arguments: an object with the properties that it lists, without remarks, which can be long."""
    return {**close_schema(_slim(schema)), "type": "object"}


def _slim(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_slim(element) for element in schema]
    if not isinstance(schema, Mapping):
        return schema
    found = {}
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, Mapping):
            # the keys are names here
            found[key] = {name: _slim(inner) for name, inner in value.items()}
        elif key not in _REMARKS:
            found[key] = value if key in _VALUES else _slim(value)
    return found


def forced_shape(renderer: PromptRenderer) -> CallShape:
    """The shape of calls, without thoughts before the first and without what ends the model's turn."""
    own = renderer.channels.call if renderer.channels is not None else renderer.call_shape
    shape = own or _tagged(renderer.call_format)
    begin, end = shape.begin, shape.end
    if renderer.think_tags is not None and renderer.think_tags[1] in begin:
        begin = begin[begin.index(renderer.think_tags[1]) + len(renderer.think_tags[1]) :]
    for mark in (*_ENDS, renderer.facts.eos):
        if mark and mark in end:
            end = end[: end.index(mark)]
    return CallShape(begin.lstrip(), shape.middle, end, shape.joint)


def _tagged(format: CallFormat) -> CallShape:
    """JSON between the family's tags, for families that write arguments in another way: the parser reads both."""
    # a tag that has the name in it begins no JSON
    if not format.opens or format.opens[0].endswith("="):
        return DEFAULT_SHAPE
    tag, close = format.opens[0], format.closes[0]
    begin, end = f"{tag}\n{DEFAULT_SHAPE.begin}", f"{DEFAULT_SHAPE.end}\n{close}" if close else DEFAULT_SHAPE.end
    return CallShape(begin, DEFAULT_SHAPE.middle, end, f"{end}\n{begin}" if close else None)


def _repeat(joint: str | None, controls: Mapping[str, int]) -> str:
    return "" if joint is None else f" ({_literals(joint, controls)} call)*"


def _literals(text: str, controls: Mapping[str, int]) -> str:
    """A fixed text in Lark: control tokens by id, ids of calls as any id, the rest as strings."""
    marks = sorted((mark for mark in controls if mark and mark in text), key=len, reverse=True)
    pattern = "|".join(map(re.escape, [PROBE_ID, *marks]))
    return " ".join(_pieces(re.split(f"({pattern})", text), controls))


def _pieces(parts: Iterable[str], controls: Mapping[str, int]) -> Iterable[str]:
    for part in parts:
        if part == PROBE_ID:
            yield _ID
        elif part in controls:
            yield f"<[{controls[part]}]>"
        elif part:
            yield _quoted(part)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
