"""Tiny models with random weights, written as GGUF files that llama.cpp loads too."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pyggml.gguf import GGMLType, GGUFWriter
from pyggml.tensor import dequantize, quantize

__all__ = ["TinyConfig", "TinyModel", "build", "prompt"]

Array = npt.NDArray[np.float64]

NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6
LETTERS = "etaoinshrdlcumwfgypbvkjxqz"
PIECES = ("▁t", "he", "▁the", "in", "▁a", "er", "an", "▁w", "on", "▁s")
BYTES = ("<0x0A>", "<0xC3>", "<0xA9>", "<0xE2>", "<0x82>", "<0xAC>")  # newline, é, €


@dataclass(frozen=True)
class TinyConfig:
    """What a tiny model is like; ``d_head`` is not ``n_embd / n_head`` on purpose."""

    architecture: str = "llama"
    n_layer: int = 2
    n_embd: int = 64
    n_ff: int = 96
    n_head: int = 4
    n_head_kv: int = 2
    d_head: int = 32
    n_ctx_train: int = 512
    weights: GGMLType = GGMLType.F32
    tied: bool = True
    bias: bool = False
    rope_freqs: bool = False
    scaling: str | None = None
    scaling_factor: float = 4.0
    original_context: int = 128
    window: int = 8
    pattern: int = 3
    softcap: float = 0.0
    pooling: int = 1
    eps: float = 1e-5
    seed: int = 1


@dataclass
class TinyModel:
    """A written model: ``weights`` holds what the file does (after quantization), numpy shapes ``(n_out, n_in)``."""

    path: Path
    config: TinyConfig
    n_vocab: int
    weights: dict[str, Array] = field(default_factory=dict)


def prompt(n: int, *, seed: int = 7, n_vocab: int = 45) -> list[int]:
    """``n`` token ids, none of them special."""
    ids: list[int] = np.random.default_rng(seed).integers(3, n_vocab, n).tolist()
    return ids


def build(
    path: Path,
    config: TinyConfig | None = None,
    *,
    change: Callable[[dict[str, object], dict[str, Array]], object] | None = None,
) -> TinyModel:
    """Write a model.

    Args:
        path: the file to make.
        config: what it is like.
        change: may alter metadata and weights before they are written.
    """
    c = config or TinyConfig()
    tokens = _bert_tokens() if c.architecture == "bert" else _spm_tokens()
    meta = _metadata(c, tokens)
    weights = _bert_weights(c, len(tokens)) if c.architecture == "bert" else _decoder_weights(c, len(tokens))
    if change is not None:
        change(meta, weights)
    writer = GGUFWriter(path)
    for key, value in meta.items():
        writer.add(key, value)
    model = TinyModel(path, c, len(tokens))
    for name, weight in weights.items():
        matrix = weight.ndim == 2 and not name.startswith(("position_embd", "token_types"))
        dtype = c.weights if matrix else GGMLType.F32
        data = quantize(weight, dtype)
        writer.add_tensor(name, data.tobytes(), type=dtype, shape=weight.shape[::-1])
        model.weights[name] = dequantize(data, dtype, weight.size).reshape(weight.shape).astype(np.float64)
    writer.write()
    return model


def _spm_tokens() -> list[tuple[str, int, float]]:
    tokens = [("<unk>", UNKNOWN, 0.0), ("<s>", CONTROL, 0.0), ("</s>", CONTROL, 0.0)]
    tokens += [(text, BYTE, 0.0) for text in BYTES]
    tokens += [(text, NORMAL, -1.0 - i) for i, text in enumerate(PIECES)]
    return tokens + [(text, NORMAL, -100.0 - i) for i, text in enumerate("▁" + LETTERS)]


def _bert_tokens() -> list[tuple[str, int, float]]:
    tokens = [(text, CONTROL, 0.0) for text in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")]
    tokens += [("▁" + letter, NORMAL, 0.0) for letter in LETTERS]
    return tokens + [(letter, NORMAL, 0.0) for letter in LETTERS]


def _metadata(c: TinyConfig, tokens: list[tuple[str, int, float]]) -> dict[str, object]:
    a = c.architecture
    meta: dict[str, object] = {
        "general.architecture": a,
        "general.name": "tiny",
        f"{a}.context_length": c.n_ctx_train,
        f"{a}.embedding_length": c.n_embd,
        f"{a}.block_count": c.n_layer,
        f"{a}.feed_forward_length": c.n_ff,
        f"{a}.attention.head_count": c.n_head,
        "tokenizer.ggml.tokens": [text for text, _, _ in tokens],
        "tokenizer.ggml.token_type": [kind for _, kind, _ in tokens],
        "tokenizer.ggml.scores": np.array([score for _, _, score in tokens], np.float32),
    }
    if a == "bert":
        ids = {"bos": 2, "eos": 3, "unknown": 1, "seperator": 3, "padding": 0, "cls": 2, "mask": 4}
        meta |= {
            "bert.attention.layer_norm_epsilon": c.eps,
            "bert.attention.causal": False,
            "bert.pooling_type": c.pooling,
            "tokenizer.ggml.model": "bert",
            "tokenizer.ggml.token_type_count": 2,
        }
        return meta | {f"tokenizer.ggml.{name}_token_id": id for name, id in ids.items()}
    meta |= {
        f"{a}.attention.head_count_kv": c.n_head_kv,
        f"{a}.attention.key_length": c.d_head,
        f"{a}.attention.value_length": c.d_head,
        f"{a}.attention.layer_norm_rms_epsilon": c.eps,
        f"{a}.rope.dimension_count": c.d_head,
        f"{a}.vocab_size": len(tokens),
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    if c.scaling is not None:
        meta[f"{a}.rope.scaling.type"] = c.scaling
        meta[f"{a}.rope.scaling.factor"] = c.scaling_factor
        meta[f"{a}.rope.scaling.original_context_length"] = c.original_context
    if a == "gemma3":
        meta[f"{a}.attention.sliding_window"] = c.window
        meta[f"{a}.attention.sliding_window_pattern"] = c.pattern
        meta[f"{a}.rope.freq_base"] = 1e6
        if c.softcap:
            meta[f"{a}.final_logit_softcapping"] = c.softcap
    return meta


class _Maker:
    """Random weights of a scale that keeps activations near 1."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.made: dict[str, Array] = {}

    def linear(self, name: str, n_in: int, n_out: int, *, bias: bool = False) -> None:
        self.made[f"{name}.weight"] = self.random.normal(0, n_in**-0.5, (n_out, n_in))
        if bias:
            self.made[f"{name}.bias"] = self.random.normal(0, 0.2, n_out)

    def norm(self, name: str, n: int, *, mean: float = 1.0, bias: bool = False) -> None:
        self.made[f"{name}.weight"] = mean + self.random.normal(0, 0.1, n)
        if bias:
            self.made[f"{name}.bias"] = self.random.normal(0, 0.1, n)

    def rows(self, name: str, n_rows: int, n: int, *, scale: float = 1.0) -> None:
        self.made[f"{name}.weight"] = self.random.normal(0, scale, (n_rows, n))


