"""Every method of Ollama's own Python client against a real server."""

import asyncio
import hashlib
import json
from pathlib import Path
from typing import Any

import ollama
import pytest

from helpers.live_server import LiveServer
from pyggml_server.names import Name

pytestmark = pytest.mark.model

MODEL = "smol"
ASK = [{"role": "user", "content": "Say hello."}]


def test_chat(client: ollama.Client) -> None:
    answer = client.chat(MODEL, ASK)
    assert answer.message.role == "assistant"
    assert answer.message.content
    assert answer.done is True
    parts = list(client.chat(MODEL, ASK, stream=True))
    assert "".join(part.message.content or "" for part in parts) == answer.message.content
    assert [part.done for part in parts] == [False] * (len(parts) - 1) + [True]


def test_generate(client: ollama.Client) -> None:
    answer = client.generate(MODEL, "Say hello.", options={"num_predict": 3})
    assert answer.eval_count == 3
    assert answer.context
    parts = list(client.generate(MODEL, "Say hello.", options={"num_predict": 3}, stream=True))
    assert "".join(part.response or "" for part in parts) == answer.response
    assert client.generate(MODEL).done_reason == "load"


def test_logprobs(client: ollama.Client) -> None:
    answer = client.chat(MODEL, ASK, logprobs=True, top_logprobs=2)
    assert answer.logprobs
    assert len(answer.logprobs[0].top_logprobs or []) == 2


def test_structured_output(client: ollama.Client) -> None:
    schema = {"type": "object", "properties": {"color": {"enum": ["red", "blue"]}}, "required": ["color"]}
    answer = client.chat(MODEL, ASK, format=schema, options={"num_predict": 40})
    assert json.loads(answer.message.content or "")["color"] in ("red", "blue")


def test_embeddings(client: ollama.Client) -> None:
    batch = client.embed("minilm", ["one", "two"])
    assert [len(vector) for vector in batch.embeddings] == [384, 384]
    assert [len(vector) for vector in client.embed("minilm", "one", dimensions=16).embeddings] == [16]
    assert len(client.embeddings("minilm", "one").embedding) == 384


def test_lists(client: ollama.Client) -> None:
    names = [model.model for model in client.list().models]
    assert {"smol:latest", "minilm:latest", "smollm2:135m"} <= set(names)
    for keep_alive in ("5m", 0, "5m"):  # so that the runner bears this name, whoever used it before
        client.generate(MODEL, keep_alive=keep_alive)
    loaded = next(model for model in client.ps().models if model.model == "smol:latest")
    assert loaded.context_length == 256


def test_show(client: ollama.Client) -> None:
    shown = client.show(MODEL)
    assert shown.details is not None
    assert shown.details.family == "llama"
    assert shown.capabilities is not None
    assert "completion" in shown.capabilities
    assert shown.modelinfo is not None
    assert shown.modelinfo["llama.context_length"] == 8192
    assert shown.modelinfo["general.parameter_count"] > 100_000_000
    assert "num_ctx                        256" in (shown.parameters or "")
    assert (shown.modelfile or "").count("FROM ") >= 1


def test_copy_and_delete(client: ollama.Client) -> None:
    assert client.copy(MODEL, "team/other:v1").status == "success"
    assert "team/other:v1" in [model.model for model in client.list().models]
    assert client.delete("team/other:v1").status == "success"
    assert "team/other:v1" not in [model.model for model in client.list().models]
    with pytest.raises(ollama.ResponseError, match="not found") as caught:
        client.delete("team/other:v1")
    assert caught.value.status_code == 404


def test_create_and_talk(client: ollama.Client) -> None:
    steps = list(client.create("pirate", from_=MODEL, system="Talk like a pirate.", stream=True))
    assert steps[-1].status == "success"
    shown = client.show("pirate")
    assert "Talk like a pirate." in (shown.modelfile or "")
    assert client.chat("pirate", ASK).message.content
    client.delete("pirate")


def test_create_refuses_a_broken_template(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="template") as caught:
        client.create("broken", from_=MODEL, template="{{ if .System }}never ended")
    assert caught.value.status_code == 400
    with pytest.raises(ollama.ResponseError, match="not found"):
        client.show("broken")


def test_blob_and_create_from_file(client: ollama.Client, live: LiveServer, tmp_path: Path) -> None:
    source = live.store.get(Name.parse("minilm")).path
    file = tmp_path / "copy.gguf"
    file.write_bytes(source.read_bytes())
    digest = client.create_blob(file)
    assert digest == f"sha256:{hashlib.sha256(file.read_bytes()).hexdigest()}"
    assert client.create("from-file", files={"copy.gguf": digest}).status == "success"
    assert len(client.embed("from-file", "one", options={"num_thread": 1}).embeddings[0]) == 384
    client.delete("from-file")


def test_errors(client: ollama.Client) -> None:
    with pytest.raises(ollama.ResponseError, match="model 'none' not found") as caught:
        client.chat("none", ASK)
    assert caught.value.status_code == 404
    with pytest.raises(ollama.ResponseError, match="not found"):
        list(client.generate("none", "a", stream=True))
    with pytest.raises(ollama.ResponseError):
        client.push("none")
    with pytest.raises(ollama.ResponseError):
        client.pull("no name")


def test_async_client(live: LiveServer) -> None:
    async def run() -> list[Any]:
        client = ollama.AsyncClient(host=live.url)
        try:
            two = await asyncio.gather(*(client.chat(MODEL, ASK) for _ in range(2)))
            parts = [part async for part in await client.chat(MODEL, ASK, stream=True)]
            return [*(answer.message.content for answer in two), "".join(p.message.content or "" for p in parts)]
        finally:
            await client._client.aclose()

    first, second, third = asyncio.run(run())
    assert first
    assert len({first, second, third}) == 1
