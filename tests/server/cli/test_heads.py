"""Clients that send endless heads, or never end theirs."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvicorn

from pyggml_server.cli import heads
from pyggml_server.cli.heads import BoundedHeads

Client = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ASK = b"GET / HTTP/1.1\r\nHost: localhost\r\n"


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


def serve(client: Client) -> None:
    """Connect to a server that runs as long."""

    async def run() -> None:
        server = uvicorn.Server(uvicorn.Config(_app, port=0, http=BoundedHeads, lifespan="off", log_level="error"))
        task = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_connection(*server.servers[0].sockets[0].getsockname())
        try:
            async with asyncio.timeout(30):
                await client(reader, writer)
        finally:
            writer.close()
            server.should_exit = True
            await task

    asyncio.run(run())


@pytest.mark.parametrize("line", [b"x-long: " + b"a" * 2**21, b"x: y\r\n" * 2**19])
def test_a_head_without_end(line: bytes) -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ASK + line)
        try:
            answer = await reader.read()
        except ConnectionResetError:  # it was still sending
            return
        assert answer.startswith(b"HTTP/1.1 431 ")

    serve(client)


def test_long_bodies_and_pipelines_are_no_long_heads() -> None:
    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4194304\r\n\r\n" + b"a" * 2**22)
        writer.write((ASK + b"x: " + b"y" * 60_000 + b"\r\n\r\n") * 40)
        for _ in range(41):
            assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200 ")

    serve(client)


def test_who_never_ends_a_head_is_cut_off_unless_it_waits_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heads, "_PATIENCE", 0.3)

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(ASK.replace(b"/ ", b"/slow ", 1) + b"\r\n" + ASK)  # the second is not complete
        assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200 ")
        assert await reader.read() == b""

    serve(client)