def _decoder_weights(c: TinyConfig, n_vocab: int) -> dict[str, Array]:
    make, gemma = _Maker(c.seed), c.architecture == "gemma3"
    # gemma3 multiplies embeddings by sqrt(n_embd), and its output is tied to them.
    make.rows("token_embd", n_vocab, c.n_embd, scale=c.n_embd**-0.5 if gemma or c.tied else 1.0)
    if c.rope_freqs:
        make.made["rope_freqs.weight"] = np.linspace(1.0, 8.0, c.d_head // 2)
    for i in range(c.n_layer):
        b = f"blk.{i}."
        make.norm(b + "attn_norm", c.n_embd)
        make.linear(b + "attn_q", c.n_embd, c.n_head * c.d_head, bias=c.bias)
        make.linear(b + "attn_k", c.n_embd, c.n_head_kv * c.d_head, bias=c.bias)
        make.linear(b + "attn_v", c.n_embd, c.n_head_kv * c.d_head, bias=c.bias)
        make.linear(b + "attn_output", c.n_head * c.d_head, c.n_embd, bias=c.bias)
        make.norm(b + "ffn_norm", c.n_embd)
        make.linear(b + "ffn_gate", c.n_embd, c.n_ff)
        make.linear(b + "ffn_up", c.n_embd, c.n_ff)
        make.linear(b + "ffn_down", c.n_ff, c.n_embd)
        if gemma:
            make.norm(b + "attn_q_norm", c.d_head, mean=1.5)
            make.norm(b + "attn_k_norm", c.d_head, mean=1.5)
            make.norm(b + "post_attention_norm", c.n_embd)
            make.norm(b + "post_ffw_norm", c.n_embd)
    make.norm("output_norm", c.n_embd)
    if not c.tied:
        make.linear("output", c.n_embd, n_vocab)
    return make.made


def _bert_weights(c: TinyConfig, n_vocab: int) -> dict[str, Array]:
    make = _Maker(c.seed)
    make.rows("token_embd", n_vocab, c.n_embd)
    make.rows("token_types", 2, c.n_embd)
    make.rows("position_embd", c.n_ctx_train, c.n_embd)
    make.norm("token_embd_norm", c.n_embd, bias=True)
    for i in range(c.n_layer):
        b = f"blk.{i}."
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            make.linear(b + name, c.n_embd, c.n_embd, bias=True)
        make.norm(b + "attn_output_norm", c.n_embd, bias=True)
        make.linear(b + "ffn_up", c.n_embd, c.n_ff, bias=True)
        make.linear(b + "ffn_down", c.n_ff, c.n_embd, bias=True)
        make.norm(b + "layer_output_norm", c.n_embd, bias=True)
    return make.made
