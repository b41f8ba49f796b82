"""Bodies of requests that arrive compressed (``Content-Encoding``), as some clients send theirs."""

import asyncio
import zlib
from collections.abc import Callable
from typing import Any, Final, Protocol

import zstandard
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyggml_server.api.endpoint import Document, send_document
from pyggml_server.api.v1.errors import anthropic_error, openai_error

__all__ = ["ContentEncoding", "EncodingError", "decompress", "error_form"]

_SLICE: Final = 1024
"""Bytes given to a decompressor at once: they become 32 MiB at most (a block of 128 KiB from every 4 bytes)."""

_WINDOW: Final = 2**23
"""Memory for what a Zstandard frame refers back to; RFC 8878 recommends 8 MiB to every decoder."""

_AT_ONCE: Final = 2**16
"""Shorter bodies are decompressed on the event loop; a thread costs more."""


class EncodingError(Exception):
    """A body cannot be decompressed.

    Args:
        message: What is wrong.
        status: 400: damaged, 413: too long, 415: an encoding that is not known.
    """

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status: Final = status


class _Decompressor(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, /) -> bytes: ...


_Made = tuple[_Decompressor, type[Exception]]
"""A decompressor and what it raises."""


def _gzip() -> _Made:
    return zlib.decompressobj(wbits=31), zlib.error


def _deflate() -> _Made:
    return zlib.decompressobj(), zlib.error


def _zstd() -> _Made:
    return zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj(), zstandard.ZstdError


_ENCODINGS: Final[dict[str, Callable[[], _Made]]] = {
    "gzip": _gzip, "x-gzip": _gzip, "deflate": _deflate, "zstd": _zstd,
}  # fmt: skip


def decompress(body: bytes, encoding: str, *, limit: int) -> bytes:
    """A body without its encoding.

    Args:
        body: As it came.
        encoding: ``gzip``, ``deflate`` or ``zstd``.
        limit: Most bytes of the result.

    Raises:
        EncodingError: it is damaged, longer than ``limit``, or the encoding is another one.
    """
    make = _ENCODINGS.get(encoding)
    if make is None:
        raise EncodingError(
            f"content encoding {encoding[:40]!r} is not supported: only gzip, deflate, zstd", status=415
        )
    decompressor, failure = make()
    parts, size = list[bytes](), 0
    try:
        for at in range(0, len(body), _SLICE):
            parts.append(decompressor.decompress(body[at : at + _SLICE]))
            size += len(parts[-1])
            if size > limit:
                raise EncodingError(f"request body too large: at most {limit} bytes", status=413)
    except failure as error:
        raise EncodingError(f"the request body is no valid {encoding}: {error}", status=400) from error
    if body and not decompressor.eof:
        raise EncodingError(f"the request body is no valid {encoding}: it ends too early", status=400)
    return b"".join(parts)


def error_form(path: str, status: int, message: str) -> dict[str, Any]:
    """An error in the form of the API that was asked."""
    if path.startswith("/v1/messages"):
        return anthropic_error(status, message, request_id="")
    return openai_error(status, message) if path.startswith("/v1/") else {"error": message}


class ContentEncoding:
    """Decompresses bodies.

    Args:
        app: What is inside; it sees plain bodies.
        limit: Most bytes of a body, without its encoding.
        free: Paths that begin so are left alone: uploads that go to disk as they are.
    """

    def __init__(self, app: ASGIApp, *, limit: int, free: str) -> None:
        self._app: Final = app
        self._limit: Final = limit
        self._free: Final = free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        encoding = ""
        if scope["type"] == "http" and not scope["path"].startswith(self._free):
            encoding = Headers(scope=scope).get("content-encoding", "").strip().lower()
        if encoding in ("", "identity"):
            await self._app(scope, receive, send)
            return
        body = await _read(receive)
        if body is None:
            return
        try:
            if len(body) > _AT_ONCE:
                plain = await asyncio.to_thread(decompress, body, encoding, limit=self._limit)
            else:
                plain = decompress(body, encoding, limit=self._limit)
        except EncodingError as error:
            form = error_form(scope["path"], error.status, str(error))
            await send_document(send, Document(form, error.status))
            return
        await self._app(_without_encoding(scope, len(plain)), _replay(plain, receive), send)


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None: the client went away."""
    parts = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _without_encoding(scope: Scope, length: int) -> Scope:
    kept = [pair for pair in scope["headers"] if pair[0] not in (b"content-encoding", b"content-length")]
    return {**scope, "headers": [*kept, (b"content-length", str(length).encode())]}


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body in one message, then what comes after it."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
