"""llama.cpp on the same tiny files: logits and token ids."""

from pathlib import Path

import numpy as np
import pytest

from helpers.tiny import TinyConfig, build, prompt
from pyggml.engine import Engine, EngineConfig
from pyggml.gguf import GGMLType
from pyggml.tensor import DType

pytestmark = pytest.mark.parity

VARIANTS = {
    "llama": TinyConfig(),
    "llama-untied-bias": TinyConfig(tied=False, bias=True),
    "llama-rope-factors": TinyConfig(rope_freqs=True),
    "llama-linear": TinyConfig(scaling="linear"),
    "llama-yarn": TinyConfig(scaling="yarn"),
    "llama-f16": TinyConfig(weights=GGMLType.F16),
    "llama-q8_0": TinyConfig(weights=GGMLType.Q8_0),
    "gemma3": TinyConfig("gemma3", n_layer=6),
    "gemma3-linear": TinyConfig("gemma3", n_layer=6, scaling="linear"),
}


@pytest.mark.parametrize("flash", [True, False], ids=["flash", "plain"])
@pytest.mark.parametrize("name", VARIANTS)
def test_logits_and_ids(tmp_path: Path, name: str, flash: bool) -> None:
    from parity.llamacpp_oracle import Oracle, RunConfig

    # llama.cpp knows gemma3's pattern by heart, and reads no other.
    config = VARIANTS[name]
    model = build(tmp_path / "m.gguf", config, change=_real_pattern)
    ids = prompt(40)
    with Oracle(model.path) as oracle:
        want = oracle.logits(np.array(ids, np.int32), range(40), config=RunConfig(flash=flash, n_threads=1, n_ctx=64))
        want_ids = oracle.tokenize("hello the end")
    options = EngineConfig(n_ctx=64, n_threads=1, flash_attn=flash, type_k=DType.F16, type_v=DType.F16)
    with Engine(model.path, options) as engine:
        assert engine.tokenizer.encode("hello the end") == list(want_ids)
        got = engine.logits(ids, outputs="all")
    # Built from the same ggml, equal to the last bit; another release, or other CPU flags, rounds elsewhere.
    np.testing.assert_allclose(got, want, rtol=0, atol=0.2 if config.weights is GGMLType.Q8_0 else 1e-2)


def _real_pattern(meta: dict[str, object], weights: dict[str, np.ndarray]) -> None:
    if meta["general.architecture"] == "gemma3":
        meta["gemma3.attention.sliding_window_pattern"] = 6
