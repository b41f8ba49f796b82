"""``/v1/rerank``: Cohere's and Jina's form, with a small cross-encoder of random weights."""

from typing import Any

import httpx
import numpy as np
import pytest
from v1_server import Served, add_model

from helpers.tiny import TinyConfig, build
from pyggml.engine import Engine, EngineConfig
from pyggml.models import Pooling

pytestmark = pytest.mark.model

DOCUMENTS: Any = ["the rain in spain", {"text": "a"}, "hello the end", "in the plain the rain falls"]
TEXTS = [text if isinstance(text, str) else text["text"] for text in DOCUMENTS]


@pytest.fixture(scope="module")
def scores(served: Served, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """Puts the model ``ranker`` into the server's store; what the engine itself says of the documents."""
    random = np.random.default_rng(8)

    def change(meta: dict[str, object], weights: dict[str, Any]) -> None:
        meta["bert.pooling_type"] = Pooling.RANK
        weights["cls.output.weight"] = random.normal(0, 0.3, (1, 64))
        weights["cls.output.bias"] = random.normal(0, 0.3, 1)

    path = tmp_path_factory.mktemp("ranker") / f"sha256-{'5' * 64}"
    build(path, TinyConfig("bert", n_head=2, n_ctx_train=64), change=change)
    add_model(served.store, "ranker", path, None)
    with Engine(path, EngineConfig(n_ctx=64, n_threads=1)) as engine:
        return [float(score) for score in engine.rerank("rain when", TEXTS)]


def test_scores_and_order(served: Served, scores: list[float]) -> None:
    body = {"model": "ranker", "query": "rain when", "documents": DOCUMENTS, "return_documents": True}
    answer = httpx.post(f"{served.url}/v1/rerank", json=body, timeout=60).json()
    found = [(result["index"], result["relevance_score"]) for result in answer["results"]]
    assert [index for index, _ in found] == sorted(range(4), key=lambda index: -scores[index])
    wanted = [1 / (1 + np.exp(-scores[index])) for index, _ in found]
    assert np.allclose([score for _, score in found], wanted, atol=1e-3)
    assert [result["document"]["text"] for result in answer["results"]] == [TEXTS[index] for index, _ in found]
    assert answer["model"] == "ranker" and answer["usage"]["total_tokens"] > 20


def test_top_n(served: Served, scores: list[float]) -> None:
    body = {"model": "ranker", "query": "rain when", "documents": DOCUMENTS, "top_n": 2}
    results = httpx.post(f"{served.url}/v1/rerank", json=body, timeout=60).json()["results"]
    assert [result["index"] for result in results] == sorted(range(4), key=lambda index: -scores[index])[:2]
    assert all("document" not in result for result in results)


@pytest.mark.parametrize("fields", [{"documents": []}, {"documents": [{"title": "a"}]}, {"top_n": 0}])
def test_what_is_wrong_is_named(served: Served, fields: dict[str, Any]) -> None:
    body = {"model": "ranker", "query": "q", "documents": ["a"], **fields}
    found = httpx.post(f"{served.url}/v1/rerank", json=body, timeout=60)
    assert found.status_code == 400
    assert found.json()["error"]["param"].startswith(next(iter(fields)))
