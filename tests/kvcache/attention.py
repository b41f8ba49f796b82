"""One token in, attention out: three tiny layers on caches of their own, and the same in numpy from scratch."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import floor, log, pi
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from pyggml.batch import Batch
from pyggml.inputs import HostInput
from pyggml.kvcache import CausalCache, LayerShape, MixedCache
from pyggml.nn import attention
from pyggml.tensor import Backend, DType, Executor, Graph, Tensor, find_device, ops
from pyggml.tensor.ops import RopeMode, RopeParams

from .lab import CacheKind, block

__all__ = ["CHUNK", "LOOKS", "ROPES", "WINDOW", "AttentionLab", "Rope", "reference"]

Doubles = npt.NDArray[np.float64]
D_K, D_V, N_HEAD, N_HEAD_KV, N_VOCAB = 64, 32, 4, 2, 16
WINDOW, CHUNK = 9, 7
LOOKS = [(0, 0), (WINDOW, 0), (0, CHUNK)]  # window and chunk of each layer


@dataclass(frozen=True)
class Rope:
    """A way to rotate, and its frequency factors."""

    name: str
    params: RopeParams
    factors: tuple[float, ...] = ()

    def __str__(self) -> str:
        return self.name

    @property
    def scale(self) -> float:
        """By how much it lengthens what it rotates (YaRN's "mscale", Peng et al. 2023, eq. 22)."""
        p = self.params
        return p.attn_factor * (1.0 + 0.1 * log(1.0 / p.freq_scale) if p.ext_factor else 1.0)

    def angles(self) -> Doubles:
        """Radians per position of each pair."""
        p = self.params
        i = np.arange(p.n_dims // 2)
        fast = p.freq_base ** (-2.0 * i / p.n_dims) / (np.array(self.factors) if self.factors else 1.0)
        if not p.ext_factor:
            return p.freq_scale * fast

        def pair(turns: float) -> float:
            """Which pair turns so often over the context of training."""
            return p.n_dims * log(p.n_ctx_orig / (turns * 2 * pi)) / (2 * log(p.freq_base))

        low, high = max(0, floor(pair(p.beta_fast))), min(p.n_dims - 1, -floor(-pair(p.beta_slow)))
        keep = 1 - np.clip((i - low) / max(0.001, high - low), 0, 1)
        return p.freq_scale * fast * (1 - keep) + fast * keep

    def turn(self, x: Doubles, positions: Doubles) -> Doubles:
        """``x`` (n, heads, d) rotated."""
        half, out = self.params.n_dims // 2, x.copy()
        angle = positions[:, None, None] * self.angles()
        cos, sin = np.cos(angle) * self.scale, np.sin(angle) * self.scale
        if self.params.mode == RopeMode.NEOX:
            first, second = slice(0, half), slice(half, 2 * half)
        else:
            first, second = slice(0, 2 * half, 2), slice(1, 2 * half, 2)
        a, b = x[..., first], x[..., second]
        out[..., first], out[..., second] = a * cos - b * sin, a * sin + b * cos
        return out

    def shift(self, k: Tensor, delta: Tensor, factors: Tensor | None) -> Tensor:
        """What a model's ``shift`` must do: turn on, and not lengthen a second time."""
        return ops.rope(
            k, delta, params=replace(self.params, attn_factor=self.params.attn_factor / self.scale), factors=factors
        )


ROPES = [
    Rope("plain", RopeParams(D_K, RopeMode.NEOX)),
    Rope("linear", RopeParams(D_K, RopeMode.NORMAL, freq_base=500.0, freq_scale=0.25)),
    Rope("yarn", RopeParams(D_K, RopeMode.NEOX, n_ctx_orig=64, freq_base=1000.0, freq_scale=0.25, ext_factor=1.0)),
    Rope("factors", RopeParams(D_K, RopeMode.NORMAL), tuple(1.0 + 0.25 * i for i in range(D_K // 2))),
    Rope("partial", RopeParams(D_K // 2, RopeMode.NEOX, freq_base=100.0)),
]


@dataclass(frozen=True)
class Weights:
    """What each token asks, answers and holds, before rotation."""

    q: npt.NDArray[np.float32]
    k: npt.NDArray[np.float32]
    v: npt.NDArray[np.float32]

    @classmethod
    def random(cls) -> Self:
        rng = np.random.default_rng(7)
        shapes = ((N_VOCAB, N_HEAD, D_K), (N_VOCAB, N_HEAD_KV, D_K), (N_VOCAB, N_HEAD_KV, D_V))
        return cls(*(rng.standard_normal(shape).astype(np.float32) for shape in shapes))


WEIGHTS = Weights.random()
SCALE = 2.0 / D_K**0.5  # sharp enough for single keys to matter


def reference(tokens: Sequence[int], rope: Rope, *, window: int, chunk: int) -> Doubles:
    """Attention of every token of a sequence, ``(n, heads * d_v)``, by definition, in float64."""
    n, ids = len(tokens), np.array(tokens)
    at = np.arange(n, dtype=np.float64)
    q, k = (rope.turn(w[ids].astype(np.float64), at) for w in (WEIGHTS.q, WEIGHTS.k))
    groups = N_HEAD // N_HEAD_KV
    k, v = (np.repeat(x, groups, axis=1) for x in (k, WEIGHTS.v[ids].astype(np.float64)))
    scores = np.einsum("ihd,jhd->hij", q, k) * SCALE
    i, j = np.arange(n)[:, None], np.arange(n)[None, :]
    seen = j <= i
    if window:
        seen &= j > i - window
    if chunk:
        seen &= j // chunk == i // chunk
    scores = np.where(seen, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    return np.einsum("hij,jhd->ihd", weights, v).reshape(n, -1)


class AttentionLab:
    """A cache with a layer for each of ``looks`` (window and chunk)."""

    def __init__(
        self,
        kind: CacheKind,
        rope: Rope,
        *,
        n_free: Sequence[int] = (256, 256, 256),
        looks: Sequence[tuple[int, int]] = LOOKS,
        device: str = "CPU",
    ) -> None:
        self._stack = ExitStack()
        self.kind, self.rope, self.looks = kind, rope, looks
        self.device = find_device(device)
        self.caches = [
            CausalCache(
                [LayerShape(layer, N_HEAD_KV, D_K, D_V)],
                [self.device],
                n_cells=256,
                type_k=kind.type_k,
                type_v=kind.type_v,
                flash_attn=kind.flash,
                window=window,
                chunk=chunk,
            )
            for layer, (window, chunk) in enumerate(looks)
        ]
        for cache, free in zip(self.caches, n_free, strict=False):
            self._stack.callback(cache.close)
            if free < 256:
                cache.cells.take(block(256 - free))
        self.cache = MixedCache(self.caches, {i: i for i in range(len(looks))})
        backend = self._stack.enter_context(Backend(self.device, n_threads=1))
        self.executor = self._stack.enter_context(Executor([backend]))

    def put(self, parts: Sequence[tuple[int, int, Sequence[int]]]) -> list[list[npt.NDArray[np.float32]]]:
        """Compute a batch of (sequence, first position, tokens); by part and layer, ``(n, heads * d_v)``."""
        ids = np.concatenate([np.array(tokens, np.int32) for _, _, tokens in parts])
        positions = np.concatenate([np.arange(start, start + len(tokens)) for _, start, tokens in parts])
        seqs = np.concatenate([np.full(len(tokens), seq_id) for seq_id, _, tokens in parts])
        # Tokens of several sequences take turns in the batch.
        order = np.argsort(positions, kind="stable")
        batch = Batch(*(x[order].astype(np.int32) for x in (ids, positions, seqs)), np.zeros(0, np.int32))
        self.cache.start(batch)
        with Graph() as graph:
            rows = [out[np.argsort(order)] for out in self._compute(graph, batch)]
        ends = np.cumsum([len(tokens) for _, _, tokens in parts])[:-1]
        return [list(part) for part in zip(*(np.split(out, ends) for out in rows), strict=True)]

    def _factors(self, graph: Graph) -> Tensor | None:
        return graph.input(DType.F32, len(self.rope.factors)) if self.rope.factors else None

    def _compute(self, graph: Graph, batch: Batch) -> list[npt.NDArray[np.float32]]:
        n = batch.n_tokens
        positions = graph.input(DType.I32, n)
        factors = self._factors(graph)
        raw = [graph.input(DType.F32, *w.shape[:0:-1], n) for w in (WEIGHTS.q, WEIGHTS.k, WEIGHTS.v)]
        q, k = (ops.rope(x, positions, params=self.rope.params, factors=factors) for x in raw[:2])
        view = self.cache.view(graph, n, self.cache.key())
        out = [
            graph.output(attention(q, k, raw[2], view, layer=layer, scale=SCALE)) for layer in range(len(self.looks))
        ]
        self.executor.allocate(graph)
        positions.set(batch.positions)
        for tensor, w in zip(raw, (WEIGHTS.q, WEIGHTS.k, WEIGHTS.v), strict=True):
            tensor.set(w[batch.tokens])
        if factors is not None:
            factors.set(np.array(self.rope.factors, np.float32))
        view.set_inputs(batch)
        self.executor.compute(graph)
        return [tensor.numpy().reshape(n, -1) for tensor in out]

    def apply_shifts(self) -> None:
        """Rotate what moved, frequency factors being weights as in a model."""
        with Graph() as graph:  # only a place for the factors
            factors = None
            if self.rope.factors:
                factors = graph.input(DType.F32, len(self.rope.factors))
                graph.arena.allocate(self.device.buffer_type, "factors")
                HostInput(factors, np.float32).write(np.array(self.rope.factors, np.float32))
            self.cache.apply_shifts(self.executor, lambda _, k, delta: self.rope.shift(k, delta, factors))

    def check(self, got: Sequence[npt.NDArray[np.float32]], tokens: Sequence[int], *, rounds: int = 0) -> None:
        """The outputs of the last tokens of a sequence, by layer, against the definition.

        ``rounds`` is how often its keys may have been rotated again, each time rounding once more.
        """
        for out, (window, chunk) in zip(got, self.looks, strict=True):
            want = reference(tokens, self.rope, window=window, chunk=chunk)[-len(out) :]
            np.testing.assert_allclose(out, want, rtol=0, atol=self.kind.tolerance * (1 + rounds))

    def state(self) -> list[tuple[list[int], list[int], list[int], int, int]]:
        """All that the tables hold, for comparison."""
        tables = [cache.cells for cache in self.caches]
        return [(t.pos.tolist(), t.seqs.tolist(), t.delta.tolist(), t.n_used, t.end) for t in tables]

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
