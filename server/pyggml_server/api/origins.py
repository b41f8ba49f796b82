"""Who may ask: the guard of the Host header against rebinding of names, and origins of web pages (CORS)."""

import ipaddress
import re
import socket
from collections.abc import Iterable, Sequence
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pyggml_server.api.endpoint import Document, send_document

__all__ = ["Cors", "HostGuard", "is_loopback"]

_LOCAL: Final = ("localhost", "127.0.0.1", "0.0.0.0")
_APPS: Final = ("app://*", "file://*", "tauri://*", "vscode-webview://*", "vscode-file://*")
_EXTENSIONS: Final = ("chrome-extension://*", "safari-extension://*", "moz-extension://*", "ms-browser-extension://*")
_METHODS: Final = "GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS"
_HEADERS: Final = (
    "Authorization", "Content-Type", "User-Agent", "Accept", "X-Requested-With", "X-Api-Key", "OpenAI-Beta",
    "Anthropic-Version", "Anthropic-Beta", "Anthropic-Dangerous-Direct-Browser-Access",
    *(f"x-stainless-{name}" for name in (
        "arch", "async", "custom-poll-interval", "helper-method", "lang", "os", "package-version", "poll-helper",
        "retry-count", "runtime", "runtime-version", "timeout",
    )),
)  # fmt: skip
_MAX_AGE: Final = "43200"


def is_loopback(host: str) -> bool:
    """Whether a server that listens there can only be reached from this machine."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class HostGuard:
    """Refuses requests to names that are not this machine's, so that no web page can reach a local server by a name
    of its own that it makes point here.

    Args:
        app: What is inside.
        hostname: The machine's name.
    """

    def __init__(self, app: ASGIApp, *, hostname: str | None = None) -> None:
        self._app: Final = app
        self._hostname: Final = (hostname or socket.gethostname()).lower()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or self._allowed(Headers(scope=scope).get("host", "")):
            await self._app(scope, receive, send)
        elif scope["method"] == "OPTIONS":
            await send_document(send, Document(status=204))
        else:
            await send_document(send, Document(status=403))

    def _allowed(self, header: str) -> bool:
        host = _without_port(header).lower().rstrip(".")
        if host in ("", "localhost", self._hostname):
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return host.endswith((".localhost", ".local", ".internal"))
        return address.is_loopback or address.is_private or address.is_unspecified


def _without_port(header: str) -> str:
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0] if header.count(":") == 1 else header


class Cors:
    """Answers browsers that ask whether a page may use the server, and refuses pages that may not.

    Args:
        app: What is inside.
        origins: Allowed besides local pages, desktop apps and browser extensions; ``*`` stands for any text.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app: Final = app
        self._any: Final = "*" in origins
        self._pattern: Final = re.compile("|".join(map(_pattern, [*origins, *_built_in()])), re.IGNORECASE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        headers = Headers(scope=scope) if scope["type"] == "http" else None
        origin = headers.get("origin", "") if headers is not None else ""
        if headers is None or not origin or _same(origin, headers.get("host", "")):
            await self._app(scope, receive, send)
        elif not self._any and not self._pattern.fullmatch(origin):
            await send_document(send, Document(status=403))
        elif scope["method"] == "OPTIONS":
            await send_document(send, Document(status=204, headers=self._preflight(origin)))
        else:
            await self._app(scope, receive, self._marking(send, origin))

    def _preflight(self, origin: str) -> tuple[tuple[bytes, bytes], ...]:
        return (
            (b"access-control-allow-methods", _METHODS.encode()),
            (b"access-control-allow-headers", ",".join(_HEADERS).encode()),
            (b"access-control-max-age", _MAX_AGE.encode()),
            *self._allow(origin),
        )

    def _allow(self, origin: str) -> tuple[tuple[bytes, bytes], ...]:
        if self._any:
            return ((b"access-control-allow-origin", b"*"),)
        return ((b"access-control-allow-origin", origin.encode("latin-1", "replace")), (b"vary", b"Origin"))

    def _marking(self, send: Send, origin: str) -> Send:
        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=list(message["headers"]))
                for name, value in self._allow(origin):
                    headers.append(name.decode(), value.decode("latin-1"))
                message = {**message, "headers": headers.raw}
            await send(message)

        return marked


def _built_in() -> Iterable[str]:
    for host in _LOCAL:
        for scheme in ("http", "https"):
            yield f"{scheme}://{host}"
            yield f"{scheme}://{host}:*"
    yield from _APPS
    yield from _EXTENSIONS


def _pattern(origin: str) -> str:
    return ".*".join(map(re.escape, origin.split("*")))


def _same(origin: str, host: str) -> bool:
    return bool(host) and origin in (f"http://{host}", f"https://{host}")
