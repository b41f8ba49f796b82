"""BLAS beside the CPU: large products of a prompt run there, decoding does not. Needs a build with ``GGML_BLAS=ON``."""

from pathlib import Path

import numpy as np
import pytest

from parity.goldens import load_goldens
from pyggml.engine import Engine, EngineConfig
from pyggml.errors import BackendError
from pyggml.tensor import Device, DeviceType, find_device

pytestmark = pytest.mark.blas


@pytest.fixture(scope="module")
def blas() -> Device:
    try:
        return find_device("BLAS")
    except BackendError as error:
        pytest.fail(f"{error}; build with GGML_BLAS=ON")


@pytest.mark.model
def test_prompts_use_it_and_single_tokens_do_not(blas: Device, smollm2_path: Path) -> None:
    """With it activations are not rounded to 8 bits, which brings logits nearer to those of float32."""
    assert blas.type == DeviceType.ACCEL
    case = load_goldens("smollm2").case("factual")
    positions = [p for p in case.positions if p < len(case.prompt_ids)]
    with Engine(smollm2_path, EngineConfig(device=blas.name, n_ctx=512, n_threads=2)) as engine:
        executor = engine.executor
        assert [backend.device.type for backend in executor.backends] == [DeviceType.ACCEL, DeviceType.CPU]
        rows = engine.logits((case.prompt_ids.tolist() * 64)[:64])
        assert np.isfinite(rows).all() and executor.n_splits > 1
        engine.logits(case.prompt_ids.tolist()[:1])
        assert executor.n_splits == 1
        rows = engine.logits(case.prompt_ids.tolist(), outputs=positions)[:, case.sample_ids]
    far = np.mean([np.abs(row - case.exact_logits[p]).mean() for p, row in zip(positions, rows, strict=True)])
    recorded = np.mean([np.abs(case.logits[True][p] - case.exact_logits[p]).mean() for p in positions])
    assert far <= recorded


@pytest.mark.model
def test_nobody_uses_it_unasked(blas: Device, smollm2_path: Path) -> None:
    with Engine(smollm2_path, EngineConfig(n_ctx=64)) as engine:
        assert [backend.device.name for backend in engine.executor.backends] == ["CPU"]
