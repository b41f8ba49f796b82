"""What every operation shares: where the result goes, and the checks."""

from __future__ import annotations

import math
from enum import IntEnum
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn, TypeVar

from pyggml._ffi import ffi, lib, load
from pyggml.errors import DTypeError, ParameterError, ShapeError

from ..dtype import DType

if TYPE_CHECKING:
    from collections.abc import Collection

    from ..arena import Arena
    from ..tensor import Tensor

__all__ = [
    "FLOATS",
    "INT_MAX",
    "arena_of",
    "bad_shapes",
    "broadcasts",
    "cpu_traits",
    "make",
    "need_contiguous",
    "need_dtype",
    "need_even_rows",
    "need_finite",
    "need_int",
    "need_mode",
    "need_packed",
    "need_plain",
    "need_rows",
    "need_same_shape",
    "ptr_or_null",
]

FLOATS = frozenset((DType.F32, DType.F16, DType.BF16))
INT_MAX = (1 << 31) - 1

Mode = TypeVar("Mode", bound=IntEnum)


class CpuTraits(NamedTuple):
    """What the CPU can do with a type; other back ends hand over to it what they cannot do."""

    dot_type: DType | None
    """The type of the other operand of its dot product; None without one."""
    writable: bool
    """Whether float32 can be converted to it in a graph."""
    readable: bool
    """Whether it can be converted to float32."""


@cache
def cpu_traits(dtype: DType) -> CpuTraits:
    """``ggml_get_type_traits`` and ``ggml_get_type_traits_cpu``, once per type."""
    load()
    cpu = lib.pyggml_cpu.ggml_get_type_traits_cpu(int(dtype))
    readable = lib.ggml_get_type_traits(int(dtype)).to_float != ffi.NULL
    dot_type = None if cpu.vec_dot == ffi.NULL else DType(cpu.vec_dot_type)
    return CpuTraits(dot_type, cpu.from_float != ffi.NULL, readable or dtype == DType.F32)


def arena_of(*operands: Tensor | None) -> Arena:
    """The arena for a result: the first operand's that takes results; it then depends on the others'."""
    home = None
    for tensor in operands:
        if tensor is not None and tensor.arena.results is not None:
            home = tensor.arena.results
            break
    if home is None:
        names = ", ".join(repr(t) for t in operands if t is not None)
        raise ShapeError(f"no graph to put the result in: all operands are weights ({names}); use one in a graph first")
    for tensor in operands:
        if tensor is not None and tensor.arena is not home:
            home.use(tensor.arena)
    return home


def make(ptr: Any, arena: Arena, like: Tensor) -> Tensor:
    """Wrap a node that ggml returned."""
    return type(like)(ptr, arena)


def ptr_or_null(tensor: Tensor | None) -> Any:
    return ffi.NULL if tensor is None else tensor.ptr


def bad_shapes(op: str, rule: str, *tensors: Tensor | None) -> NoReturn:
    shapes = " and ".join(str(list(t.ne)) for t in tensors if t is not None)
    raise ShapeError(f"{op}: {rule}; got ggml shapes {shapes}")


def need_same_shape(op: str, a: Tensor, *others: Tensor) -> None:
    if any(a.ne != b.ne for b in others):
        bad_shapes(op, "the shapes must be equal", a, *others)


def need_dtype(op: str, tensor: Tensor, allowed: Collection[DType]) -> None:
    if tensor.dtype not in allowed:
        names = ", ".join(d.name for d in sorted(allowed))
        raise DTypeError(f"{op}: {tensor!r} must be {names}")


def need_contiguous(op: str, tensor: Tensor) -> None:
    if not tensor.is_contiguous:
        raise ShapeError(f"{op}: {tensor!r} must be contiguous (strides {tensor.nb}); call cont() first")


def need_rows(op: str, tensor: Tensor) -> None:
    """The elements of a row must follow each other in memory."""
    if tensor.ptr.nb[0] != tensor.dtype.type_size:
        raise ShapeError(f"{op}: the rows of {tensor!r} must be contiguous (strides {tensor.nb}); call cont() first")


def need_packed(op: str, tensor: Tensor) -> None:
    """Contiguous to the letter: dimensions of size 1 have the strides they would have anyway."""
    n, size = tensor.ne, tensor.dtype.type_size
    row = n[0] // tensor.dtype.block_size * size
    if tensor.nb != (size, row, row * n[1], row * n[1] * n[2]):
        raise ShapeError(f"{op}: {tensor!r} must be contiguous (strides {tensor.nb}); call cont() first")


def need_even_rows(op: str, tensor: Tensor) -> None:
    """Contiguous rows, each as far from the next as the others: kernels that count rows through rely on it."""
    n, (first, row, plane, volume) = tensor.ne, tensor.nb
    if first != tensor.dtype.type_size or plane != row * n[1] or volume != plane * n[2]:
        raise ShapeError(
            f"{op}: the rows of {tensor!r} must be contiguous and evenly apart (strides {tensor.nb}); call cont() first"
        )


def need_plain(op: str, dtypes: Collection[DType], *tensors: Tensor) -> None:
    """What ggml's rarer kernels take: one of ``dtypes``, contiguous, not empty."""
    for tensor in tensors:
        need_dtype(op, tensor, dtypes)
        need_packed(op, tensor)
        if 0 in tensor.ne:
            bad_shapes(op, "an operand has no elements", *tensors)


def need_finite(op: str, **numbers: float) -> None:
    """NaN and infinities are not numbers an operation can be configured with."""
    for name, value in numbers.items():
        if not math.isfinite(value) or abs(value) > 3.4e38:
            raise ParameterError(f"{op}: {name} must be a finite float32, got {value}")


def need_int(op: str, *, low: int = 0, high: int = INT_MAX, **numbers: int) -> None:
    """Each number must be an integer from ``low`` to ``high``."""
    for name, value in numbers.items():
        if isinstance(value, float) or not low <= value <= high:
            raise ParameterError(f"{op}: {name} must be an integer from {low} to {high}, got {value}")


def need_mode(op: str, value: int, kind: type[Mode]) -> int:
    """The number of a mode, which must be one of ``kind``."""
    try:
        return int(kind(value))
    except ValueError:
        names = ", ".join(f"{m.name} ({m.value})" for m in kind)
        raise ParameterError(f"{op}: {kind.__name__} is one of {names}, got {value!r}") from None


def broadcasts(small: Tensor, large: Tensor) -> bool:
    """Whether ``small`` repeats to ``large``: every dimension of ``large`` is a multiple (``ggml_can_repeat``)."""
    x, y = small.ne, large.ne
    if x == y:
        return True
    return (
        x[0] > 0
        and x[1] > 0
        and x[2] > 0
        and x[3] > 0
        and y[0] % x[0] == y[1] % x[1] == y[2] % x[2] == y[3] % x[3] == 0
    )
