"""A store with a small model, and ``create`` on it."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from create_builders import write_gguf

from pyggml_server.config import Config
from pyggml_server.names import Name
from pyggml_server.store import Store, StoredModel, Transfers

Create = Callable[..., tuple[StoredModel, list[str]]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "models")


@pytest.fixture
def transfers(store: Store) -> Transfers:
    """Creates in the store."""
    return Transfers(Config.from_environment({"OLLAMA_MODELS": str(store.folder)}), store)


@pytest.fixture
def create(transfers: Transfers, store: Store) -> Create:
    """Make a model; gives it and the statuses."""

    def run(model: str = "new", **request: Any) -> tuple[StoredModel, list[str]]:
        async def collect() -> list[str]:
            return [event["status"] async for event in transfers.create({"model": model, **request})]

        statuses = asyncio.run(collect())
        return store.get(Name.parse(model)), statuses

    return run


@pytest.fixture
def digest(store: Store, tmp_path: Path) -> str:
    """A model among the blobs, in F16."""
    return store.blobs.add_bytes(write_gguf(tmp_path / "a.gguf").read_bytes()).digest
