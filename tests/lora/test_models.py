"""Adapters on a real model: against merged weights, and against llama.cpp."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pyggml.engine import EngineConfig
from pyggml.gguf import GGMLType

from .lab import Floats, adapter, delta, merge, opened, random_pairs

TEXT = list(range(500, 540))
NAMES = ("attn_q", "attn_v", "ffn_gate", "ffn_up", "ffn_down")
N_LAYER = 30

llama_cpp = """
struct llama_adapter_lora;
struct llama_adapter_lora * llama_adapter_lora_init(struct llama_model * model, const char * path);
int32_t llama_set_adapters_lora(
    struct llama_context * ctx, struct llama_adapter_lora ** adapters, size_t n, float * scales);
"""


def write(folder: Path, base: Path, *, rank: int, n_layer: int, dtype: GGMLType = GGMLType.F32) -> Path:
    names = [f"blk.{i}.{name}.weight" for i in range(n_layer) for name in NAMES]
    pairs = random_pairs(base, names, rank=rank, seed=rank, size=0.3)
    return adapter(folder / f"rank-{rank}.gguf", base, pairs, alpha=float(rank), dtype=dtype)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Emptied again: the files are large."""
    path = tmp_path_factory.mktemp("lora")
    yield path
    for file in path.iterdir():
        file.unlink()


@pytest.mark.model
@pytest.mark.parametrize("rank", [4, 8])
def test_the_merged_model_gives_the_same(folder: Path, smollm2_path: Path, rank: int) -> None:
    """SmolLM2's own weights as F32, six layers; logits are up to about 20, and rounding makes 4e-5."""
    names = [f"blk.{i}.{name}.weight" for i in range(6) for name in NAMES]
    pairs = random_pairs(smollm2_path, names, rank=rank, seed=rank, size=0.3)
    path = adapter(folder / "a.gguf", smollm2_path, pairs, alpha=float(rank))
    plain = merge(smollm2_path, folder / "plain.gguf", {}, n_layer=6)
    changes = {name: delta(pair, rank) for name, pair in pairs.items()}
    merged = merge(smollm2_path, folder / "merged.gguf", changes, n_layer=6)
    with opened(plain, [path]) as lab:
        base, got = lab.logits(TEXT), lab.logits(TEXT, {0: 1.0})
    with opened(merged, []) as lab:
        want = lab.logits(TEXT)
    print(f"rank {rank}: change {np.abs(want - base).max():.3f}, error {np.abs(got - want).max():.2e}")
    assert np.abs(want - base).max() > 1.0
    np.testing.assert_allclose(got, want, rtol=0, atol=4e-4)


def theirs(base: Path, scales: Mapping[Path, float]) -> Floats:
    """llama.cpp's logits of all tokens."""
    from parity.llamacpp_oracle import Oracle, RunConfig

    with Oracle(base) as oracle:
        ffi: Any = oracle._ffi
        lib: Any = oracle._lib
        ffi.cdef(llama_cpp)
        loaded = [lib.llama_adapter_lora_init(oracle._model, str(path).encode()) for path in scales]
        assert all(pointer != ffi.NULL for pointer in loaded), oracle.log[-400:]
        with oracle._context(RunConfig(flash=False, n_threads=1, n_ctx=128), len(TEXT)) as ctx:
            array = ffi.new("struct llama_adapter_lora *[]", loaded)
            numbers = ffi.new("float[]", list(scales.values()))
            assert lib.llama_set_adapters_lora(ctx, array, len(loaded), numbers) == 0
            oracle._decode(ctx, np.array(TEXT, np.int32), 0, set(range(len(TEXT))))
            return np.stack([oracle._row(ctx, i) for i in range(len(TEXT))])


@pytest.mark.model
@pytest.mark.parity
@pytest.mark.parametrize("dtype", [GGMLType.F32, GGMLType.F16], ids=["f32", "f16"])
def test_llama_cpp_gives_the_same(folder: Path, smollm2_path: Path, dtype: GGMLType) -> None:
    """With scales that are powers of two and the same order of adapters, equal to the last bit when built from the
    same kernels (ours for flash attention are not llama.cpp's). llama.cpp orders several adapters by their addresses,
    so both orders are tried.
    """
    first = write(folder, smollm2_path, rank=4, n_layer=N_LAYER, dtype=dtype)
    second = write(folder, smollm2_path, rank=8, n_layer=N_LAYER, dtype=dtype)
    config = EngineConfig(n_ctx=128, n_batch=64, n_threads=1, flash_attn=False)
    wanted = [theirs(smollm2_path, scales) for scales in ({first: 1.0}, {second: -0.5}, {first: 0.5, second: -1.0})]
    errors = []
    for order in ((first, second), (second, first)):
        with opened(smollm2_path, order, config=config) as lab:
            base = lab.logits(TEXT)
            a, b = order.index(first), order.index(second)
            got = [lab.logits(TEXT, scales) for scales in ({a: 1.0}, {b: -0.5}, {a: 0.5, b: -1.0})]
        errors.append([float(np.abs(ours - want).max()) for ours, want in zip(got, wanted, strict=True)])
        assert all(np.abs(want - base).max() > 3.0 for want in wanted)
    print("errors", errors)
    assert max(errors[0][:2] + errors[1][:2]) <= 1e-2
    assert min(errors[0][2], errors[1][2]) <= 1e-2
