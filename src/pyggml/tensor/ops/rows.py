"""Gather and scatter of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyggml._ffi import lib
from pyggml.errors import DTypeError

from ..dtype import DType
from .core import FLOATS, arena_of, bad_shapes, cpu_traits, make, need_contiguous, need_dtype, need_rows

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["get_rows", "get_rows_back", "set_rows"]


def get_rows(a: Tensor, ids: Tensor) -> Tensor:
    """Rows of ``a`` by index.

    Args:
        a: ``(k, n, s, t)``, any type that ggml can dequantize.
        ids: ``(m, s, t)`` int32, each below n. The values are data: see ``Executor.compute(checked=True)``.

    Returns:
        ``(k, m, s, t)`` float32 (int32 when ``a`` is int32).
    """
    need_dtype("get_rows", ids, (DType.I32,))
    x, i = a.ne, ids.ne
    if x[2] != i[1] or x[3] != i[2] or i[3] != 1:
        bad_shapes("get_rows", "want a (k, n, s, t) and ids (m, s, t)", a, ids)
    dtype = a.dtype
    if dtype not in (DType.F32, DType.F16, DType.BF16, DType.I32):
        traits = cpu_traits(dtype)
        if not (dtype.is_quantized and traits.readable and traits.dot_type is not None):
            raise DTypeError(f"get_rows: ggml has no kernel for {dtype.name} ({a!r})")
    if a.ptr.nb[0] != dtype.type_size:
        need_rows("get_rows", a)
    arena = arena_of(ids, a)
    return make(lib.ggml_get_rows(arena.raw(), a.ptr, ids.ptr), arena, ids)


def get_rows_back(grad: Tensor, ids: Tensor, a: Tensor) -> Tensor:
    """The gradient of :func:`get_rows`: rows of ``grad`` added up at their indices.

    Args:
        grad: ``(k, m)`` float32 or float16, contiguous.
        ids: ``(m)`` int32, each below n.
        a: ``(k, n)``: only its shape is used.

    Returns:
        ``(k, n)`` float32.
    """
    need_dtype("get_rows_back", grad, (DType.F32, DType.F16))
    need_dtype("get_rows_back", ids, (DType.I32,))
    for tensor in (grad, ids):
        need_rows("get_rows_back", tensor)
        need_contiguous("get_rows_back", tensor)
    fits = grad.ne[2:] == a.ne[2:] == (1, 1) and grad.ne[0] == a.ne[0] and ids.ne == (grad.ne[1], 1, 1, 1)
    if not fits:
        bad_shapes("get_rows_back", "want grad (k, m), ids (m), a (k, n)", grad, ids, a)
    arena = arena_of(grad, ids, a)
    return make(lib.ggml_get_rows_back(arena.raw(), grad.ptr, ids.ptr, a.ptr), arena, grad)


def set_rows(a: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
    """Write ``rows`` into ``a`` at the row indices ``ids``; the result is a view of ``a``.

    Args:
        a: ``(k, n, s, t)``, any type that ggml can quantize to in a graph.
        rows: ``(k, m, s, t)`` float32 or float16.
        ids: ``(m, s', t')`` int64 or int32, broadcast over the outer dimensions; values below n, not checked here.
    """
    need_dtype("set_rows", ids, (DType.I64, DType.I32))
    need_dtype("set_rows", rows, (DType.F32, DType.F16))
    x, r, i = a.ne, rows.ne, ids.ne
    fits = (
        x[0] == r[0]
        and x[2:] == r[2:]
        and r[1] == i[0]
        and i[3] == 1
        and i[1] > 0
        and i[2] > 0
        and r[2] % i[1] == 0
        and r[3] % i[2] == 0
    )
    if not fits:
        bad_shapes("set_rows", "want a (k, n, s, t), rows (k, m, s, t), ids (m, s, t)", a, rows, ids)
    dtype = a.dtype
    if dtype not in FLOATS and not (dtype.is_quantized and cpu_traits(dtype).writable):
        raise DTypeError(f"set_rows: ggml cannot write {dtype.name} in a graph ({a!r})")
    for tensor in (a, rows):
        if tensor.ptr.nb[0] != tensor.dtype.type_size:
            bad_shapes("set_rows", f"rows must be contiguous (strides {tensor.nb})", a, rows, ids)
    arena = arena_of(rows, ids, a)
    return make(lib.ggml_set_rows(arena.raw(), a.ptr, rows.ptr, ids.ptr), arena, rows)
