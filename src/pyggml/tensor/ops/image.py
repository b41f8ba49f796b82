"""Pooling, resizing, padding, windows and other operations of vision models."""

from __future__ import annotations

from enum import IntEnum
from typing import TYPE_CHECKING

from pyggml._ffi import lib
from pyggml.errors import ParameterError, ShapeError

from ..dtype import DType
from .core import INT_MAX, arena_of, bad_shapes, make, need_int, need_mode, need_plain, need_same_shape

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = [
    "PoolKind",
    "ScaleMode",
    "add_rel_pos",
    "get_rel_pos",
    "interpolate",
    "pad",
    "pad_circular",
    "pad_reflect_1d",
    "pool_1d",
    "pool_2d",
    "pool_2d_back",
    "roll",
    "timestep_embedding",
    "upscale",
    "win_part",
    "win_unpart",
]

_F32 = (DType.F32,)
_POOLED = (DType.F32, DType.F16)
_ALIGN_CORNERS = 1 << 8
_ANTIALIAS = 1 << 9

Pair = tuple[int, int]


class PoolKind(IntEnum):
    """``enum ggml_op_pool``."""

    MAX = 0
    AVG = 1


class ScaleMode(IntEnum):
    """``enum ggml_scale_mode``."""

    NEAREST = 0
    BILINEAR = 1
    BICUBIC = 2


def _pooled(op: str, size: int, kernel: int, stride: int, padding: int) -> int:
    need_int(op, low=1, high=1 << 16, kernel=kernel, stride=stride)
    need_int(op, high=1 << 16, padding=padding)
    if size + 2 * padding < kernel:
        raise ShapeError(f"{op}: a window of {kernel} does not fit {size} padded by {padding}")
    return (size + 2 * padding - kernel) // stride + 1


def _pairs(op: str, *pairs: tuple[int, ...]) -> None:
    if any(len(pair) != 2 for pair in pairs):
        raise ParameterError(f"{op}: kernel, stride and padding are two numbers each, got {pairs}")


def pool_1d(a: Tensor, *, kind: PoolKind, kernel: int, stride: int | None = None, padding: int = 0) -> Tensor:
    """Maximum or mean of windows of each row: ``(w, ...) -> (ow, ...)`` float32; contiguous. Padding is not counted."""
    need_plain("pool_1d", _POOLED, a)
    step = kernel if stride is None else stride
    _pooled("pool_1d", a.ne[0], kernel, step, padding)
    arena = arena_of(a)
    return make(
        lib.ggml_pool_1d(arena.raw(), a.ptr, need_mode("pool_1d", kind, PoolKind), kernel, step, padding), arena, a
    )


def pool_2d(a: Tensor, *, kind: PoolKind, kernel: Pair, stride: Pair | None = None, padding: Pair = (0, 0)) -> Tensor:
    """Maximum or mean of windows: ``(w, h, c, n) -> (ow, oh, c, n)`` float32. A mean counts padding as 0."""
    need_plain("pool_2d", _POOLED, a)
    step = kernel if stride is None else stride
    _pairs("pool_2d", kernel, step, padding)
    for i in range(2):
        _pooled("pool_2d", a.ne[i], kernel[i], step[i], padding[i])
    arena = arena_of(a)
    args = (need_mode("pool_2d", kind, PoolKind), *kernel, *step, *padding)
    return make(lib.ggml_pool_2d(arena.raw(), a.ptr, *args), arena, a)


def pool_2d_back(
    grad: Tensor, a: Tensor, *, kind: PoolKind, kernel: Pair, stride: Pair | None = None, padding: Pair = (0, 0)
) -> Tensor:
    """The gradient of :func:`pool_2d` at ``a``, given that of the result; float32, contiguous."""
    need_plain("pool_2d_back", _F32, grad, a)
    step = kernel if stride is None else stride
    _pairs("pool_2d_back", kernel, step, padding)
    sizes = [_pooled("pool_2d_back", a.ne[i], kernel[i], step[i], padding[i]) for i in range(2)]
    if grad.ne != (*sizes, *a.ne[2:]):
        bad_shapes("pool_2d_back", f"the gradient must have the size of the pooled data, {sizes}", grad, a)
    arena = arena_of(grad, a)
    args = (need_mode("pool_2d_back", kind, PoolKind), *kernel, *step, *padding)
    return make(lib.ggml_pool_2d_back(arena.raw(), grad.ptr, a.ptr, *args), arena, grad)


