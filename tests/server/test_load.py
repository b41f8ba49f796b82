"""Many streams at once: none is lost, mixed or stuck, memory stays, and too many are refused as Ollama does.

What a client must get is known: half of them are forced by grammar to say their own number again and again, the others
continue a count of their own and must get what they get alone.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers.http_stream import get, request
from helpers.server_process import ServerProcess, private_memory, server_process

pytestmark = pytest.mark.model

PARALLEL = 8
BUSY = "server busy, please try again.  maximum pending requests exceeded"
OPTIONS = {"num_ctx": 256, "num_thread": 1, "temperature": 0}
N_COUNTS = 8
PATIENCE = 300.0
"""Seconds after which a stream counts as stuck."""


@dataclass(frozen=True)
class Load:
    """How many clients ask, for how many seconds."""

    n_clients: int
    seconds: float


SMALL = Load(n_clients=24, seconds=3)
LARGE = Load(n_clients=256, seconds=60)
GROWTH = 12 << 20
"""Bytes by which a process may grow in the second half: less than the cache (45 MiB, touched little by little)."""


@dataclass
class Tally:
    """What happened."""

    finished: int = 0
    hung_up: int = 0
    versions: list[float] = field(default_factory=list)
    memory: dict[str, list[int]] = field(default_factory=dict)


def body_of(client: int) -> dict[str, Any]:
    ask: dict[str, Any]
    if client % 2:
        ask = {"prompt": "Who are you?", "format": {"type": "regex", "pattern": pattern_of(client)}}
    else:
        first = 10 * (client // 2 % N_COUNTS + 1)
        ask = {"prompt": ", ".join(str(first + i) for i in range(6)) + ",", "raw": True}
    return {"model": "smollm2:135m", **ask, "options": {**OPTIONS, "num_predict": 64 if client % 2 else 8}}


def pattern_of(client: int) -> str:
    """The mark behind the number is for the model to choose, so that each takes a step of its own."""
    return f"(client {client}[,;:!] ){{4}}"


async def stream(port: int, body: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The text and the last line of an answer."""
    async with request(port, "POST", "/api/generate", body) as answer:
        documents = [document async for document in answer.documents()]
    assert answer.status == 200, documents
    assert [document["done"] for document in documents] == [False] * (len(documents) - 1) + [True], documents[-1]
    text = "".join(document["response"] for document in documents)
    return text, documents[-1]


