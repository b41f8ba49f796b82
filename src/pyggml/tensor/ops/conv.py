"""Convolutions. Kernels and data are contiguous; a stride, padding and dilation is one number per axis, width first.

Those not called ``direct`` unfold the data to float16 (:func:`im2col`) and multiply: faster, less precise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyggml._ffi import lib
from pyggml.errors import DTypeError, ShapeError

from ..dtype import DType
from .core import INT_MAX, arena_of, bad_shapes, make, need_dtype, need_int, need_plain, need_rows

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = [
    "col2im_1d",
    "conv_1d",
    "conv_1d_dw",
    "conv_2d",
    "conv_2d_direct",
    "conv_2d_dw",
    "conv_2d_dw_direct",
    "conv_3d",
    "conv_3d_direct",
    "conv_transpose_1d",
    "conv_transpose_2d",
    "im2col",
    "im2col_3d",
    "im2col_back",
]

_F32 = (DType.F32,)
_KERNEL = (DType.F32, DType.F16)
_PATCH_BYTES = 16 << 20  # GGML_IM2COL_WORK_SIZE: the CPU unfolds at least one patch into it

Pair = tuple[int, int]
Triple = tuple[int, int, int]


def _out(op: str, size: int, kernel: int, stride: int, padding: int, dilation: int) -> int:
    """The output size of one axis, as ggml computes it."""
    need_int(op, low=1, high=1 << 20, stride=stride, dilation=dilation)
    need_int(op, high=1 << 20, padding=padding)
    span = size + 2 * padding - dilation * (kernel - 1) - 1
    if span < 0:
        raise ShapeError(f"{op}: a kernel of {kernel} (dilation {dilation}) does not fit {size} padded by {padding}")
    return span // stride + 1


def _need_small(op: str, *sizes: int) -> None:
    total = 1
    for size in sizes:
        total *= size
    if total > INT_MAX:
        raise ShapeError(f"{op}: the result would have {total} elements")


def _axes(op: str, a: Tensor, b: Tensor, n: int, *steps: tuple[int, ...]) -> list[int]:
    """Output sizes of the first ``n`` axes; ``steps`` are strides, paddings, dilations."""
    if any(len(step) != n for step in steps):
        raise ShapeError(f"{op}: stride, padding and dilation are {n} numbers each, got {steps}")
    s, p, d = steps
    return [_out(op, b.ne[i], a.ne[i], s[i], p[i], d[i]) for i in range(n)]


def im2col(
    kernel: Tensor,
    data: Tensor,
    *,
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
    two_d: bool = True,
    dtype: DType = DType.F16,
) -> Tensor:
    """Patches of ``data`` as rows, so that a matrix product is a convolution.

    Args:
        kernel: ``(kw, kh, c, oc)``, or ``(k, c, oc)`` when not ``two_d``: only its shape is used.
        data: ``(w, h, c, n)``, or ``(w, c, n)``, float32 (or float16 to float16), contiguous.
        stride: along width and height; height does not matter when not ``two_d``.
        padding: zeros on both sides.
        dilation: distance of kernel elements.
        two_d: two axes or one.
        dtype: of the result, F16 or F32.

    Returns:
        ``(kw*kh*c, ow, oh, n)``, or ``(k*c, ow, n)``.
    """
    if dtype not in _KERNEL:
        raise DTypeError(f"im2col: to F32 or F16, not {dtype.name}")
    need_plain("im2col", _KERNEL if dtype == DType.F16 else _F32, data)
    k, x = kernel.ne, data.ne
    if 0 in k or data.n_bytes > INT_MAX:
        bad_shapes("im2col", "the kernel must have elements, the data below 2 GiB", kernel, data)
    if (k[2] != x[2]) if two_d else (k[1] != x[1] or x[3] != 1):
        bad_shapes(
            "im2col", "channels must agree: (kw, kh, c, oc) and (w, h, c, n), or (k, c, oc) and (w, c, n)", kernel, data
        )
    if any(len(pair) != 2 for pair in (stride, padding, dilation)):
        raise ShapeError(f"im2col: two strides, paddings and dilations, got {stride}, {padding}, {dilation}")
    n = 2 if two_d else 1
    sizes = _axes("im2col", kernel, data, n, stride[:n], padding[:n], dilation[:n])
    _need_small("im2col", k[0], k[1], k[2] if two_d else 1, *sizes, *(x[2:] if not two_d else x[3:]))
    arena = arena_of(data, kernel)
    steps = (stride[0], stride[-1], padding[0], padding[-1], dilation[0], dilation[-1])
    return make(lib.ggml_im2col(arena.raw(), kernel.ptr, data.ptr, *steps, two_d, int(dtype)), arena, data)


def im2col_back(
    kernel: Tensor,
    grad: Tensor,
    *,
    shape: tuple[int, int, int, int],
    stride: Pair = (1, 1),
    padding: Pair = (0, 0),
    dilation: Pair = (1, 1),
) -> Tensor:
    """The gradient of a two-dimensional :func:`im2col` at its data of ``shape``, given that of the result.

    ``kernel`` is float32 or float16; ``grad`` float32, ``(kw*kh*c, ow, oh, n)``. ggml's header names the operands in
    the other order than its kernels read them; this is the kernels'.
    """
    need_plain("im2col_back", _KERNEL, kernel)
    need_plain("im2col_back", _F32, grad)
    k = kernel.ne
    if any(len(pair) != 2 for pair in (stride, padding, dilation)):
        raise ShapeError(f"im2col_back: two strides, paddings and dilations, got {stride}, {padding}, {dilation}")
    if len(shape) != 4 or min(shape) < 1 or k[2] != shape[2]:
        bad_shapes("im2col_back", f"data of {shape} does not have the kernel's channels", kernel, grad)
    steps = zip(stride, padding, dilation, strict=True)
    sizes = [_out("im2col_back", shape[i], k[i], *step) for i, step in enumerate(steps)]
    if grad.ne != (k[0] * k[1] * k[2], *sizes, shape[3]):
        bad_shapes("im2col_back", f"the gradient is not that of data {shape} unfolded", kernel, grad)
    _need_small("im2col_back", *shape)
    arena = arena_of(grad, kernel)
    args = (*stride, *padding, *dilation, True)
    ptr = lib.ggml_im2col_back(arena.raw(), grad.ptr, kernel.ptr, list(shape), *args)
    return make(ptr, arena, grad)


def col2im_1d(a: Tensor, *, stride: int, n_out: int, padding: int = 0) -> Tensor:
    """Columns added up into a signal: the second half of a transposed convolution.

    Args:
        a: ``(k * n_out, t)`` float, contiguous.
        stride: steps between columns.
        n_out: output channels.
        padding: cropped from both ends.

    Returns:
        ``((t - 1) * stride + k - 2 * padding, n_out)``.
    """
    need_plain("col2im_1d", (DType.F32, DType.F16, DType.BF16), a)
    need_int("col2im_1d", low=1, high=1 << 20, stride=stride, n_out=n_out)
    need_int("col2im_1d", high=1 << 20, padding=padding)
    length = (a.ne[1] - 1) * stride + a.ne[0] // n_out - 2 * padding
    if a.ne[2:] != (1, 1) or a.ne[0] % n_out or length < 1:
        bad_shapes("col2im_1d", f"want (k * {n_out}, t) and a result of length 1 or more, not {length}", a)
    _need_small("col2im_1d", length, n_out)
    arena = arena_of(a)
    return make(lib.ggml_col2im_1d(arena.raw(), a.ptr, stride, n_out, padding), arena, a)


def conv_1d(kernel: Tensor, data: Tensor, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
    """``kernel`` ``(k, c, oc)`` float16 or float32, ``data`` ``(w, c, n)`` -> ``(ow, oc, n)``."""
    need_plain("conv_1d", _KERNEL, kernel)
    need_plain("conv_1d", _KERNEL, data)
    k, x = kernel.ne, data.ne
    if k[1] != x[1] or k[3] != 1 or x[3] != 1 or data.n_bytes > INT_MAX:
        bad_shapes("conv_1d", "want kernel (k, c, oc) and data (w, c, n)", kernel, data)
    width = _out("conv_1d", x[0], k[0], stride, padding, dilation)
    if x[2] > 1 and k[2] > 1:
        bad_shapes(
            "conv_1d", "ggml's result is in the wrong order for several inputs at once; call it per input", kernel, data
        )
    _need_small("conv_1d", width, k[0], k[1], x[2])
    arena = arena_of(data, kernel)
    return make(lib.ggml_conv_1d(arena.raw(), kernel.ptr, data.ptr, stride, padding, dilation), arena, data)


def conv_1d_dw(kernel: Tensor, data: Tensor, *, stride: int = 1, padding: int = 0, dilation: int = 1) -> Tensor:
    """Each channel with a kernel of its own: ``(k, 1, c)`` float16 or float32, data ``(w, c)`` -> ``(ow, c)``."""
    need_plain("conv_1d_dw", _KERNEL, kernel)
    need_plain("conv_1d_dw", _KERNEL, data)
    k, x = kernel.ne, data.ne
    if k[1] != 1 or k[3] != 1 or k[2] != x[1] or x[2:] != (1, 1) or data.n_bytes > INT_MAX:
        bad_shapes("conv_1d_dw", "want kernel (k, 1, c) and data (w, c)", kernel, data)
    width = _out("conv_1d_dw", x[0], k[0], stride, padding, dilation)
    _need_small("conv_1d_dw", width, k[0], k[2])
    arena = arena_of(data, kernel)
    return make(lib.ggml_conv_1d_dw(arena.raw(), kernel.ptr, data.ptr, stride, padding, dilation), arena, data)


def conv_transpose_1d(kernel: Tensor, data: Tensor, *, stride: int = 1) -> Tensor:
    """``kernel`` ``(k, oc, c)`` float16 or float32, ``data`` ``(w, c)`` float32 -> ``((w - 1) * stride + k, oc)``."""
    need_plain("conv_transpose_1d", _KERNEL, kernel)
    need_plain("conv_transpose_1d", _F32, data)
    k, x = kernel.ne, data.ne
    if k[2] != x[1] or k[3] != 1 or x[2:] != (1, 1):
        bad_shapes("conv_transpose_1d", "want kernel (k, oc, c) and data (w, c)", kernel, data)
    need_int("conv_transpose_1d", low=1, high=1 << 20, stride=stride)
    _need_small("conv_transpose_1d", (x[0] - 1) * stride + k[0], k[1])
    arena = arena_of(data, kernel)
    return make(lib.ggml_conv_transpose_1d(arena.raw(), kernel.ptr, data.ptr, stride, 0, 1), arena, data)


def conv_transpose_2d(kernel: Tensor, data: Tensor, *, stride: int = 1) -> Tensor:
    """``kernel`` ``(kw, kh, oc, c)`` float16 or float32, ``data`` ``(w, h, c, n)`` float32 -> ``(ow, oh, oc, n)``.

    ``ow = (w - 1) * stride + kw``, and so for the height; no padding.
    """
    need_plain("conv_transpose_2d", _KERNEL, kernel)
    need_plain("conv_transpose_2d", _F32, data)
    k, x = kernel.ne, data.ne
    if k[3] != x[2] or x[3] != 1:
        bad_shapes("conv_transpose_2d", "want kernel (kw, kh, oc, c) and data (w, h, c)", kernel, data)
    need_int("conv_transpose_2d", low=1, high=1 << 20, stride=stride)
    _need_small("conv_transpose_2d", (x[0] - 1) * stride + k[0], (x[1] - 1) * stride + k[1], k[2], x[3])
    arena = arena_of(data, kernel)
    return make(lib.ggml_conv_transpose_2d_p0(arena.raw(), kernel.ptr, data.ptr, stride), arena, data)


def _need_2d(op: str, kernel: Tensor, data: Tensor, depthwise: bool) -> None:
    k, x = kernel.ne, data.ne
    fits = (k[2] == 1 and k[3] == x[2]) if depthwise else k[2] == x[2]
    if not fits or data.n_bytes > INT_MAX:
        wanted = "(kw, kh, 1, c)" if depthwise else "(kw, kh, c, oc)"
        bad_shapes(op, f"want kernel {wanted} and data (w, h, c, n)", kernel, data)


def conv_2d(
    kernel: Tensor, data: Tensor, *, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
) -> Tensor:
    """``kernel`` ``(kw, kh, c, oc)`` float16 or float32, ``data`` ``(w, h, c, n)`` -> ``(ow, oh, oc, n)``."""
    need_plain("conv_2d", _KERNEL, kernel)
    need_plain("conv_2d", _KERNEL, data)
    _need_2d("conv_2d", kernel, data, False)
    sizes = _axes("conv_2d", kernel, data, 2, stride, padding, dilation)
    _need_small("conv_2d", *kernel.ne[:3], *sizes, data.ne[3])
    arena = arena_of(data, kernel)
    ptr = lib.ggml_conv_2d(arena.raw(), kernel.ptr, data.ptr, *stride, *padding, *dilation)
    return make(ptr, arena, data)


def conv_2d_direct(
    kernel: Tensor, data: Tensor, *, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
) -> Tensor:
    """As :func:`conv_2d` in one node, without the unfolded copy; data float32."""
    need_plain("conv_2d_direct", _KERNEL, kernel)
    need_plain("conv_2d_direct", _F32, data)
    _need_2d("conv_2d_direct", kernel, data, False)
    k = kernel.ne
    _need_patch("conv_2d_direct", kernel, k[0] * k[1] * k[2], k[3])
    sizes = _axes("conv_2d_direct", kernel, data, 2, stride, padding, dilation)
    _need_small("conv_2d_direct", *sizes, k[3], data.ne[3])
    arena = arena_of(data, kernel)
    ptr = lib.ggml_conv_2d_direct(arena.raw(), kernel.ptr, data.ptr, *stride, *padding, *dilation)
    return make(ptr, arena, data)


def _need_patch(op: str, kernel: Tensor, n: int, n_out: int) -> None:
    if n * kernel.dtype.type_size + n_out * 4 > _PATCH_BYTES:
        bad_shapes(op, f"a patch of {n} elements and {n_out} outputs exceed ggml's {_PATCH_BYTES} bytes", kernel)


def conv_2d_dw(
    kernel: Tensor, data: Tensor, *, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
) -> Tensor:
    """Each channel with a kernel of its own: ``(kw, kh, 1, c)`` float16, data ``(w, h, c, n)``."""
    need_plain("conv_2d_dw", (DType.F16,), kernel)
    need_plain("conv_2d_dw", _KERNEL, data)
    _need_2d("conv_2d_dw", kernel, data, True)
    sizes = _axes("conv_2d_dw", kernel, data, 2, stride, padding, dilation)
    _need_small("conv_2d_dw", *kernel.ne, *sizes, data.ne[3])
    arena = arena_of(data, kernel)
    ptr = lib.ggml_conv_2d_dw(arena.raw(), kernel.ptr, data.ptr, *stride, *padding, *dilation)
    return make(ptr, arena, data)


def conv_2d_dw_direct(
    kernel: Tensor, data: Tensor, *, stride: Pair = (1, 1), padding: Pair = (0, 0), dilation: Pair = (1, 1)
) -> Tensor:
    """As :func:`conv_2d_dw` in one node; kernel float16 or float32, data float32."""
    need_plain("conv_2d_dw_direct", _KERNEL, kernel)
    need_plain("conv_2d_dw_direct", _F32, data)
    _need_2d("conv_2d_dw_direct", kernel, data, True)
    sizes = _axes("conv_2d_dw_direct", kernel, data, 2, stride, padding, dilation)
    _need_small("conv_2d_dw_direct", *sizes, data.ne[2], data.ne[3])
    arena = arena_of(data, kernel)
    ptr = lib.ggml_conv_2d_dw_direct(arena.raw(), kernel.ptr, data.ptr, *stride, *padding, *dilation)
    return make(ptr, arena, data)


def _need_3d(op: str, kernel: Tensor, data: Tensor, n_channels: int) -> None:
    need_dtype(op, kernel, _KERNEL)
    need_plain(op, _F32, data)
    need_int(op, low=1, n_channels=n_channels)
    need_rows(op, kernel)
    if 0 in kernel.ne or kernel.ne[3] % n_channels or data.ne[3] % n_channels:
        bad_shapes(
            op, f"want kernel (kw, kh, kd, {n_channels} * oc) and data (w, h, d, {n_channels} * n)", kernel, data
        )


def im2col_3d(
    kernel: Tensor,
    data: Tensor,
    *,
    n_channels: int,
    stride: Triple = (1, 1, 1),
    padding: Triple = (0, 0, 0),
    dilation: Triple = (1, 1, 1),
    dtype: DType = DType.F16,
) -> Tensor:
    """Patches of volumes as rows: ``(kw, kh, kd, c*oc)`` and ``(w, h, d, c*n)`` -> ``(kw*kh*kd*c, ow, oh, od*n)``."""
    if dtype not in _KERNEL:
        raise DTypeError(f"im2col_3d: to F32 or F16, not {dtype.name}")
    _need_3d("im2col_3d", kernel, data, n_channels)
    sizes = _axes("im2col_3d", kernel, data, 3, stride, padding, dilation)
    _need_small("im2col_3d", *kernel.ne[:3], *sizes, data.ne[3])
    arena = arena_of(data, kernel)
    args = (n_channels, *stride, *padding, *dilation, int(dtype))
    return make(lib.ggml_im2col_3d(arena.raw(), kernel.ptr, data.ptr, *args), arena, data)


def conv_3d(
    kernel: Tensor,
    data: Tensor,
    *,
    n_channels: int,
    stride: Triple = (1, 1, 1),
    padding: Triple = (0, 0, 0),
    dilation: Triple = (1, 1, 1),
) -> Tensor:
    """``kernel`` ``(kw, kh, kd, c*oc)``, ``data`` ``(w, h, d, c*n)`` float32 -> ``(ow, oh, od, oc*n)``."""
    need_plain("conv_3d", _KERNEL, kernel)
    _need_3d("conv_3d", kernel, data, n_channels)
    sizes = _axes("conv_3d", kernel, data, 3, stride, padding, dilation)
    _need_small("conv_3d", *kernel.ne[:3], *sizes, data.ne[3])
    arena = arena_of(data, kernel)
    args = (n_channels, *stride, *padding, *dilation)
    return make(lib.ggml_conv_3d(arena.raw(), kernel.ptr, data.ptr, *args), arena, data)


def conv_3d_direct(
    kernel: Tensor,
    data: Tensor,
    *,
    n_channels: int,
    stride: Triple = (1, 1, 1),
    padding: Triple = (0, 0, 0),
    dilation: Triple = (1, 1, 1),
) -> Tensor:
    """As :func:`conv_3d` in one node, without the unfolded copy."""
    op = "conv_3d_direct"
    need_plain(op, _KERNEL, kernel)
    _need_3d(op, kernel, data, n_channels)
    k = kernel.ne
    n_out, n = k[3] // n_channels, data.ne[3] // n_channels
    _need_patch(op, kernel, k[0] * k[1] * k[2] * n_channels, n_out)
    sizes = _axes(op, kernel, data, 3, stride, padding, dilation)
    _need_small(op, *sizes, n_out, n)
    arena = arena_of(data, kernel)
    args = (*stride, *padding, *dilation, n_channels, n, n_out)
    return make(lib.ggml_conv_3d_direct(arena.raw(), kernel.ptr, data.ptr, *args), arena, data)
