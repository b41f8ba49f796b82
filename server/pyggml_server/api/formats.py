"""``format``: from what a request says to a grammar that the runner obeys."""

import json
from collections.abc import Mapping
from typing import Any, Final

from pyggml_server.errors import BadRequestError
from pyggml_server.protocol import GrammarText

__all__ = ["parse_format"]

# kind: the fields under which its text may stand, the first one documented
_FIELDS: Final = {
    "gbnf": ("grammar", "value"),
    "lark": ("grammar", "value"),
    "regex": ("pattern", "value"),
    "choice": ("choices", "value"),
}

_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions")
_NESTED: Final = ("items", "prefixItems", "additionalProperties", "anyOf", "oneOf")
_SAYS_OTHERWISE: Final = ("additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "$ref")


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
    return GrammarText("json_schema", json.dumps(_closed(value), ensure_ascii=False), lenient=not strict)


def _closed(schema: Any) -> Any:
    """The schema with objects that have just the properties it lists, unless it says otherwise.

    JSON Schema allows any others; Ollama's grammars do not, and most schemas (pydantic's among them) count on that.
    """
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    closed = dict(schema)
    for name in _NAMED:
        if isinstance(closed.get(name), Mapping):
            closed[name] = {key: _closed(value) for key, value in closed[name].items()}
    for name in _NESTED:
        if name in closed:
            closed[name] = _closed(closed[name])
    # parts of an allOf must stay open: each would forbid the properties of the others
    if "properties" in closed and not any(name in closed for name in _SAYS_OTHERWISE):
        closed["additionalProperties"] = False
    return closed


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
