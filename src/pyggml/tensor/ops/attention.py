"""Softmax and fused attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyggml._ffi import ffi, lib
from pyggml.errors import DTypeError, ParameterError

from ..dtype import DType
from .core import (
    arena_of,
    bad_shapes,
    cpu_traits,
    make,
    need_contiguous,
    need_dtype,
    need_finite,
    need_plain,
    need_rows,
    need_same_shape,
    ptr_or_null,
)
from .matmul import PREC_DEFAULT, PREC_F32

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["add_sinks", "flash_attn", "soft_max", "soft_max_back"]


def soft_max(a: Tensor, mask: Tensor | None = None, *, scale: float = 1.0, max_bias: float = 0.0) -> Tensor:
    """``softmax(a * scale + mask)`` over the first dimension.

    Args:
        a: ``(n_kv, n_tokens, n_head, s)`` float32.
        mask: ``(n_kv, at least n_tokens, divides n_head, divides s)`` float32 or float16; 0 or -inf.
        scale: multiplies ``a`` before the mask is added.
        max_bias: above 0 for ALiBi (Press et al. 2021).
    """
    need_dtype("soft_max", a, (DType.F32,))
    need_rows("soft_max", a)
    need_contiguous("soft_max", a)
    need_finite("soft_max", scale=scale, max_bias=max_bias)
    if mask is None:
        if max_bias > 0.0:
            raise ParameterError("soft_max: max_bias needs a mask")
    else:
        need_dtype("soft_max", mask, (DType.F32, DType.F16))
        need_rows("soft_max", mask)
        need_contiguous("soft_max", mask)
        x, m = a.ne, mask.ne
        if m[0] != x[0] or m[1] < x[1] or m[2] == 0 or x[2] % m[2] or m[3] == 0 or x[3] % m[3]:
            bad_shapes("soft_max", "the mask must match the first two dimensions and divide the others", a, mask)
    arena = arena_of(a, mask)
    return make(lib.ggml_soft_max_ext(arena.raw(), a.ptr, ptr_or_null(mask), scale, max_bias), arena, a)


def soft_max_back(grad: Tensor, y: Tensor, *, scale: float = 1.0) -> Tensor:
    """The gradient at the operand of ``y = soft_max(a, scale=scale)``, given that of ``y``; float32, contiguous."""
    need_plain("soft_max_back", (DType.F32,), grad, y)
    need_same_shape("soft_max_back", grad, y)
    need_finite("soft_max_back", scale=scale)
    arena = arena_of(grad, y)
    return make(lib.ggml_soft_max_ext_back(arena.raw(), grad.ptr, y.ptr, scale, 0.0), arena, grad)


def add_sinks(attention: Tensor, sinks: Tensor) -> Tensor:
    """Give a softmax or flash-attention node one learned extra logit per head (gpt-oss); changes it in place.

    Call it right after making the node, before the node is in a graph. ``sinks`` is ``(n_head)`` float32.
    """
    need_dtype("add_sinks", sinks, (DType.F32,))
    need_rows("add_sinks", sinks)
    ptr = attention.ptr
    if ptr.op == lib.GGML_OP_SOFT_MAX:
        n_head, taken, function = attention.ne[2], ptr.src[2], lib.ggml_soft_max_add_sinks
    elif ptr.op == lib.GGML_OP_FLASH_ATTN_EXT:
        n_head, taken, function = attention.ne[1], ptr.src[4], lib.ggml_flash_attn_ext_add_sinks
    else:
        raise ParameterError(f"add_sinks: {attention!r} is neither soft_max nor flash_attn")
    if taken != ffi.NULL:
        raise ParameterError(f"add_sinks: {attention!r} has sinks already")
    if sinks.ne != (n_head, 1, 1, 1):
        bad_shapes("add_sinks", f"want one sink for each of {n_head} heads", attention, sinks)
    if sinks.arena is not attention.arena:
        attention.arena.use(sinks.arena)
    function(ptr, sinks.ptr)
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
    prec: int = PREC_F32,
) -> Tensor:
    """Attention in one node (Dao et al. 2022): ``softmax(k q scale + mask) v``.

    Args:
        q: ``(d_k, n_tokens, n_head, s)`` float32.
        k: ``(d_k, n_kv, n_head_kv, s)``; n_head is a multiple of n_head_kv.
        v: ``(d_v, n_kv, n_head_kv, s)``, not transposed.
        mask: ``(n_kv, n_tokens or more, divides n_head, divides s)`` float16, contiguous; None: everything is visible.
        scale: usually ``1 / sqrt(d_k)``.
        max_bias: above 0 for ALiBi.
        logit_softcap: above 0: ``cap * tanh(x / cap)`` on the scores (Gemma 2).
        prec: 10 accumulates in float32, 0 leaves it to the back end.

    Returns:
        ``(d_v, n_head, n_tokens, s)`` float32.
    """
    need_dtype("flash_attn", q, (DType.F32,))
    a, b, c = q.ne, k.ne, v.ne
    fits = a[0] == b[0] and b[1] == c[1] and b[2] == c[2] and b[2] > 0 and a[2] % b[2] == 0 and a[3] == b[3] == c[3]
    if not fits:
        bad_shapes(
            "flash_attn",
            "want q (dk, n, h, s), k (dk, kv, hkv, s), v (dv, kv, hkv, s), h % hkv == 0",
            q,
            k,
            v,
        )
    for tensor in (q, k, v):
        if tensor.ptr.nb[0] != tensor.dtype.type_size:
            need_rows("flash_attn", tensor)
    if cpu_traits(k.dtype).dot_type is None or not cpu_traits(v.dtype).readable or v.dtype == DType.Q8_K:
        raise DTypeError(f"flash_attn: no kernel for keys {k!r} and values {v!r}")
    if 0 in (*b, *c):
        bad_shapes("flash_attn", "keys and values must have elements", q, k, v)
    need_finite("flash_attn", scale=scale, max_bias=max_bias, logit_softcap=logit_softcap)
    if prec not in (PREC_DEFAULT, PREC_F32):
        raise ParameterError(f"flash_attn: prec is {PREC_DEFAULT} or {PREC_F32}, got {prec}")
    if mask is None:
        if max_bias > 0.0:
            raise ParameterError("flash_attn: max_bias needs a mask")
    else:
        need_dtype("flash_attn", mask, (DType.F16,))
        need_rows("flash_attn", mask)
        need_contiguous("flash_attn", mask)
        m = mask.ne
        if m[0] != b[1] or m[1] < a[1] or m[2] == 0 or a[2] % m[2] or m[3] == 0 or a[3] % m[3]:
            bad_shapes("flash_attn", "the mask must be (n_kv, at least n_tokens)", q, k, mask)
    arena = arena_of(q, k, v, mask)
    ptr = lib.ggml_flash_attn_ext(arena.raw(), q.ptr, k.ptr, v.ptr, ptr_or_null(mask), scale, max_bias, logit_softcap)
    lib.ggml_prec_set_acc(ptr, prec)
    return make(ptr, arena, q)
