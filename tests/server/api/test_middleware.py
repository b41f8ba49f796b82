"""What surrounds the routes: host guard, origins, keys, limits, log."""

import asyncio
import hashlib
import logging
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from pyggml_server.api.metrics import ServerMetrics
from pyggml_server.api.middleware import AccessLog, ApiKeys, BodyLimit
from pyggml_server.api.origins import Cors, HostGuard, is_loopback


async def inner(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body, tells its length."""
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(size).encode()})


def ask(app: ASGIApp, method: str, path: str, **more: Any) -> httpx2.Response:
    async def run() -> httpx2.Response:
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:11434") as client:
            return await client.request(method, path, **more)

    return asyncio.run(run())


@pytest.mark.parametrize(
    "host",
    [
        "localhost", "LOCALHOST:11434", "127.0.0.1", "127.3.2.1:80", "[::1]:11434", "0.0.0.0", "192.168.1.5",
        "10.0.0.1",         "here.localhost", "printer.local", "host.docker.internal", "this-machine", "",
    ],
)  # fmt: skip
def test_hosts_of_this_machine(host: str) -> None:
    assert ask(HostGuard(inner, hostname="this-machine"), "GET", "/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.com", "localhost.evil.com", "8.8.8.8", "local", "127.0.0.1.evil.com:80"])
def test_hosts_of_others(host: str) -> None:
    guarded = HostGuard(inner, hostname="this-machine")
    assert ask(guarded, "GET", "/", headers={"host": host}).status_code == 403
    assert ask(guarded, "OPTIONS", "/", headers={"host": host}).status_code == 204


@pytest.mark.parametrize(
    ("host", "local"), [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("a.b", False)]
)
def test_loopback(host: str, local: bool) -> None:
    assert is_loopback(host) is local


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost", "http://localhost:3000", "https://127.0.0.1:8443", "http://0.0.0.0", "app://obsidian.md",
        "tauri://localhost", "vscode-webview://abc", "chrome-extension://xyz", "https://my.site", "https://a.wild.org",
    ],
)  # fmt: skip
def test_allowed_origins(origin: str) -> None:
    app = Cors(inner, ("https://my.site", "https://*.wild.org"))
    answer = ask(app, "GET", "/", headers={"origin": origin})
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == origin
    preflight = ask(app, "OPTIONS", "/api/chat", headers={"origin": origin})
    assert preflight.status_code == 204
    assert "x-stainless-arch" in preflight.headers["access-control-allow-headers"]
    assert "DELETE" in preflight.headers["access-control-allow-methods"]


@pytest.mark.parametrize("origin", ["http://evil.com", "http://localhost.evil.com", "null", "https://wild.org.evil"])
def test_refused_origins(origin: str) -> None:
    app = Cors(inner, ("https://my.site", "https://*.wild.org"))
    assert ask(app, "GET", "/", headers={"origin": origin}).status_code == 403
    assert ask(app, "OPTIONS", "/", headers={"origin": origin}).status_code == 403


def test_same_origin_and_any_origin() -> None:
    same = ask(Cors(inner, ()), "GET", "/", headers={"origin": "http://box.lan:11434", "host": "box.lan:11434"})
    assert same.status_code == 200
    anybody = ask(Cors(inner, ("*",)), "GET", "/", headers={"origin": "http://evil.com"})
    assert (anybody.status_code, anybody.headers["access-control-allow-origin"]) == (200, "*")


def keyed() -> ApiKeys:
    return ApiKeys(inner, [f"sha256:{hashlib.sha256(key).hexdigest()}" for key in (b"one", b"two")])


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"authorization": "Bearer one"}, 200),
        ({"authorization": "bearer two"}, 200),
        ({"x-api-key": "two"}, 200),
        ({"authorization": "Bearer three"}, 401),
        ({"authorization": "Basic one"}, 401),
        ({"authorization": f"Bearer sha256:{hashlib.sha256(b'one').hexdigest()}"}, 401),
        ({}, 401),
    ],
)
def test_keys(headers: dict[str, str], status: int) -> None:
    assert ask(keyed(), "POST", "/api/chat", headers=headers).status_code == status


def test_errors_without_key_have_the_form_of_their_api() -> None:
    assert "unauthorized" in ask(keyed(), "GET", "/api/tags").json()["error"]
    assert ask(keyed(), "GET", "/v1/models").json()["error"]["code"] == "invalid_api_key"
    assert ask(keyed(), "POST", "/v1/messages").json()["type"] == "error"
    assert ask(keyed(), "GET", "/health").status_code == 200


def chunks(n: int) -> Callable[[], Any]:
    async def parts() -> Any:
        for _ in range(n):
            yield b"x" * 10

    return parts


def test_body_limit() -> None:
    app = BodyLimit(inner, limit=25, free="/api/blobs/")
    assert ask(app, "POST", "/api/chat", content=b"x" * 25).text == "25"
    assert ask(app, "POST", "/api/chat", content=b"x" * 26).status_code == 413
    assert ask(app, "POST", "/api/chat", content=chunks(3)()).status_code == 413
    assert ask(app, "POST", "/api/blobs/sha256:0", content=chunks(30)()).text == "300"


def test_access_log(caplog: pytest.LogCaptureFixture) -> None:
    metrics = ServerMetrics()
    with caplog.at_level(logging.INFO, "pyggml.access"):
        ask(AccessLog(inner, metrics), "GET", "/api/tags%0Afake line")
    assert "200 GET /api/tags\\nfake line" in caplog.text
    page = metrics.render([], {}).decode()
    assert 'pyggml_http_requests_total{method="GET",route="unknown",status="200"} 1.0' in page
