"""Schedulers with real runner processes and the small models of the test cache."""

import asyncio
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pyggml_server.config import Config
from pyggml_server.scheduler import LoadOptions, ModelSpec

OPTIONS = LoadOptions(num_ctx=512, num_thread=1)
"""One thread: tests share the machine with others, and threads that spin wait for each other."""


@pytest.fixture
def make_config(tmp_path: Path) -> Callable[..., Config]:
    """Settings by variable, over a models folder of the test's own."""

    def make(**variables: str) -> Config:
        return Config.from_environment({"OLLAMA_MODELS": str(tmp_path), "OLLAMA_NUM_PARALLEL": "4", **variables})

    return make


@pytest.fixture
def smollm2(smollm2_path: Path) -> ModelSpec:
    return ModelSpec("smollm2:135m", "a" * 64, smollm2_path, options=OPTIONS)


@pytest.fixture
def minilm(minilm_path: Path) -> ModelSpec:
    return ModelSpec("all-minilm:latest", "b" * 64, minilm_path, options=replace(OPTIONS, num_ctx=None), embedding=True)


@pytest.fixture
def gemma3(gemma3_path: Path) -> ModelSpec:
    return ModelSpec("gemma3:270m", "c" * 64, gemma3_path, options=OPTIONS)


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine in a loop of its own, two minutes at most."""

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        async def limited() -> Any:
            async with asyncio.timeout(120):
                return await coroutine

        return asyncio.run(limited())

    return run


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], tuple[str, ...]]:
    """A command that runs Python source in place of a runner."""

    def write(source: str) -> tuple[str, ...]:
        path = tmp_path / "replacement.py"
        path.write_text(source)
        return (sys.executable, str(path))

    return write
