"""Every type there and back, with the error its bits allow."""

import numpy as np
import pytest

from pyggml.errors import DTypeError
from pyggml.tensor import DType, dequantize, quantize, row_size

INTERMEDIATE = (DType.Q8_1, DType.Q8_K)
WEIGHTS = [d for d in DType if d.is_quantized and d not in INTERMEDIATE]
# Root mean square error over that of the data (standard normal), a little above what was measured.
BOUNDS = {
    "Q8": 0.01, "Q6": 0.03, "Q5": 0.06, "IQ4": 0.12, "Q4": 0.12, "MXFP4": 0.18, "NVFP4": 0.15, "Q3": 0.2, "IQ3": 0.28,
    "Q2": 0.45, "IQ2": 0.45, "IQ1": 0.65, "Q2_0": 0.75, "TQ": 0.85, "Q1": 0.7,
}  # fmt: skip


# ggml computes the tables of these on first use, which takes seconds.
TABLES = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S")


@pytest.mark.parametrize(
    "dtype",
    [pytest.param(d, marks=pytest.mark.slow) if d.name in TABLES else d for d in WEIGHTS],
    ids=lambda d: d.name,
)
def test_round_trip(dtype: DType) -> None:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((4, 512), np.float32)
    raw = quantize(x, dtype, importance=np.ones(512, np.float32))
    assert raw.nbytes == 4 * row_size(dtype, 512)
    back = dequantize(raw, dtype, x.size).reshape(x.shape)
    error = float(np.sqrt(((back - x) ** 2).mean()))
    bound = next(b for prefix, b in sorted(BOUNDS.items(), key=lambda p: -len(p[0])) if dtype.name.startswith(prefix))
    assert 0 < error < bound, f"{dtype.name}: {error:.3f}"


@pytest.mark.parametrize(("dtype", "bound"), [(DType.F32, 0), (DType.F16, 1e-3), (DType.BF16, 8e-3)])
def test_floats(dtype: DType, bound: float) -> None:
    x = np.random.default_rng(3).standard_normal(100, np.float32)
    back = dequantize(quantize(x, dtype), dtype, 100)
    assert np.abs(back - x).max() <= bound * 4


@pytest.mark.parametrize("dtype", INTERMEDIATE, ids=lambda d: d.name)
def test_intermediate_types_are_refused(dtype: DType) -> None:
    with pytest.raises(DTypeError, match="intermediate"):
        quantize(np.zeros(512), dtype)


def test_refusals() -> None:
    with pytest.raises(DTypeError, match="multiple"):
        quantize(np.zeros(33), DType.Q4_0)
    with pytest.raises(DTypeError, match="importance"):
        quantize(np.zeros(256), DType.IQ2_XXS)
    with pytest.raises(DTypeError, match="one weight per column"):
        quantize(np.zeros(256), DType.IQ2_XXS, importance=np.ones(3))
    with pytest.raises(DTypeError, match="bytes"):
        dequantize(b"123", DType.Q8_0, 32)
    with pytest.raises(DTypeError, match="I8"):
        dequantize(b"1234", DType.I8, 4)
