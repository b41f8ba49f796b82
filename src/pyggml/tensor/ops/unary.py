"""Functions of one tensor, element by element, and gated units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyggml._ffi import lib

from ..dtype import DType
from .core import arena_of, bad_shapes, make, need_dtype, need_same_shape

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["geglu_split", "gelu", "neg", "relu", "sigmoid", "silu", "swiglu_split", "tanh"]

_FLOATS = (DType.F32, DType.F16)


def _unary(op: str, function: Any, a: Tensor) -> Tensor:
    need_dtype(op, a, _FLOATS)
    if not lib.ggml_is_contiguous_rows(a.ptr):
        bad_shapes(op, "rows must be contiguous; call cont() first", a)
    arena = arena_of(a)
    return make(function(arena.raw(), a.ptr), arena, a)


def neg(a: Tensor) -> Tensor:
    """``-a``."""
    return _unary("neg", lib.ggml_neg, a)


def relu(a: Tensor) -> Tensor:
    """``max(a, 0)``."""
    return _unary("relu", lib.ggml_relu, a)


def tanh(a: Tensor) -> Tensor:
    """Hyperbolic tangent."""
    return _unary("tanh", lib.ggml_tanh, a)


def sigmoid(a: Tensor) -> Tensor:
    """``1 / (1 + exp(-a))``."""
    return _unary("sigmoid", lib.ggml_sigmoid, a)


def silu(a: Tensor) -> Tensor:
    """``a * sigmoid(a)`` (Elfwing et al. 2017)."""
    return _unary("silu", lib.ggml_silu, a)


def gelu(a: Tensor) -> Tensor:
    """GELU by its tanh approximation (Hendrycks and Gimpel 2016)."""
    return _unary("gelu", lib.ggml_gelu, a)


def _gated(op: str, function: Any, gate: Tensor, up: Tensor) -> Tensor:
    need_dtype(op, gate, _FLOATS)
    need_dtype(op, up, (gate.dtype,))
    need_same_shape(op, gate, up)
    for tensor in (gate, up):
        if not lib.ggml_is_contiguous_1(tensor.ptr):
            bad_shapes(op, "rows must be contiguous; call cont() first", tensor)
    arena = arena_of(gate, up)
    return make(function(arena.raw(), gate.ptr, up.ptr), arena, gate)


def swiglu_split(gate: Tensor, up: Tensor) -> Tensor:
    """``silu(gate) * up`` (Shazeer 2020, "GLU Variants Improve Transformer")."""
    return _gated("swiglu_split", lib.ggml_swiglu_split, gate, up)


def geglu_split(gate: Tensor, up: Tensor) -> Tensor:
    """``gelu(gate) * up`` (Shazeer 2020)."""
    return _gated("geglu_split", lib.ggml_geglu_split, gate, up)
