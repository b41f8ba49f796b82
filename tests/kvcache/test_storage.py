"""What a cache allocates, and what it refuses."""

import numpy as np
import pytest

from pyggml.batch import Batch
from pyggml.engine import Engine
from pyggml.errors import ClosedError, ParameterError
from pyggml.kvcache import BatchOnlyCache, CausalCache, LayerShape, MixedCache, pad_to
from pyggml.tensor import Arena, DType, find_device

from .lab import CacheKind, Lab


def make(**options: object) -> CausalCache:
    layers = [LayerShape(0, 2, 64, 32), LayerShape(5, 1, 32, 32)]
    device = find_device("CPU")
    return CausalCache(layers, [device, device], **({"n_cells": 300} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("flash", [True, False])
def test_shapes_and_bytes(flash: bool) -> None:
    cache = make(type_k=DType.Q8_0, type_v=DType.F16, flash_attn=flash)
    assert cache.n_cells == 512 and sorted(cache.keys) == [0, 5]
    assert cache.keys[0].ne[:2] == (128, 512)
    assert cache.values[0].ne[:2] == ((64, 512) if flash else (512, 64))
    need = 512 * (128 + 32) // 32 * 34 + 512 * (64 + 32) * 2
    assert need <= cache.n_bytes <= need + 4096
    cache.close()
    cache.close()


@pytest.mark.parametrize("flash", [True, False])
def test_cells_that_were_never_written_are_zero(flash: bool) -> None:
    """Memory of earlier computations may hold NaN, and 0 * NaN is NaN: a mask does not help."""
    for _ in range(3):
        cache = make(type_k=DType.F32, type_v=DType.F32, flash_attn=flash)
        for tensor in (*cache.keys.values(), *cache.values.values()):
            assert not tensor.numpy().any()
            tensor.set(np.full(tensor.numpy().shape, np.nan, np.float32))
        cache.close()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type_v": DType.Q8_0, "flash_attn": False}, "Q8_0 V cache needs flash attention"),
        ({"type_k": DType.Q4_K}, "Q4_K K cache needs a head size that is a multiple of 256, layer 0 has 64"),
        ({"type_v": DType.Q4_K}, "Q4_K V cache needs a head size that is a multiple of 256, layer 0 has 32"),
    ],
)
def test_types_that_do_not_fit(options: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make(**options)


def test_a_closed_cache_makes_no_graph(llama: Engine) -> None:
    lab = Lab(llama, CacheKind(True, DType.F16, DType.F16, 1e-2))
    lab.put([(0, 0, [3, 4])])
    lab.close()
    with pytest.raises(ClosedError):
        lab.put([(0, 2, [5])])


def test_pad_to() -> None:
    assert [pad_to(n, 256) for n in (0, 1, 256, 257)] == [0, 256, 256, 512]


def test_a_cache_of_nothing_resumes_nowhere() -> None:
    cache = BatchOnlyCache()
    cache.start(Batch.of_sequence([1, 2], start=0))
    cache.cancel()
    assert cache.can_resume(0, 0) and not cache.can_resume(0, 2)
    assert cache.key() == cache.reserve_key() == () and cache.n_bytes == 0


def test_a_mixed_cache_adds_up() -> None:
    caches = [make(), make(window=8)]
    mixed = MixedCache(caches, {0: 0, 5: 1})
    assert mixed.n_bytes == sum(cache.n_bytes for cache in caches)
    assert mixed.reserve_key() == (512, 512)
    mixed.start(Batch.of_sequence([0] * 300, start=0))
    assert mixed.key() == (512, 512)
    mixed.cancel()
    assert mixed.key() == (0, 0) and mixed.can_resume(0, 0)
    mixed.close()
    with pytest.raises(ClosedError), Arena() as arena:
        arena.use(caches[0].keys[0].arena)
        caches[0].keys[0].numpy()
