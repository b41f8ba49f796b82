"""Against the registry that Docker's people wrote (Debian's package docker-registry)."""

import asyncio
import base64
import hashlib
import json
import os
import random
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from helpers.killable import Killable
from helpers.tokens import Certificate, running_token_server
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


@contextmanager
def running(folder: Path, *, htpasswd: str = "", auth: dict[str, Any] | None = None) -> Iterator[str]:
    """Run it; gives ``address:port``."""
    port = _free_port()
    config: dict[str, Any] = {
        "version": "0.1",
        "storage": {"filesystem": {"rootdirectory": str(folder / "data")}, "delete": {"enabled": True}},
        "http": {"addr": f"127.0.0.1:{port}", "secret": "s"},
        "log": {"level": "error", "accesslog": {"disabled": True}},
    }
    if htpasswd:
        (folder / "htpasswd").write_text(htpasswd + "\n")
        auth = {"htpasswd": {"realm": "here", "path": str(folder / "htpasswd")}}
    if auth is not None:
        config["auth"] = auth
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
    with running(tmp_path) as address:
        yield address


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


def _write_password(settings: RegistrySettings, host: str, password: str) -> None:
    auth = base64.b64encode(password.encode()).decode()
    settings.docker_config.write_text(json.dumps({"auths": {host: {"auth": auth}}}))


def test_a_password(tmp_path, transfers: Transfers, store: Store, weights, settings: RegistrySettings):
    with running(tmp_path, htpasswd=HTPASSWD) as host:
        name = _fill(store, weights, host)
        with pytest.raises(TransferError, match="a user name and a password are needed"):
            _run(transfers.push(_url(name)))
        _write_password(settings, host, "user:word")
        _run(transfers.push(_url(name)))
        store.remove(name)
        _run(transfers.pull(_url(name)))
        assert store.get(name).path.read_bytes() == weights


def test_tokens_of_another_host(tmp_path, transfers: Transfers, store: Store, weights, settings: RegistrySettings):
    """As Docker Hub: the registry at one host, signed tokens with a scope at another, for those with a password."""
    certificate = Certificate.make(tmp_path / "tokens.pem")
    with running_token_server(certificate) as tokens:
        place = {"realm": tokens.url, "service": "tests", "issuer": "tests", "rootcertbundle": str(certificate.path)}
        with running(tmp_path, auth={"token": place}) as host:
            name, second = _fill(store, weights, host), _fill(store, weights, host, "y")
            with pytest.raises(TransferError, match="localhost: no permission"):
                _run(transfers.push(_url(name), insecure=True))
            _write_password(settings, host, "user:word")
            _run(transfers.push(_url(name), insecure=True))
            before = sum(path.stat().st_size for path in (tmp_path / "data").rglob("data"))
            _run(transfers.push(_url(second), insecure=True))  # mounted: that takes the right to both repositories
            after = sum(path.stat().st_size for path in (tmp_path / "data").rglob("data"))
            assert after - before < len(weights)
            store.remove(second)
            _run(transfers.pull(_url(second), insecure=True))
            assert store.get(second).path.read_bytes() == weights
        scopes = {scope for query, _ in tokens.requests for scope in query.get("scope", [])}
        assert {"repository:me/x:pull", "repository:me/x:pull,push", "repository:me/y:pull,push"} <= scopes


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_transfers(host, tmp_path, store: Store, weights):
    """kill -9 at random moments of push and pull: the registry and the store never show anything half."""
    dice, killable = random.Random(3), Killable()
    name = _fill(store, weights, host)
    killed = 0
    try:
        for i in range(40):
            killed += killable.run("push", seconds=dice.uniform(0.02, 0.4), store=str(store.folder), name=_url(name))
            other = Store(tmp_path / f"other{i}")
            with suppress(AssertionError):  # not there yet
                killable.run("pull", store=str(other.folder), name=_url(name))
            for entry in other.list():
                assert other.get(entry.name).path.read_bytes() == weights
        assert killed > 10
        assert not killable.run("push", store=str(store.folder), name=_url(name))
        other = Store(tmp_path / "last")
        for _ in range(40):
            killable.run("pull", seconds=dice.uniform(0.02, 0.3), store=str(other.folder), name=_url(name))
            for entry in other.list():
                assert other.get(entry.name).path.read_bytes() == weights
                other.remove(entry.name)
        assert not killable.run("pull", store=str(other.folder), name=_url(name))
        assert other.get(name).path.read_bytes() == weights
    finally:
        killable.close()
