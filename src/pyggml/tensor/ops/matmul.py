"""Matrix products."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyggml._ffi import lib
from pyggml.errors import DTypeError, ParameterError

from ..dtype import DType
from .core import arena_of, bad_shapes, cpu_traits, make, need_dtype, need_rows
from .shape import cast, cont, transpose

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["PREC_DEFAULT", "PREC_F32", "matmul", "mul_mat", "mul_mat_id", "out_prod"]

PREC_DEFAULT = 0
PREC_F32 = 10


def _need_operands(op: str, a: Tensor, b: Tensor) -> None:
    """A dot product must exist, and rows be contiguous on both sides."""
    dot_type = cpu_traits(a.dtype).dot_type
    if dot_type is None or b.dtype not in (DType.F32, dot_type):
        raise DTypeError(f"{op}: no product of {a.dtype.name} and {b.dtype.name} ({a!r}, {b!r})")
    if lib.ggml_is_transposed(a.ptr) or a.ptr.nb[0] != a.dtype.type_size:
        bad_shapes(op, f"the rows of the first operand are not contiguous (strides {a.nb}); call cont() first", a, b)
    if b.ptr.nb[0] != b.dtype.type_size:
        bad_shapes(op, f"the rows of the second operand are not contiguous (strides {b.nb}); call cont() first", a, b)


def mul_mat(a: Tensor, b: Tensor, *, prec: int = PREC_DEFAULT) -> Tensor:
    """ggml's product: rows of ``a`` times rows of ``b``.

    Args:
        a: ``(k, n, s, t)``, any type ggml has a dot product for (weights).
        b: ``(k, m, s*r, t*q)`` float32, or float16 with a float16 ``a``: ``a`` is repeated over the outer dimensions.
        prec: :data:`PREC_F32` makes back ends accumulate in float32.

    Returns:
        ``(n, m, s*r, t*q)`` float32.
    """
    x, y = a.ne, b.ne
    if x[0] != y[0] or x[2] == 0 or x[3] == 0 or y[2] % x[2] or y[3] % x[3]:
        bad_shapes("mul_mat", "the first dimensions must be equal and the outer ones multiples", a, b)
    _need_operands("mul_mat", a, b)
    arena = arena_of(b, a)
    ptr = lib.ggml_mul_mat(arena.raw(), a.ptr, b.ptr)
    if prec != PREC_DEFAULT:
        if prec != PREC_F32:
            raise ParameterError(f"mul_mat: prec is {PREC_DEFAULT} or {PREC_F32}, got {prec}")
        lib.ggml_prec_set_acc(ptr, prec)
    return make(ptr, arena, b)


def matmul(a: Tensor, b: Tensor) -> Tensor:
    """numpy's ``a @ b``: in ggml order ``a`` is ``(k, m)``, ``b`` is ``(n, k)`` and the result ``(n, m)``.

    ``x @ w.T`` uses a weight ``w`` of ggml shape ``(k, n)`` in place; other right operands are transposed by a copy.
    """
    if a.ne[0] != b.ne[1]:
        bad_shapes("matmul", "inner dimensions differ (numpy: a's last, b's last but one)", a, b)
    right = transpose(cast(b, dtype=DType.F32) if b.dtype.is_quantized else b)
    size = right.dtype.type_size
    if right.nb[0] != size or right.nb[1] < right.ne[0] * size:
        right = cont(right)
    if a.ptr.nb[0] != a.dtype.type_size:
        a = cont(a)
    if a.dtype not in (DType.F32, right.dtype):
        a = cast(a, dtype=DType.F32)
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
    fits = e[0] == x[0] and e[3] == 1 and x[3] == 1 and i[2] == i[3] == 1 and i[1] == x[2] and x[1] and i[0] % x[1] == 0
    if not fits:
        bad_shapes(
            "mul_mat_id",
            "want experts (k, n, n_expert), b (k, used, tokens), ids (used, tokens)",
            experts,
            b,
            ids,
        )
    _need_operands("mul_mat_id", experts, b)
    need_rows("mul_mat_id", ids)
    arena = arena_of(b, ids, experts)
    return make(lib.ggml_mul_mat_id(arena.raw(), experts.ptr, b.ptr, ids.ptr), arena, b)


def out_prod(a: Tensor, b: Tensor) -> Tensor:
    """Columns times rows: ``a`` ``(m, k, s, t)``, ``b`` ``(p, k, s*r, t*q)`` float32 -> ``(m, p, s*r, t*q)`` float32.

    ``a`` may be float16 or quantized when the outer dimensions are equal.
    """
    x, y = a.ne, b.ne
    if x[1] != y[1] or x[2] == 0 or x[3] == 0 or y[2] % x[2] or y[3] % x[3]:
        bad_shapes("out_prod", "the second dimensions must be equal and the outer ones multiples", a, b)
    need_dtype("out_prod", b, (DType.F32,))
    need_rows("out_prod", a)
    if a.dtype != DType.F32:
        traits = cpu_traits(a.dtype)
        if x[2:] != y[2:]:
            bad_shapes("out_prod", f"with {a.dtype.name} the outer dimensions must be equal", a, b)
        if not (a.dtype == DType.F16 or (a.dtype.is_quantized and traits.readable and traits.dot_type)):
            raise DTypeError(f"out_prod: no kernel for {a.dtype.name} ({a!r})")
    if lib.ggml_is_transposed(a.ptr):
        bad_shapes("out_prod", "the first operand must not be transposed; call cont() first", a, b)
    arena = arena_of(a, b)
    return make(lib.ggml_out_prod(arena.raw(), a.ptr, b.ptr), arena, b)
