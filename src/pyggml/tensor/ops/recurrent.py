"""State-space and linear-attention layers: one node runs over all tokens and returns outputs and new states."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyggml._ffi import lib

from ..dtype import DType
from .core import (
    INT_MAX,
    arena_of,
    bad_shapes,
    make,
    need_contiguous,
    need_dtype,
    need_finite,
    need_int,
    need_plain,
    need_rows,
)

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["gated_delta_net", "gated_linear_attn", "rwkv_wkv6", "rwkv_wkv7", "ssm_conv", "ssm_scan"]

_F32 = (DType.F32,)


def ssm_conv(x: Tensor, kernel: Tensor) -> Tensor:
    """The causal convolution of Mamba (Gu and Dao 2023).

    Args:
        x: ``(d_conv - 1 + n_tokens, d_inner, n_seqs)`` float32, contiguous: the last inputs before, then the new ones.
        kernel: ``(d_conv, d_inner)`` float32.

    Returns:
        ``(d_inner, n_tokens, n_seqs)``.
    """
    need_plain("ssm_conv", _F32, x, kernel)
    s, c = x.ne, kernel.ne
    if s[1] != c[1] or s[0] < c[0] or s[3] != 1 or c[2:] != (1, 1):
        bad_shapes("ssm_conv", "want x (d_conv - 1 + n, d_inner, seqs) and kernel (d_conv, d_inner)", x, kernel)
    arena = arena_of(x, kernel)
    return make(lib.ggml_ssm_conv(arena.raw(), x.ptr, kernel.ptr), arena, x)


def ssm_scan(
    state: Tensor, x: Tensor, dt: Tensor, a: Tensor, b: Tensor, c: Tensor, ids: Tensor, *, n_snapshots: int = 1
) -> Tensor:
    """The selective scan of Mamba (Gu and Dao 2023) and Mamba 2 (Dao and Gu 2024).

    Args:
        state: ``(d_state, d_head, n_head, n_states)`` float32.
        x: ``(d_head, n_head, n_tokens, n_seqs)`` float32.
        dt: ``(n_head, n_tokens, n_seqs)`` float32, before softplus.
        a: ``(1, n_head)``, or ``(d_state, n_head)`` for Mamba 1, float32.
        b: ``(d_state, n_group, n_tokens, n_seqs)`` float32; n_head is a multiple of n_group.
        c: the same shape.
        ids: ``(n_seqs)`` int32: each sequence's state, below n_states.
        n_snapshots: states kept, the newest first; above 1 only with ``a`` ``(1, n_head)``.

    Returns:
        One dimension: the outputs ``(d_head, n_head, n_tokens, n_seqs)``, then the states
        ``(d_state, d_head, n_head, n_seqs)`` for each snapshot.
    """
    op = "ssm_scan"
    need_plain(op, _F32, state, x, dt, a, b, c)
    need_plain(op, (DType.I32,), ids)
    need_int(op, low=1, high=1 << 16, n_snapshots=n_snapshots)
    d_head, n_head, n_tokens, n_seqs = x.ne
    d_state, n_group = state.ne[0], b.ne[1]
    fits = (
        state.ne[1:3] == (d_head, n_head)
        and dt.ne == (n_head, n_tokens, n_seqs, 1)
        and a.ne[1:] == (n_head, 1, 1)
        and a.ne[0] in (1, d_state)
        and b.ne == c.ne == (d_state, n_group, n_tokens, n_seqs)
        and n_head % n_group == 0
        and ids.ne == (n_seqs, 1, 1, 1)
        and (a.ne[0] == 1 or n_snapshots == 1)
        and n_snapshots * d_state * d_head * n_head * n_seqs + x.n_elements <= INT_MAX
    )
    if not fits:
        bad_shapes(
            op,
            "want state (S, d, h, states), x (d, h, t, seqs), dt (h, t, seqs), a (1 or S, h), b and c (S, g, t, seqs), "
            "ids (seqs)",
            state,
            x,
            dt,
            a,
            b,
            c,
            ids,
        )
    arena = arena_of(x, dt, b, c, ids, state, a)
    operands = (t.ptr for t in (state, x, dt, a, b, c, ids))
    return make(lib.ggml_ssm_scan(arena.raw(), *operands, n_snapshots), arena, x)


def _need_heads(op: str, heads: tuple[Tensor, ...], state: Tensor, extra: tuple[Tensor, ...] = ()) -> None:
    """``(S, H, n_tokens)`` for all, and ``(S * S * H, n_seqs)`` for the state."""
    need_plain(op, _F32, *heads, state, *extra)
    size, n_head, n_tokens, one = heads[0].ne
    n_seqs = state.ne[1]
    fits = (
        all(t.ne == heads[0].ne for t in heads)
        and one == 1
        and state.n_elements == size * size * n_head * n_seqs
        and n_tokens % n_seqs == 0
        and all(t.n_elements == size * n_head for t in extra)
    )
    if not fits:
        bad_shapes(
            op,
            "want (S, H, n_tokens) for all and a state (S * S * H, n_seqs), n_tokens a multiple of n_seqs",
            *heads,
            *extra,
            state,
        )


def rwkv_wkv6(k: Tensor, v: Tensor, r: Tensor, first: Tensor, decay: Tensor, state: Tensor) -> Tensor:
    """Time mixing of RWKV 6 (Peng et al. 2024, "Eagle and Finch"); float32, contiguous.

    Args:
        k: ``(S, H, n_tokens)`` keys.
        v: values, the same shape.
        r: receptances, the same shape.
        first: ``(S * H)``: the bonus of the current token.
        decay: ``(S, H, n_tokens)``.
        state: ``(S * S * H, n_seqs)``.

    Returns:
        ``(S * H, n_tokens + S * n_seqs)``: the outputs, then the new states.
    """
    _need_heads("rwkv_wkv6", (k, v, r, decay), state, (first,))
    arena = arena_of(k, v, r, decay, state, first)
    operands = (t.ptr for t in (k, v, r, first, decay, state))
    return make(lib.ggml_rwkv_wkv6(arena.raw(), *operands), arena, k)


def rwkv_wkv7(r: Tensor, w: Tensor, k: Tensor, v: Tensor, a: Tensor, b: Tensor, state: Tensor) -> Tensor:
    """Time mixing of RWKV 7 (Peng et al. 2025, "Goose"); float32, contiguous.

    All operands are ``(S, H, n_tokens)`` but ``state`` ``(S * S * H, n_seqs)``; the result is as in
    :func:`rwkv_wkv6`.
    S is a multiple of 64: ggml's vector code has no remainder loop.
    """
    if r.ne[0] % 64:
        bad_shapes("rwkv_wkv7", "the head size must be a multiple of 64", r, w, k, v, a, b, state)
    _need_heads("rwkv_wkv7", (r, w, k, v, a, b), state)
    arena = arena_of(r, w, k, v, a, b, state)
    operands = (t.ptr for t in (r, w, k, v, a, b, state))
    return make(lib.ggml_rwkv_wkv7(arena.raw(), *operands), arena, r)


def gated_linear_attn(k: Tensor, v: Tensor, q: Tensor, g: Tensor, state: Tensor, *, scale: float) -> Tensor:
    """Gated linear attention (Yang et al. 2023); float32, contiguous.

    All operands are ``(S, H, n_tokens)`` but ``state`` ``(S * S * H, n_seqs)``; the result is as in
    :func:`rwkv_wkv6`.
    """
    _need_heads("gated_linear_attn", (k, v, q, g), state)
    need_finite("gated_linear_attn", scale=scale)
    arena = arena_of(k, v, q, g, state)
    operands = (t.ptr for t in (k, v, q, g, state))
    return make(lib.ggml_gated_linear_attn(arena.raw(), *operands, scale), arena, k)


def gated_delta_net(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor, *, n_snapshots: int = 1
) -> Tensor:
    """The gated delta rule (Yang et al. 2024, "Gated Delta Networks"); float32.

    Args:
        q: ``(S, H_k, n_tokens, n_seqs)``, rows contiguous.
        k: the same shape.
        v: ``(S, H, n_tokens, n_seqs)``; H is a multiple of H_k.
        g: ``(1 or S, H, n_tokens, n_seqs)``: logarithms of the decay.
        beta: ``(1, H, n_tokens, n_seqs)``.
        state: ``(S, S, H, n_seqs)``.
        n_snapshots: states kept, the newest first.

    Returns:
        ``(S * H, n_tokens * n_seqs + n_snapshots * S * n_seqs)``: the outputs, then the states.
    """
    op = "gated_delta_net"
    for tensor in (q, k, v):
        need_dtype(op, tensor, _F32)
        need_rows(op, tensor)
        need_contiguous(op, tensor)
    need_plain(op, _F32, g, beta, state)
    need_int(op, low=1, high=1 << 16, n_snapshots=n_snapshots)
    size, n_head, n_tokens, n_seqs = v.ne
    fits = (
        0 not in v.ne
        and q.ne == k.ne == (size, q.ne[1], n_tokens, n_seqs)
        and q.ne[1] > 0
        and n_head % q.ne[1] == 0
        and g.ne == (g.ne[0], n_head, n_tokens, n_seqs)
        and g.ne[0] in (1, size)
        and beta.ne == (1, n_head, n_tokens, n_seqs)
        and state.ne == (size, size, n_head, n_seqs)
    )
    if not fits:
        bad_shapes(
            op,
            "want q and k (S, hk, t, n), v (S, h, t, n), g (1 or S, h, t, n), beta (1, h, t, n), state (S, S, h, n)",
            q,
            k,
            v,
            g,
            beta,
            state,
        )
    arena = arena_of(q, k, v, g, beta, state)
    operands = (t.ptr for t in (q, k, v, g, beta, state))
    return make(lib.ggml_gated_delta_net(arena.raw(), *operands, n_snapshots), arena, q)
