"""Calls of tools that the families write as markup: names and arguments in tags, not in JSON."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

__all__ = ["read_markup", "typed_value"]

_OPEN: Final = re.compile(r"<([^\s<>=\"/]*(?:invoke|function))(?:\s+name\s*=\s*|=)([\"']?)([^\"'<>\n]+)\2\s*>")
_VALUE: Final = re.compile(
    r"\s*<([^\s<>=\"/]*param(?:eter)?)(?:\s+name\s*=\s*|=)([\"']?)([^\"'<>\n]+)\2"
    r"(?:\s+string=\"(true|false)\")?[^<>]*>"
    # a closing tag counts where something else closes or opens behind it: values may hold one
    r"(?:<!\[CDATA\[(.*?)\]\]>|\n?(.*?)\n?)</\1>(?=\s*(?:<[^\s<>=\"/]*param|</|\Z))",
    re.DOTALL,
)
_PAIR: Final = re.compile(r"<arg_key[^<>]*>(.*?)</arg_key[^<>]*>\s*<arg_value[^<>]*>(.*?)</arg_value[^<>]*>", re.DOTALL)
_PAIRED_CALL: Final = re.compile(r"</?tool_call[^<>]*>")
_SECTION: Final = re.compile(
    r"<\|open\|>argument key=\"([^\"]*)\"(?: type=\"(\w+)\")?<\|sep\|>(.*?)<\|close\|>argument<\|sep\|>", re.DOTALL
)
_JSON_SECTION: Final = re.compile(r"<\|open\|>json[^<>]*<\|sep\|>(.*?)<\|close\|>json<\|sep\|>", re.DOTALL)
_SECTION_NAME: Final = re.compile(r"call tool=\"([^\"]*)\"")
_SPACE: Final = "]<]minimax[>["
_ELEMENT: Final = re.compile(r"<(/?)([^<>]+)>(.*)", re.DOTALL)

_Calls = list[tuple[str, dict[str, Any]]]
_Schema = Mapping[str, Any]


def read_markup(text: str, schemas: Mapping[str, _Schema]) -> _Calls | None:
    """The calls in a text of markup.

    Read are ``<function=f><parameter=a>…`` (Qwen3-Coder, Nemotron 3, Seed), the same with ``name=`` and any prefix
    (``<invoke name="f">``: MiniMax, DeepSeek's DSML; ``<function name="f"><param …>``: MiniCPM), JSON between the outer
    tags (Functionary), ``f<arg_key>a</arg_key><arg_value>…`` (GLM, Ling, Laguna), sections of Kimi K3, elements of
    MiniMax M3.

    Args:
        text: Between, or with, the tags of the family.
        schemas: JSON schemas of the arguments by the tool's name: they say what is a string.

    Returns:
        None: it is no such markup, or not complete.
    """
    if _SPACE in text:
        return _elements(text, schemas)
    if "<|sep|>" in text:
        return _sections(text, schemas)
    if "<arg_key" in text:
        return _pairs(text, schemas)
    return _tags(text, schemas) if _OPEN.search(text) is not None else None


def typed_value(text: str, schema: Any) -> Any:
    """A text as what its schema says it is; a string where the schema says that it may be one."""
    types = schema.get("type") if isinstance(schema, Mapping) else None
    if types == "string" or (isinstance(types, list) and "string" in types):
        return text
    value = _json(text)
    return text if value is None and text.strip() != "null" else value


def _json(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except ValueError:
        return None


def _property(schema: Any, name: str) -> Any:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    return properties.get(name) if isinstance(properties, Mapping) else None


def _tags(text: str, schemas: Mapping[str, _Schema]) -> _Calls | None:
    calls: _Calls = []
    opening = _OPEN.search(text)
    while opening is not None:
        name, at = opening[3].strip(), opening.end()
        values: dict[str, Any] = {}
        while (found := _VALUE.match(text, at)) is not None:
            key, value = found[3].strip(), found[5] if found[5] is not None else found[6]
            schema = _property(schemas.get(name), key)
            kind = {"true": {"type": "string"}, "false": {}}.get(found[4] or "", schema)
            values[key], at = typed_value(value, kind), found.end()
        close = text.find(f"</{opening[1]}>", at)
        rest = text[at : close if close >= 0 else len(text)].strip()
        if rest and not values and isinstance(whole := _json(rest), dict):
            values = whole
        elif rest:
            return None
        calls.append((name, values))
        opening = _OPEN.search(text, close if close >= 0 else len(text))
    return calls


def _pairs(text: str, schemas: Mapping[str, _Schema]) -> _Calls | None:
    # values may hold tags, so they are taken out before the calls are told apart
    pairs: list[tuple[str, str]] = []

    def keep(found: re.Match[str]) -> str:
        pairs.append((found[1].strip(), found[2]))
        return f"<\x00{len(pairs) - 1}>"

    calls: _Calls = []
    for part in _PAIRED_CALL.split(_PAIR.sub(keep, text)):
        name = part.partition("<")[0].strip()
        if name:
            own = [pairs[int(index)] for index in re.findall("<\x00(\\d+)>", part) if int(index) < len(pairs)]
            calls.append((name, {key: typed_value(value, _property(schemas.get(name), key)) for key, value in own}))
    return calls or None


def _sections(text: str, schemas: Mapping[str, _Schema]) -> _Calls | None:
    name = _SECTION_NAME.search(text)
    if name is None:
        return None
    values: Any = {
        # the tag tells the type; without it the schema does
        key: value if kind == "string" else typed_value(value, None if kind else _property(schemas.get(name[1]), key))
        for key, kind, value in _SECTION.findall(text)
    }
    whole = _JSON_SECTION.search(text)
    if whole is not None:
        values = _json(whole[1])
    return [(name[1], values)] if isinstance(values, dict) else None


@dataclass(slots=True)
class _Element:
    name: str
    text: str = ""
    children: list["_Element"] = field(default_factory=list)


def _elements(text: str, schemas: Mapping[str, _Schema]) -> _Calls | None:
    """Every tag stands behind a mark of its own; the tags of arguments are their names, those of lists ``item``."""
    stack = [_Element("")]
    for piece in text.split(_SPACE)[1:]:
        found = _ELEMENT.match(piece)
        if found is None:
            return None
        closing, name, rest = found.groups()
        if not closing:
            element = _Element(name, rest)
            stack[-1].children.append(element)
            stack.append(element)
        elif len(stack) > 1 and stack[-1].name.split(" ")[0] == name:
            stack.pop()
    calls: _Calls = []
    for element in _descend(stack[0]):
        name = element.name.partition('"')[2].partition('"')[0]
        values = _value_of(element, schemas.get(name) or {"type": "object"}) if element.children else {}
        if not name or not isinstance(values, dict):
            return None
        calls.append((name, values))
    return calls or None


def _descend(element: _Element) -> list[_Element]:
    if element.name.startswith("invoke "):
        return [element]
    return [found for child in element.children for found in _descend(child)]


def _value_of(element: _Element, schema: Any) -> Any:
    if not element.children:
        return typed_value(element.text, schema)
    is_list = isinstance(schema, Mapping) and schema.get("type") == "array"
    if is_list or (schema is None and all(child.name == "item" for child in element.children)):
        items = schema.get("items") if isinstance(schema, Mapping) else None
        return [_value_of(child, items) for child in element.children]
    return {child.name: _value_of(child, _property(schema, child.name)) for child in element.children}
