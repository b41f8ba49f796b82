"""What the routes below ``/v1`` say when something is wrong with a request, or with the service."""

import re
from typing import Any, Final

import msgspec

from pyggml_server.errors import BadRequestError

__all__ = ["FieldError", "anthropic_error", "field_of", "openai_error"]

_OPENAI_TYPES: Final = {400: "invalid_request_error", 404: "not_found_error"}
_ANTHROPIC_TYPES: Final = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "request_too_large",
    415: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}
_PATH = re.compile(r" - at `(?:key in )?\$\.?([^`]*)`\Z")


class FieldError(BadRequestError):
    """A field of the request cannot be used (status 400).

    Args:
        message: what is wrong, and what to do.
        param: the field's path, e.g. ``messages[0].content``.
    """

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.param: Final = param


def field_of(error: Exception) -> str | None:
    """The path of the field that an error is about, None if it names none."""
    if isinstance(error, FieldError):
        return error.param
    if isinstance(error, msgspec.ValidationError):
        found = _PATH.search(str(error))
        return found[1].replace("[...]", "[]") or None if found else None
    return None


def openai_error(status: int, message: str, *, param: str | None = None) -> dict[str, Any]:
    """The body of an error in OpenAI's form; types as Ollama names them.

    ``code`` is ``context_length_exceeded`` where a prompt is too long (clients look for it), else null.
    """
    code = "context_length_exceeded" if status == 400 and "context length" in message else None
    kind = _OPENAI_TYPES.get(status, "api_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def anthropic_error(status: int, message: str, *, request_id: str) -> dict[str, Any]:
    """The body of an error in Anthropic's form."""
    kind = _ANTHROPIC_TYPES.get(status, "api_error")
    return {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
