"""A runner process with SmolLM2, shared by the tests of a module."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from pyggml_server.protocol import Done, Generate, Text
from pyggml_server.scheduler.process import RunnerProcess

CONFIG = {"n_ctx": 256, "n_parallel": 3, "n_threads": 1}


class Fixture:
    """A runner in an event loop of its own; ``run`` drives it."""

    def __init__(self, path: Path) -> None:
        self._runner = asyncio.Runner()
        self.path = path
        self.process: RunnerProcess = self.run(self._start())

    async def _start(self) -> RunnerProcess:
        process = await RunnerProcess.start()
        self.fractions: list[float] = []
        self.loaded = await process.load(
            on_progress=self.fractions.append, stall=60, path=str(self.path), config=CONFIG
        )
        return process

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        async def limited() -> Any:
            async with asyncio.timeout(100):
                return await coroutine

        return self._runner.run(limited())

    def close(self) -> None:
        self.run(self.process.stop())
        self._runner.close()


@pytest.fixture(scope="module")
def runner(smollm2_path: Path) -> Iterator[Fixture]:
    fixture = Fixture(smollm2_path)
    yield fixture
    fixture.close()


@pytest.fixture
def generate(runner: Fixture) -> Callable[..., tuple[list[Text], Done]]:
    """One answer: its texts, its end."""

    def generate(tokens: list[int], **fields: Any) -> tuple[list[Text], Done]:
        async def collect() -> tuple[list[Text], Done]:
            found = [message async for message in runner.process.stream(Generate, tokens=tokens, **fields)]
            return found[:-1], found[-1]

        return runner.run(collect())  # type: ignore[no-any-return]

    return generate


@asynccontextmanager
async def started(*command: str) -> AsyncIterator[RunnerProcess]:
    """A runner that is gone after the block."""
    process = await (RunnerProcess.start(command) if command else RunnerProcess.start())
    try:
        yield process
    finally:
        process.kill()
        await process.ended.wait()


@pytest.fixture(name="started")
def _started() -> Callable[..., Any]:
    return started


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    """A command that runs Python source in place of a runner."""

    def write(source: str) -> tuple[str, ...]:
        path = tmp_path / "replacement.py"
        path.write_text(source)
        return (sys.executable, str(path))

    return write
