"""Softmax, rotary positions and fused attention."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from pyggml._ffi import lib
from pyggml.errors import ParameterError

from ..dtype import DType
from .core import arena_of, bad_shapes, make, need_contiguous, need_dtype, ptr_or_null

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["RopeMode", "RopeParams", "add_sinks", "flash_attn", "rope", "soft_max"]


class RopeMode(IntEnum):
    """Which elements of a head are rotated together (``GGML_ROPE_TYPE_*``)."""

    NORMAL = 0
    """Neighbours: (0, 1), (2, 3), ... as in the RoFormer paper."""
    NEOX = 2
    """Halves: (0, n/2), (1, n/2 + 1), ... as in GPT-NeoX."""


@dataclass(frozen=True)
class RopeParams:
    """Rotary position embedding (Su et al. 2021) with the scalings ggml knows.

    ``freq_scale`` below 1 is linear interpolation (Chen et al. 2023); ``ext_factor`` above 0 is YaRN (Peng et al. 2023),
    with ``n_ctx_orig`` the context of training and ``beta_fast``, ``beta_slow`` its ramp.
    """

    n_dims: int
    mode: RopeMode = RopeMode.NORMAL
    n_ctx_orig: int = 0
    freq_base: float = 10000.0
    freq_scale: float = 1.0
    ext_factor: float = 0.0
    attn_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0

    def __post_init__(self) -> None:
        if self.n_dims <= 0 or self.n_dims % 2:
            raise ParameterError(f"rope: n_dims must be even and positive, got {self.n_dims}")


def rope(a: Tensor, positions: Tensor, *, params: RopeParams, factors: Tensor | None = None) -> Tensor:
    """Rotate heads by their token's position.

    Args:
        a: ``(d, n_head, n_tokens, 1)`` float32 or float16, rows contiguous.
        positions: ``(n_tokens)`` int32.
        params: the method and its numbers.
        factors: ``(n_dims / 2)`` float32, frequency divisors (llama 3, LongRoPE).
    """
    need_dtype("rope", a, (DType.F32, DType.F16))
    need_dtype("rope", positions, (DType.I32,))
    if positions.ne != (a.ne[2], 1, 1, 1):
        bad_shapes("rope", "want a (d, n_head, n_tokens) and positions (n_tokens)", a, positions)
    if params.n_dims > a.ne[0]:
        raise ParameterError(f"rope: n_dims {params.n_dims} exceeds the head size {a.ne[0]}")
    if a.nb[0] != a.dtype.type_size:
        bad_shapes("rope", "rows must be contiguous; call cont() first", a)
    if factors is not None:
        need_dtype("rope", factors, (DType.F32,))
        if factors.ne[0] < params.n_dims // 2:
            bad_shapes("rope", f"factors must hold n_dims / 2 = {params.n_dims // 2} numbers", factors)
    arena = arena_of(a, positions)
    ptr = lib.ggml_rope_ext(
        arena.raw(),
        a.ptr,
        positions.ptr,
        ptr_or_null(factors),
        params.n_dims,
        int(params.mode),
        params.n_ctx_orig,
        params.freq_base,
        params.freq_scale,
        params.ext_factor,
        params.attn_factor,
        params.beta_fast,
        params.beta_slow,
    )
    return make(ptr, arena, a)


def soft_max(a: Tensor, mask: Tensor | None = None, *, scale: float = 1.0, max_bias: float = 0.0) -> Tensor:
    """``softmax(a * scale + mask)`` over the first dimension.

    Args:
        a: ``(n_kv, n_tokens, n_head, s)`` float32.
        mask: ``(n_kv, at least n_tokens, divides n_head, divides s)`` float32 or float16; 0 or -inf.
        scale: multiplies ``a`` before the mask is added.
        max_bias: above 0 for ALiBi (Press et al. 2021).
    """
    need_dtype("soft_max", a, (DType.F32,))
    need_contiguous("soft_max", a)
    if mask is None:
        if max_bias > 0.0:
            raise ParameterError("soft_max: max_bias needs a mask")
    else:
        need_dtype("soft_max", mask, (DType.F32, DType.F16))
        need_contiguous("soft_max", mask)
        x, m = a.ne, mask.ne
        if m[0] != x[0] or m[1] < x[1] or m[2] == 0 or x[2] % m[2] or m[3] == 0 or x[3] % m[3]:
            bad_shapes(
                "soft_max", "the mask must match the first two dimensions and divide the others", a, mask
            )
    arena = arena_of(a, mask)
    return make(lib.ggml_soft_max_ext(arena.raw(), a.ptr, ptr_or_null(mask), scale, max_bias), arena, a)


def add_sinks(attention: Tensor, sinks: Tensor) -> Tensor:
    """Give a softmax or flash-attention node one learned extra logit per head (gpt-oss); changes it in place."""
    need_dtype("add_sinks", sinks, (DType.F32,))
    if attention.op == "SOFT_MAX":
        if sinks.ne != (attention.ne[2], 1, 1, 1):
            bad_shapes("add_sinks", "want one sink per head", attention, sinks)
        lib.ggml_soft_max_add_sinks(attention.ptr, sinks.ptr)
    elif attention.op == "FLASH_ATTN_EXT":
        if sinks.ne != (attention.ne[1], 1, 1, 1):
            bad_shapes("add_sinks", "want one sink per head", attention, sinks)
        lib.ggml_flash_attn_ext_add_sinks(attention.ptr, sinks.ptr)
    else:
        raise ParameterError(f"add_sinks: {attention!r} is neither soft_max nor flash_attn")
    return attention


def flash_attn(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    *,
    scale: float,
    max_bias: float = 0.0,
    logit_softcap: float = 0.0,
    prec: int = 10,
) -> Tensor:
    """Attention in one node (Dao et al. 2022): ``softmax(k q scale + mask) v``.

    Args:
        q: ``(d_k, n_tokens, n_head, s)`` float32.
        k: ``(d_k, n_kv, n_head_kv, s)``; n_head is a multiple of n_head_kv.
        v: ``(d_v, n_kv, n_head_kv, s)``, not transposed.
        mask: ``(n_kv, n_tokens or more, 1, 1)`` float16, contiguous; None: everything is visible.
        scale: usually ``1 / sqrt(d_k)``.
        max_bias: above 0 for ALiBi.
        logit_softcap: above 0: ``cap * tanh(x / cap)`` on the scores (Gemma 2).
        prec: 10 accumulates in float32, 0 leaves it to the back end.

    Returns:
        ``(d_v, n_head, n_tokens, s)`` float32.
    """
    need_dtype("flash_attn", q, (DType.F32,))
    a, b, c = q.ne, k.ne, v.ne
    fits = (
        a[0] == b[0]
        and b[1] == c[1]
        and b[2] == c[2]
        and b[2] > 0
        and a[2] % b[2] == 0
        and a[3] == b[3] == c[3]
    )
    if not fits:
        bad_shapes(
            "flash_attn",
            "want q (dk, n, h, s), k (dk, kv, hkv, s), v (dv, kv, hkv, s), h % hkv == 0",
            q,
            k,
            v,
        )
    for tensor in (q, k, v):
        if tensor.nb[0] != tensor.dtype.type_size:
            bad_shapes("flash_attn", "rows must be contiguous; call cont() first", tensor)
    if mask is None:
        if max_bias > 0.0:
            raise ParameterError("flash_attn: max_bias needs a mask")
    else:
        need_dtype("flash_attn", mask, (DType.F16,))
        need_contiguous("flash_attn", mask)
        m = mask.ne
        if m[0] != b[1] or m[1] < a[1] or m[2] == 0 or a[2] % m[2] or m[3] == 0 or a[3] % m[3]:
            bad_shapes("flash_attn", "the mask must be (n_kv, at least n_tokens)", q, k, mask)
    arena = arena_of(q, k, v)
    ptr = lib.ggml_flash_attn_ext(
        arena.raw(), q.ptr, k.ptr, v.ptr, ptr_or_null(mask), scale, max_bias, logit_softcap
    )
    lib.ggml_flash_attn_ext_set_prec(ptr, prec)
    return make(ptr, arena, q)
