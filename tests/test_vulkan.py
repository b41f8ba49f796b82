"""A second kind of device: the same answers as the CPU's. Mesa's software device will do (CONTRIBUTING.md).

Mesa's device is of type CPU, which ggml takes only when ``GGML_VK_VISIBLE_DEVICES=0`` names it.
"""

from pathlib import Path

import numpy as np
import pytest

from pyggml.engine import Engine, EngineConfig
from pyggml.errors import BackendError
from pyggml.tensor import DType, Session, find_device

pytestmark = pytest.mark.vulkan


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
def test_a_model_gives_the_same_logits(vulkan: str, smollm2_path: Path, flash_attn: bool) -> None:
    logits = {}
    for device in (vulkan, "CPU"):
        with Engine(smollm2_path, EngineConfig(device=device, n_ctx=256, flash_attn=flash_attn)) as engine:
            logits[device] = np.asarray(engine.logits("The capital of France is", outputs="all")).copy()
    a, b = logits[vulkan], logits["CPU"]
    cosine = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    assert cosine.min() > 0.999, cosine
    assert (a.argmax(-1) == b.argmax(-1)).mean() > 0.7, "near ties may fall otherwise, most tokens must not"