def upscale(a: Tensor, *, factor: int, mode: ScaleMode = ScaleMode.NEAREST) -> Tensor:
    """Width and height times ``factor``: ``(w, h, c, n) -> (w * factor, h * factor, c, n)``; float32."""
    need_plain("upscale", _F32, a)
    need_int("upscale", low=2, high=1 << 10, factor=factor)
    _need_size("upscale", a.ne[0] * factor, a.ne[1] * factor, *a.ne[2:])
    arena = arena_of(a)
    return make(lib.ggml_upscale(arena.raw(), a.ptr, factor, need_mode("upscale", mode, ScaleMode)), arena, a)


def interpolate(
    a: Tensor, *shape: int, mode: ScaleMode = ScaleMode.BILINEAR, align_corners: bool = False, antialias: bool = False
) -> Tensor:
    """Resampled to ``shape`` (ggml order); bilinear and bicubic work on the first two dimensions; float32.

    Args:
        a: ``(w, h, c, n)``.
        shape: two to four dimensions; missing ones are those of ``a``.
        mode: how values between points are found.
        align_corners: the corner points keep their values.
        antialias: average when shrinking; bilinear only.
    """
    need_plain("interpolate", _F32, a)
    ne = (*shape, *a.ne[len(shape) :])
    if not 2 <= len(shape) <= 4 or min(ne) < 1:
        raise ShapeError(f"interpolate: {list(a.ne)} to {list(shape)}: want two to four sizes of 1 or more")
    if mode != ScaleMode.NEAREST and ne[2:] != a.ne[2:]:
        raise ShapeError(f"interpolate: {list(a.ne)} to {list(ne)}: only NEAREST changes the outer dimensions")
    if antialias and mode != ScaleMode.BILINEAR:
        raise ParameterError(f"interpolate: antialias needs BILINEAR, got {mode!r}")
    _need_size("interpolate", *ne)
    flags = (
        need_mode("interpolate", mode, ScaleMode)
        | (_ALIGN_CORNERS if align_corners else 0)
        | (_ANTIALIAS if antialias else 0)
    )
    arena = arena_of(a)
    return make(lib.ggml_interpolate(arena.raw(), a.ptr, *ne, flags), arena, a)


def _need_size(op: str, *ne: int) -> None:
    total = 1
    for n in ne:
        total *= n
    if total > INT_MAX:
        raise ShapeError(f"{op}: the result {list(ne)} would have {total} elements")


def _paddings(op: str, a: Tensor, before: tuple[int, ...], after: tuple[int, ...], wrap: bool) -> list[int]:
    if len(before) > 4 or len(after) > 4:
        raise ParameterError(f"{op}: at most four paddings, got {before} and {after}")
    low = [*before, 0, 0, 0, 0][:4]
    high = [*after, 0, 0, 0, 0][:4]
    for i in range(4):
        need_int(op, before=low[i], after=high[i], high=a.ne[i] if wrap else 1 << 24)
    _need_size(op, *(n + x + y for n, x, y in zip(a.ne, low, high, strict=True)))
    return [p for pair in zip(low, high, strict=True) for p in pair]


def pad(a: Tensor, *after: int, before: tuple[int, ...] = ()) -> Tensor:
    """Zeros behind (and before) each dimension, in ggml order; float32."""
    need_plain("pad", _F32, a)
    sizes = _paddings("pad", a, before, after, False)
    arena = arena_of(a)
    return make(lib.ggml_pad_ext(arena.raw(), a.ptr, *sizes), arena, a)


def pad_circular(a: Tensor, *after: int, before: tuple[int, ...] = ()) -> Tensor:
    """As :func:`pad`, with the values from the other side; no padding may exceed its dimension."""
    need_plain("pad_circular", _F32, a)
    sizes = _paddings("pad_circular", a, before, after, True)
    arena = arena_of(a)
    return make(lib.ggml_pad_ext_circular(arena.raw(), a.ptr, *sizes), arena, a)


def pad_reflect_1d(a: Tensor, *, before: int, after: int) -> Tensor:
    """Each row mirrored at its ends: ``[a, b, c]`` with 1 and 1 is ``[b, a, b, c, b]``; float32."""
    need_plain("pad_reflect_1d", _F32, a)
    need_int("pad_reflect_1d", before=before, after=after, high=a.ne[0] - 1)
    arena = arena_of(a)
    return make(lib.ggml_pad_reflect_1d(arena.raw(), a.ptr, before, after), arena, a)


