"""``/openapi.json``, made of the table of routes and the types of bodies and answers."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final

import msgspec

__all__ = ["Description", "build_document"]

_PARAMETER: Final = re.compile(r"\{(\w+)(?::\w+)?\}")
_REF: Final = "#/components/schemas/{name}"
_FAILURE: Final = {"type": "object", "properties": {"error": {"type": "object"}}, "required": ["error"]}
"""What ends a stream that failed after it had begun."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Description:
    """One operation as the document tells of it.

    Attributes:
        method: ``GET``, ``POST`` …
        path: As Starlette writes it.
        summary: One line.
        body: Type of the request's body; None: it has none.
        answer: Type of the answer, or of each line of a stream; None: nothing in particular.
        event: Type of what the events of a stream hold; None: it is no stream of events.
        stream_type: Content type of the answer when it is streamed; None: it never is.
        statuses: Statuses other than 200, and why.
        content_type: Of the answer when it is not streamed.
        upload: The body is a stream of bytes.
        tag: Group.
    """

    method: str
    path: str
    summary: str
    body: Any = None
    answer: Any = None
    event: Any = None
    stream_type: str | None = None
    statuses: Mapping[int, str] = field(default_factory=dict)
    content_type: str = "application/json"
    upload: bool = False
    tag: str = "ollama"


def build_document(descriptions: Iterable[Description], *, version: str) -> dict[str, Any]:
    """The document, in OpenAPI 3.1.

    Args:
        descriptions: The operations.
        version: Of this server.
    """
    operations = list(descriptions)
    types = [kind for one in operations for kind in (one.body, one.answer, one.event) if kind is not None]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    found = iter(schemas)
    paths: dict[str, Any] = {}
    for one in operations:
        body = next(found) if one.body is not None else None
        answer = next(found) if one.answer is not None else {}
        event = next(found) if one.event is not None else None
        path = _PARAMETER.sub(r"{\1}", one.path)
        paths.setdefault(path, {})[one.method.lower()] = _operation(one, body, answer, event)
    return {
        "openapi": "3.1.0",
        "info": {"title": "pyggml", "version": version, "summary": "Ollama's API, OpenAI's, Anthropic's, and more"},
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(one: Description, body: Any, answer: Any, event: Any) -> dict[str, Any]:
    content = {one.content_type: {"schema": answer}}
    if one.stream_type is not None:
        content[one.stream_type] = {"schema": answer if event is None else _event(event)}
    responses: dict[str, Any] = {"200": {"description": "Done.", "content": content}}
    for status, reason in sorted(one.statuses.items()):
        responses[str(status)] = {"description": reason or HTTPStatus(status).phrase}
    responses["default"] = {"description": "An error; the body tells which.", "content": {"application/json": {}}}
    operation: dict[str, Any] = {
        "summary": one.summary,
        "tags": [one.tag],
        "operationId": _identifier(one),
        "responses": responses,
    }
    names = [match[1] for match in _PARAMETER.finditer(one.path)]
    if names:
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names
        ]
    if one.upload:
        operation["requestBody"] = {"required": True, "content": {"application/octet-stream": {}}}
    elif body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _event(held: Any) -> dict[str, Any]:
    """Schema of a server-sent event (before OpenAPI 3.2, that of a stream is that of each event)."""
    document = {"type": "string", "contentMediaType": "application/json", "contentSchema": {"anyOf": [held, _FAILURE]}}
    return {
        "type": "object",
        "properties": {"event": {"type": "string"}, "data": {"anyOf": [{"const": "[DONE]"}, document]}},
        "required": ["data"],
    }


def _identifier(one: Description) -> str:
    words = re.sub(r"\W+", "_", _PARAMETER.sub(r"\1", one.path)).strip("_") or "root"
    return f"{one.method.lower()}_{words}"
