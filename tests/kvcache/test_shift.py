"""Moving what a model stored: many cells, real models, and what happens when it cannot be done."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers.tiny import TinyConfig, build
from pyggml.batch import Batch
from pyggml.engine import Engine, EngineConfig
from pyggml.kvcache import CausalCache, LayerShape
from pyggml.tensor import Backend, DType, Executor, Tensor, find_device, ops
from pyggml.tensor.ops import RopeParams

from .lab import CacheKind, Lab

# One layer: with more, what a token stores depends on all tokens before it, also on those that are dropped.
MODELS = {
    "llama": TinyConfig(n_layer=1, n_embd=32, n_ff=32, n_head=2, n_head_kv=1),
    "llama-linear": TinyConfig(n_layer=1, n_embd=32, n_ff=32, n_head=2, n_head_kv=1, scaling="linear"),
    "llama-factors": TinyConfig(n_layer=1, n_embd=32, n_ff=32, n_head=2, n_head_kv=1, rope_freqs=True),
    "llama-yarn": TinyConfig(n_layer=1, n_embd=32, n_ff=32, n_head=2, n_head_kv=1, scaling="yarn"),
    "gemma3": TinyConfig("gemma3", n_layer=1, n_embd=32, n_ff=32, n_head=2, n_head_kv=1, window=64, pattern=2),
}
TOKENS = [3 + 7 * i % 40 for i in range(40)]


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("flash", [True, False], ids=["flash", "plain"])
def test_a_model_goes_on_after_a_gap_was_closed(tmp_path: Path, name: str, flash: bool) -> None:
    path = build(tmp_path / f"{name}.gguf", MODELS[name]).path
    kind = CacheKind(flash, DType.F32, DType.F32, 3e-5)
    with Engine(path, EngineConfig(n_ctx=64, n_threads=1)) as engine, Lab(engine, kind) as lab:
        lab.put([(0, 0, TOKENS)])
        lab.put([(0, 40, [5])])  # its graph stays usable
        lab.cache.discard(0, 4, 14)
        assert lab.cache.sequence_length(0) == 31 and lab.cache.pending_shifts
        lab.cache.apply_shifts(lab.executor, engine.model.shift)
        assert not lab.cache.pending_shifts
        told = TOKENS[:4] + TOKENS[14:] + [5]
        for token in (9, 8):
            told.append(token)
            lab.check(lab.put([(0, len(told) - 1, [token])])[0], told)


def test_many_cells_are_rotated_in_parts() -> None:
    """Keys of two layers with sizes of their own, against the rotation of the whole."""
    device = find_device("CPU")
    shapes = [LayerShape(0, 2, 32, 32), LayerShape(3, 1, 64, 32)]
    cache = CausalCache(shapes, [device, device], n_cells=1500, type_k=DType.F32)
    cache.start(Batch.of_sequence([0] * 1400, start=0))
    rng = np.random.default_rng(0)
    before = {}
    for layer, keys in cache.keys.items():
        before[layer] = rng.standard_normal(keys.numpy_shape).astype(np.float32)
        keys.set(before[layer])
    seen: list[tuple[int, tuple[int, ...]]] = []

    def rotate(layer: int, k: Tensor, delta: Tensor) -> Tensor:
        seen.append((layer, k.shape))
        return ops.rope(k, delta, params=RopeParams(k.ne[0]))

    cache.discard(0, 100, 150)
    cache.discard(0, 1000, 1001)  # these move twice and are rotated once
    with Backend(device, n_threads=1) as backend, Executor([backend]) as executor:
        cache.apply_shifts(executor, rotate)
    # 1249 cells: two times 512 with one graph, and the rest.
    assert seen == [(0, (32, 2, 512)), (3, (64, 1, 512)), (0, (32, 2, 225)), (3, (64, 1, 225))]
    delta = np.zeros(cache.n_cells)
    delta[150:1050], delta[1051:1400] = -50, -51  # token 1050 was at position 1000 when that was dropped
    for shape in shapes:
        keys = before[shape.layer].reshape(cache.n_cells, shape.n_head_kv, shape.d_k // 2, 2)
        turn = np.exp(1j * delta[:, None, None] * 10000.0 ** (-2.0 * np.arange(shape.d_k // 2) / shape.d_k))
        want = (keys[..., 0] + 1j * keys[..., 1]) * turn
        got = cache.keys[shape.layer].numpy().reshape(keys.shape)
        np.testing.assert_allclose(got[..., 0] + 1j * got[..., 1], want, rtol=0, atol=2e-5)
    cache.close()


def test_a_model_that_cannot_rotate(tmp_path: Path) -> None:
    """Nothing is half done: what moved can still be dropped."""
    path = build(tmp_path / "tiny.gguf", replace(MODELS["llama"], n_layer=2)).path
    kind = CacheKind(True, DType.F32, DType.F32, 3e-5)

    def cannot(layer: int, k: Tensor, delta: Tensor) -> Tensor:
        raise NotImplementedError

    with Engine(path, EngineConfig(n_ctx=64, n_threads=1)) as engine, Lab(engine, kind) as lab:
        lab.put([(0, 0, TOKENS)])
        lab.cache.discard(0, 4, 14)
        with pytest.raises(NotImplementedError):
            lab.cache.apply_shifts(lab.executor, cannot)
        assert lab.cache.pending_shifts
        lab.cache.remove(0, 4)
        assert not lab.cache.pending_shifts
        lab.check(lab.put([(0, 4, [9, 8])])[0], [*TOKENS[:4], 9, 8])
