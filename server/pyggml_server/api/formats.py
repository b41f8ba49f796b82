"""``format``: from what a request says to a grammar that the runner obeys."""

import json
from collections.abc import Mapping
from typing import Any, Final

from pyggml_server.errors import BadRequestError
from pyggml_server.protocol import GrammarText
from pyggml_server.templates import close_schema

__all__ = ["parse_format"]

# kind: the fields under which its text may stand, the first one documented
_FIELDS: Final = {
    "gbnf": ("grammar", "value"),
    "lark": ("grammar", "value"),
    "regex": ("pattern", "value"),
    "choice": ("choices", "value"),
}


def parse_format(value: Any) -> GrammarText | None:
    """The grammar of a ``format`` field; None when there is none.

    ``"json"`` is any JSON object, an object is a JSON schema. What Ollama lacks are objects whose ``type`` no JSON
    schema has: ``{"type": "gbnf" | "lark", "grammar": …}``, ``{"type": "regex", "pattern": …}``,
    ``{"type": "choice", "choices": […]}`` and ``{"type": "json_schema", "schema": …, "strict": true}``, in which
    keywords that cannot be enforced are an error instead of being ignored.

    Raises:
        BadRequestError: it is something else.
    """
    if value is None or value == "":
        return None
    if value == "json":
        return GrammarText("json_schema", '{"type":"object"}')
    if not isinstance(value, Mapping):
        text = json.dumps(value, ensure_ascii=False)[:200]
        raise BadRequestError(f'invalid format: {text}; expected "json" or a valid JSON Schema object')
    kind = value.get("type")
    if isinstance(kind, str) and kind in _FIELDS:
        return _grammar(kind, value)
    if kind == "json_schema":
        schema, strict = value.get("schema"), value.get("strict")
        if not isinstance(schema, Mapping) or not isinstance(strict, bool | None):
            raise BadRequestError(
                'invalid format: {"type": "json_schema"} needs "schema", a JSON schema; "strict" must be true or false'
            )
        return _schema(schema, strict=bool(strict))
    # Ollama ignores keywords that it does not know
    return _schema(value, strict=False)


def _schema(value: Mapping[str, Any], *, strict: bool) -> GrammarText:
    return GrammarText("json_schema", json.dumps(close_schema(value), ensure_ascii=False), lenient=not strict)


def _grammar(kind: str, value: Mapping[str, Any]) -> GrammarText:
    name = next((name for name in _FIELDS[kind] if name in value), _FIELDS[kind][0])
    body = value.get(name)
    if kind == "choice":
        if not isinstance(body, list) or not body or not all(isinstance(text, str) for text in body):
            raise BadRequestError('invalid format: {"type": "choice"} needs "choices", a list of one or more texts')
        return GrammarText(kind, json.dumps(body, ensure_ascii=False))
    if not isinstance(body, str) or not body:
        raise BadRequestError(f'invalid format: {{"type": "{kind}"}} needs "{_FIELDS[kind][0]}", a text')
    return GrammarText(kind, body)
