"""Calls of tools from the texts in which the families write them."""

import ast
import json
import re
from collections.abc import Mapping
from typing import Any, Final

from pyggml_server.templates.markup import read_markup

__all__ = ["Calls", "Schemas", "decode_calls"]

Calls = list[tuple[str, dict[str, Any]]]
"""Names and arguments."""

Schemas = Mapping[str, Mapping[str, Any]]
"""JSON schemas of the arguments by the tool's name."""

_NAMES: Final = ("name", "tool_name", "function_name", "function")
_ARGUMENTS: Final = ("arguments", "parameters", "args", "input", "kwargs")
_FENCE: Final = re.compile(r"^```\w*\s*|\s*```$")
_MARKUP: Final = re.compile(r"(?:function|invoke)(?:\s+name\s*)?=|<arg_key|<\|sep\|>")
_WORD: Final = re.compile(r"[\w.\-]+")
_SEPARATOR: Final = re.compile(r"<[^<>\s]*>|\[[A-Z_]+\]|```\w*")
_BARE_STRING: Final = re.compile(r'<\|"\|>(.*?)<\|"\|>|<escape>(.*?)<escape>', re.DOTALL)
_BARE_KEY: Final = re.compile(r"([{,]\s*)([A-Za-z_][\w.\-]*)\s*:")


def decode_calls(body: str, schemas: Schemas) -> Calls | None:
    """The calls in the text between a family's tags.

    Read are: JSON objects with a name and arguments under any of the usual keys, and lists of them; a name followed by
    an object with the arguments; markup (:func:`read_markup`); calls as Python and Gemma write them.

    Args:
        body: The text without the tags.
        schemas: Those of the tools. They decide what is a name where that is not plain, and which arguments are strings
            where the text does not tell.

    Returns:
        None: it is none of these, or not complete.
    """
    text = _FENCE.sub("", body.strip())
    if not text:
        return None
    try:
        if text[0] in "{[":
            values = _json_values(text)
            return _from_json(values, schemas) if values else _from_python(text)
        mark = _MARKUP.search(text)
        # within JSON it is a part of some string
        if mark is not None and "{" not in text[: mark.start()]:
            return read_markup(text, schemas)
        return _from_header(text, schemas)
    except RecursionError:
        return None


def _json(text: str) -> Any:
    try:
        return json.loads(text, strict=False)
    except ValueError:
        return None


def _json_values(text: str) -> list[Any]:
    """JSON values one after the other; empty: the text is something else."""
    decoder, values, at = json.JSONDecoder(strict=False), [], 0
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
        except ValueError:
            return []
        values.append(value)
        at += len(text[at:]) - len(text[at:].lstrip("\n\r\t ,;"))
    return values


def _from_json(value: Any, schemas: Schemas) -> Calls | None:
    if isinstance(value, list):
        calls = [_from_json(element, schemas) for element in value]
        return [call for found in calls if found for call in found] if calls and all(calls) else None
    if not isinstance(value, dict):
        return None
    inner = value.get("function")
    if isinstance(inner, dict):
        return _from_json(inner, schemas)
    name = next((value[key] for key in _NAMES if isinstance(value.get(key), str)), None)
    arguments: Any = next((value[key] for key in _ARGUMENTS if key in value), {})
    if name is None and len(value) == 1:
        # the name is the key, as in {"f": {"a": 1}}
        name, arguments = next(iter(value.items()))
        name = name if name in schemas else None
    if isinstance(arguments, str):
        arguments = _json(arguments)
    if not name or not isinstance(arguments, dict | None):
        return None
    return [(name, arguments or {})]


def _from_header(text: str, schemas: Schemas) -> Calls | None:
    """A name, whatever stands around it, then the arguments; without arguments there is only the name."""
    at = text.find("{")
    header, rest = (text[:at], text[at:]) if at >= 0 else (text, "{}")
    whole = _from_json(_json(rest), schemas) if at >= 0 else None
    if whole is not None:
        return whole
    words = [_clean(word) for word in _WORD.findall(_SEPARATOR.sub(" ", header))]
    name = next((word for word in words if word in schemas), None)
    if name is None:
        # an id of the call may follow the name; "function" may stand before it
        name = next((word for word in words if word not in ("function", "call", "json", "tool")), None)
    rest = _FENCE.sub("", rest.strip())
    arguments = _json(rest)
    if arguments is None:
        arguments = _json(_quote(rest))
    if name is None or not isinstance(arguments, dict) or (at < 0 and name not in schemas):
        return None
    return [(name, arguments)]


def _clean(word: str) -> str:
    return word.removeprefix("functions.").strip(".-")


def _quote(text: str) -> str:
    """Arguments as Gemma writes them, as JSON: keys without quotes, strings between special tokens."""
    strings: list[str] = []

    def keep(found: re.Match[str]) -> str:
        strings.append(json.dumps(found[1] if found[1] is not None else found[2], ensure_ascii=False))
        return f"\x00{len(strings) - 1}\x00"

    quoted = _BARE_KEY.sub(lambda found: f'{found[1]}"{found[2]}":', _BARE_STRING.sub(keep, text))
    return re.sub(
        "\x00(\\d+)\x00", lambda found: strings[int(found[1])] if int(found[1]) < len(strings) else "", quoted
    )


def _from_python(text: str) -> Calls | None:
    """``[f(a=1), g()]``, as Llama 4 and LFM2 write calls."""
    try:
        tree = ast.parse(text, mode="eval").body
        elements = tree.elts if isinstance(tree, ast.List) else [tree]
        calls: Calls = []
        for element in elements:
            if not isinstance(element, ast.Call) or element.args:
                return None
            keywords = {keyword.arg or "": ast.literal_eval(_names(keyword.value)) for keyword in element.keywords}
            calls.append((ast.unparse(element.func), keywords))
        return calls or None
    except (SyntaxError, ValueError, TypeError, MemoryError):
        return None


_LITERALS: Final = {"true": True, "false": False, "null": None}


class _Names(ast.NodeTransformer):
    def visit_Name(self, node: ast.Name) -> ast.expr:
        return ast.Constant(_LITERALS[node.id]) if node.id in _LITERALS else node


def _names(node: ast.expr) -> ast.expr:
    """Literals as JSON spells them in the place of names."""
    found: ast.expr = _Names().visit(node)
    return found
