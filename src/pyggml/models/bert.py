"""BERT (Devlin et al. 2018) as an embedding model: learned positions, norms after each block, every token sees all.

With ``pooling_type`` 4 it is a cross-encoder (Nogueira and Cho 2019): it reads two texts at once, and a head on the
first token's state scores how well they fit.
"""

from dataclasses import dataclass

from pyggml.errors import ModelError
from pyggml.gguf import ModelMetadata
from pyggml.kvcache import CacheView, LayerShape
from pyggml.nn import Embedding, LayerNorm, Linear, attention
from pyggml.tensor import Tensor, ops
from pyggml.weights import Scope

from .base import CacheKind, Inputs, LayerCache, ModelShape, Pooling, count

__all__ = ["Bert", "BertConfig"]


@dataclass(frozen=True)
class BertConfig:
    n_vocab: int
    n_ctx_train: int
    n_token_types: int
    n_layer: int
    n_embd: int
    n_ff: int
    n_head: int
    eps: float
    pooling: int
    n_scores: int

    @classmethod
    def from_metadata(cls, meta: ModelMetadata) -> "BertConfig":
        pooling = meta.get_int("pooling_type", default=Pooling.MEAN)
        if pooling not in (Pooling.MEAN, Pooling.CLS, Pooling.LAST, Pooling.RANK):
            raise ModelError(
                f"{meta.path}: bert.pooling_type {pooling} is none of 1 (mean), 2 (cls), 3 (last), 4 (rank)"
            )
        labels = "classifier.output_labels"
        return cls(
            n_vocab=len(meta.get_strs("tokenizer.ggml.tokens")),
            n_ctx_train=count(meta, "context_length"),
            n_token_types=count(meta, "tokenizer.ggml.token_type_count", default=2),
            n_layer=count(meta, "block_count"),
            n_embd=count(meta, "embedding_length"),
            n_ff=count(meta, "feed_forward_length"),
            n_head=count(meta, "attention.head_count"),
            eps=meta.get_float("attention.layer_norm_epsilon"),
            pooling=pooling,
            n_scores=len(meta.get_strs(labels)) if labels in meta else 1,
        )

    @property
    def d_head(self) -> int:
        return self.n_embd // self.n_head


class Layer:
    def __init__(self, w: Scope, c: BertConfig, layer: int) -> None:
        self.c, self.layer = c, layer
        self.q = Linear(w, "attn_q", c.n_embd, c.n_embd)
        self.k = Linear(w, "attn_k", c.n_embd, c.n_embd)
        self.v = Linear(w, "attn_v", c.n_embd, c.n_embd)
        self.output = Linear(w, "attn_output", c.n_embd, c.n_embd)
        self.attn_output_norm = LayerNorm(w, "attn_output_norm", c.n_embd, eps=c.eps)
        self.ffn_up = Linear(w, "ffn_up", c.n_embd, c.n_ff)
        self.ffn_down = Linear(w, "ffn_down", c.n_ff, c.n_embd)
        self.layer_output_norm = LayerNorm(w, "layer_output_norm", c.n_embd, eps=c.eps)

    def __call__(self, x: Tensor, inputs: Inputs, cache: CacheView, *, last: bool) -> Tensor:
        c = self.c
        q = self.q(x).reshape(c.d_head, c.n_head, -1)  # (d, h, t)
        k = self.k(x).reshape(c.d_head, c.n_head, -1)
        v = self.v(x).reshape(c.d_head, c.n_head, -1)
        h = self.output(attention(q, k, v, cache, layer=self.layer, scale=c.d_head**-0.5))
        if last:
            h, x = inputs.select_outputs(h, x)
        x = self.attn_output_norm(ops.add(h, x))
        return self.layer_output_norm(ops.add(self.ffn_down(ops.gelu_erf(self.ffn_up(x))), x))


class RankHead:
    """A score from the first token's state: ``W tanh(P x)``; a file may lack ``P``, BERT's pooler."""

    def __init__(self, w: Scope, c: BertConfig) -> None:
        self.dense = Linear(w, "cls", c.n_embd, c.n_embd) if "cls.weight" in w else None
        self.output = Linear(w, "cls.output", c.n_embd, c.n_scores)

    def __call__(self, x: Tensor) -> Tensor:
        return self.output(x if self.dense is None else ops.tanh(self.dense(x)))


class Bert:
    def __init__(self, meta: ModelMetadata, w: Scope) -> None:
        c = self.config = BertConfig.from_metadata(meta)
        self.token_embd = Embedding(w, "token_embd", c.n_embd, c.n_vocab)
        self.token_types = w.find("token_types.weight", c.n_embd, c.n_token_types)
        self.position_embd = Embedding(w, "position_embd", c.n_embd, c.n_ctx_train)
        self.token_embd_norm = LayerNorm(w, "token_embd_norm", c.n_embd, eps=c.eps)
        self.layers = [Layer(w / f"blk.{i}", c, i) for i in range(c.n_layer)]
        self.head = RankHead(w, c) if c.pooling == Pooling.RANK else None
        self.shape = ModelShape(
            n_vocab=0,
            n_embd=c.n_embd,
            n_ctx_train=c.n_ctx_train,
            layers=[LayerCache(LayerShape(i, c.n_head, c.d_head, c.d_head)) for i in range(c.n_layer)],
            cache=CacheKind.BATCH_ONLY,
            pooling=c.pooling,
            n_scores=c.n_scores if self.head is not None else 0,
            n_segments=1 if self.token_types is None else c.n_token_types,
        )

    def states(self, inputs: Inputs, cache: CacheView) -> Tensor:
        x = self.token_embd(inputs.tokens)  # (e, t)
        if self.token_types is not None and inputs.segments is not None:
            x = ops.add(x, ops.get_rows(self.token_types, inputs.segments))
        elif self.token_types is not None:  # all tokens are of the first segment
            x = ops.add(x, ops.view(Tensor(self.token_types.ptr, x.arena), (self.config.n_embd,)))
        x = ops.add(x, self.position_embd(inputs.positions))
        x = self.token_embd_norm(x)
        for layer in self.layers:
            x = layer(x, inputs, cache, last=layer is self.layers[-1])
        return x  # (e, outputs)

    def forward(self, inputs: Inputs, cache: CacheView) -> Tensor:
        x = self.states(inputs, cache)
        return x if self.head is None else self.head(x)  # (scores, outputs)

    def shift(self, layer: int, k: Tensor, delta: Tensor) -> Tensor:
        raise NotImplementedError("BERT keeps no keys")
