"""Gemma 3 (Gemma Team 2025), text: five layers with a sliding window for each that sees everything, normalised queries
and keys, norms before and after each block, GeGLU.
"""

from dataclasses import dataclass, replace

from pyggml.gguf import ModelMetadata
from pyggml.kvcache import CacheView, LayerShape
from pyggml.nn import Embedding, Linear, RMSNorm, RopeMode, RopeParams, attention, rope_params, shift_params
from pyggml.tensor import Tensor, ops
from pyggml.weights import Scope

from .base import Inputs, LayerCache, ModelShape, Pooling, count

__all__ = ["Gemma3", "Gemma3Config"]


@dataclass(frozen=True)
class Gemma3Config:
    n_vocab: int
    n_ctx_train: int
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    n_head_kv: int
    d_head: int
    eps: float
    window: int
    pattern: int
    scale: float
    final_softcap: float
    rope: RopeParams
    rope_local: RopeParams
    pooling: int

    @classmethod
    def from_metadata(cls, meta: ModelMetadata) -> "Gemma3Config":
        n_embd, n_head = count(meta, "embedding_length"), count(meta, "attention.head_count")
        n_layer = count(meta, "block_count")
        d_head = count(meta, "attention.key_length", default=256)
        rope = rope_params(meta, mode=RopeMode.NEOX, n_dims=d_head, freq_base=1_000_000.0)
        base = meta.get_float("rope.freq_base_swa", default=meta.get_float("rope.local.freq_base", default=10000.0))
        return cls(
            n_vocab=len(meta.get_strs("tokenizer.ggml.tokens")),
            n_ctx_train=count(meta, "context_length"),
            n_layer=n_layer,
            n_embd=n_embd,
            n_ff=count(meta, "feed_forward_length"),
            n_head=n_head,
            n_head_kv=count(meta, "attention.head_count_kv"),
            d_head=d_head,
            eps=meta.get_float("attention.layer_norm_rms_epsilon"),
            window=meta.get_int("attention.sliding_window"),
            pattern=meta.get_int("attention.sliding_window_pattern", default=6),
            # 27B, the only one with 62 layers, scales by its width per head (query_pre_attn_scalar = 168).
            scale=(n_embd / n_head) ** -0.5 if n_layer == 62 else d_head**-0.5,
            final_softcap=meta.get_float("final_logit_softcapping", default=0.0),
            rope=rope,
            rope_local=replace(rope, freq_base=base, freq_scale=1.0, ext_factor=0.0),
            pooling=meta.get_int("pooling_type", default=Pooling.NONE),
        )

    def is_local(self, layer: int) -> bool:
        """Whether the layer has the sliding window."""
        return self.pattern <= 0 or (layer + 1) % self.pattern != 0


class Attention:
    def __init__(self, w: Scope, c: Gemma3Config, layer: int) -> None:
        self.c, self.layer = c, layer
        self.rope = c.rope_local if c.is_local(layer) else c.rope
        self.q = Linear(w, "attn_q", c.n_embd, c.n_head * c.d_head)
        self.k = Linear(w, "attn_k", c.n_embd, c.n_head_kv * c.d_head)
        self.v = Linear(w, "attn_v", c.n_embd, c.n_head_kv * c.d_head)
        self.q_norm = RMSNorm(w, "attn_q_norm", c.d_head, eps=c.eps)
        self.k_norm = RMSNorm(w, "attn_k_norm", c.d_head, eps=c.eps)
        self.output = Linear(w, "attn_output", c.n_head * c.d_head, c.n_embd)

    def __call__(self, x: Tensor, positions: Tensor, cache: CacheView) -> Tensor:
        c = self.c
        q = self.q_norm(self.q(x).reshape(c.d_head, c.n_head, -1))  # (d, h, t)
        k = self.k_norm(self.k(x).reshape(c.d_head, c.n_head_kv, -1))  # (d, h_kv, t)
        v = self.v(x).reshape(c.d_head, c.n_head_kv, -1)
        # Scaled here, not in attention: kernels round q to 16 bits, and llama.cpp rounds the scaled q.
        q = ops.scale(ops.rope(q, positions, params=self.rope), factor=c.scale)
        k = ops.rope(k, positions, params=self.rope)
        return self.output(attention(q, k, v, cache, layer=self.layer, scale=1.0))


class FeedForward:
    def __init__(self, w: Scope, c: Gemma3Config) -> None:
        self.gate = Linear(w, "ffn_gate", c.n_embd, c.n_ff)
        self.up = Linear(w, "ffn_up", c.n_embd, c.n_ff)
        self.down = Linear(w, "ffn_down", c.n_ff, c.n_embd)

    def __call__(self, x: Tensor) -> Tensor:
        return self.down(ops.geglu_split(self.gate(x), self.up(x)))


class Layer:
    def __init__(self, w: Scope, c: Gemma3Config, layer: int) -> None:
        self.attn_norm = RMSNorm(w, "attn_norm", c.n_embd, eps=c.eps)
        self.attn = Attention(w, c, layer)
        self.post_attention_norm = RMSNorm(w, "post_attention_norm", c.n_embd, eps=c.eps)
        self.ffn_norm = RMSNorm(w, "ffn_norm", c.n_embd, eps=c.eps)
        self.ffn = FeedForward(w, c)
        self.post_ffw_norm = RMSNorm(w, "post_ffw_norm", c.n_embd, eps=c.eps)


class Gemma3:
    def __init__(self, meta: ModelMetadata, w: Scope) -> None:
        c = self.config = Gemma3Config.from_metadata(meta)
        self.token_embd = Embedding(w, "token_embd", c.n_embd, c.n_vocab)
        self.layers = [Layer(w / f"blk.{i}", c, i) for i in range(c.n_layer)]
        self.output_norm = RMSNorm(w, "output_norm", c.n_embd, eps=c.eps)
        tied = "output.weight" not in w
        self.output = Linear(w, "token_embd" if tied else "output", c.n_embd, c.n_vocab)
        self.shape = ModelShape(
            n_vocab=c.n_vocab,
            n_embd=c.n_embd,
            n_ctx_train=c.n_ctx_train,
            layers=[
                LayerCache(LayerShape(i, c.n_head_kv, c.d_head, c.d_head), window=c.window if c.is_local(i) else 0)
                for i in range(c.n_layer)
            ],
            pooling=c.pooling,
        )

    def states(self, inputs: Inputs, cache: CacheView) -> Tensor:
        c = self.config
        x = ops.scale(self.token_embd(inputs.tokens), factor=c.n_embd**0.5)  # (e, t)
        for layer in self.layers:
            h = layer.post_attention_norm(layer.attn(layer.attn_norm(x), inputs.positions, cache))
            if layer is self.layers[-1]:
                h, x = inputs.select_outputs(h, x)
            x = ops.add(h, x)
            x = ops.add(layer.post_ffw_norm(layer.ffn(layer.ffn_norm(x))), x)
        return self.output_norm(x)  # (e, outputs)

    def forward(self, inputs: Inputs, cache: CacheView) -> Tensor:
        c = self.config
        logits = self.output(self.states(inputs, cache))  # (vocab, outputs)
        if c.final_softcap > 0.0:
            logits = ops.scale(ops.tanh(ops.scale(logits, factor=1.0 / c.final_softcap)), factor=c.final_softcap)
        return logits

    def shift(self, layer: int, k: Tensor, delta: Tensor) -> Tensor:
        return ops.rope(k, delta, params=shift_params(self.layers[layer].attn.rope))
