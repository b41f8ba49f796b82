"""Sums, means, order and comparison."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING, Any

from pyggml._ffi import lib

from ..dtype import DType
from .core import (
    FLOATS,
    INT_MAX,
    arena_of,
    bad_shapes,
    make,
    need_contiguous,
    need_dtype,
    need_even_rows,
    need_int,
    need_mode,
    need_rows,
    need_same_shape,
)
from .shape import reshape

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = [
    "SortOrder",
    "argmax",
    "argsort",
    "argsort_top_k",
    "count_equal",
    "cumsum",
    "mean",
    "sum",
    "sum_rows",
    "top_k",
]

_F32 = (DType.F32,)


class SortOrder(IntEnum):
    """``enum ggml_sort_order``."""

    ASC = 0
    DESC = 1


def _rows(op: str, function: Any, a: Tensor) -> Tensor:
    need_dtype(op, a, _F32)
    need_rows(op, a)
    if a.ne[0] == 0:
        bad_shapes(op, "rows must have elements", a)
    arena = arena_of(a)
    return make(function(arena.raw(), a.ptr), arena, a)


def sum(a: Tensor) -> Tensor:
    """All elements added up: ``(1)``; float32, float16 or bfloat16."""
    need_dtype("sum", a, FLOATS)
    need_rows("sum", a)
    arena = arena_of(a)
    return make(lib.ggml_sum(arena.raw(), a.ptr), arena, a)


def sum_rows(a: Tensor) -> Tensor:
    """Each row added up: ``(n, ...) -> (1, ...)``; float32."""
    return _rows("sum_rows", lib.ggml_sum_rows, a)


def mean(a: Tensor) -> Tensor:
    """The mean of each row: ``(n, ...) -> (1, ...)``; float32."""
    return _rows("mean", lib.ggml_mean, a)


def cumsum(a: Tensor) -> Tensor:
    """Running sums along each row; float32."""
    return _rows("cumsum", lib.ggml_cumsum, a)


def _need_sortable(op: str, a: Tensor) -> None:
    need_dtype(op, a, _F32)
    need_even_rows(op, a)
    if not 0 < a.ne[0] <= INT_MAX:
        bad_shapes(op, "rows must have 1 to 2^31 - 1 elements", a)


def argmax(a: Tensor) -> Tensor:
    """Where each row has its largest value: ``(n, m) -> (m)`` int32; float32."""
    _need_sortable("argmax", a)
    if a.ne[2:] != (1, 1):
        bad_shapes("argmax", "a matrix is wanted", a)
    arena = arena_of(a)
    return make(lib.ggml_argmax(arena.raw(), a.ptr), arena, a)


def argsort(a: Tensor, *, order: SortOrder = SortOrder.ASC) -> Tensor:
    """The order of each row's elements: ``(n, ...)`` int32; float32. A NaN leaves the order undefined."""
    _need_sortable("argsort", a)
    arena = arena_of(a)
    return make(lib.ggml_argsort(arena.raw(), a.ptr, need_mode("argsort", order, SortOrder)), arena, a)


def argsort_top_k(a: Tensor, *, k: int) -> Tensor:
    """Where each row has its k largest values, largest first: ``(n, ...) -> (k, ...)`` int32, a view."""
    _need_sortable("argsort_top_k", a)
    need_int("argsort_top_k", k=k, low=1, high=a.ne[0])
    arena = arena_of(a)
    return make(lib.ggml_argsort_top_k(arena.raw(), a.ptr, k), arena, a)


def top_k(a: Tensor, *, k: int) -> Tensor:
    """Where each row has its k largest values, in no particular order: ``(n, ...) -> (k, ...)`` int32."""
    _need_sortable("top_k", a)
    need_int("top_k", k=k, low=1, high=a.ne[0])
    arena = arena_of(a)
    return make(lib.ggml_top_k(arena.raw(), a.ptr, k), arena, a)


def count_equal(a: Tensor, b: Tensor) -> Tensor:
    """In how many places two int32 tensors of one shape agree: ``(1)`` int64."""
    for tensor in (a, b):
        need_dtype("count_equal", tensor, (DType.I32,))
        need_rows("count_equal", tensor)
        need_contiguous("count_equal", tensor)
    need_same_shape("count_equal", a, b)
    if a.ne[2:] != (1, 1):  # ggml's kernel finds the rows of matrices only
        a, b = reshape(a, a.n_elements), reshape(b, b.n_elements)
    arena = arena_of(a, b)
    return make(lib.ggml_count_equal(arena.raw(), a.ptr, b.ptr), arena, a)
