"""Tiny models that the tests of this room share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.tiny import TinyConfig, TinyModel, build
from pyggml.engine import Engine, EngineConfig


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="session")
def llama(folder: Path) -> TinyModel:
    return build(folder / "llama.gguf", TinyConfig())


@pytest.fixture(scope="session")
def gemma3(folder: Path) -> TinyModel:
    """A window of 8 in two of three layers."""
    return build(folder / "gemma3.gguf", TinyConfig("gemma3", n_layer=3))


@pytest.fixture(scope="session")
def bert(folder: Path) -> TinyModel:
    return build(folder / "bert.gguf", TinyConfig("bert", n_head=2, n_ctx_train=48))


@pytest.fixture
def engine(llama: TinyModel) -> Iterator[Engine]:
    with Engine(llama.path, EngineConfig(n_ctx=64, n_batch=16, n_threads=1)) as opened:
        yield opened
