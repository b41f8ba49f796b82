"""What adapters compute, against merged weights in float64 that share nothing with pyggml."""

from pathlib import Path

import numpy as np
import pytest

from helpers.reference import bert_states, logits
from helpers.tiny import TinyConfig, TinyModel, build, prompt
from pyggml.batch import Batch
from pyggml.engine import EngineConfig
from pyggml.gguf import GGMLType, GGUFWriter
from pyggml.tensor import dequantize, quantize

from .lab import EXACT, adapter, delta, merged_weights, opened, random_pairs, together

IDS = prompt(30)
LAYERS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def targets(model: TinyModel, *extra: str) -> list[str]:
    return [*extra, *(f"blk.{i}.{name}.weight" for i in range(model.config.n_layer) for name in LAYERS)]


@pytest.mark.parametrize(
    ("name", "config", "extra"),
    [
        ("llama", TinyConfig(bias=True), ()),
        ("llama-untied", TinyConfig(tied=False), ("output.weight", "token_embd.weight")),
        ("gemma3", TinyConfig("gemma3", n_layer=3), ()),
        ("gemma3-untied", TinyConfig("gemma3", n_layer=3, tied=False), ("output.weight", "token_embd.weight")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("rank", [1, 8])
def test_logits_are_those_of_the_merged_model(
    tmp_path: Path, name: str, config: TinyConfig, extra: tuple[str, ...], rank: int
) -> None:
    """Rounding of float32 explains 1e-5 (gemma3: GELU from a table of 16-bit floats, 1e-2)."""
    model = build(tmp_path / "m.gguf", config)
    pairs = random_pairs(model.path, targets(model, *extra), rank=rank, seed=3)
    path = adapter(tmp_path / "a.gguf", model.path, pairs, alpha=2.0 * rank)
    changes = {k: delta(pair, 2.0 * rank) for k, pair in pairs.items()}
    changes = {k: d.T if k == "token_embd.weight" else d for k, d in changes.items()}
    base = logits(model, IDS)
    with opened(model.path, [path]) as lab:
        for scale in (1.0, -0.5):
            want = logits(merged_weights(model, {k: scale * d for k, d in changes.items()}), IDS)
            assert np.abs(want - base).max() > 0.5  # the adapter matters
            got = lab.logits(IDS, {0: scale})
            np.testing.assert_allclose(got, want, rtol=0, atol=1e-2 if name.startswith("gemma") else 2e-5)


def test_with_flash_attention(tmp_path: Path) -> None:
    """Keys, values and queries are rounded to 16 bits."""
    model = build(tmp_path / "m.gguf")
    pairs = random_pairs(model.path, targets(model), rank=4, seed=3, size=0.3)
    path = adapter(tmp_path / "a.gguf", model.path, pairs, alpha=4.0)
    want = logits(merged_weights(model, {k: delta(pair, 4.0) for k, pair in pairs.items()}), IDS)
    with opened(model.path, [path], config=EngineConfig(n_ctx=128, n_batch=64, n_threads=1, flash_attn=True)) as lab:
        np.testing.assert_allclose(lab.logits(IDS, {0: 1.0}), want, rtol=0, atol=3e-2)


def test_an_embedding_that_is_tied_changes_only_what_is_looked_up(tmp_path: Path) -> None:
    model = build(tmp_path / "m.gguf", TinyConfig())
    pairs = random_pairs(model.path, ["token_embd.weight"], rank=4, seed=5)
    path = adapter(tmp_path / "a.gguf", model.path, pairs, alpha=4.0)
    untied = merged_weights(model, {"token_embd.weight": delta(pairs["token_embd.weight"], 4.0).T})
    untied.config = TinyConfig(tied=False)
    untied.weights["output.weight"] = model.weights["token_embd.weight"]
    with opened(model.path, [path]) as lab:
        np.testing.assert_allclose(lab.logits(IDS, {0: 1.0}), logits(untied, IDS), rtol=0, atol=2e-5)


def test_bert(tmp_path: Path) -> None:
    model = build(tmp_path / "m.gguf", TinyConfig("bert", n_head=2, n_ctx_train=64))
    names = [f"blk.{i}.{name}.weight" for i in range(2) for name in LAYERS if name != "ffn_gate"]
    pairs = random_pairs(model.path, names, rank=4, seed=4)
    path = adapter(tmp_path / "a.gguf", model.path, pairs, alpha=4.0)
    changes = {k: delta(pair, 4.0) for k, pair in pairs.items()}
    with opened(model.path, [path]) as lab:
        got = lab.logits(IDS, {0: 1.0})
    np.testing.assert_allclose(got, bert_states(merged_weights(model, changes), IDS), rtol=0, atol=2e-5)


@pytest.mark.parametrize("alpha", [0.0, 1.0, 32.0])
def test_alpha_and_different_ranks_in_one_file(tmp_path: Path, alpha: float) -> None:
    """Without alpha the scale is 1 whatever the rank, as llama.cpp has it."""
    model = build(tmp_path / "m.gguf")
    pairs = random_pairs(model.path, ["blk.0.attn_q.weight"], rank=2, seed=1, size=0.2)
    pairs |= random_pairs(model.path, ["blk.1.ffn_up.weight", "blk.0.ffn_down.weight"], rank=16, seed=2, size=0.2)
    path = adapter(tmp_path / "a.gguf", model.path, pairs, alpha=alpha)
    want = logits(merged_weights(model, {k: delta(pair, alpha) for k, pair in pairs.items()}), IDS)
    with opened(model.path, [path]) as lab:
        np.testing.assert_allclose(lab.logits(IDS, {0: 1.0}), want, rtol=0, atol=5e-5)


@pytest.mark.parametrize("dtype", [GGMLType.F16, GGMLType.BF16, GGMLType.Q8_0], ids=["f16", "bf16", "q8_0"])
@pytest.mark.parametrize("target", ["blk.0.ffn_up.weight", "token_embd.weight"])
def test_matrices_of_16_and_8_bits(tmp_path: Path, target: str, dtype: GGMLType) -> None:
    """What the file holds is what counts; products with it round the other operand likewise."""
    model = build(tmp_path / "m.gguf", TinyConfig(tied=False))
    writer = GGUFWriter(tmp_path / "a.gguf", architecture="llama")
    for key, value in (("general.type", "adapter"), ("adapter.type", "lora"), ("adapter.lora.alpha", 32.0)):
        writer.add(key, value)
    kept = []
    for half, matrix in zip("ab", random_pairs(model.path, [target], rank=32, seed=1)[target], strict=True):
        stored = np.ascontiguousarray(matrix.T) if (target, half) == ("token_embd.weight", "a") else matrix
        data = quantize(stored, dtype)
        writer.add_tensor(f"{target}.lora_{half}", data.tobytes(), type=dtype, shape=stored.shape[::-1])
        back = dequantize(data, dtype, stored.size).reshape(stored.shape)
        kept.append(back.T if stored is not matrix else back)
    writer.write()
    change = delta((kept[0], kept[1]), 32.0)
    want = logits(merged_weights(model, {target: change.T if target == "token_embd.weight" else change}), IDS)
    with opened(model.path, [tmp_path / "a.gguf"]) as lab:
        got, plain = lab.logits(IDS, {0: 1.0}), lab.logits(IDS)
    assert np.abs(want - plain).max() > 0.4
    np.testing.assert_allclose(got, want, rtol=0, atol=0.1 if dtype is GGMLType.Q8_0 else 5e-2)


def test_a_scale_of_zero_is_no_adapter(tmp_path: Path) -> None:
    model = build(tmp_path / "m.gguf", TinyConfig(bias=True))
    pairs = random_pairs(model.path, targets(model), rank=4, seed=9)
    path = adapter(tmp_path / "a.gguf", model.path, pairs, alpha=4.0)
    with opened(model.path, [path]) as lab:
        plain = lab.logits(IDS)
        np.testing.assert_array_equal(lab.logits(IDS, {0: 0.0}), plain)
    with opened(model.path, []) as lab:
        np.testing.assert_array_equal(lab.logits(IDS), plain)


def test_sequences_of_one_batch_have_their_own_adapters_and_scales(tmp_path: Path) -> None:
    model = build(tmp_path / "m.gguf", TinyConfig(bias=True))
    first = random_pairs(model.path, targets(model), rank=4, seed=1)
    second = random_pairs(model.path, ["blk.0.attn_v.weight", "blk.1.ffn_down.weight"], rank=8, seed=2)
    paths = [adapter(tmp_path / f"{i}.gguf", model.path, pairs, alpha=8.0) for i, pairs in enumerate((first, second))]
    texts = [(IDS[:11], {0: 1.0}), (IDS[5:20], {1: 0.5}), (IDS[:7], {}), (IDS[3:9], {0: 0.25, 1: -2.0})]
    with opened(model.path, paths) as lab:
        alone = [lab.logits(ids, scales) for ids, scales in texts]
        lab.clear()
        both = lab.run(together(texts))
        np.testing.assert_allclose(both, np.concatenate(alone), rtol=0, atol=1e-5)
        assert np.abs(alone[0][:7] - alone[2]).max() > 0.1
        built = lab.decoder.stats.graphs_built
        lab.clear()  # other scales, the same graph
        lab.run(together([(ids, {i: 3.0 * s for i, s in scales.items()}) for ids, scales in texts]))
        assert lab.decoder.stats.graphs_built == built


def test_a_prompt_in_pieces_then_tokens_one_by_one(tmp_path: Path) -> None:
    """Scales are cut with the prompt, also where only the last token is an output."""
    model = build(tmp_path / "m.gguf")
    pairs = random_pairs(model.path, targets(model), rank=4, seed=1)
    path = adapter(tmp_path / "a.gguf", model.path, pairs, alpha=4.0)
    with opened(model.path, [path]) as lab:
        want = lab.logits(IDS, {0: 0.7})
        lab.clear()
        for begin, end in ((0, 11), (11, 23), *((i, i + 1) for i in range(23, 30))):
            scales = {0: np.full(end - begin, 0.7, np.float32)}
            part = Batch.of_sequence(IDS[begin:end], start=begin)
            row = lab.run(Batch(part.tokens, part.positions, part.seq_ids, part.outputs, scales))
            np.testing.assert_allclose(row[0], want[end - 1], rtol=0, atol=2e-5)


@pytest.mark.parametrize("dtype", [GGMLType.F32, GGMLType.F16], ids=["f32", "f16"])
@pytest.mark.parametrize("weights", [GGMLType.Q8_0, GGMLType.Q4_0], ids=["q8_0", "q4_0"])
def test_quantized_models(tmp_path: Path, weights: GGMLType, dtype: GGMLType) -> None:
    """What the adapter adds to a product does not depend on how the weight is stored: compare the difference."""
    model = build(tmp_path / "m.gguf", TinyConfig(weights=weights, n_layer=1))
    pairs = random_pairs(model.path, ["blk.0.ffn_down.weight"], rank=4, seed=1)
    path = adapter(tmp_path / "a.gguf", model.path, pairs, alpha=4.0, dtype=dtype)
    changed = merged_weights(model, {k: delta(pair, 4.0) for k, pair in pairs.items()})
    want = logits(changed, IDS) - logits(model, IDS)
    with opened(model.path, [path], config=EXACT) as lab:
        got = lab.logits(IDS, {0: 1.0}) - lab.logits(IDS)
    assert np.abs(want).max() > 0.3
    # Activations are rounded to 8 bits in the products of both models.
    np.testing.assert_allclose(got, want, rtol=0, atol=0.15)
