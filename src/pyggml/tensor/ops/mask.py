"""Triangles, diagonals, constants and triangular systems."""

from __future__ import annotations

import math
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from pyggml._ffi import lib
from pyggml.errors import ParameterError

from ..dtype import DType
from .core import arena_of, bad_shapes, make, need_finite, need_int, need_mode, need_plain

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["TriType", "arange", "diag", "diag_mask_inf", "diag_mask_zero", "fill", "solve_tri", "tri"]

_F32 = (DType.F32,)


class TriType(IntEnum):
    """``enum ggml_tri_type``: what of a square matrix is kept."""

    UPPER_DIAG = 0
    UPPER = 1
    LOWER_DIAG = 2
    LOWER = 3


def diag(a: Tensor) -> Tensor:
    """Rows as diagonals: ``(n, 1, s, t) -> (n, n, s, t)``; float32, contiguous."""
    need_plain("diag", _F32, a)
    if a.ne[1] != 1:
        bad_shapes("diag", "the second dimension must be 1", a)
    arena = arena_of(a)
    return make(lib.ggml_diag(arena.raw(), a.ptr), arena, a)


def _diag_mask(op: str, function: Any, a: Tensor, n_past: int) -> Tensor:
    need_plain(op, _F32, a)
    need_int(op, n_past=n_past)
    arena = arena_of(a)
    return make(function(arena.raw(), a.ptr, n_past), arena, a)


def diag_mask_inf(a: Tensor, *, n_past: int) -> Tensor:
    """Row i keeps its first ``n_past + i + 1`` elements, the others become -inf; float32, contiguous."""
    return _diag_mask("diag_mask_inf", lib.ggml_diag_mask_inf, a, n_past)


def diag_mask_zero(a: Tensor, *, n_past: int) -> Tensor:
    """Row i keeps its first ``n_past + i + 1`` elements, the others become 0; float32, contiguous."""
    return _diag_mask("diag_mask_zero", lib.ggml_diag_mask_zero, a, n_past)


def tri(a: Tensor, *, kind: TriType) -> Tensor:
    """A triangle of each square matrix, zeros elsewhere: ``(n, n, ...)``; float32, contiguous."""
    need_plain("tri", _F32, a)
    if a.ne[0] != a.ne[1]:
        bad_shapes("tri", "the first two dimensions must be equal", a)
    arena = arena_of(a)
    return make(lib.ggml_tri(arena.raw(), a.ptr, need_mode("tri", kind, TriType)), arena, a)


def fill(a: Tensor, *, value: float) -> Tensor:
    """A tensor of the shape and type of ``a`` with every element ``value``; float32 or float16, contiguous."""
    need_plain("fill", (DType.F32, DType.F16), a)
    if math.isnan(value):
        raise ParameterError("fill: value is NaN")
    arena = arena_of(a)
    return make(lib.ggml_fill(arena.raw(), a.ptr, value), arena, a)


def arange(like: Tensor, *, start: float, stop: float, step: float = 1.0) -> Tensor:
    """``start, start + step, ...`` below ``stop``: ``(ceil((stop - start) / step))`` float32.

    ``like`` says in which graph: any of its tensors.
    """
    need_finite("arange", start=start, stop=stop, step=step)
    if stop <= start or step <= 0.0:
        raise ParameterError(f"arange: stop {stop} must be above start {start}, and step {step} above 0")
    with np.errstate(over="ignore", divide="ignore"):
        count = (np.float32(stop) - np.float32(start)) / np.float32(step)
    if not 0.0 < count < 1 << 30 or np.float32(stop) <= np.float32(start):
        raise ParameterError(f"arange: {start} to {stop} by {step} is {count} elements")
    arena = arena_of(like)
    return make(lib.ggml_arange(arena.raw(), start, stop, step), arena, like)


def solve_tri(a: Tensor, b: Tensor) -> Tensor:
    """``x`` with ``a x = b`` (numpy's order) for lower triangular ``a``, by forward substitution.

    Args:
        a: ``(n, n, s, t)`` float32, contiguous, no zero on the diagonal.
        b: ``(m, n, s, t)`` float32, contiguous.
    """
    need_plain("solve_tri", _F32, a, b)
    x, y = a.ne, b.ne
    if x[0] != x[1] or x[1:] != y[1:]:
        bad_shapes("solve_tri", "want a (n, n, s, t) and b (m, n, s, t)", a, b)
    arena = arena_of(a, b)
    return make(lib.ggml_solve_tri(arena.raw(), a.ptr, b.ptr, True, True, False), arena, a)
