"""Logits of tiny models against a float64 computation in numpy that shares nothing with pyggml."""

from pathlib import Path

import numpy as np
import pytest

from helpers.reference import bert_states, logits
from helpers.tiny import TinyConfig, build, prompt
from pyggml.engine import Engine, EngineConfig
from pyggml.gguf import GGMLType
from pyggml.tensor import DType

IDS = prompt(40)

VARIANTS = {
    "llama": TinyConfig(),
    "llama-untied-bias": TinyConfig(tied=False, bias=True),
    "llama-rope-factors": TinyConfig(rope_freqs=True),
    "llama-linear": TinyConfig(scaling="linear"),
    "llama-yarn": TinyConfig(scaling="yarn", rope_freqs=True),
    "llama-every-head-its-own": TinyConfig(n_head_kv=4),
    "gemma3": TinyConfig("gemma3", n_layer=4),
    "gemma3-softcap-linear": TinyConfig("gemma3", n_layer=4, softcap=5.0, scaling="linear"),
    "gemma3-untied-window-1": TinyConfig("gemma3", n_layer=3, window=1, tied=False),
}


def tolerance(config: TinyConfig, cache: DType, *, flash: bool) -> float:
    """What rounding explains; logits are up to about 4. Each bound is some 3 times what was measured.

    float32 throughout: 1e-5. GELU in ggml is a table of 16-bit floats (gemma3): 1e-2. A 16-bit cache: 2e-2, flash
    attention rounds queries too. 16-bit weights round the activations. Q8_0 weights round them to 8 bits: 0.4.
    """
    if config.weights is GGMLType.Q8_0:
        return 0.4
    rough = cache is not DType.F32 or config.weights is not GGMLType.F32
    if rough:
        return 2e-2 if flash or config.architecture == "gemma3" else 1.5e-2
    return 1e-2 if config.architecture == "gemma3" else 1e-5


@pytest.mark.parametrize("cache", [DType.F32, DType.F16], ids=["f32", "f16"])
@pytest.mark.parametrize("flash", [True, False], ids=["flash", "plain"])
@pytest.mark.parametrize("name", VARIANTS)
def test_logits(tmp_path: Path, name: str, flash: bool, cache: DType) -> None:
    config = VARIANTS[name]
    model = build(tmp_path / "m.gguf", config)
    want = logits(model, IDS)
    for n_batch in (1, 7, 64):
        options = EngineConfig(n_ctx=64, n_batch=n_batch, n_threads=1, flash_attn=flash, type_k=cache, type_v=cache)
        with Engine(model.path, options) as engine:
            got = engine.logits(IDS, outputs="all")
        np.testing.assert_allclose(got, want, rtol=0, atol=tolerance(config, cache, flash=flash))


@pytest.mark.parametrize("dtype", [GGMLType.F16, GGMLType.Q8_0], ids=["f16", "q8_0"])
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_logits_of_16_and_8_bit_weights(tmp_path: Path, architecture: str, dtype: GGMLType) -> None:
    config = TinyConfig(architecture, n_layer=3, weights=dtype)
    model = build(tmp_path / "m.gguf", config)
    with Engine(model.path, EngineConfig(n_ctx=64, n_threads=1, type_k=DType.F32, type_v=DType.F32)) as engine:
        got = engine.logits(IDS, outputs="all")
    np.testing.assert_allclose(got, logits(model, IDS), rtol=0, atol=tolerance(config, DType.F32, flash=True))


def test_the_window_and_the_scaling_matter(tmp_path: Path) -> None:
    """The comparisons above would not notice an option that changes nothing."""
    plain = logits(build(tmp_path / "a.gguf", TinyConfig("gemma3", n_layer=4)), IDS)
    wide = logits(build(tmp_path / "b.gguf", TinyConfig("gemma3", n_layer=4, window=100)), IDS)
    assert np.abs(plain[:8] - wide[:8]).max() < 1e-12 and np.abs(plain[8:] - wide[8:]).max() > 0.1
    llama = logits(build(tmp_path / "c.gguf", TinyConfig()), IDS)
    for config in (TinyConfig(scaling="linear"), TinyConfig(scaling="yarn"), TinyConfig(rope_freqs=True)):
        assert np.abs(logits(build(tmp_path / "d.gguf", config), IDS) - llama).max() > 0.1


@pytest.mark.parametrize("split", [(40,), (1, 39), (39, 1), (13, 20, 7), (1,) * 40], ids=str)
@pytest.mark.parametrize("architecture", ["llama", "gemma3"])
def test_any_split_into_calls_gives_the_same(tmp_path: Path, architecture: str, split: tuple[int, ...]) -> None:
    config = TinyConfig(architecture, n_layer=3)
    model = build(tmp_path / "m.gguf", config)
    want = logits(model, IDS)
    with Engine(model.path, EngineConfig(n_ctx=64, n_batch=16, n_threads=1, type_k=DType.F32, type_v=DType.F32)) as e:
        end = 0
        for n in split:
            end += n
            row, kept = e.advance(IDS[:end])
            assert kept == end - n
            np.testing.assert_allclose(row[0], want[end - 1], rtol=0, atol=tolerance(config, DType.F32, flash=True))


@pytest.mark.parametrize("flash", [True, False], ids=["flash", "plain"])
@pytest.mark.parametrize("pooling", [1, 2, 3], ids=["mean", "cls", "last"])
def test_embeddings(tmp_path: Path, pooling: int, flash: bool) -> None:
    model = build(tmp_path / "m.gguf", TinyConfig("bert", n_head=2, n_ctx_train=64, pooling=pooling))
    texts = [prompt(n, seed=n) for n in (1, 2, 17, 64)]
    with Engine(model.path, EngineConfig(n_threads=1, flash_attn=flash)) as engine:
        raw = engine.embed(texts, normalize=False)
        unit = engine.embed(texts)
    for ids, vector, direction in zip(texts, raw, unit, strict=True):
        states = bert_states(model, ids)
        want = {1: states.mean(axis=0), 2: states[0], 3: states[-1]}[pooling]
        # 16-bit keys and values in flash attention; states are up to about 3.
        np.testing.assert_allclose(vector, want, rtol=0, atol=2e-2 if flash else 1e-5)
        np.testing.assert_allclose(direction, vector / np.linalg.norm(vector), rtol=0, atol=1e-6)
