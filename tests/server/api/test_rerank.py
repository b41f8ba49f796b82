"""``/api/rerank`` with a small cross-encoder of random weights."""

from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

from helpers.live_server import LiveServer
from helpers.tiny import TinyConfig, build
from pyggml.engine import Engine, EngineConfig
from pyggml.models import Pooling
from pyggml_server.names import Name

pytestmark = pytest.mark.model

DOCUMENTS = ["the rain in spain", "a", "hello the end", "in the plain the rain falls"]


@pytest.fixture(scope="module")
def scores(live: LiveServer, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Puts the model ``ranker`` into the store; what the engine itself says of the documents."""
    random = np.random.default_rng(8)

    def change(meta: dict[str, object], weights: dict[str, Any]) -> None:
        meta["bert.pooling_type"] = Pooling.RANK
        weights["cls.output.weight"] = random.normal(0, 0.3, (1, 64))
        weights["cls.output.bias"] = random.normal(0, 0.3, 1)

    path: Path = tmp_path_factory.mktemp("ranker") / "ranker.gguf"
    build(path, TinyConfig("bert", n_head=2, n_ctx_train=64), change=change)
    with path.open("rb") as file:
        blob = live.store.blobs.add_bytes(file.read())
    live.store.write_model(Name.parse("ranker"), model=blob, params={"num_thread": 1})
    with Engine(path, EngineConfig(n_ctx=64, n_threads=1)) as engine:
        return [float(score) for score in engine.rerank("rain when", DOCUMENTS)]


def test_order(http: httpx2.Client, scores: list[float]) -> None:
    body = {"model": "ranker", "query": "rain when", "documents": DOCUMENTS, "return_documents": True}
    answer = http.post("/api/rerank", json=body).json()
    order = sorted(range(4), key=lambda index: -scores[index])
    assert [result["index"] for result in answer["results"]] == order
    assert [result["document"] for result in answer["results"]] == [DOCUMENTS[index] for index in order]
    wanted = [1 / (1 + np.exp(-scores[index])) for index in order]
    assert np.allclose([result["relevance_score"] for result in answer["results"]], wanted, atol=1e-3)
    assert answer["prompt_eval_count"] > 20
    best = http.post("/api/rerank", json={**body, "top_n": 1, "return_documents": False}).json()["results"]
    assert [set(result) for result in best] == [{"index", "relevance_score"}]
    assert http.post("/api/rerank", json={**body, "documents": []}).json()["results"] == []


def test_wrong(http: httpx2.Client, scores: list[float]) -> None:
    body = {"model": "ranker", "query": "q", "documents": ["a"], "top_n": 0}
    assert http.post("/api/rerank", json=body).status_code == 400
    assert http.post("/api/rerank", json={"model": "ranker", "query": "q"}).status_code == 400
    chat = http.post("/api/rerank", json={**body, "top_n": 1, "model": "smol"})
    assert chat.json() == {"error": '"smol" does not support reranking'}
    vectors = http.post("/api/rerank", json={**body, "top_n": 1, "model": "minilm"})
    assert vectors.status_code == 400
    assert vectors.json()["error"].startswith("the model does not rank"), "nothing of the server's folders"
