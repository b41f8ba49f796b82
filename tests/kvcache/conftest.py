"""Tiny models that the tests of this room share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.tiny import TinyConfig, build
from pyggml.engine import Engine, EngineConfig


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


def _open(path: Path, config: TinyConfig) -> Engine:
    return Engine(build(path, config).path, EngineConfig(n_ctx=32, n_batch=8, n_threads=1))


@pytest.fixture(scope="session")
def llama(folder: Path) -> Iterator[Engine]:
    """Every layer sees everything."""
    with _open(folder / "llama.gguf", TinyConfig(n_embd=32, n_ff=32, n_head=2, n_head_kv=1)) as engine:
        yield engine


@pytest.fixture(scope="session")
def gemma3(folder: Path) -> Iterator[Engine]:
    """A layer with a window of 8, then one that sees everything, then one with the window."""
    config = TinyConfig("gemma3", n_layer=3, n_embd=32, n_ff=32, n_head=2, n_head_kv=1, window=8, pattern=2)
    with _open(folder / "gemma3.gguf", config) as engine:
        yield engine
