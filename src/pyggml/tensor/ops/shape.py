"""Views, reshapes and copies."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

from pyggml._ffi import ffi, lib
from pyggml.errors import DTypeError, ShapeError

from ..dtype import DType
from .core import (
    FLOATS,
    INT_MAX,
    arena_of,
    bad_shapes,
    cpu_traits,
    make,
    need_contiguous,
    need_dtype,
    need_int,
    need_rows,
)

if TYPE_CHECKING:
    from ..arena import Arena
    from ..tensor import Tensor

__all__ = [
    "cast",
    "concat",
    "cont",
    "cpy",
    "dup",
    "permute",
    "repeat",
    "repeat_back",
    "repeat_to",
    "reshape",
    "transpose",
    "view",
]


def _view_arena(a: Tensor) -> Arena:
    """A weight's view is looked at, not computed: without a graph at hand it stays with the weight."""
    return a.arena.results or a.arena


def reshape(a: Tensor, *shape: int) -> Tensor:
    """The same elements as ``shape`` (ggml order); one dimension may be -1. ``a`` must be contiguous."""
    need_contiguous("reshape", a)
    wanted = list(shape)
    n = a.n_elements
    if wanted.count(-1) == 1:
        known = prod(d for d in wanted if d != -1)
        if known > 0:
            wanted[wanted.index(-1)] = n // known
    if not 1 <= len(wanted) <= 4 or min(wanted) < 0 or prod(wanted) != n:
        raise ShapeError(f"reshape: {list(a.ne)} has {n} elements, not those of {list(shape)}")
    if wanted[0] % a.dtype.block_size:
        raise ShapeError(f"reshape: rows of {a.dtype.name} hold whole blocks of {a.dtype.block_size}, got {wanted}")
    wanted += [1] * (4 - len(wanted))
    arena = _view_arena(a)
    if arena is not a.arena:
        arena.use(a.arena)
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
    size = a.dtype.type_size
    nb = [size, *strides]
    if len(nb) == 1:
        nb.append(size * (shape[0] // a.dtype.block_size))
    while len(nb) < 4:
        nb.append(nb[-1] * (shape[len(nb) - 1] if len(nb) <= len(shape) else 1))
    return strided(a, shape, tuple(nb), offset)


def strided(a: Tensor, shape: tuple[int, ...], strides: tuple[int, ...], offset: int) -> Tensor:
    """The window with all strides given, that of the first dimension too, where ggml's views have none.

    Raises:
        ShapeError: the window reaches outside of ``a``, or overlaps itself so that it has more bytes than ``a``.
    """
    dtype = a.dtype
    block = dtype.block_size
    if shape[0] % block:
        raise ShapeError(f"view: rows of {dtype.name} hold whole blocks of {block}, got {shape}")
    ne = [*shape, 1, 1, 1][:4]
    nb = list(strides[:4])
    while len(nb) < 4:
        nb.append(nb[-1] * ne[len(nb) - 1])
    if min(nb) < 0 or (len(strides) and nb[0] % dtype.type_size):
        raise ShapeError(f"view: strides {strides} must be 0 or more, the first a multiple of the element")
    if 0 not in ne:
        end = offset + dtype.type_size + (ne[0] // block - 1) * nb[0]
        end += sum((n - 1) * s for n, s in zip(ne[1:], nb[1:], strict=True))
        size = prod(ne) // block * dtype.type_size  # what ggml takes for the end of any view
        source = a.ptr
        start = offset + (source.view_offs if source.view_src != ffi.NULL else 0)
        root = source if source.view_src == ffi.NULL else source.view_src
        if end > a.n_bytes or start + size > lib.ggml_nbytes(root):
            raise ShapeError(
                f"view: {shape} at {offset} with strides {nb[1:]} ends at byte {max(end, offset + size)} of "
                f"{a.n_bytes} in {a!r}"
            )
    arena = _view_arena(a)
    if arena is not a.arena:
        arena.use(a.arena)
    ptr = lib.ggml_view_4d(arena.raw(), a.ptr, *ne, nb[1], nb[2], nb[3], offset)
    if nb[0] != dtype.type_size:
        ptr.nb[0] = nb[0]
    return make(ptr, arena, a)


def permute(a: Tensor, *axes: int) -> Tensor:
    """Dimension ``i`` of ``a`` becomes dimension ``axes[i]`` of the result; no copy."""
    full = [*axes, *range(len(axes), 4)]
    if sorted(full) != [0, 1, 2, 3]:
        raise ShapeError(f"permute: axes must be a permutation of the first dimensions, got {axes}")
    if full[0] != 0 and a.dtype.is_quantized:
        raise DTypeError(f"permute: the first dimension of {a.dtype.name} holds blocks and must stay first")
    arena = _view_arena(a)
    if arena is not a.arena:
        arena.use(a.arena)
    source = a.ptr
    ptr = lib.ggml_permute(arena.raw(), source, *full)
    if max(source.nb) > INT_MAX:  # ggml keeps the strides in an int on the way
        for i, axis in enumerate(full):
            ptr.nb[axis] = source.nb[i]
    return make(ptr, arena, a)


def transpose(a: Tensor) -> Tensor:
    """The first two dimensions swapped; no copy."""
    if a.dtype.is_quantized:
        raise DTypeError(
            f"transpose: the first dimension of {a.dtype.name} holds blocks and must stay first; cast() to F32"
        )
    arena = _view_arena(a)
    if arena is not a.arena:
        arena.use(a.arena)
    return make(lib.ggml_transpose(arena.raw(), a.ptr), arena, a)


def cont(a: Tensor, *shape: int) -> Tensor:
    """A contiguous copy, as ``shape`` (ggml order) if one is given: a reshape that takes any strides."""
    if a.dtype.is_quantized:
        need_rows("cont", a)
    arena = arena_of(a)
    if not shape:
        return make(lib.ggml_cont(arena.raw(), a.ptr), arena, a)
    if len(shape) > 4 or min(shape) < 0 or prod(shape) != a.n_elements:
        raise ShapeError(f"cont: {list(a.ne)} has {a.n_elements} elements, not those of {list(shape)}")
    if a.dtype.is_quantized:
        raise DTypeError(f"cont: {a.dtype.name} cannot change its shape while it is copied; call reshape()")
    return make(lib.ggml_cont_4d(arena.raw(), a.ptr, *[*shape, 1, 1, 1][:4]), arena, a)


def dup(a: Tensor) -> Tensor:
    """A contiguous copy (ggml's name for :func:`cont`, as an operation of its own)."""
    if a.dtype.is_quantized:
        need_rows("dup", a)
    arena = arena_of(a)
    return make(lib.ggml_dup(arena.raw(), a.ptr), arena, a)


def _need_conversion(op: str, a: Tensor, dtype: DType) -> None:
    """ggml's kernels: same type; float to float, I32 or quantized; I32 to F32; quantized to F32."""
    source = a.dtype
    if source == dtype:
        if dtype.is_quantized:
            need_rows(op, a)
        return
    if source in FLOATS and dtype in FLOATS:
        return
    if {source, dtype} == {DType.F32, DType.I32}:
        return
    if source in FLOATS and dtype.is_quantized and cpu_traits(dtype).writable:
        need_rows(op, a)
        if a.ne[0] % dtype.block_size == 0:
            return
        raise ShapeError(f"{op}: rows of {list(a.ne)} are not whole {dtype.name} blocks of {dtype.block_size}")
    if source.is_quantized and dtype == DType.F32 and cpu_traits(source).readable and source != DType.Q8_K:
        need_rows(op, a)
        if a.n_elements < 1 << 32:
            return
    raise DTypeError(f"{op}: ggml has no conversion of {source.name} to {dtype.name} in a graph ({a!r})")


def cast(a: Tensor, *, dtype: DType) -> Tensor:
    """A contiguous copy as ``dtype``; float32 to int32 drops the fraction."""
    _need_conversion("cast", a, dtype)
    arena = arena_of(a)
    return make(lib.ggml_cast(arena.raw(), a.ptr, int(dtype)), arena, a)


def cpy(a: Tensor, destination: Tensor) -> Tensor:
    """Copy ``a`` into ``destination`` (same number of elements, converted); the result is a view of it."""
    if a.n_elements != destination.n_elements:
        bad_shapes("cpy", "the numbers of elements differ", a, destination)
    _need_conversion("cpy", a, destination.dtype)
    blocks = a.dtype.is_quantized or destination.dtype.is_quantized
    if blocks and (a.ne != destination.ne or not destination.is_contiguous):
        bad_shapes("cpy", "with quantized types the shapes must agree and the target be contiguous", a, destination)
    if destination.dtype.is_quantized:
        need_rows("cpy", destination)
    arena = arena_of(a, destination)
    return make(lib.ggml_cpy(arena.raw(), a.ptr, destination.ptr), arena, a)


_REPEATED = (DType.F32, DType.F16, DType.BF16, DType.I16, DType.I32)


def repeat(a: Tensor, like: Tensor) -> Tensor:
    """``a`` repeated to the shape of ``like``, each of whose dimensions is a multiple."""
    return repeat_to(a, *like.ne)


def repeat_to(a: Tensor, *shape: int) -> Tensor:
    """``a`` repeated to ``shape`` (ggml order); floats, int16 and int32."""
    need_dtype("repeat", a, _REPEATED)
    need_rows("repeat", a)
    ne = [*shape, 1, 1, 1][:4]
    if not 1 <= len(shape) <= 4 or 0 in a.ne or any(n < 1 or n % m for n, m in zip(ne, a.ne, strict=True)):
        raise ShapeError(f"repeat: {list(a.ne)} does not repeat to {list(shape)}")
    if prod(ne) * a.dtype.type_size >= 1 << 60:
        raise ShapeError(f"repeat: shape {list(shape)} is too large")
    arena = arena_of(a)
    return make(lib.ggml_repeat_4d(arena.raw(), a.ptr, *ne), arena, a)


def repeat_back(a: Tensor, like: Tensor) -> Tensor:
    """The repetitions in ``a`` added up to the shape of ``like``: the gradient of :func:`repeat`; float32."""
    need_dtype("repeat_back", a, (DType.F32,))
    need_rows("repeat_back", a)
    if 0 in like.ne or 0 in a.ne or any(n % m for n, m in zip(a.ne, like.ne, strict=True)):
        bad_shapes("repeat_back", "each dimension of the first must be a multiple of the second's", a, like)
    arena = arena_of(a, like)
    return make(lib.ggml_repeat_back(arena.raw(), a.ptr, like.ptr), arena, a)


def concat(a: Tensor, b: Tensor, *, dim: int) -> Tensor:
    """``b`` behind ``a`` along ``dim`` (ggml order); equal types, and equal shapes but for ``dim``."""
    need_int("concat", dim=dim, high=3)
    need_dtype("concat", b, (a.dtype,))
    if any(x != y for i, (x, y) in enumerate(zip(a.ne, b.ne, strict=True)) if i != dim):
        bad_shapes("concat", f"the shapes may differ only in dimension {dim}", a, b)
    if a.dtype.is_quantized:
        need_rows("concat", a)
        need_rows("concat", b)
    arena = arena_of(a, b)
    return make(lib.ggml_concat(arena.raw(), a.ptr, b.ptr, dim), arena, a)