async def expected_answers(port: int, n_clients: int) -> dict[int, str]:
    """Patterns of what each client must get."""
    counts = [(await stream(port, body_of(2 * i)))[0] for i in range(N_COUNTS)]
    assert len(set(counts)) == N_COUNTS, counts
    return {
        client: pattern_of(client) if client % 2 else re.escape(counts[client // 2 % N_COUNTS])
        for client in range(n_clients)
    }


async def ask_again_and_again(server: ServerProcess, client: int, expected: str, end: float, tally: Tally) -> None:
    """One client; every eighth hangs up after the first piece every other time."""
    rounds = 0
    while time.monotonic() < end:
        rounds += 1
        async with asyncio.timeout(PATIENCE):
            if client % 8 == 2 and rounds % 2:
                async with request(server.port, "POST", "/api/generate", body_of(client)) as answer:
                    assert answer.status == 200
                    first = await anext(answer.documents())
                assert not first["done"]
                tally.hung_up += 1
            else:
                text, last = await stream(server.port, body_of(client))
                assert re.fullmatch(expected, text), (client, text)
                assert last["eval_count"] >= 4
                tally.finished += 1


async def watch(server: ServerProcess, load: Load, tally: Tally) -> None:
    """Ask for the version all the time, note memory."""
    next_look = time.monotonic() + load.seconds / 6
    while True:
        asked = time.monotonic()
        assert "version" in await get(server.port, "/api/version")
        tally.versions.append(time.monotonic() - asked)
        if time.monotonic() > next_look:
            next_look = time.monotonic() + load.seconds / 6
            note_memory(server, tally)
        await asyncio.sleep(0.2)


def note_memory(server: ServerProcess, tally: Tally) -> None:
    (runner,) = server.runners
    for name, pid in (("server", server.pid), ("runner", runner)):
        tally.memory.setdefault(name, []).append(private_memory(pid))


async def status(server: ServerProcess) -> tuple[int, int]:
    """Requests that use the model, and that wait."""
    answer = await get(server.port, "/api/status")
    return sum(model["active"] for model in answer["models"]), answer["queued"]


async def until(check: Callable[[], Awaitable[bool]], *, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await check():
            await asyncio.sleep(0.05)


async def idle(server: ServerProcess) -> bool:
    return await status(server) == (0, 0)


async def under_load(server: ServerProcess, load: Load) -> Tally:
    tally = Tally()
    expected = await expected_answers(server.port, load.n_clients)
    end = time.monotonic() + load.seconds
    watcher = asyncio.ensure_future(watch(server, load, tally))
    async with asyncio.TaskGroup() as group:
        for client in range(load.n_clients):
            group.create_task(ask_again_and_again(server, client, expected[client], end, tally))
    note_memory(server, tally)
    if watcher.done():
        await watcher
    watcher.cancel()
    await until(lambda: idle(server), seconds=10)
    return tally


async def past_the_limit(server: ServerProcess, *, max_queue: int, extra: int) -> None:
    """Take all sequences and all places in the queue, ask for more, then hang up on all of it."""
    endless = {"num_predict": 100_000, "ignore_eos": True}
    body = {"model": "smollm2:135m", "prompt": "Once", "raw": True, "options": {**OPTIONS, **endless}}

    async def answered() -> tuple[int, dict[str, Any]]:
        async with request(server.port, "POST", "/api/generate", body) as answer:
            return answer.status, [document async for document in answer.documents()][-1]

    async def count(active: int, queued: int) -> bool:
        return await status(server) == (active, queued)

    tasks = [asyncio.ensure_future(answered()) for _ in range(PARALLEL)]
    await until(lambda: count(PARALLEL, 0))
    tasks += [asyncio.ensure_future(answered()) for _ in range(max_queue + extra)]
    done: set[asyncio.Task[Any]] = set()
    async with asyncio.timeout(60):
        while len(done) < extra:
            done = {task for task in tasks if task.done()}
            await asyncio.sleep(0.05)
    assert [task.result() for task in done] == [(503, {"error": BUSY})] * extra
    assert (await status(server))[1] == max_queue
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    await until(lambda: idle(server), seconds=30)  # far less than 100,000 tokens take


async def whole(server: ServerProcess, load: Load) -> None:
    tally = await under_load(server, load)
    print(
        f"{load.n_clients} clients, {load.seconds:.0f} s: {tally.finished} answers, {tally.hung_up} hung up; version: "
        f"{len(tally.versions)} times, longest {max(tally.versions):.3f} s; memory: {tally.memory}"
    )
    assert tally.finished >= load.n_clients
    assert tally.hung_up >= load.n_clients // 8
    assert max(tally.versions) < 5
    for name, sizes in tally.memory.items():
        assert sizes[-1] - sizes[len(sizes) // 2] < GROWTH, f"{name} grows: {sizes}"
    await past_the_limit(server, max_queue=load.n_clients, extra=load.n_clients // 4)
    text, _ = await stream(server.port, body_of(1))
    assert re.fullmatch(pattern_of(1), text)


def measure(folder: Path, load: Load) -> None:
    limits = {"OLLAMA_NUM_PARALLEL": str(PARALLEL), "OLLAMA_MAX_QUEUE": str(load.n_clients)}
    with server_process(folder, models=("smollm2:135m",), **limits) as server:
        asyncio.run(whole(server, load))
        assert "Traceback" not in server.log.read_text()


def test_many_streams(tmp_path: Path) -> None:
    measure(tmp_path, SMALL)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_hundreds_of_streams(tmp_path: Path) -> None:
    measure(tmp_path, LARGE)
