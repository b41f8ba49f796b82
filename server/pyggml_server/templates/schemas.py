"""JSON schemas as models are held to them."""

from collections.abc import Mapping
from typing import Any, Final

__all__ = ["close_schema"]

_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions")
_NESTED: Final = ("items", "prefixItems", "additionalProperties", "anyOf", "oneOf")
_SAYS_OTHERWISE: Final = ("additionalProperties", "patternProperties", "unevaluatedProperties", "allOf", "$ref")


def close_schema(schema: Any) -> Any:
    """The schema with objects that have just the properties it lists, unless it says otherwise.

    JSON Schema allows any others; Ollama's grammars do not, and most schemas (pydantic's among them) count on that.
    """
    if isinstance(schema, list):
        return [close_schema(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    closed = dict(schema)
    for name in _NAMED:
        if isinstance(closed.get(name), Mapping):
            closed[name] = {key: close_schema(value) for key, value in closed[name].items()}
    for name in _NESTED:
        if name in closed:
            closed[name] = close_schema(closed[name])
    # parts of an allOf must stay open: each would forbid the properties of the others
    if "properties" in closed and not any(name in closed for name in _SAYS_OTHERWISE):
        closed["additionalProperties"] = False
    return closed
