"""Operations of DeepSeek's models: the sparse-attention indexer and hyper-connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyggml._ffi import lib
from pyggml.errors import DTypeError

from ..dtype import DType
from .core import (
    arena_of,
    bad_shapes,
    cpu_traits,
    make,
    need_contiguous,
    need_finite,
    need_int,
    need_plain,
    need_rows,
    need_same_shape,
    ptr_or_null,
)

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["dsv4_hc_comb", "dsv4_hc_post", "dsv4_hc_pre", "dsv4_hc_pre_gated", "lightning_indexer"]

_F32 = (DType.F32,)
_STREAMS = 4  # ggml has kernels for this many hyper-connections


def lightning_indexer(q: Tensor, k: Tensor, weights: Tensor, mask: Tensor) -> Tensor:
    """``sum_h weights[h] relu(q_h k) + mask``: which cells a token should look at (DeepSeek-V3.2).

    Args:
        q: ``(d, n_head, n_tokens, s)`` float32.
        k: ``(d, 1, n_kv, s)``, any type that can be dequantized.
        weights: ``(n_head, n_tokens, 1, s)`` float32.
        mask: ``(n_kv, n_tokens, 1, divides s)`` float16.

    Returns:
        ``(n_kv, n_tokens, 1, s)`` float32.
    """
    op = "lightning_indexer"
    need_plain(op, _F32, q, weights)
    need_plain(op, (DType.F16,), mask)
    if not cpu_traits(k.dtype).readable or k.dtype == DType.Q8_K:
        raise DTypeError(f"{op}: {k!r} cannot be converted to float32")
    need_rows(op, k)
    need_contiguous(op, k)
    d, n_head, n_tokens, s = q.ne
    n_kv = k.ne[2]
    fits = (
        k.ne == (d, 1, n_kv, s)
        and n_kv > 0
        and weights.ne == (n_head, n_tokens, 1, s)
        and mask.ne[:3] == (n_kv, n_tokens, 1)
        and s % mask.ne[3] == 0
    )
    if not fits:
        bad_shapes(
            op, "want q (d, h, t, s), k (d, 1, kv, s), weights (h, t, 1, s), mask (kv, t, 1, s)", q, k, weights, mask
        )
    arena = arena_of(q, k, weights, mask)
    operands = (t.ptr for t in (q, k, weights, mask))
    return make(lib.ggml_lightning_indexer(arena.raw(), *operands), arena, q)


def dsv4_hc_comb(mixes: Tensor, scale: Tensor, base: Tensor, *, eps: float, n_iter: int) -> Tensor:
    """Mixing matrices of hyper-connections by Sinkhorn's normalisation (Xie et al. 2025, "mHC"); float32.

    Args:
        mixes: ``((2 + hc) * hc, n_tokens)`` with hc = 4.
        scale: ``(3)`` or more.
        base: ``((2 + hc) * hc)``.
        eps: added before each normalisation.
        n_iter: how often rows and columns are normalised.

    Returns:
        ``(hc, hc, n_tokens)``: to stream, from stream.
    """
    op = "dsv4_hc_comb"
    need_plain(op, _F32, mixes, scale, base)
    need_finite(op, eps=eps)
    need_int(op, low=1, high=1 << 16, n_iter=n_iter)
    size = (2 + _STREAMS) * _STREAMS
    if (
        mixes.ne != (size, mixes.ne[1], 1, 1)
        or base.ne != (size, 1, 1, 1)
        or scale.ne[0] < 3
        or scale.ne[1:] != (1, 1, 1)
    ):
        bad_shapes(op, f"want mixes ({size}, n_tokens), scale (3), base ({size})", mixes, scale, base)
    arena = arena_of(mixes, scale, base)
    return make(lib.ggml_dsv4_hc_comb(arena.raw(), mixes.ptr, scale.ptr, base.ptr, eps, n_iter), arena, mixes)


def dsv4_hc_pre(x: Tensor, weights: Tensor) -> Tensor:
    """The streams of each token, weighted and added: ``(d, hc, n)``, ``(hc, n)`` -> ``(d, n)``; float32."""
    need_plain("dsv4_hc_pre", _F32, x, weights)
    if x.ne[3] != 1 or weights.ne != (x.ne[1], x.ne[2], 1, 1):
        bad_shapes("dsv4_hc_pre", "want x (d, hc, n) and weights (hc, n)", x, weights)
    arena = arena_of(x, weights)
    return make(lib.ggml_dsv4_hc_pre(arena.raw(), x.ptr, weights.ptr), arena, x)


def dsv4_hc_pre_gated(x: Tensor, gate: Tensor, *, scale: float) -> Tensor:
    """``scale * sum_h x[:, h] sigmoid(gate[:, h])``: both ``(d, hc, n)`` -> ``(d, n)``; float32."""
    need_plain("dsv4_hc_pre_gated", _F32, x, gate)
    need_same_shape("dsv4_hc_pre_gated", x, gate)
    need_finite("dsv4_hc_pre_gated", scale=scale)
    if x.ne[3] != 1:
        bad_shapes("dsv4_hc_pre_gated", "want x and gate (d, hc, n)", x, gate)
    arena = arena_of(x, gate)
    return make(lib.ggml_dsv4_hc_pre_gated(arena.raw(), x.ptr, gate.ptr, scale), arena, x)


def dsv4_hc_post(x: Tensor, residual: Tensor, post: Tensor, comb: Tensor | None) -> Tensor:
    """``x post + residual comb``: the layer's result given back to the streams; float32.

    Args:
        x: ``(d, n)``.
        residual: ``(d, hc, n)``.
        post: ``(hc, n)``.
        comb: ``(hc, hc, n)``: to stream, from stream; None: the residual stays as it is.

    Returns:
        ``(d, hc, n)``.
    """
    need_plain("dsv4_hc_post", _F32, x, residual, post, *([] if comb is None else [comb]))
    d, hc, n, one = residual.ne
    fits = (
        one == 1 and x.ne == (d, n, 1, 1) and post.ne == (hc, n, 1, 1) and (comb is None or comb.ne == (hc, hc, n, 1))
    )
    if not fits:
        bad_shapes(
            "dsv4_hc_post",
            "want x (d, n), residual (d, hc, n), post (hc, n), comb (hc, hc, n)",
            x,
            residual,
            post,
            comb,
        )
    arena = arena_of(x, residual, post, comb)
    return make(lib.ggml_dsv4_hc_post(arena.raw(), x.ptr, residual.ptr, post.ptr, ptr_or_null(comb)), arena, x)
