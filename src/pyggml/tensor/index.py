"""Basic subscripts: views in numpy order."""

from __future__ import annotations

from types import EllipsisType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from pyggml.errors import ShapeError

from .ops.shape import strided

if TYPE_CHECKING:
    from .tensor import Tensor

__all__ = ["Key", "select"]

Part: TypeAlias = "int | slice | EllipsisType"
Key: TypeAlias = "Part | tuple[Part, ...]"


def select(tensor: Tensor, key: Key) -> Tensor:
    """``tensor[key]`` as a view.

    Raises:
        ShapeError: a subscript is out of range, has a step, or is not an integer, a slice or ``...``.
    """
    shape = tensor.numpy_shape
    parts = _expand(tensor, key if isinstance(key, tuple) else (key,), len(shape))
    ne: list[int] = []
    nb: list[int] = []
    offset = 0
    strides = tensor.nb[: len(shape)][::-1]
    for axis, (part, n, stride) in enumerate(zip(parts, shape, strides, strict=True)):
        start, count = _range(tensor, part, n, axis)
        block = tensor.dtype.block_size if axis == len(shape) - 1 else 1
        if start % block or count % block:
            raise ShapeError(f"{tensor!r}: the last axis holds blocks of {block}; [{start}:{start + count}] cuts one")
        offset += start // block * stride
        if isinstance(part, slice) or axis == len(shape) - 1:
            ne.append(count)
            nb.append(stride)
    return strided(tensor, tuple(ne[::-1]), tuple(nb[::-1]), offset)


def _expand(tensor: Tensor, parts: tuple[Part, ...], n_axes: int) -> list[int | slice]:
    if sum(part is Ellipsis for part in parts) > 1:
        raise ShapeError(f"{tensor!r}: only one ... can be in a subscript")
    given = [part for part in parts if part is not Ellipsis]
    if len(given) > n_axes:
        raise ShapeError(f"{tensor!r} has {n_axes} axes, got {len(given)} subscripts")
    missing: list[int | slice] = [slice(None)] * (n_axes - len(given))
    found: list[int | slice] = []
    for part in parts:
        if isinstance(part, EllipsisType):
            found += missing
            missing = []
        elif isinstance(part, (int, np.integer)) and not isinstance(part, bool):
            found.append(int(part))
        elif isinstance(part, slice):
            found.append(part)
        else:
            raise ShapeError(f"{tensor!r}: a subscript is an integer, a slice or ..., not {part!r}; see get_rows")
    return found + missing


def _range(tensor: Tensor, part: int | slice, n: int, axis: int) -> tuple[int, int]:
    """First index and count."""
    if isinstance(part, int):
        if not -n <= part < n:
            raise ShapeError(f"{tensor!r}: index {part} is out of range for axis {axis} of size {n}")
        return part % n, 1
    if part.step not in (None, 1):
        raise ShapeError(f"{tensor!r}: a view has step 1, got {part.step}")
    start, stop, _ = part.indices(n)
    return start, max(0, stop - start)
