"""Normalisations over the first dimension, and over groups of channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyggml._ffi import lib
from pyggml.errors import ParameterError

from ..dtype import DType
from .core import (
    arena_of,
    bad_shapes,
    make,
    need_contiguous,
    need_dtype,
    need_finite,
    need_int,
    need_rows,
    need_same_shape,
)

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["group_norm", "l2_norm", "norm", "rms_norm", "rms_norm_back"]

_F32 = (DType.F32,)


def _need_eps(op: str, eps: float) -> None:
    need_finite(op, eps=eps)
    if eps < 0.0:
        raise ParameterError(f"{op}: eps must be 0 or more, got {eps}")


def _normalise(op: str, function: Any, a: Tensor, eps: float) -> Tensor:
    need_dtype(op, a, _F32)
    if a.ptr.nb[0] != 4:
        need_rows(op, a)
    _need_eps(op, eps)
    arena = arena_of(a)
    return make(function(arena.raw(), a.ptr, eps), arena, a)


def norm(a: Tensor, *, eps: float) -> Tensor:
    """Each row minus its mean, over its standard deviation (Ba et al. 2016), without weight and bias; float32."""
    return _normalise("norm", lib.ggml_norm, a, eps)


def rms_norm(a: Tensor, *, eps: float) -> Tensor:
    """Each row over its root mean square (Zhang and Sennrich 2019), without weight; float32."""
    return _normalise("rms_norm", lib.ggml_rms_norm, a, eps)


def l2_norm(a: Tensor, *, eps: float) -> Tensor:
    """Each row over its Euclidean length, or over ``eps`` if that is larger; float32."""
    return _normalise("l2_norm", lib.ggml_l2_norm, a, eps)


def group_norm(a: Tensor, *, n_groups: int, eps: float) -> Tensor:
    """``a`` ``(w, h, channels, n)`` normalised over groups of neighbouring channels (Wu and He 2018); float32."""
    need_dtype("group_norm", a, _F32)
    need_rows("group_norm", a)
    _need_eps("group_norm", eps)
    need_int("group_norm", n_groups=n_groups, low=1)
    if a.ne[2] % n_groups or 0 in a.ne:
        bad_shapes("group_norm", f"the third dimension must be a multiple of {n_groups} groups", a)
    arena = arena_of(a)
    return make(lib.ggml_group_norm(arena.raw(), a.ptr, n_groups, eps), arena, a)


def rms_norm_back(a: Tensor, grad: Tensor, *, eps: float) -> Tensor:
    """The gradient at ``a`` of ``rms_norm(a)``, given that of the result; float32."""
    for tensor in (a, grad):
        need_dtype("rms_norm_back", tensor, _F32)
        need_rows("rms_norm_back", tensor)
        need_contiguous("rms_norm_back", tensor)
    need_same_shape("rms_norm_back", a, grad)
    _need_eps("rms_norm_back", eps)
    arena = arena_of(grad, a)
    return make(lib.ggml_rms_norm_back(arena.raw(), grad.ptr, a.ptr, eps), arena, a)
