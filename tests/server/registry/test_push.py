"""Pushes: what arrives, what is not sent, what goes wrong."""

import asyncio
import hashlib
import json
from typing import Any

import pytest

from helpers.registry import Registry
from pyggml_server.errors import ModelNotFoundError, TransferError
from pyggml_server.names import Name
from pyggml_server.store import Store, Transfers


def _push(transfers: Transfers, name: str) -> list[dict[str, Any]]:
    async def collect() -> list[dict[str, Any]]:
        return [event async for event in transfers.push(name)]

    return asyncio.run(collect())


@pytest.fixture
def name(store: Store, registry: Registry, tmp_path, weights: bytes) -> str:
    """A model in the store that belongs into the registry."""
    blob = store.blobs.add_bytes(weights)
    text = f"{registry.url}/me/x:v1"
    store.write_model(Name.parse(text), model=blob, template="{{ .Prompt }}", system="s")
    return text


def test_a_model_goes_out_in_parts_and_comes_back(transfers, registry, store, name, weights):
    events = _push(transfers, name)
    manifest = store.manifests.read_bytes(Name.parse(name))
    assert registry.manifests["me/x/v1"] == manifest
    assert weights in registry.blobs.values()
    assert registry.count("PATCH", "uploads") > 5
    statuses = [event["status"] for event in events]
    assert statuses[0] == "retrieving manifest" and statuses[-2:] == ["pushing manifest", "success"]
    digest = hashlib.sha256(weights).hexdigest()
    last = [event for event in events if event["status"] == f"pushing {digest[:12]}"][-1]
    assert last == {
        "status": f"pushing {digest[:12]}",
        "digest": f"sha256:{digest}",
        "total": len(weights),
        "completed": len(weights),
    }
    store.remove(Name.parse(name))

    async def pull() -> None:
        async for _ in transfers.pull(name):
            pass

    asyncio.run(pull())
    assert store.manifests.read_bytes(Name.parse(name)) == manifest


def test_nothing_is_sent_twice(transfers, registry, name):
    _push(transfers, name)
    registry.requests.clear()
    _push(transfers, name)
    assert registry.count("PATCH", "") == registry.count("POST", "") == 0


def test_other_repositories_lend_their_blobs(transfers, registry, store, name):
    _push(transfers, name)
    registry.private = True
    store.copy(Name.parse(name), Name.parse(f"{registry.url}/me/y:v1"))
    registry.requests.clear()
    _push(transfers, f"{registry.url}/me/y:v1")
    assert registry.manifests["me/y/v1"] == registry.manifests["me/x/v1"]
    assert registry.count("PATCH", "") == 0 and registry.count("POST", "mount=.*from=me") == 4


def test_the_place_that_ollama_noted_lends_its_blobs(transfers, registry, store, name):
    """Its manifests say where a layer is from, also when that model is gone from here."""
    _push(transfers, name)
    registry.private = True
    document = json.loads(store.manifests.read_bytes(Name.parse(name)))
    for layer in document["layers"]:
        layer["from"] = f"{registry.host}/me/x:v1"
    target = f"{registry.url}/me/y:v1"
    store.write_manifest(Name.parse(target), json.dumps(document).encode())
    store.remove(Name.parse(name))
    registry.requests.clear()
    _push(transfers, target)
    assert registry.count("PATCH", "") == 1  # the description, of which nobody says where it is from
    assert registry.count("POST", "mount=.*from=me") == len(document["layers"])


@pytest.mark.parametrize("fault", ["lose_patches", "unavailable"])
def test_faults_that_pass_are_survived(transfers, registry, name, weights, fault):
    setattr(registry.faults, fault, 3)
    _push(transfers, name)
    assert weights in registry.blobs.values()
    assert getattr(registry.faults, fault) == 0


def test_tokens(transfers, registry, name, weights):
    registry.token = "t"
    _push(transfers, name)
    assert weights in registry.blobs.values() and len(registry.token_requests) == 1


def test_refusals(transfers, registry, name, store):
    registry.password = "a:b"
    with pytest.raises(TransferError, match="a user name and a password are needed"):
        _push(transfers, name)
    with pytest.raises(ModelNotFoundError):
        _push(transfers, f"{registry.url}/me/nothing")
