"""Normalisations over the first dimension."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyggml._ffi import lib
from pyggml.errors import ParameterError

from ..dtype import DType
from .core import arena_of, bad_shapes, make, need_dtype

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["l2_norm", "norm", "rms_norm"]


def _normalise(op: str, function: Any, a: Tensor, eps: float) -> Tensor:
    need_dtype(op, a, (DType.F32,))
    if a.nb[0] != 4:
        bad_shapes(op, "rows must be contiguous; call cont() first", a)
    if not eps >= 0.0:
        raise ParameterError(f"{op}: eps must be 0 or more, got {eps}")
    arena = arena_of(a)
    return make(function(arena.raw(), a.ptr, eps), arena, a)


def norm(a: Tensor, *, eps: float) -> Tensor:
    """Each row minus its mean, over its standard deviation (Ba et al. 2016), without weight and bias."""
    return _normalise("norm", lib.ggml_norm, a, eps)


def rms_norm(a: Tensor, *, eps: float) -> Tensor:
    """Each row over its root mean square (Zhang and Sennrich 2019), without weight."""
    return _normalise("rms_norm", lib.ggml_rms_norm, a, eps)


def l2_norm(a: Tensor, *, eps: float) -> Tensor:
    """Each row over its Euclidean length."""
    return _normalise("l2_norm", lib.ggml_l2_norm, a, eps)
