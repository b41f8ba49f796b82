"""The least of an HTTP client: hundreds of streams in one process must not cost what is to be measured."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any


@dataclass
class Answer:
    """An answer whose head has come.

    Attributes:
        status: of HTTP.
        headers: names in lower case.
    """

    status: int
    headers: dict[str, str]
    reader: asyncio.StreamReader

    async def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes; ends only where the body says that it ends.

        Raises:
            asyncio.IncompleteReadError: the connection broke before.
        """
        if "content-length" in self.headers:
            yield await self.reader.readexactly(int(self.headers["content-length"]))
            return
        while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
            yield (await self.reader.readexactly(size + 2))[:-2]

    async def documents(self) -> AsyncIterator[dict[str, Any]]:
        """The JSON of each line."""
        rest = b""
        async for part in self.parts():
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                yield json.loads(line)
        if rest:
            yield json.loads(rest)


@asynccontextmanager
async def request(port: int, method: str, path: str, body: dict[str, Any] | None = None) -> AsyncIterator[Answer]:
    """Ask on a connection of its own; it is closed with the block, whether the answer has ended or not."""
    payload = b"" if body is None else json.dumps(body).encode()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        head = f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(payload)}\r\n\r\n"
        writer.write(head.encode() + payload)
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[:-2]
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        yield Answer(int(first.split()[1]), headers, reader)
    finally:
        writer.close()


async def get(port: int, path: str) -> dict[str, Any]:
    """The one document of a GET."""
    async with request(port, "GET", path) as answer:
        assert answer.status == 200, (path, answer.status)
        return await anext(answer.documents())
