"""Views, reshapes and copies."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from pyggml._ffi import lib
from pyggml.errors import DTypeError, ShapeError

from ..dtype import DType
from .core import arena_of, bad_shapes, make, need_contiguous

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["cast", "cont", "cpy", "permute", "reshape", "transpose", "view"]


def reshape(a: Tensor, *shape: int) -> Tensor:
    """The same elements as ``shape`` (ggml order); one dimension may be -1. ``a`` must be contiguous."""
    need_contiguous("reshape", a)
    wanted = list(shape)
    if wanted.count(-1) == 1:
        known = prod(n for n in wanted if n != -1)
        if known > 0:
            wanted[wanted.index(-1)] = a.n_elements // known
    if not 1 <= len(wanted) <= 4 or min(wanted) < 0 or prod(wanted) != a.n_elements:
        raise ShapeError(f"reshape: {list(a.ne)} has {a.n_elements} elements, not those of {list(shape)}")
    if wanted[0] % a.dtype.block_size:
        raise ShapeError(
            f"reshape: rows of {a.dtype.name} hold whole blocks of {a.dtype.block_size}, got {wanted}"
        )
    wanted += [1] * (4 - len(wanted))
    arena = arena_of(a)
    return make(lib.ggml_reshape_4d(arena.raw(), a.ptr, *wanted), arena, a)


def view(a: Tensor, shape: tuple[int, ...], *, strides: tuple[int, ...] = (), offset: int = 0) -> Tensor:
    """A window on ``a``.

    Args:
        a: the tensor looked at.
        shape: 1 to 4 dimensions in ggml order.
        strides: bytes for dimensions 1, 2, 3; missing ones are those of a contiguous tensor.
        offset: bytes from the start of ``a``.

    Raises:
        ShapeError: the window reaches outside of ``a``.
    """
    if not 1 <= len(shape) <= 4 or min(shape) < 0 or len(strides) > max(0, len(shape) - 1) or offset < 0:
        raise ShapeError(f"view: shape {shape}, strides {strides}, offset {offset} describe no window")
    block = a.dtype.block_size
    if shape[0] % block:
        raise ShapeError(f"view: rows of {a.dtype.name} hold whole blocks of {block}, got {shape}")
    ne = list(shape) + [1] * (4 - len(shape))
    nb = [a.dtype.type_size, *strides]
    while len(nb) < 4:
        nb.append(nb[-1] * (ne[len(nb) - 1] // block if len(nb) == 1 else ne[len(nb) - 1]))
    if min(nb[1:]) < 0:
        raise ShapeError(f"view: strides {strides} must not be negative")
    last = (
        offset
        + (ne[0] // block) * nb[0]
        + sum((n - 1) * s for n, s in zip(ne[1:], nb[1:], strict=True) if n > 0)
    )
    if prod(ne) and last > a.n_bytes:
        raise ShapeError(
            f"view: {shape} at {offset} with strides {nb[1:]} ends at byte {last} of {a.n_bytes} in {a!r}"
        )
    arena = arena_of(a)
    return make(lib.ggml_view_4d(arena.raw(), a.ptr, *ne, nb[1], nb[2], nb[3], offset), arena, a)


def permute(a: Tensor, *axes: int) -> Tensor:
    """Dimension ``i`` of ``a`` becomes dimension ``axes[i]`` of the result; no copy."""
    full = [*axes, *range(len(axes), 4)]
    if sorted(full) != [0, 1, 2, 3]:
        raise ShapeError(f"permute: axes must be a permutation of the first dimensions, got {axes}")
    if a.dtype.is_quantized and full[0] != 0:
        raise DTypeError(f"permute: the first dimension of {a.dtype.name} holds blocks and must stay first")
    arena = arena_of(a)
    return make(lib.ggml_permute(arena.raw(), a.ptr, *full), arena, a)


def transpose(a: Tensor) -> Tensor:
    """The first two dimensions swapped; no copy."""
    arena = a.arena  # a weight's transpose is looked at, not computed: it may stay with the weight
    if arena.static and a.dtype.is_quantized:
        return make(lib.ggml_transpose(arena.raw(), a.ptr), arena, a)
    return make(lib.ggml_transpose(arena.raw(), a.ptr), arena, a)


def cont(a: Tensor) -> Tensor:
    """A contiguous copy."""
    if a.dtype.is_quantized and a.nb[0] != a.dtype.type_size:
        bad_shapes("cont", f"a transposed {a.dtype.name} tensor cannot be copied; cast it to F32 first", a)
    arena = arena_of(a)
    return make(lib.ggml_cont(arena.raw(), a.ptr), arena, a)


def cast(a: Tensor, *, dtype: DType) -> Tensor:
    """A contiguous copy as ``dtype``."""
    if a.ne[0] % dtype.block_size:
        raise ShapeError(f"cast: rows of {a.ne[0]} are not whole {dtype.name} blocks of {dtype.block_size}")
    arena = arena_of(a)
    return make(lib.ggml_cast(arena.raw(), a.ptr, int(dtype)), arena, a)


def cpy(a: Tensor, destination: Tensor) -> Tensor:
    """Copy ``a`` into ``destination`` (same number of elements, converted); the result is a view of it."""
    if a.n_elements != destination.n_elements:
        bad_shapes("cpy", "the numbers of elements differ", a, destination)
    arena = arena_of(a, destination)
    return make(lib.ggml_cpy(arena.raw(), a.ptr, destination.ptr), arena, a)
