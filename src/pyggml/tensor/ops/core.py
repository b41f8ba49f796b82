"""What every operation shares: where the result goes, and the checks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from pyggml._ffi import ffi
from pyggml.errors import DTypeError, ShapeError

from ..dtype import DType

if TYPE_CHECKING:
    from ..arena import Arena
    from ..tensor import Tensor

__all__ = [
    "arena_of",
    "bad_shapes",
    "broadcasts",
    "make",
    "need_contiguous",
    "need_dtype",
    "need_same_shape",
    "ptr_or_null",
]


def arena_of(*operands: Tensor | None) -> Arena:
    """The arena for a result: the first operand's that is not static."""
    for tensor in operands:
        if tensor is not None and not tensor.arena.static:
            return tensor.arena
    names = ", ".join(repr(t) for t in operands if t is not None)
    raise ShapeError(
        f"no graph to put the result in: all operands are weights ({names}); use one in a graph first"
    )


def make(ptr: Any, arena: Arena, like: Tensor) -> Tensor:
    """Wrap a node that ggml returned."""
    return type(like)(ptr, arena)


def ptr_or_null(tensor: Tensor | None) -> Any:
    return ffi.NULL if tensor is None else tensor.ptr


def bad_shapes(op: str, rule: str, *tensors: Tensor) -> NoReturn:
    shapes = " and ".join(str(list(t.ne)) for t in tensors)
    raise ShapeError(f"{op}: {rule}; got ggml shapes {shapes}")


def need_same_shape(op: str, a: Tensor, b: Tensor) -> None:
    if a.ne != b.ne:
        bad_shapes(op, "the shapes must be equal", a, b)


def need_dtype(op: str, tensor: Tensor, allowed: Sequence[DType]) -> None:
    if tensor.dtype not in allowed:
        names = ", ".join(d.name for d in allowed)
        raise DTypeError(f"{op}: {tensor!r} must be {names}")


def need_contiguous(op: str, tensor: Tensor) -> None:
    if not tensor.is_contiguous:
        raise ShapeError(f"{op}: {tensor!r} must be contiguous (strides {tensor.nb}); call cont() first")


def broadcasts(small: Tensor, large: Tensor) -> bool:
    """Whether ``small`` repeats to ``large``: every dimension of ``large`` is a multiple (``ggml_can_repeat``)."""
    return all(n > 0 and m % n == 0 for n, m in zip(small.ne, large.ne, strict=True))
