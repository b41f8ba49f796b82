"""Every pair of element types, stored, seen, rotated and saved: or refused with words."""

from itertools import product

import numpy as np
import pytest

from pyggml.errors import ParameterError
from pyggml.kvcache import CausalCache, LayerShape
from pyggml.tensor import Device, DType, find_device

from .attention import ROPES, AttentionLab, reference
from .lab import CacheKind

TYPES = (DType.F32, DType.F16, DType.BF16, DType.Q8_0, DType.Q5_1, DType.Q5_0, DType.Q4_1, DType.Q4_0, DType.IQ4_NL)
# What a wrong key or value would change is about 1, on the average over all outputs.
ERROR = {
    DType.F32: 1e-5,
    DType.F16: 2e-3,
    DType.BF16: 1e-2,
    DType.Q8_0: 1e-2,
    DType.Q5_1: 5e-2,
    DType.Q5_0: 5e-2,
    DType.Q4_1: 0.1,
    DType.Q4_0: 0.13,
    DType.IQ4_NL: 0.1,
}
TOKENS = [(5 * i * i + i) % 16 for i in range(40)]


PAIRS = [(k, v, True) for k, v in product(TYPES, TYPES)] + [(k, v, False) for k, v in product(TYPES, TYPES[:3])]


def name(pair: object) -> str:
    return pair.name.lower() if isinstance(pair, DType) else "flash" if pair else "plain"


def error(got: np.ndarray, tokens: list[int]) -> float:
    """The mean over the outputs of the last tokens of a sequence."""
    want = reference(tokens, ROPES[0], window=0, chunk=0)[-len(got) :]
    return float(np.abs(got - want).mean())


def exercise(k: DType, v: DType, *, flash: bool, device: str = "CPU") -> None:
    """A prompt, a fork, a gap closed, a sequence saved and loaded, and all three go on."""
    bound = ERROR[k] + ERROR[v]
    with AttentionLab(CacheKind(flash, k, v, 0.0), ROPES[0], looks=[(0, 0)], device=device) as lab:
        ((got,),) = lab.put([(0, 0, TOKENS)])
        assert error(got, TOKENS) <= bound
        lab.cache.copy_prefix(0, 1, 30)
        lab.cache.discard(0, 3, 13)  # the fork keeps its cells, this one is copied and rotated
        lab.apply_shifts()
        lab.cache.load_sequence(2, lab.cache.save_sequence(0, 30))
        moved = TOKENS[:3] + TOKENS[13:]
        parts = {0: moved, 1: TOKENS[:30], 2: moved}
        outputs = lab.put([(seq_id, 30, [9, 4]) for seq_id in parts])
        for (out,), said in zip(outputs, parts.values(), strict=True):
            assert error(out, [*said, 9, 4]) <= 1.5 * bound


@pytest.mark.parametrize(("k", "v", "flash"), PAIRS, ids=name)
def test_a_pair_of_types(k: DType, v: DType, flash: bool) -> None:
    exercise(k, v, flash=flash)


@pytest.mark.vulkan
@pytest.mark.parametrize(("k", "flash"), [(DType.F16, True), (DType.Q8_0, True), (DType.F16, False)], ids=name)
def test_another_device(k: DType, flash: bool) -> None:
    exercise(k, DType.F16, flash=flash, device="Vulkan0")


@pytest.mark.vulkan
def test_another_device_says_what_it_cannot_do() -> None:
    """ggml's Vulkan kernels multiply quantized keys only when heads do not alternate, as they do in a cache."""
    with pytest.raises(ParameterError, match="Vulkan0 has no attention without flash attention for a Q8_0 K"):
        AttentionLab(CacheKind(False, DType.Q8_0, DType.F16, 0.0), ROPES[0], device="Vulkan0")


def make(**options: object) -> CausalCache:
    return CausalCache([LayerShape(0, 2, 64, 64)], [find_device("CPU")], n_cells=256, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type_k": DType.IQ2_XXS}, "head size that is a multiple of 256, layer 0 has 64"),
        ({"type_v": DType.I32}, "cannot store a I32 V cache"),
        ({"type_k": DType.F64}, "cannot store a F64 K cache"),
        ({"type_k": DType.Q8_1}, "no attention with flash attention for a Q8_1 K"),
        ({"type_v": DType.IQ4_NL, "flash_attn": False}, "IQ4_NL V cache needs flash attention"),
        ({"window": -1}, "window and chunk 0 or more"),
    ],
    ids=str,
)
def test_what_no_kernel_takes(options: dict[str, object], message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        make(**options)


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ("SET_ROWS", "device CPU cannot store a Q8_0 K cache"),
        ("FLASH_ATTN_EXT", "no attention with flash attention for a Q8_0 K and F16 V cache with head sizes 64 and 64"),
    ],
)
def test_a_device_without_the_kernel(monkeypatch: pytest.MonkeyPatch, op: str, message: str) -> None:
    monkeypatch.setattr(Device, "supports_op", lambda _, node: node.op != op)
    with pytest.raises(ParameterError, match=message):
        make(type_k=DType.Q8_0)


def test_keys_that_cannot_be_read_cannot_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Device, "supports_op", lambda _, node: node.op != "GET_ROWS")
    cache = make(type_k=DType.Q8_0)
    assert not cache.can_shift
    with pytest.raises(ParameterError, match="Q8_0 cannot be moved"):
        cache.discard(0, 0, 1)
    cache.close()
