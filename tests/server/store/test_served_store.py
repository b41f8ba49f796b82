"""One store, several processes: ``pyggml serve`` and commands, as users start them."""

import hashlib
import os
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from store_builders import write_model

from helpers.killable import check
from helpers.registry import Registry, running_registry
from helpers.served import PYGGML, Server
from pyggml_server.names import Name
from pyggml_server.store import Store


@pytest.fixture
def registry() -> Iterator[Registry]:
    """An empty registry."""
    with running_registry() as running:
        yield running


@pytest.fixture
def name(registry: Registry, model_bytes: bytes) -> str:
    """A model in the registry, which takes its time."""
    registry.add_model("me/x", "latest", model_bytes, system=b"s")
    registry.faults.slow = 0.7
    return f"{registry.url}/me/x"


def serve(tmp_path: Path, **variables: str) -> Server:
    return Server(tmp_path, OLLAMA_MODELS=str(tmp_path / "models"), HOME=str(tmp_path), **variables)


def age(store: Store, *digests: str, hours: float = 2) -> None:
    for digest in digests:
        os.utime(store.blobs.path(digest), (time.time() - hours * 3600,) * 2)


def test_a_server_and_a_command_pull_the_same(
    tmp_path: Path, registry: Registry, name: str, model_bytes: bytes
) -> None:
    """Both succeed, and every byte comes once."""
    server = serve(tmp_path)
    try:
        with ThreadPoolExecutor() as pool:
            body: dict[str, Any] = {"model": name, "insecure": True, "stream": False}
            asked = pool.submit(server.client.post, "/api/pull", json=body)
            ran = pool.submit(server.command, "pull", "--insecure", name)
            assert asked.result().json() == {"status": "success"}
            assert ran.result().returncode == 0, ran.result().stderr
        store = Store(tmp_path / "models")
        assert check(store) == [Name.parse(name).display]
        assert store.get(Name.parse(name)).path.read_bytes() == model_bytes
        digest = f"sha256:{hashlib.sha256(model_bytes).hexdigest()}"
        gets = [h.get("range") for method, path, h in registry.requests if method == "GET" and digest in path]
        assert len(gets) == len(set(gets)) > 0
    finally:
        server.close()


def test_a_killed_server_leaves_a_pull_that_goes_on(
    tmp_path: Path, registry: Registry, name: str, model_bytes: bytes
) -> None:
    """kill -9 in the middle of a pull: nothing is served, and the next pull, of whoever, finishes."""
    server = serve(tmp_path)
    store = Store(tmp_path / "models")
    try:
        with server.client.stream("POST", "/api/pull", json={"model": name, "insecure": True}) as reply:
            for line in reply.iter_lines():
                if "pulling " in line and "manifest" not in line:
                    break
            server.process.kill()
        server.process.wait()
        assert check(store) == []
    finally:
        server.close()
    registry.faults.slow = 0.0
    environment = server.environment | {"OLLAMA_HOST": "127.0.0.1:0"}
    command = [*PYGGML, "pull", "--insecure", name]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    assert store.get(Name.parse(name)).path.read_bytes() == model_bytes and len(check(store)) == 1


@pytest.mark.parametrize("no_prune", [False, True])
def test_what_nobody_uses_goes_at_the_start(tmp_path: Path, no_prune: bool) -> None:
    """Row 72: unless it is younger than an hour, or ``OLLAMA_NOPRUNE`` is set; nor is a used blob touched, ever."""
    store = Store(tmp_path / "models")
    used = store.blobs.add_bytes(write_model(tmp_path / "used.gguf", value=1.0).read_bytes())
    store.write_model(Name.parse("x"), model=used)
    old, young = (store.blobs.add_bytes(data).digest for data in (b"old", b"young"))
    age(store, old, *store.manifests.digests())
    age(store, young, hours=0.9)
    server = serve(tmp_path, OLLAMA_NOPRUNE="1" if no_prune else "0")
    try:
        assert server.client.get("/api/tags").json()["models"][0]["name"] == "x:latest"
        assert (store.blobs.find(old) is not None) == no_prune
        assert store.blobs.find(young) is not None
        # a name that gets another meaning, and one that is deleted
        other = store.blobs.add_bytes(write_model(tmp_path / "other.gguf", value=2.0).read_bytes())
        files = {"model": "x", "files": {"x.gguf": other.digest}, "stream": False}
        assert server.client.post("/api/create", json=files).json() == {"status": "success"}
        assert (store.blobs.find(used.digest) is not None) == no_prune
        assert server.client.request("DELETE", "/api/delete", json={"model": "x"}).status_code == 200
        assert store.list() == [] and store.blobs.find(other.digest) is None
    finally:
        server.close()
    assert ("1 blobs that no model uses were removed" in server.log.read_text()) == (not no_prune)


def test_a_damaged_manifest_keeps_everything(tmp_path: Path) -> None:
    """What it needs is unknown, so the start deletes nothing, and says why."""
    store = Store(tmp_path / "models")
    old = store.blobs.add_bytes(b"old").digest
    age(store, old)
    path = store.manifests.path(Name.parse("broken"))
    path.parent.mkdir(parents=True)
    path.write_text("{")
    server = serve(tmp_path, OLLAMA_NOPRUNE="0")
    try:
        assert server.client.get("/api/version").status_code == 200
        assert store.blobs.find(old) is not None
    finally:
        server.close()
    assert "blobs that no model uses stay" in server.log.read_text()