def roll(a: Tensor, *shifts: int) -> Tensor:
    """Elements moved by ``shifts`` (ggml order), those beyond the end back at the start; float32."""
    need_plain("roll", _F32, a)
    full = [*shifts, 0, 0, 0, 0][:4]
    if len(shifts) > 4 or any(abs(s) >= n for s, n in zip(full, a.ne, strict=True)):
        raise ParameterError(f"roll: shifts {shifts} must be smaller than the dimensions {list(a.ne)}")
    arena = arena_of(a)
    return make(lib.ggml_roll(arena.raw(), a.ptr, *full), arena, a)


def timestep_embedding(timesteps: Tensor, *, dim: int, max_period: int = 10000) -> Tensor:
    """Sines and cosines of the time (Ho et al. 2020): ``(n)`` float32 -> ``(dim, n)``, cosines first."""
    need_plain("timestep_embedding", _F32, timesteps)
    if timesteps.ne[1:] != (1, 1, 1):
        bad_shapes("timestep_embedding", "a vector is wanted", timesteps)
    need_int("timestep_embedding", low=2, high=1 << 20, dim=dim)
    need_int("timestep_embedding", low=1, max_period=max_period)
    arena = arena_of(timesteps)
    return make(lib.ggml_timestep_embedding(arena.raw(), timesteps.ptr, dim, max_period), arena, timesteps)


def win_part(a: Tensor, *, window: int) -> Tensor:
    """Square windows, zero padded: ``(c, w, h) -> (c, window, window, n)`` (SAM, Kirillov et al. 2023); float32."""
    need_plain("win_part", _F32, a)
    need_int("win_part", low=1, high=1 << 15, window=window)
    if a.ne[3] != 1:
        bad_shapes("win_part", "want (c, w, h)", a)
    across, down = -(-a.ne[1] // window), -(-a.ne[2] // window)
    _need_size("win_part", a.ne[0], window, window, across * down)
    arena = arena_of(a)
    return make(lib.ggml_win_part(arena.raw(), a.ptr, window), arena, a)


def win_unpart(a: Tensor, *, width: int, height: int) -> Tensor:
    """The reverse of :func:`win_part`: ``(c, window, window, n) -> (c, width, height)``; float32."""
    need_plain("win_unpart", _F32, a)
    need_int("win_unpart", low=1, high=1 << 20, width=width, height=height)
    window = a.ne[1]
    if a.ne[2] != window or a.ne[3] != -(-width // window) * -(-height // window):
        bad_shapes("win_unpart", f"want the windows (c, w, w, n) of a ({width}, {height}) picture", a)
    arena = arena_of(a)
    return make(lib.ggml_win_unpart(arena.raw(), a.ptr, width, height, window), arena, a)


def get_rel_pos(a: Tensor, *, size: int) -> Tensor:
    """Relative position embeddings of a square: ``(c, 2 * size - 1)`` float16 -> ``(c, size, size)`` (SAM)."""
    need_plain("get_rel_pos", (DType.F16,), a)
    need_int("get_rel_pos", low=1, high=1 << 15, size=size)
    if a.ne[1:] != (2 * size - 1, 1, 1):
        bad_shapes("get_rel_pos", f"want (c, {2 * size - 1})", a)
    arena = arena_of(a)
    return make(lib.ggml_get_rel_pos(arena.raw(), a.ptr, size, size), arena, a)


def add_rel_pos(a: Tensor, pos_w: Tensor, pos_h: Tensor, *, inplace: bool = False) -> Tensor:
    """Decomposed relative positions added to attention scores (SAM, Kirillov et al. 2023); float32, contiguous.

    Args:
        a: ``(kw * kw, qw * qh, n)``.
        pos_w: ``(kw, qw, qh, n)``.
        pos_h: the same shape.
        inplace: change ``a`` itself.
    """
    need_plain("add_rel_pos", _F32, a, pos_w, pos_h)
    need_same_shape("add_rel_pos", pos_w, pos_h)
    p = pos_w.ne
    if a.ne != (p[0] * p[0], p[1] * p[2], p[3], 1):
        bad_shapes("add_rel_pos", "want a (k * k, qw * qh, n) and positions (k, qw, qh, n)", a, pos_w, pos_h)
    arena = arena_of(a, pos_w, pos_h)
    function = lib.ggml_add_rel_pos_inplace if inplace else lib.ggml_add_rel_pos
    return make(function(arena.raw(), a.ptr, pos_w.ptr, pos_h.ptr), arena, a)
