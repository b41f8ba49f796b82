"""Element-wise arithmetic of two tensors, scaling, and writing one tensor into another."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pyggml._ffi import lib
from pyggml.errors import DTypeError, ParameterError, ShapeError

from ..dtype import DType
from .core import (
    FLOATS,
    INT_MAX,
    arena_of,
    bad_shapes,
    broadcasts,
    cpu_traits,
    make,
    need_dtype,
    need_int,
    need_packed,
    need_rows,
    need_same_shape,
)

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["acc", "add", "add_cast", "add_id", "clamp", "div", "mul", "scale", "scale_bias", "set_region", "sub"]

_F32 = (DType.F32,)


def _binary(op: str, function: Any, a: Tensor, b: Tensor) -> Tensor:
    if not broadcasts(b, a):
        bad_shapes(op, "each dimension of the first must be a multiple of the second's", a, b)
    if a.dtype != b.dtype or a.dtype not in FLOATS:
        _need_pair(op, a, b)
    if a.ptr.nb[0] != a.dtype.type_size:
        need_rows(op, a)
    arena = arena_of(a, b)
    return make(function(arena.raw(), a.ptr, b.ptr), arena, a)


def _need_pair(op: str, a: Tensor, b: Tensor) -> None:
    """Types that differ: a float with F32 (the result has a's type), or for ``add`` a quantized type with F32."""
    if a.dtype in FLOATS and b.dtype == DType.F32:
        return
    if op == "add" and a.dtype.is_quantized and b.dtype == DType.F32:
        _need_quantized_sum(op, a, b)
        return
    raise DTypeError(f"{op}: no kernel for {a.dtype.name} and {b.dtype.name} ({a!r}, {b!r}); cast() one")


def _need_quantized_sum(op: str, a: Tensor, b: Tensor, *, write: bool = True) -> None:
    need_same_shape(op, a, b)
    need_rows(op, b)
    traits = cpu_traits(a.dtype)
    if not (traits.readable and traits.dot_type) or (write and not traits.writable):
        raise DTypeError(f"{op}: ggml cannot add to {a.dtype.name} ({a!r})")


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


def add_cast(a: Tensor, b: Tensor, *, dtype: DType) -> Tensor:
    """``a + b`` with a result of another type: ``a`` F16, BF16 or quantized, ``b`` F32 of the same first dimension.

    Only to F32 (or to the type of ``a``, which :func:`add` does too).
    """
    if dtype not in (DType.F32, a.dtype):
        raise DTypeError(f"add_cast: to F32 or {a.dtype.name}, not {dtype.name}")
    if a.dtype == DType.F32:
        raise DTypeError(f"add_cast: {a!r} is F32 already; use add()")
    need_dtype("add_cast", b, _F32)
    need_rows("add_cast", a)
    if a.ne[0] != b.ne[0] or not broadcasts(b, a):
        bad_shapes("add_cast", "rows must be equally long and the other dimensions multiples", a, b)
    if a.dtype.is_quantized:
        _need_quantized_sum("add_cast", a, b, write=dtype == a.dtype)
    else:
        need_dtype("add_cast", a, FLOATS)
    arena = arena_of(a, b)
    return make(lib.ggml_add_cast(arena.raw(), a.ptr, b.ptr, int(dtype)), arena, a)


def add_id(a: Tensor, b: Tensor, ids: Tensor) -> Tensor:
    """``a[:, i, t] + b[:, ids[i, t]]``: a bias per expert.

    Args:
        a: ``(n, n_used, n_tokens)`` float32.
        b: ``(n, n_expert)`` float32.
        ids: ``(n_used, n_tokens)`` int32, each below n_expert.
    """
    for tensor in (a, b):
        need_dtype("add_id", tensor, _F32)
        need_rows("add_id", tensor)
    need_dtype("add_id", ids, (DType.I32,))
    fits = a.ne[0] == b.ne[0] and a.ne[1:3] == ids.ne[:2]
    if not fits or a.ne[3] != 1 or b.ne[2:] != (1, 1) or ids.ne[2:] != (1, 1):
        bad_shapes("add_id", "want a (n, used, tokens), b (n, experts), ids (used, tokens)", a, b, ids)
    arena = arena_of(a, ids, b)
    return make(lib.ggml_add_id(arena.raw(), a.ptr, b.ptr, ids.ptr), arena, a)


def scale(a: Tensor, *, factor: float) -> Tensor:
    """``a * factor``."""
    return scale_bias(a, scale=factor, bias=0.0)


def scale_bias(a: Tensor, *, scale: float, bias: float) -> Tensor:
    """``a * scale + bias``; ``a`` float32, contiguous."""
    need_dtype("scale", a, _F32)
    need_packed("scale", a)
    if math.isnan(scale) or math.isnan(bias):
        raise ParameterError(f"scale: {scale} and {bias} must be numbers")
    arena = arena_of(a)
    return make(lib.ggml_scale_bias(arena.raw(), a.ptr, scale, bias), arena, a)


def clamp(a: Tensor, *, low: float, high: float, inplace: bool = False) -> Tensor:
    """``a`` limited to ``low`` ... ``high``; float32 or float16.

    Args:
        a: the tensor.
        low: no element is below it; may be -inf.
        high: no element is above it; may be inf.
        inplace: change ``a`` itself, which is all that ggml knows; otherwise a copy is changed.
    """
    need_dtype("clamp", a, (DType.F32, DType.F16))
    if not low <= high:
        raise ParameterError(f"clamp: low {low} must not exceed high {high}")
    arena = arena_of(a)
    if inplace:
        need_rows("clamp", a)
        target = a.ptr
    else:
        target = lib.ggml_cont(arena.raw(), a.ptr)
    return make(lib.ggml_clamp(arena.raw(), target, low, high), arena, a)


def _region(op: str, function: Any, a: Tensor, b: Tensor, strides: tuple[int, ...], offset: int) -> Tensor:
    """Where ``b`` lies within ``a``: byte strides of dimensions 1, 2, 3, and the first byte."""
    for tensor in (a, b):
        need_rows(op, tensor)
    need_packed(op, a)
    size = a.dtype.type_size
    if len(strides) > 3:
        raise ShapeError(f"{op}: strides are those of dimensions 1, 2, 3; got {strides}")
    nb = (size, *strides, *a.nb[1 + len(strides) :])
    need_int(op, offset=offset, high=(1 << 30) - 1)
    need_int(op, low=size, **{f"nb{i}": nb[i] for i in range(1, 4)})
    # ggml's own bound uses the strides of the region and those of `a`.
    for used in (nb, a.nb):
        end = offset + sum((n - 1) * s for n, s in zip(b.ne, used, strict=True)) + size
        if 0 in b.ne or 0 in a.ne or b.n_elements > a.n_elements or end > a.n_bytes:
            bad_shapes(op, f"the second at byte {offset} with strides {nb[1:]} is not inside the first", a, b)
    if offset % size or any(s % size for s in nb) or max(a.nb) > INT_MAX:
        raise ParameterError(f"{op}: offset {offset} and strides {nb[1:]} must be multiples of {size} bytes")
    arena = arena_of(a, b)
    return make(function(arena.raw(), a.ptr, b.ptr, *nb[1:], offset), arena, a)


def acc(a: Tensor, b: Tensor, *, strides: tuple[int, ...] = (), offset: int = 0, inplace: bool = False) -> Tensor:
    """``a`` with ``b`` added to the part that starts at byte ``offset``; both float32, ``a`` contiguous.

    Args:
        a: the larger tensor.
        b: what is added.
        strides: bytes between rows, planes and volumes of the part; default: those of ``a``.
        offset: bytes from the start of ``a``.
        inplace: change ``a`` itself.
    """
    for tensor in (a, b):
        need_dtype("acc", tensor, _F32)
    function = lib.ggml_acc_inplace if inplace else lib.ggml_acc
    return _region("acc", function, a, b, strides, offset)


def set_region(
    a: Tensor, b: Tensor, *, strides: tuple[int, ...] = (), offset: int = 0, inplace: bool = False
) -> Tensor:
    """``a`` with the part that starts at byte ``offset`` replaced by ``b`` (``ggml_set``); float32 or int32.

    Arguments as in :func:`acc`. ``ggml_set_1d`` and ``ggml_set_2d`` are the cases of no and of one stride.
    """
    need_dtype("set_region", a, (DType.F32, DType.I32))
    need_dtype("set_region", b, (a.dtype,))
    function = lib.ggml_set_inplace if inplace else lib.ggml_set
    return _region("set_region", function, a, b, strides, offset)
