"""Matrix products."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyggml._ffi import lib
from pyggml.errors import DTypeError

from ..dtype import DType
from .core import arena_of, bad_shapes, make, need_dtype
from .shape import cont, transpose

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["PREC_DEFAULT", "PREC_F32", "matmul", "mul_mat", "mul_mat_id"]

PREC_DEFAULT = 0
PREC_F32 = 10


def mul_mat(a: Tensor, b: Tensor, *, prec: int = PREC_DEFAULT) -> Tensor:
    """ggml's product: rows of ``a`` times rows of ``b``.

    Args:
        a: ``(k, n, s, t)``, any type ggml has a dot product for (weights).
        b: ``(k, m, s*r, t*q)`` float32 or float16: ``a`` is repeated over the outer dimensions.
        prec: :data:`PREC_F32` makes back ends accumulate in float32.

    Returns:
        ``(n, m, s*r, t*q)`` float32.
    """
    x, y = a.ne, b.ne
    if x[0] != y[0] or x[2] == 0 or x[3] == 0 or y[2] % x[2] or y[3] % x[3]:
        bad_shapes("mul_mat", "the first dimensions must be equal and the outer ones multiples", a, b)
    if lib.ggml_is_transposed(a.ptr):
        bad_shapes("mul_mat", "the first operand must not be transposed; call cont() first", a, b)
    if b.dtype not in (DType.F32, DType.F16, DType.BF16) or a.dtype in (
        DType.I8,
        DType.I16,
        DType.I32,
        DType.I64,
    ):
        raise DTypeError(f"mul_mat: no product of {a.dtype.name} and {b.dtype.name}")
    arena = arena_of(b, a)
    ptr = lib.ggml_mul_mat(arena.raw(), a.ptr, b.ptr)
    if prec != PREC_DEFAULT:
        lib.ggml_mul_mat_set_prec(ptr, prec)
    return make(ptr, arena, b)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """numpy's ``a @ b``: in ggml order ``a`` is ``(k, m)``, ``b`` is ``(n, k)`` and the result ``(n, m)``.

    ``x @ w.T`` uses a weight ``w`` of ggml shape ``(k, n)`` in place; other right operands are transposed by a copy.
    """
    right = transpose(b)
    if a.ne[0] != right.ne[0]:
        bad_shapes("matmul", "inner dimensions differ (numpy: a's last, b's last but one)", a, b)
    if not right.is_contiguous:
        right = cont(right)
    return mul_mat(right, a)


def mul_mat_id(experts: Tensor, b: Tensor, ids: Tensor) -> Tensor:
    """For each token, the products with the experts chosen for it.

    Args:
        experts: ``(k, n, n_expert)``.
        b: ``(k, n_used or 1, n_tokens)`` float32.
        ids: ``(n_used, n_tokens)`` int32, each below n_expert.

    Returns:
        ``(n, n_used, n_tokens)`` float32.
    """
    need_dtype("mul_mat_id", ids, (DType.I32,))
    need_dtype("mul_mat_id", b, (DType.F32,))
    e, x, i = experts.ne, b.ne, ids.ne
    fits = (
        e[0] == x[0]
        and e[3] == 1
        and x[3] == 1
        and i[2] == i[3] == 1
        and i[1] == x[2]
        and x[1]
        and i[0] % x[1] == 0
    )
    if not fits or lib.ggml_is_transposed(experts.ptr):
        bad_shapes(
            "mul_mat_id",
            "want experts (k, n, n_expert), b (k, used, tokens), ids (used, tokens)",
            experts,
            b,
            ids,
        )
    arena = arena_of(b, ids, experts)
    return make(lib.ggml_mul_mat_id(arena.raw(), experts.ptr, b.ptr, ids.ptr), arena, b)
