"""The endpoint around handlers: errors in both forms, before and in streams; clients that go away."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from starlette.requests import Request

from pyggml_server.api.v1.connection import AnthropicForm, Endpoint, ErrorForm, Frames, Handler, OpenAIForm
from pyggml_server.api.v1.errors import FieldError
from pyggml_server.errors import ModelNotFoundError, ServerBusyError

SCOPE = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}


class Client:
    """An ASGI connection that sends a body and perhaps hangs up; remembers what it is sent."""

    def __init__(self, *, hangs_up: asyncio.Event | None = None) -> None:
        self.sent: list[Any] = []
        self._messages = [{"type": "http.request", "body": b"{}", "more_body": False}]
        self._hangs_up = hangs_up or asyncio.Event()

    async def receive(self) -> Any:
        if self._messages:
            return self._messages.pop()
        await self._hangs_up.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def body(self) -> bytes:
        return b"".join(message["body"] for message in self.sent[1:])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])


def call(handler: Handler, form: type[ErrorForm] = OpenAIForm) -> Client:
    async def run() -> Client:
        client = Client()
        await Endpoint(handler, form)(SCOPE, client.receive, client.send)
        return client

    return asyncio.run(run())


def failing(error: Exception, *, after: int = 0) -> Handler:
    async def stream() -> AsyncGenerator[bytes, None]:
        for _ in range(after):
            yield b"data: 1\n\n"
        raise error

    async def handler(request: Request) -> bytes | Frames:
        return stream()

    return handler


@pytest.mark.parametrize(
    ("error", "status", "kind", "param"),
    [
        (FieldError("no", param="n"), 400, "invalid_request_error", "n"),
        (ModelNotFoundError("gone"), 404, "not_found_error", None),
        (ServerBusyError(), 503, "api_error", None),
        (ZeroDivisionError("secret"), 500, "api_error", None),
    ],
)
def test_openai_errors(error: Exception, status: int, kind: str, param: str | None) -> None:
    client = call(failing(error))
    assert client.status == status
    found = json.loads(client.body)["error"]
    assert (found["type"], found["param"], found["code"]) == (kind, param, None)
    assert "secret" not in found["message"]


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (FieldError("no", param="n"), 400, "invalid_request_error"),
        (ModelNotFoundError("gone"), 404, "not_found_error"),
        (ServerBusyError(), 503, "overloaded_error"),
    ],
)
def test_anthropic_errors(error: Exception, status: int, kind: str) -> None:
    client = call(failing(error), AnthropicForm)
    found = json.loads(client.body)
    assert (client.status, found["type"], found["error"]["type"]) == (status, "error", kind)
    assert client.headers[b"request-id"].decode() == found["request_id"]


def test_an_error_in_a_stream_is_its_last_event() -> None:
    client = call(failing(ModelNotFoundError("gone"), after=2))
    assert client.status == 200 and client.headers[b"content-type"].startswith(b"text/event-stream")
    *good, bad, end = client.body.split(b"\n\n")
    assert good == [b"data: 1"] * 2 and end == b""
    assert json.loads(bad.removeprefix(b"data: "))["error"]["message"] == "gone"
    client = call(failing(ModelNotFoundError("gone"), after=1), AnthropicForm)
    assert client.body.split(b"\n\n")[1].startswith(b'event: error\ndata: {"type":"error"')


def test_a_document() -> None:
    async def handler(request: Request) -> bytes:
        return await request.body()

    client = call(handler)
    assert (client.status, client.body, client.headers[b"content-length"]) == (200, b"{}", b"2")


@pytest.mark.parametrize("streams", [True, False])
def test_the_handler_ends_when_the_client_goes(streams: bool) -> None:
    async def run() -> list[str]:
        log: list[str] = []
        gone = asyncio.Event()
        reached = asyncio.Event()

        async def work() -> None:
            reached.set()
            try:
                await asyncio.sleep(60)
            finally:
                log.append("cancelled")

        async def stream() -> AsyncGenerator[bytes, None]:
            yield b"data: 1\n\n"
            await work()

        async def handler(request: Request) -> bytes | Frames:
            if streams:
                return stream()
            await work()
            return b""

        client = Client(hangs_up=gone)
        served = asyncio.ensure_future(Endpoint(handler)(SCOPE, client.receive, client.send))
        await reached.wait()
        gone.set()
        await asyncio.wait_for(served, 5)
        return log

    assert asyncio.run(run()) == ["cancelled"]
