"""What happens to every request before the routes: pure ASGI, nothing between the parts of a stream."""

import hashlib
import hmac
import logging
import time
from collections.abc import Sequence
from typing import Any, Final

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyggml_server.api.encodings import error_form
from pyggml_server.api.endpoint import Document, send_document
from pyggml_server.api.metrics import ServerMetrics

__all__ = ["AccessLog", "ApiKeys", "BodyLimit"]

_log: Final = logging.getLogger("pyggml.access")
_OPEN: Final = frozenset({"/", "/health"})
"""What is answered without a key: balancers ask for it."""


class AccessLog:
    """A line in the log and a count in the metrics for each request.

    Args:
        app: What is inside.
        metrics: Counts.
    """

    def __init__(self, app: ASGIApp, metrics: ServerMetrics) -> None:
        self._app: Final = app
        self._metrics: Final = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 499  # what remains if the client goes before there is an answer

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting)
        except Exception:
            status = 500
            raise
        finally:
            seconds = time.perf_counter() - started
            route = _route(scope)
            self._metrics.request(method=scope["method"], route=route, status=status, seconds=seconds)
            client = scope["client"][0] if scope.get("client") else "-"
            level = logging.DEBUG if route in ("/health", "/metrics") else logging.INFO
            _log.log(level, "%d %s %s %.3f s %s", status, scope["method"], _printable(scope["path"]), seconds, client)


def _route(scope: Scope) -> str:
    """The path of the route, with its parameters unfilled: few values, whatever clients ask for."""
    route = scope.get("route")
    path: Any = getattr(route, "path", None)
    return path if isinstance(path, str) else "unknown"


def _printable(path: str) -> str:
    return path.encode("unicode_escape").decode()[:300]


class ApiKeys:
    """Lets in who shows one of the keys, as a bearer token or in ``x-api-key``.

    Args:
        app: What is inside.
        keys: ``sha256:HEX`` of each key. The keys themselves are kept nowhere.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app: Final = app
        self._hashes: Final = [bytes.fromhex(key.removeprefix("sha256:")) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"] in _OPEN or scope["method"] == "OPTIONS":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        kind, _, token = headers.get("authorization", "").partition(" ")
        shown = token.strip() if kind.lower() == "bearer" else headers.get("x-api-key", "")
        found = hashlib.sha256(shown.encode("utf-8", "replace")).digest()
        # every key is compared, so that the time tells nothing
        if not sum(hmac.compare_digest(found, known) for known in self._hashes):
            headers_out = ((b"www-authenticate", b"Bearer"),)
            await send_document(send, Document(_unauthorized(scope["path"]), 401, headers=headers_out))
            return
        await self._app(scope, receive, send)


def _unauthorized(path: str) -> dict[str, Any]:
    """The error in the form of the API that was asked."""
    text = "unauthorized: this server wants an API key (Authorization: Bearer …)"
    if path.startswith("/v1/messages"):
        return {"type": "error", "error": {"type": "authentication_error", "message": text}}
    if path.startswith("/v1/"):
        error = {"message": text, "type": "authentication_error", "param": None, "code": "invalid_api_key"}
        return {"error": error}
    return {"error": text}


class BodyLimit:
    """Refuses bodies that are too long, whether they say so or not.

    Args:
        app: What is inside.
        limit: Most bytes.
        free: Paths that begin so have no limit: uploads that go to disk.
    """

    def __init__(self, app: ASGIApp, *, limit: int, free: str) -> None:
        self._app: Final = app
        self._limit: Final = limit
        self._free: Final = free

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["path"].startswith(self._free):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        length = headers.get("content-length", "")
        if length.isascii() and length.isdigit() and "transfer-encoding" not in headers:
            # the server reads no more than what is announced
            await (self._app(scope, receive, send) if int(length) <= self._limit else self._refuse(scope, send))
            return
        seen, refused, answered = 0, False, False

        async def counting() -> Message:
            nonlocal seen, refused
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._limit:
                refused = True
                return {"type": "http.disconnect"}
            return message

        async def noting(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        await self._app(scope, counting, noting)
        if refused and not answered:
            await self._refuse(scope, send)

    async def _refuse(self, scope: Scope, send: Send) -> None:
        form = error_form(scope["path"], 413, f"request body too large: at most {self._limit} bytes")
        await send_document(send, Document(form, 413, headers=((b"connection", b"close"),)))
