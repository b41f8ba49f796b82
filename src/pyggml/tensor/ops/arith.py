"""Element-wise arithmetic of two tensors, and scaling."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pyggml._ffi import lib
from pyggml.errors import DTypeError

from ..dtype import DType
from .core import arena_of, bad_shapes, broadcasts, make, need_dtype

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["add", "div", "mul", "scale", "scale_bias", "sub"]

_FLOATS = (DType.F32, DType.F16, DType.BF16)


def _binary(op: str, function: Any, a: Tensor, b: Tensor) -> Tensor:
    need_dtype(op, b, _FLOATS)
    if a.dtype not in _FLOATS and not (op == "add" and a.dtype.is_quantized):
        raise DTypeError(f"{op}: {a!r} must be F32, F16 or BF16")
    if not broadcasts(b, a):
        bad_shapes(op, "each dimension of the first must be a multiple of the second's", a, b)
    arena = arena_of(a, b)
    return make(function(arena.raw(), a.ptr, b.ptr), arena, a)


def add(a: Tensor, b: Tensor) -> Tensor:
    """``a + b``, ``b`` repeated to the shape of ``a``."""
    return _binary("add", lib.ggml_add, a, b)


def sub(a: Tensor, b: Tensor) -> Tensor:
    """``a - b``, ``b`` repeated to the shape of ``a``."""
    return _binary("sub", lib.ggml_sub, a, b)


def mul(a: Tensor, b: Tensor) -> Tensor:
    """``a * b`` element by element, ``b`` repeated to the shape of ``a``."""
    return _binary("mul", lib.ggml_mul, a, b)


def div(a: Tensor, b: Tensor) -> Tensor:
    """``a / b`` element by element, ``b`` repeated to the shape of ``a``."""
    return _binary("div", lib.ggml_div, a, b)


def scale(a: Tensor, *, factor: float) -> Tensor:
    """``a * factor``."""
    return scale_bias(a, scale=factor, bias=0.0)


def scale_bias(a: Tensor, *, scale: float, bias: float) -> Tensor:
    """``a * scale + bias``."""
    need_dtype("scale", a, (DType.F32,))
    if not lib.ggml_is_padded_1d(a.ptr) if hasattr(lib, "ggml_is_padded_1d") else not a.is_contiguous:
        bad_shapes("scale", "the tensor must be contiguous", a)
    arena = arena_of(a)
    return make(lib.ggml_scale_bias(arena.raw(), a.ptr, scale, bias), arena, a)
