"""Against the registry that Docker's people wrote (Debian's package docker-registry)."""

import asyncio
import base64
import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pyggml_server.errors import ModelNotFoundError, TransferError
from pyggml_server.names import Name
from pyggml_server.registry import RegistrySettings
from pyggml_server.store import Store, Transfers

BINARY = os.environ.get("PYGGML_TEST_REGISTRY") or shutil.which("docker-registry")
pytestmark = pytest.mark.skipif(BINARY is None, reason="needs docker-registry: apt-get install docker-registry")

HTPASSWD = "user:$2b$04$MRX2rf3kDHwslJpPAMZYa.1O75MWjVndS/I/koM14oymidB10XTpy"
"""A user whose password is "word" (bcrypt)."""


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _run_registry(folder: Path, *, htpasswd: str | None = None) -> Iterator[str]:
    port = _free_port()
    config: dict[str, Any] = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "s"},
        "log": {"level": "error", "accesslog": {"disabled": True}},
    }
    if htpasswd is not None:
        (folder / "htpasswd").write_text(htpasswd + "\n")
        config["auth"] = {"htpasswd": {"realm": "here", "path": str(folder / "htpasswd")}}
    (folder / "config.yml").write_text(json.dumps(config))
    command = [str(BINARY), "serve", str(folder / "config.yml")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(200):
                with closing(socket.socket()) as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


@pytest.fixture
def host(tmp_path: Path) -> Iterator[str]:
    """A registry for everybody."""
    yield from _run_registry(tmp_path)


def _run(events: Any) -> list[str]:
    async def collect() -> list[str]:
        return [event["status"] async for event in events]

    return asyncio.run(collect())


def _fill(store: Store, weights: bytes, host: str, model: str = "x") -> Name:
    name = Name.parse(f"http://{host}/me/{model}:v1")
    store.write_model(name, model=store.blobs.add_bytes(weights), template="{{ .Prompt }}", system="s")
    return name


def test_there_and_back(host, transfers: Transfers, store: Store, weights):
    name = _fill(store, weights, host)
    digest = store.get(name).digest
    assert _run(transfers.push(f"http://{host}/me/x:v1"))[-1] == "success"
    store.remove(name)
    assert _run(transfers.pull(f"http://{host}/me/x:v1"))[-1] == "success"
    model = store.get(name)
    assert model.path.read_bytes() == weights and model.digest == digest and model.system == "s"
    with urllib.request.urlopen(f"http://{host}/v2/me/x/tags/list") as answer:
        assert json.load(answer) == {"name": "me/x", "tags": ["v1"]}
    with pytest.raises(ModelNotFoundError):
        _run(transfers.pull(f"http://{host}/me/other:v1"))


def test_insecure_finds_plain_http(host, transfers: Transfers, store: Store, weights):
    name = _fill(store, weights, host)
    _run(transfers.push(f"{host}/me/x:v1", insecure=True))
    store.remove(name)
    _run(transfers.pull(f"{host}/me/x:v1", insecure=True))
    assert store.get(name).path.read_bytes() == weights
    with pytest.raises(TransferError, match="cannot be reached"):
        _run(transfers.pull(f"{host}/me/x:v1"))


def test_blobs_are_mounted(host, transfers: Transfers, store: Store, weights, tmp_path):
    _run(transfers.push(_url(_fill(store, weights, host))))
    second = _fill(store, weights, host, "y")
    before = sum(path.stat().st_size for path in (tmp_path / "data").rglob("data"))
    _run(transfers.push(_url(second)))
    after = sum(path.stat().st_size for path in (tmp_path / "data").rglob("data"))
    assert after - before < len(weights)
    store.remove(second)
    _run(transfers.pull(_url(second)))
    store.blobs.verify(f"sha256:{hashlib.sha256(weights).hexdigest()}")


def _url(name: Name) -> str:
    return f"http://{name.host}/{name.namespace}/{name.model}:{name.tag}"


def test_a_password(tmp_path, transfers: Transfers, store: Store, weights, settings: RegistrySettings):
    registry = _run_registry(tmp_path, htpasswd=HTPASSWD)
    host = next(registry)
    try:
        name = _fill(store, weights, host)
        with pytest.raises(TransferError, match="a user name and a password are needed"):
            _run(transfers.push(_url(name)))
        auth = base64.b64encode(b"user:word").decode()
        settings.docker_config.write_text(json.dumps({"auths": {host: {"auth": auth}}}))
        _run(transfers.push(_url(name)))
        store.remove(name)
        _run(transfers.pull(_url(name)))
        assert store.get(name).path.read_bytes() == weights
    finally:
        registry.close()
