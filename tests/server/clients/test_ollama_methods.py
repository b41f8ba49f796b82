"""Every method of Ollama's Python client is used against a server of ours, by both of its classes."""

import ast
import asyncio
import inspect
from functools import cache
from pathlib import Path

import ollama
import pytest

from helpers.live_server import LiveServer
from helpers.registry import running_registry
from helpers.tiny import build

TESTS = Path(__file__).parents[1]
ELSEWHERE = {"web_search", "web_fetch"}
"""They ask ollama.com whatever the client's host is."""


def methods(kind: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_")} - ELSEWHERE


@cache
def called(name: str) -> frozenset[str]:
    """The methods that the tests of the server call on variables of that name."""
    found = set()
    for path in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == name:
                found.add(node.attr)
    return frozenset(found)


def test_no_method_is_forgotten() -> None:
    """A new version of the client that can do more fails here."""
    assert methods(ollama.Client) <= called("client")
    assert methods(ollama.AsyncClient) <= called("asynchronous")


@pytest.mark.model
def test_what_is_not_here_is_told(live: LiveServer) -> None:
    client = ollama.Client(live.url)
    with pytest.raises(ollama.ResponseError) as caught:
        client.systemone("smol", "state", {})
    assert caught.value.status_code == 404
    client.close()


@pytest.mark.model
def test_the_asynchronous_client(live: LiveServer, tmp_path: Path) -> None:
    asyncio.run(_use_everything(live, tmp_path))


async def _use_everything(live: LiveServer, folder: Path) -> None:
    asynchronous = ollama.AsyncClient(live.url)
    few = {"num_predict": 2}
    try:
        assert (await asynchronous.chat("smol", [{"role": "user", "content": "hi"}], options=few)).message.content
        parts = [part async for part in await asynchronous.generate("smol", "hi", options=few, stream=True)]
        assert parts[-1].done and (await asynchronous.generate("smol", "hi", options=few)).response
        assert len((await asynchronous.embed("minilm", ["one", "two"])).embeddings) == 2
        assert len((await asynchronous.embeddings("minilm", "one")).embedding) == 384
        assert "smol:latest" in [model.model for model in (await asynchronous.list()).models]
        assert (await asynchronous.ps()).models and (await asynchronous.show("smol")).modelinfo
        with pytest.raises(ollama.ResponseError):
            await asynchronous.systemone("smol", "state", {})
        await _move_a_model(asynchronous, folder)
    finally:
        await asynchronous.close()


async def _move_a_model(asynchronous: ollama.AsyncClient, folder: Path) -> None:
    digest = await asynchronous.create_blob(build(folder / "w.gguf").path)
    with running_registry() as registry:
        name = f"{registry.url}/me/x:v1"
        steps = [step.status async for step in await asynchronous.create(name, files={"w.gguf": digest}, stream=True)]
        assert steps[-1] == "success"
        steps = [step.status async for step in await asynchronous.push(name, insecure=True, stream=True)]
        assert steps[-1] == "success"
        assert (await asynchronous.copy(name, "other")).status == "success"
        assert (await asynchronous.delete(name)).status == "success"
        steps = [step.status async for step in await asynchronous.pull(name, insecure=True, stream=True)]
        assert steps[-1] == "success"
        for model in (name, "other"):
            await asynchronous.delete(model)
