"""The routes for models on disk, through the client that Ollama's people wrote, against a registry."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import ollama
import pytest

from helpers.live_server import LiveServer, running_server
from helpers.registry import Registry
from helpers.tiny import build


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LiveServer]:
    """A server with an empty store."""
    with running_server(tmp_path / "served") as running:
        yield running


@pytest.fixture
def client(server: LiveServer) -> Iterator[ollama.Client]:
    """Talks to it."""
    made = ollama.Client(server.url)
    yield made
    made._client.close()


def test_a_model_is_created_pushed_and_pulled(client, server, registry: Registry, tmp_path: Path):
    weights = build(tmp_path / "w.gguf").path.read_bytes()
    digest = client.create_blob(tmp_path / "w.gguf")
    assert client.create_blob(tmp_path / "w.gguf") == digest
    name = f"{registry.url}/me/x:v1"
    steps = list(client.create(name, files={"w.gguf": digest}, system="s", parameters={"num_ctx": 64}, stream=True))
    assert steps[0].status == "parsing GGUF" and steps[-1].status == "success"
    shown = client.show(name)
    assert shown.parameters == "num_ctx                        64" and "SYSTEM" in (shown.modelfile or "")
    steps = list(client.push(name, insecure=True, stream=True))
    assert steps[0].status == "retrieving manifest" and steps[-1].status == "success"
    first = client.list().models[0]
    client.copy(name, "other")
    client.delete(name)
    client.delete("other")
    assert client.list().models == []
    steps = list(client.pull(name, insecure=True, stream=True))
    assert steps[0].status == "pulling manifest" and steps[-1].status == "success"
    assert any(step.digest == digest and step.completed == step.total == len(weights) for step in steps)
    assert client.list().models[0].digest == first.digest
    assert client.pull(name, insecure=True).status == "success"


def test_errors_have_their_status(client, server, registry: Registry):
    with pytest.raises(ollama.ResponseError, match="neither 'from' or 'files'") as caught:
        client.create("x")
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="file does not exist"):
        client.pull(f"{registry.url}/me/none")
    with pytest.raises(ollama.ResponseError, match="file path must be relative") as caught:
        client.create("x", files={"../w": "sha256:" + "0" * 64})
    assert caught.value.status_code == 400
    reply = httpx2.post(f"{server.url}/api/blobs/sha256:{'0' * 64}", content=b"wrong")
    assert reply.status_code == 400 and "digest mismatch" in reply.json()["error"]
    assert httpx2.head(f"{server.url}/api/blobs/sha256:{'0' * 64}").status_code == 404
    lines = httpx2.post(f"{server.url}/api/pull", json={"model": f"{registry.url}/me/none"}).text.splitlines()
    assert lines[0] == '{"status":"pulling manifest"}' and "file does not exist" in lines[-1]
