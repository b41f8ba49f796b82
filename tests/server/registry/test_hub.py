"""Split models of a hub: found, fetched, joined; nothing of the parts stays."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from pyggml.gguf import GGUFFile, GGUFWriter
from pyggml_server.config import Config
from pyggml_server.errors import TransferError
from pyggml_server.names import Name
from pyggml_server.store import Transfers


@pytest.fixture
def hub(registry, tmp_path):
    """A repository with a split model in two types."""
    for mix in ("Q4_K_M", "Q8_0"):
        for number in (1, 2, 3):
            path = tmp_path / f"{mix}-{number}.gguf"
            writer = GGUFWriter(path, architecture="llama")
            writer.add("split.no", np.uint16(number - 1))
            writer.add("split.count", np.uint16(3))
            writer.add("split.tensors.count", np.int32(3))
            writer.add_tensor(f"t{number}.weight", np.full(1000, number, np.float32))
            writer.write()
            registry.hub[f"{mix}/Big-{mix}-0000{number}-of-00003.gguf"] = registry.add(path.read_bytes())
    return registry


def _pull(transfers, name):
    async def collect():
        return [event["status"] async for event in transfers.pull(name)]

    return asyncio.run(collect())


def test_a_split_model(hub, store, settings):
    settings = replace(settings, hubs=frozenset({hub.host}))
    transfers = Transfers(Config.from_environment({"OLLAMA_MODELS": str(store.folder)}), store, settings=settings)
    assert _pull(transfers, f"{hub.url}/me/big:Q4_K_M")[-1] == "success"
    model = store.get(Name.parse(f"{hub.host}/me/big:Q4_K_M"))
    with GGUFFile(model.path) as file:
        assert sorted(file.tensors) == ["t1.weight", "t2.weight", "t3.weight"]
    assert all(store.blobs.find(digest) is None for digest in hub.hub.values())
    with pytest.raises(TransferError, match="found: none"):
        _pull(transfers, f"{hub.url}/me/big:Q2_K")
    with pytest.raises(TransferError, match="one split model is needed"):
        _pull(transfers, f"{hub.url}/me/big")
    del hub.hub["Q8_0/Big-Q8_0-00002-of-00003.gguf"]
    with pytest.raises(TransferError, match="shards are missing"):
        _pull(transfers, f"{hub.url}/me/big:Q8_0")


def test_other_registries_are_no_hubs(hub, transfers):
    with pytest.raises(TransferError, match="sharded GGUF"):
        _pull(transfers, f"{hub.url}/me/big:Q4_K_M")
