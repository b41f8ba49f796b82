"""What an answer must look like: ``response_format`` and its relatives as Ollama's ``format``."""

from collections.abc import Mapping
from typing import Any, Final

from pyggml_server.api.v1.errors import FieldError

__all__ = ["Format", "format_of"]

Format = str | dict[str, Any] | None
"""``json``, a JSON schema, ``{"type": "gbnf", "grammar": …}`` and its like, or nothing."""

# beyond OpenAI
_GRAMMARS: Final = ("gbnf", "lark", "regex", "choice")


def format_of(given: Mapping[str, Any] | None, *, param: str) -> Format:
    """Read ``{"type": "text" | "json_object" | "json_schema" | "gbnf" | "lark" | "regex" | "choice", …}``.

    A JSON schema lies in ``json_schema.schema`` (chat) or ``schema`` (responses). It is enforced with and without
    ``strict``; with it, keywords that cannot be enforced are an error, otherwise they are ignored. Grammars are those
    of :mod:`pyggml_server.api.formats`.

    Raises:
        FieldError: an unknown type, or the schema is missing.
    """
    if given is None:
        return None
    kind = given.get("type")
    if kind == "text":
        return None
    if kind == "json_object":
        return "json"
    if kind == "json_schema":
        return _schema_of(given, param=param)
    if kind in _GRAMMARS:
        return dict(given)
    known = ", ".join(("text", "json_object", "json_schema", *_GRAMMARS))
    raise FieldError(f"{param}.type must be one of: {known}", param=f"{param}.type")


def _schema_of(given: Mapping[str, Any], *, param: str) -> dict[str, Any]:
    nested = given.get("json_schema")
    inner, path = (nested, f"{param}.json_schema.schema") if nested is not None else (given, f"{param}.schema")
    if not isinstance(inner, Mapping) or not isinstance(inner.get("schema"), dict):
        raise FieldError(f"{path} is missing: a JSON schema (an object)", param=path)
    strict = inner.get("strict")
    if not isinstance(strict, bool | None):
        where = path.removesuffix("schema") + "strict"
        raise FieldError(f"{where} must be true or false", param=where)
    return {"type": "json_schema", "schema": inner["schema"], "strict": bool(strict)}
