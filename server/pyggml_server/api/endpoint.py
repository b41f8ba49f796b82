"""One request: the handler runs as long as somebody listens; its answer is a document or lines of JSON."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from pyggml_server.api.bodies import decode_body
from pyggml_server.api.errors import log_failure, message_of, status_of
from pyggml_server.api.listening import while_listening
from pyggml_server.api.state import ApiState

__all__ = ["Call", "Document", "Endpoint", "Lines", "Operation", "Reply"]

_JSON: Final = b"application/json; charset=utf-8"
_NDJSON: Final = (b"content-type", b"application/x-ndjson")

Lines = AsyncGenerator[msgspec.Struct | Mapping[str, Any], None]
"""A stream of objects, one line each."""


@dataclass(frozen=True, slots=True)
class Document:
    """A whole answer: bytes, or an object that becomes JSON."""

    body: Any = b""
    status: int = 200
    content_type: bytes = _JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


Reply = Document | Lines


@dataclass(frozen=True, slots=True)
class Call:
    """A request with its body read and checked.

    Attributes:
        state: The parts of the server.
        body: An object of the operation's body type; None where it has none.
        request: The request; its body has been read, unless the operation streams it.
    """

    state: ApiState
    body: Any
    request: Request


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """A line of the route table.

    Attributes:
        method: ``GET``, ``POST`` … (``GET`` serves ``HEAD`` too).
        path: With parameters as Starlette writes them.
        handler: Serves it.
        summary: One line for the OpenAPI document.
        body: Type of the request's body; None: it has none.
        answer: Type of the answer; of each line, for streams.
        streams: Answers with lines of JSON, unless the body says ``"stream": false``.
        statuses: Other statuses than 200 that it answers with, and why.
        content_type: Of the answer, where it is not JSON.
        upload: The body is a stream of bytes that the handler reads itself.
    """

    method: str
    path: str
    handler: Callable[[Call], Awaitable[Reply]]
    summary: str
    body: Any = None
    answer: Any = None
    streams: bool = False
    statuses: Mapping[int, str] = field(default_factory=dict)
    content_type: str = "application/json"
    upload: bool = False


class Endpoint:
    """An ASGI application for the operations of one path.

    Args:
        state: Handed to the handlers.
        operations: By method.
    """

    def __init__(self, state: ApiState, operations: Mapping[str, Operation]) -> None:
        self._state: Final = state
        self._operations: Final = operations
        self._decoders: Final = {
            method: msgspec.json.Decoder(operation.body)
            for method, operation in operations.items()
            if operation.body is not None
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; when the client goes away, the handler is cancelled."""
        request = Request(scope, receive)
        operation = self._operations.get(request.method) or self._operations["GET"]
        if operation.upload:
            await self._serve(operation, request, send)
            return
        await while_listening(request, lambda: self._serve(operation, request, send))

    async def _serve(self, operation: Operation, request: Request, send: Send) -> None:
        first: Any = None
        try:
            call = Call(self._state, await self._read(operation, request), request)
            reply = await operation.handler(call)
            if not isinstance(reply, Document):
                first = await anext(reply, None)
        except ClientDisconnect:
            return
        except Exception as error:
            reply = error_document(error)
        if isinstance(reply, Document):
            await send_document(send, reply, head=request.method == "HEAD")
        else:
            async with aclosing(reply):
                await _send_lines(send, first, reply)

    async def _read(self, operation: Operation, request: Request) -> Any:
        decoder = self._decoders.get(operation.method)
        if decoder is None:
            return None
        body = await request.body()
        if not body:
            raise msgspec.ValidationError("missing request body")
        return decode_body(decoder, body)


def error_document(error: Exception) -> Document:
    """``{"error": …}`` with the status of the exception."""
    if isinstance(error, msgspec.DecodeError):
        return Document({"error": str(error)}, 400)
    status = status_of(error)
    if status == 500:
        log_failure(error)
    return Document({"error": message_of(error)}, status)


async def send_document(send: Send, document: Document, *, head: bool = False) -> None:
    """Send a whole answer."""
    body = document.body if isinstance(document.body, bytes) else msgspec.json.encode(document.body)
    headers = [(b"content-length", str(len(body)).encode()), *document.headers]
    if body:
        headers.append((b"content-type", document.content_type))
    await send({"type": "http.response.start", "status": document.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if head else body})


async def _send_lines(send: Send, first: Any, rest: Lines) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [_NDJSON]})
    encode = msgspec.json.Encoder().encode_into
    buffer = bytearray()
    try:
        if first is not None:
            await _send_line(send, encode, buffer, first)
        async for item in rest:
            await _send_line(send, encode, buffer, item)
    except Exception as error:
        await _send_line(send, encode, buffer, error_document(error).body)
    await send({"type": "http.response.body", "body": b""})


async def _send_line(send: Send, encode: Callable[[Any, bytearray], None], buffer: bytearray, item: Any) -> None:
    encode(item, buffer)
    buffer += b"\n"
    await send({"type": "http.response.body", "body": bytes(buffer), "more_body": True})
    buffer.clear()
