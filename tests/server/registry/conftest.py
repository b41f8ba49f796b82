"""A registry with faults, a store, and transfers between them that lose no time."""

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers.killable import Killable
from helpers.registry import Registry, running_registry
from pyggml.gguf import GGUFWriter
from pyggml_server.config import Config
from pyggml_server.registry import RegistrySettings
from pyggml_server.store import Store, Transfers

Pull = Callable[..., list[dict[str, Any]]]


@pytest.fixture(scope="session")
def killable() -> Iterator[Killable]:
    """Forks processes that may be killed."""
    running = Killable()
    yield running
    running.close()


@pytest.fixture
def registry() -> Iterator[Registry]:
    """An empty registry."""
    with running_registry() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "models")


@pytest.fixture
def settings(tmp_path: Path) -> RegistrySettings:
    """Small parts, little patience."""
    return RegistrySettings(
        key_folder=tmp_path / "keys",
        docker_config=tmp_path / "docker.json",
        smallest_part=1000,
        largest_part=4000,
        attempts=4,
        backoff=0.01,
    )


@pytest.fixture
def transfers(store: Store, settings: RegistrySettings) -> Transfers:
    """From and to the store."""
    return Transfers(Config.from_environment({"OLLAMA_MODELS": str(store.folder)}), store, settings=settings)


@pytest.fixture
def weights(tmp_path: Path) -> bytes:
    """A valid model of some 40 kB, each page of it different."""
    writer = GGUFWriter(tmp_path / "weights.gguf", architecture="llama")
    writer.add_tensor("x.weight", np.random.default_rng(5).normal(size=10_000).astype(np.float32))
    writer.write()
    return (tmp_path / "weights.gguf").read_bytes()


@pytest.fixture
def pull(transfers: Transfers, registry: Registry) -> Pull:
    """Pull ``me/x`` (or another name) from the registry; gives the progress."""

    def run(name: str = "me/x", **options: Any) -> list[dict[str, Any]]:
        async def collect() -> list[dict[str, Any]]:
            return [event async for event in transfers.pull(f"{registry.url}/{name}", **options)]

        return asyncio.run(collect())

    return run
