"""One request on one connection: the handler runs as long as somebody listens."""

import secrets
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, Final, Protocol

import msgspec
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from pyggml_server.api.errors import log_failure, message_of, status_of
from pyggml_server.api.listening import while_listening
from pyggml_server.api.v1.errors import anthropic_error, field_of, openai_error

__all__ = ["AnthropicForm", "Endpoint", "ErrorForm", "Frames", "Handler", "OpenAIForm", "describe"]

Frames = AsyncGenerator[bytes, None]
"""Events of a stream, ready to be sent."""

Handler = Callable[[Request], Awaitable[bytes | Frames]]
"""Answers with a JSON document, or with a stream."""

_JSON: Final = (b"content-type", b"application/json; charset=utf-8")
_EVENTS: Final = (b"content-type", b"text/event-stream; charset=utf-8")


class ErrorForm(Protocol):
    """How a family of routes writes errors."""

    def body(self, status: int, message: str, param: str | None) -> dict[str, Any]:
        """The document of an error."""

    def event(self, status: int, message: str) -> bytes:
        """What ends a stream that has begun."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What each response carries."""


class OpenAIForm:
    """Errors as OpenAI's clients expect them."""

    def body(self, status: int, message: str, param: str | None) -> dict[str, Any]:
        """The document of an error."""
        return openai_error(status, message, param=param)

    def event(self, status: int, message: str) -> bytes:
        """What ends a stream that has begun: clients raise at a chunk with an ``error``."""
        return b"data: " + msgspec.json.encode(openai_error(status, message)) + b"\n\n"

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Nothing."""
        return []


class AnthropicForm:
    """Errors as Anthropic's clients expect them, with the id of the request."""

    def __init__(self) -> None:
        self.request_id: Final = f"req_{secrets.token_hex(12)}"

    def body(self, status: int, message: str, param: str | None) -> dict[str, Any]:
        """The document of an error; the form has no place for ``param``."""
        return anthropic_error(status, message, request_id=self.request_id)

    def event(self, status: int, message: str) -> bytes:
        """What ends a stream that has begun."""
        return b"event: error\ndata: " + msgspec.json.encode(self.body(status, message, None)) + b"\n\n"

    def headers(self) -> list[tuple[bytes, bytes]]:
        """The id, which clients put into their own errors."""
        return [(b"request-id", self.request_id.encode())]


class Endpoint:
    """An ASGI application around a handler: cancels it when the client goes away, writes its errors.

    Args:
        handler: Takes the request, gives a document or a stream. Errors before the first event of a stream have
            their own status; later ones become the last event.
        form: Makes the form of errors, once per request.
    """

    def __init__(self, handler: Handler, form: Callable[[], ErrorForm] = OpenAIForm) -> None:
        self._handler: Final = handler
        self._form: Final = form

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        request = Request(scope, receive)
        form = self._form()
        await while_listening(request, lambda: self._serve(request, form, send))

    async def _serve(self, request: Request, form: ErrorForm, send: Send) -> None:
        try:
            answer = await self._handler(request)
            if not isinstance(answer, bytes):
                first = await anext(answer, b"")
        except Exception as error:
            status, message = describe(error)
            body = msgspec.json.encode(form.body(status, message, field_of(error)))
            await _send_document(send, status, form.headers(), body)
            return
        if isinstance(answer, bytes):
            await _send_document(send, 200, form.headers(), answer)
        else:
            async with aclosing(answer):
                await _send_events(send, form, first, answer)


async def _send_document(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [_JSON, length, *headers]})
    await send({"type": "http.response.body", "body": body})


async def _send_events(send: Send, form: ErrorForm, first: bytes, rest: Frames) -> None:
    headers = [_EVENTS, (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"), *form.headers()]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": first, "more_body": True})
    try:
        async for frame in rest:
            await send({"type": "http.response.body", "body": frame, "more_body": True})
    except Exception as error:
        await send({"type": "http.response.body", "body": form.event(*describe(error)), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def describe(error: Exception) -> tuple[int, str]:
    """Status and message of an error."""
    if isinstance(error, msgspec.ValidationError | msgspec.DecodeError):
        return 400, str(error)
    status = status_of(error)
    if status == 500:
        log_failure(error)
    return status, message_of(error)
