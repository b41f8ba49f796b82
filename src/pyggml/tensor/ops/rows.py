"""Gather and scatter of rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyggml._ffi import lib

from ..dtype import DType
from .core import arena_of, bad_shapes, make, need_dtype

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["get_rows", "set_rows"]


def get_rows(a: Tensor, ids: Tensor) -> Tensor:
    """Rows of ``a`` by index.

    Args:
        a: ``(k, n, s, t)``, any type that ggml can dequantize.
        ids: ``(m, s, t)`` int32, each below n. The values are not checked: they are data.

    Returns:
        ``(k, m, s, t)`` float32 (int32 when ``a`` is int32).
    """
    need_dtype("get_rows", ids, (DType.I32,))
    if a.ne[2] != ids.ne[1] or a.ne[3] != ids.ne[2] or ids.ne[3] != 1:
        bad_shapes("get_rows", "want a (k, n, s, t) and ids (m, s, t)", a, ids)
    arena = arena_of(ids, a)
    return make(lib.ggml_get_rows(arena.raw(), a.ptr, ids.ptr), arena, ids)


def set_rows(a: Tensor, rows: Tensor, ids: Tensor) -> Tensor:
    """Write ``rows`` into ``a`` at the row indices ``ids``; the result is a view of ``a``.

    Args:
        a: ``(k, n, s, t)``, any type that ggml can quantize to.
        rows: ``(k, m, s, t)`` float32.
        ids: ``(m, s', t')`` int64 or int32, broadcast over the outer dimensions; values below n, not checked.
    """
    need_dtype("set_rows", ids, (DType.I64, DType.I32))
    need_dtype("set_rows", rows, (DType.F32,))
    x, r, i = a.ne, rows.ne, ids.ne
    fits = (
        x[0] == r[0]
        and x[2:] == r[2:]
        and r[1] == i[0]
        and i[3] == 1
        and r[2] % i[1] == 0
        and r[3] % i[2] == 0
    )
    if not fits:
        bad_shapes("set_rows", "want a (k, n, s, t), rows (k, m, s, t), ids (m, s, t)", a, rows, ids)
    if not lib.ggml_is_contiguous_rows(a.ptr) or not lib.ggml_is_contiguous_rows(rows.ptr):
        bad_shapes("set_rows", "rows must be contiguous", a, rows)
    arena = arena_of(rows, ids, a)
    return make(lib.ggml_set_rows(arena.raw(), a.ptr, rows.ptr, ids.ptr), arena, rows)
