"""Layers that look back to the last multiple of a chunk, as llama4 asks for them, through the whole engine."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

import helpers.reference
from helpers.reference import logits
from helpers.tiny import TinyModel, prompt
from pyggml.engine import Engine, EngineConfig
from pyggml.kvcache import CausalCache, MixedCache
from pyggml.models import llama as llama_file
from pyggml.tensor import DType

EXACT = {"n_threads": 1, "type_k": DType.F32, "type_v": DType.F32}
CHUNK = 8
Array = npt.NDArray[np.float64]


def use_chunks(monkeypatch: pytest.MonkeyPatch, chunks: Sequence[int]) -> None:
    """Make llama ask for them, and numpy's llama look no further."""

    class Chunked(llama_file.Llama):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            layers = [replace(layer, chunk=chunk) for layer, chunk in zip(self.shape.layers, chunks, strict=True)]
            self.shape = replace(self.shape, layers=layers)

    layer: Iterator[int] = iter(())

    def attend(q: Array, k: Array, v: Array, *, scale: float) -> Array:
        """``q (n, h, d)``, ``k, v (n, h_kv, d)`` to ``(n, h * d)``."""
        nonlocal layer
        chunk = next(layer, None)
        if chunk is None:
            layer = iter(chunks)
            chunk = next(layer)
        n, group = len(q), q.shape[1] // k.shape[1]
        at = np.arange(n)
        seen = at[None, :] <= at[:, None]
        if chunk:
            seen &= at[None, :] >= (at - at % chunk)[:, None]
        scores = np.einsum("nhd,mhd->hnm", q, np.repeat(k, group, axis=1)) * scale
        scores = np.where(seen, scores, -np.inf)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        return np.einsum("hnm,mhd->nhd", weights, np.repeat(v, group, axis=1)).reshape(n, -1)

    monkeypatch.setattr(llama_file, "Llama", Chunked)
    monkeypatch.setattr(helpers.reference, "_attend", attend)


@pytest.mark.parametrize("flash", [True, False])
@pytest.mark.parametrize("chunks", [(CHUNK, CHUNK), (CHUNK, 0), (16, CHUNK)], ids=str)
def test_logits_are_those_of_the_definition(
    monkeypatch: pytest.MonkeyPatch, llama: TinyModel, chunks: tuple[int, int], flash: bool
) -> None:
    ids = prompt(300)
    plain = logits(llama, ids)
    use_chunks(monkeypatch, chunks)
    want = logits(llama, ids)
    assert np.abs(want - plain).max() > 0.1, "the chunks make no difference"
    with Engine(llama.path, EngineConfig(n_ctx=400, n_batch=12, flash_attn=flash, **EXACT)) as engine:
        # More than the 256 cells that each chunked cache has: what lies before the chunk is given up on the way.
        np.testing.assert_allclose(engine.logits(ids[:290], outputs="all"), want[:290], rtol=0, atol=1e-4)
        for i in range(290, 300):
            np.testing.assert_allclose(engine.extend(ids[i])[0], want[i], rtol=0, atol=1e-4)
        caches = engine.cache.caches if isinstance(engine.cache, MixedCache) else [engine.cache]
        sizes = {cache.chunk: cache.n_cells for cache in caches if isinstance(cache, CausalCache)}
        assert sizes == {chunk: 256 if chunk else 512 for chunk in chunks}


def test_a_prefix_is_kept_only_while_the_chunk_is_there(monkeypatch: pytest.MonkeyPatch, llama: TinyModel) -> None:
    use_chunks(monkeypatch, (CHUNK, 0))
    ids = prompt(400)
    with Engine(llama.path, EngineConfig(n_ctx=512, n_batch=64, **EXACT)) as engine:
        engine.advance(ids)
        assert engine.advance(ids)[1] == 399
        row, kept = engine.advance([*ids[:100], 7])
        assert kept == 96  # the start of a chunk needs nothing of what lies before, and that is gone
        np.testing.assert_allclose(row[0], logits(llama, [*ids[:100], 7])[-1], rtol=0, atol=1e-4)
