"""A second kind of device: the same answers as the CPU's. Mesa's software device will do (CONTRIBUTING.md).

Mesa's device is of type CPU, which ggml takes only when ``GGML_VK_VISIBLE_DEVICES=0`` names it.
"""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from parity.goldens import load_goldens
from pyggml.engine import Engine, EngineConfig
from pyggml.errors import BackendError
from pyggml.tensor import DType, Session, find_device

pytestmark = pytest.mark.vulkan
Floats = npt.NDArray[np.float32]


@pytest.fixture(scope="module")
def vulkan() -> str:
    """The first Vulkan device."""
    try:
        return find_device("Vulkan0").name
    except BackendError as error:
        pytest.fail(f"{error}; build with GGML_VULKAN=ON, and for a software device set GGML_VK_VISIBLE_DEVICES=0")


@pytest.mark.parametrize("dtype", [DType.F32, DType.F16, DType.Q8_0, DType.Q4_0])
def test_matmul_and_softmax(vulkan: str, dtype: DType) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((8, 256), np.float32), rng.standard_normal((64, 256), np.float32) / 16
    with Session(vulkan) as s, Session("CPU") as cpu:
        got = (s.tensor(x) @ s.tensor(w, dtype=dtype).T).softmax().numpy()
        expected = (cpu.tensor(x) @ cpu.tensor(w, dtype=dtype).T).softmax().numpy()
    scores = x @ w.T
    exact = np.exp(scores - scores.max(-1, keepdims=True))
    exact /= exact.sum(-1, keepdims=True)
    np.testing.assert_allclose(got, exact, atol=0.05 if dtype is DType.Q4_0 else 5e-3)
    np.testing.assert_allclose(got, expected, atol=5e-3)


@pytest.mark.model
@pytest.mark.parametrize("flash_attn", [True, False])
def test_a_model_is_nearer_to_float32_than_on_the_cpu(vulkan: str, smollm2_path: Path, flash_attn: bool) -> None:
    """Nearer, in fact: the CPU rounds activations to 8 bits, Vulkan does not (0.005 against 0.27 here)."""
    case = load_goldens("smollm2").case("factual")
    n_ctx = 32 * math.ceil(len(case.prompt_ids) / 32)
    with Engine(smollm2_path, EngineConfig(device=vulkan, n_ctx=n_ctx, flash_attn=flash_attn)) as engine:
        positions = [p for p in case.positions if p < len(case.prompt_ids)]
        rows = engine.logits(case.prompt_ids.tolist(), outputs=positions)[:, case.sample_ids]

    def distance(ours: Mapping[int, Floats]) -> float:
        return float(np.mean([np.abs(ours[p] - case.exact_logits[p]).mean() for p in positions]))

    recorded = distance(case.logits[flash_attn])
    assert distance(dict(zip(positions, rows, strict=True))) < 0.2 * recorded
