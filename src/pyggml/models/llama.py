"""Llama (Touvron et al. 2023) and the many models with its graph: pre-norm, rotary positions, SwiGLU, shared keys."""

from dataclasses import dataclass

from pyggml.errors import ModelError
from pyggml.gguf import ModelMetadata
from pyggml.kvcache import CacheView, LayerShape
from pyggml.nn import Embedding, Linear, RMSNorm, RopeMode, RopeParams, attention, rope_params, shift_params
from pyggml.tensor import Tensor, ops
from pyggml.weights import Scope

from .base import Inputs, LayerCache, ModelShape, Pooling, count

__all__ = ["Llama", "LlamaConfig"]


@dataclass(frozen=True)
class LlamaConfig:
    n_vocab: int
    n_ctx_train: int
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    d_head: int
    eps: float
    rope: RopeParams
    pooling: int

    @classmethod
    def from_metadata(cls, meta: ModelMetadata) -> "LlamaConfig":
        if meta.get_int("expert_count", default=0) > 0:
            raise ModelError(f"{meta.path}: llama with experts (Mixtral) is not supported; only dense llama models are")
        n_embd, n_head = count(meta, "embedding_length"), count(meta, "attention.head_count")
        d_head = count(meta, "attention.key_length", default=n_embd // n_head)
        return cls(
            n_vocab=len(meta.get_strs("tokenizer.ggml.tokens")),
            n_ctx_train=count(meta, "context_length"),
            n_layer=count(meta, "block_count"),
            n_embd=n_embd,
            n_ff=count(meta, "feed_forward_length"),
            n_head=n_head,
            n_head_kv=count(meta, "attention.head_count_kv", default=n_head),
            d_head=d_head,
            eps=meta.get_float("attention.layer_norm_rms_epsilon"),
            rope=rope_params(meta, mode=RopeMode.NORMAL, n_dims=d_head),
            pooling=meta.get_int("pooling_type", default=Pooling.NONE),
        )


class Attention:
    def __init__(self, w: Scope, c: LlamaConfig, layer: int) -> None:
        self.c, self.layer = c, layer
        self.q = Linear(w, "attn_q", c.n_embd, c.n_head * c.d_head)
        self.k = Linear(w, "attn_k", c.n_embd, c.n_head_kv * c.d_head)
        self.v = Linear(w, "attn_v", c.n_embd, c.n_head_kv * c.d_head)
        self.output = Linear(w, "attn_output", c.n_head * c.d_head, c.n_embd)

    def __call__(self, x: Tensor, positions: Tensor, cache: CacheView, factors: Tensor | None) -> Tensor:
        c = self.c
        q = self.q(x).reshape(c.d_head, c.n_head, -1)  # (d, h, t)
        k = self.k(x).reshape(c.d_head, c.n_head_kv, -1)  # (d, h_kv, t)
        v = self.v(x).reshape(c.d_head, c.n_head_kv, -1)
        q = ops.rope(q, positions, params=c.rope, factors=factors)
        k = ops.rope(k, positions, params=c.rope, factors=factors)
        return self.output(attention(q, k, v, cache, layer=self.layer, scale=c.d_head**-0.5))


class FeedForward:
    def __init__(self, w: Scope, c: LlamaConfig) -> None:
        self.gate = Linear(w, "ffn_gate", c.n_embd, c.n_ff)
        self.up = Linear(w, "ffn_up", c.n_embd, c.n_ff)
        self.down = Linear(w, "ffn_down", c.n_ff, c.n_embd)

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(ops.swiglu_split(self.gate(x), self.up(x)))


class Layer:
    def __init__(self, w: Scope, c: LlamaConfig, layer: int) -> None:
        self.attn_norm = RMSNorm(w, "attn_norm", c.n_embd, eps=c.eps)
        self.attn = Attention(w, c, layer)
        self.ffn_norm = RMSNorm(w, "ffn_norm", c.n_embd, eps=c.eps)
        self.ffn = FeedForward(w, c)


class Llama:
    def __init__(self, meta: ModelMetadata, w: Scope) -> None:
        c = self.config = LlamaConfig.from_metadata(meta)
        self.token_embd = Embedding(w, "token_embd", c.n_embd, c.n_vocab)
        self.rope_factors = w.find("rope_freqs.weight", c.rope.n_dims // 2)
        self.layers = [Layer(w / f"blk.{i}", c, i) for i in range(c.n_layer)]
        self.output_norm = RMSNorm(w, "output_norm", c.n_embd, eps=c.eps)
        tied = "output.weight" not in w
        self.output = Linear(w, "token_embd" if tied else "output", c.n_embd, c.n_vocab)
        self.shape = ModelShape(
            n_vocab=c.n_vocab,
            n_embd=c.n_embd,
            n_ctx_train=c.n_ctx_train,
            layers=[LayerCache(LayerShape(i, c.n_head_kv, c.d_head, c.d_head)) for i in range(c.n_layer)],
            pooling=c.pooling,
        )

    def states(self, inputs: Inputs, cache: CacheView) -> Tensor:
        x = self.token_embd(inputs.tokens)  # (e, t)
        for layer in self.layers:
            h = layer.attn(layer.attn_norm(x), inputs.positions, cache, self.rope_factors)
            if layer is self.layers[-1]:
                h, x = inputs.select_outputs(h, x)
            x = ops.add(h, x)
            x = ops.add(layer.ffn(layer.ffn_norm(x)), x)
        return self.output_norm(x)  # (e, outputs)

    def forward(self, inputs: Inputs, cache: CacheView) -> Tensor:
        return self.output(self.states(inputs, cache))  # (vocab, outputs)

    def shift(self, layer: int, k: Tensor, delta: Tensor) -> Tensor:
        return ops.rope(k, delta, params=shift_params(self.config.rope), factors=self.rope_factors)
