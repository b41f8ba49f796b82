"""Microseconds of one core that a streamed token costs in the routes below /v1, per kind of stream.

    python benchmarks/v1_stream.py [--tokens N]

Method: a generator whose answers are ready (chunks of one token each) in place of model and runner; the real handler
and endpoint; `send` drops what it gets. CPU time of the process over the number of tokens, the least of seven rounds;
the bare loop over the ready chunks is taken off. What the HTTP server adds is not in it: `--socket` puts uvicorn and a
client that only reads (in another process) around it, and counts the server's CPU time.
"""

import argparse
import asyncio
import json
import socket
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from types import SimpleNamespace
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from pyggml_server.api.tasks import Chunk, Final
from pyggml_server.api.v1.anthropic import Messages
from pyggml_server.api.v1.chat import ChatCompletions
from pyggml_server.api.v1.completions import Completions
from pyggml_server.api.v1.connection import Endpoint
from pyggml_server.api.v1.responses import Responses

SCOPE = {"type": "http", "method": "POST", "path": "/", "headers": [], "query_string": b""}
USER = [{"role": "user", "content": "hi"}]
STREAMS: dict[str, tuple[Any, dict[str, Any]]] = {
    "chat/completions": (ChatCompletions, {"messages": USER}),
    "chat/completions, n=4": (ChatCompletions, {"messages": USER, "n": 4}),
    "completions": (Completions, {"prompt": "hi"}),
    "responses": (Responses, {"input": "hi"}),
    "messages": (Messages, {"messages": USER, "max_tokens": 9}),
}


class Ready:
    """A generator whose answers wait already."""

    def __init__(self, n_tokens: int) -> None:
        self._n_tokens = n_tokens

    @asynccontextmanager
    async def prepare(self, task: Any) -> AsyncIterator[Any]:
        yield SimpleNamespace(
            run=self.run, plan=None, model=SimpleNamespace(tokenizer=None), prompt=SimpleNamespace(tokens=[1])
        )

    async def run(self, *, seed: int | None = None) -> AsyncGenerator[Chunk | Final, None]:
        for index in range(self._n_tokens):
            yield Chunk(content=" word", tokens=[index])
        yield Final(reason="stop", eval_tokens=self._n_tokens)


async def bare(n_tokens: int) -> None:
    async for _ in Ready(n_tokens).run():
        pass


async def stream(endpoint: Endpoint, body: bytes) -> None:
    messages = [{"type": "http.request", "body": body, "more_body": False}]
    never = asyncio.Event()

    async def receive() -> Any:
        if messages:
            return messages.pop()
        await never.wait()
        return None

    async def send(message: Any) -> None:
        if message.get("status", 200) != 200:
            raise SystemExit("the stream failed")

    await endpoint(SCOPE, receive, send)


def seconds(make: Any) -> float:
    """CPU time of the process, the least of seven."""
    found = []
    for _ in range(7):
        begin = time.process_time()
        asyncio.run(make())
        found.append(time.process_time() - begin)
    return min(found)


def body_of(fields: dict[str, Any]) -> bytes:
    return json.dumps({"model": "m", "stream": True, **fields}).encode()


def in_process(n_tokens: int) -> None:
    nothing = seconds(lambda: bare(n_tokens))
    for name, (handler, fields) in STREAMS.items():
        endpoint, n = Endpoint(handler(Ready(n_tokens))), fields.get("n", 1)
        taken = seconds(partial(stream, endpoint, body_of(fields)))
        print(f"{name:<24}{(taken / n - nothing) / n_tokens * 1e6:8.2f} us per token")


READER = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
connection.sendall(sys.stdin.buffer.read())
n = 0
while data := connection.recv(1 << 16):
    n += len(data)
sys.exit(n < 100_000)
"""


async def over_a_socket(n_tokens: int) -> None:
    for name, (handler, fields) in STREAMS.items():
        app = Starlette(routes=[Route("/", Endpoint(handler(Ready(n_tokens))), methods=["POST"])])
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
            served = asyncio.ensure_future(server.serve([listener]))
            port = str(listener.getsockname()[1])
            body = body_of(fields)
            head = f"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            while not server.started:
                await asyncio.sleep(0.01)
            begin = time.process_time()
            client = await asyncio.create_subprocess_exec(sys.executable, "-c", READER, port, stdin=subprocess.PIPE)
            await client.communicate(head + body)
            taken = time.process_time() - begin
            if client.returncode:
                raise SystemExit("the stream failed")
            server.should_exit = True
            await served
        print(f"{name:<24}{taken / n_tokens / fields.get('n', 1) * 1e6:8.2f} us per token, with uvicorn")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=20_000)
    parser.add_argument("--socket", action="store_true", help="with uvicorn and a client")
    arguments = parser.parse_args()
    if arguments.socket:
        asyncio.run(over_a_socket(arguments.tokens))
    else:
        in_process(arguments.tokens)


if __name__ == "__main__":
    main()
