"""Cross-encoders: conversion, and scores against transformers (recorded) and llama.cpp."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rerankers import DOCUMENTS, QUERY, write_reranker

from pyggml.convert import convert_folder
from pyggml.engine import Engine, EngineConfig
from pyggml.engine.embedding import Embedder, Scores
from pyggml.engine.pairs import pair_ids
from pyggml.errors import MissingTensorError, ModelError
from pyggml.gguf import GGMLType, GGUFFile

GOLDEN: dict[str, Any] = json.loads((Path(__file__).parent / "data" / "rerank.json").read_text())


def convert(folder: Path) -> Path:
    path = folder.parent / "m.gguf"
    convert_folder(folder, path)
    return path


def rerank(path: Path, *, flash: bool = False) -> Scores:
    with Engine(path, EngineConfig(n_threads=1, flash_attn=flash)) as engine:
        e = Embedder(engine._decoder, engine.tokenizer, engine.metadata, n_ctx=32, n_batch=32)
        return e.rerank(QUERY, DOCUMENTS)


def test_what_is_written(tmp_path: Path) -> None:
    with GGUFFile(convert(write_reranker(tmp_path / "m"))) as file:
        m = file.metadata
        assert (m["bert.pooling_type"], m["tokenizer.ggml.eos_token_id"]) == (4, 3)
        flags = [m[f"tokenizer.ggml.add_{name}_token"] for name in ("bos", "eos", "sep")]
        assert flags == [True, True, False]
        shapes = {name: file.tensors[name].shape for name in file.tensors if name.startswith("cls")}
        assert shapes == {
            "cls.weight": (16, 16),
            "cls.bias": (16,),
            "cls.output.weight": (16, 1),
            "cls.output.bias": (1,),
        }
        assert file.tensors["cls.weight"].type is GGMLType.F16 and file.tensors["cls.bias"].type is GGMLType.F32


def test_scores_and_tokens_of_transformers(tmp_path: Path) -> None:
    path = convert(write_reranker(tmp_path / "m"))
    rows = GOLDEN["rows"]
    assert GOLDEN["query"] == QUERY and [row["document"] for row in rows] == DOCUMENTS
    with Engine(path, EngineConfig(n_threads=1)) as engine:
        for row in rows:
            pair = pair_ids(engine.tokenizer, engine.metadata, QUERY, row["document"])
            assert (pair.ids, pair.segments) == (row["ids"], row["segments"])
    want = np.array([row["score"] for row in rows])
    assert np.ptp(want) > 0.5
    # Matrices are F16: ggml rounds what they are multiplied with to 16 bits.
    np.testing.assert_allclose(rerank(path).scores, want, rtol=0, atol=1e-2)
    np.testing.assert_allclose(rerank(path, flash=True).scores, want, rtol=0, atol=1e-2)


@pytest.mark.parity
def test_scores_of_llama_cpp(tmp_path: Path) -> None:
    """Without segments: llama.cpp knows the first one only."""
    import xllamacpp

    path = convert(write_reranker(tmp_path / "m", n_segments=1))
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.embedding, params.pooling_type = True, xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_RANK
    params.n_ctx = params.n_batch = params.n_ubatch = 64
    answer = xllamacpp.Server(params).handle_rerank({"query": QUERY, "documents": DOCUMENTS})
    theirs = {item["index"]: item["relevance_score"] for item in answer["results"]}
    ours = rerank(path)
    assert np.ptp(ours.scores) > 0.1
    np.testing.assert_allclose(ours.scores, [theirs[i] for i in range(len(DOCUMENTS))], rtol=0, atol=2e-3)
    assert answer["usage"]["prompt_tokens"] == sum(ours.n_tokens)


def test_classifiers_are_not_converted(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="has 3 classes"):
        convert(write_reranker(tmp_path / "m", n_labels=3))


@pytest.mark.parametrize("name", ["classifier.weight", "bert.pooler.dense.bias"])
def test_a_head_that_is_not_complete(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import rerankers

    def without(folder: Path, *, weights: dict[str, np.ndarray], **options: Any) -> Path:
        return original(folder, weights={k: v for k, v in weights.items() if k != name}, **options)

    original = rerankers.write_bert
    monkeypatch.setattr(rerankers, "write_bert", without)
    with pytest.raises(MissingTensorError, match="cls"):
        convert(write_reranker(tmp_path / "m"))
