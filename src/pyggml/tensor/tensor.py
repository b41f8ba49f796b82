"""The tensor: a node of a graph, or a place for data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyggml._ffi import ffi, lib
from pyggml.errors import BackendError, DTypeError, ShapeError

from . import ops
from .dtype import DType, dequantize, numpy_dtype, quantize

if TYPE_CHECKING:
    from .arena import Arena

__all__ = ["Tensor"]


class Tensor:
    """A ``ggml_tensor``. Owns nothing: its metadata belongs to :attr:`arena`, its memory to a buffer.

    ``shape`` is in ggml order (``ne``, fastest dimension first); ``numpy_shape`` is the same reversed. Python's operators
    build graph nodes; nothing is computed before the graph is.
    """

    __slots__ = ("arena", "ptr")
    # numpy must leave ``array * tensor`` to us.
    __array_priority__ = 1000

    def __init__(self, ptr: Any, arena: Arena) -> None:
        self.ptr = ptr
        self.arena = arena

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return str(ffi.string(self.ptr.name).decode("utf-8", "replace"))

    @name.setter
    def name(self, value: str) -> None:
        lib.ggml_set_name(self.ptr, value.encode())  # ggml cuts at GGML_MAX_NAME - 1 bytes

    @property
    def dtype(self) -> DType:
        return DType(self.ptr.type)

    @property
    def ne(self) -> tuple[int, int, int, int]:
        """The four dimensions, fastest first."""
        ne = self.ptr.ne
        return (ne[0], ne[1], ne[2], ne[3])

    @property
    def nb(self) -> tuple[int, int, int, int]:
        """The four strides in bytes, fastest first."""
        nb = self.ptr.nb
        return (nb[0], nb[1], nb[2], nb[3])

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions in ggml order, trailing ones dropped."""
        return self.ne[: lib.ggml_n_dims(self.ptr)]

    @property
    def numpy_shape(self) -> tuple[int, ...]:
        """The dimensions in numpy order (slowest first)."""
        return self.shape[::-1]

    @property
    def n_elements(self) -> int:
        return int(lib.ggml_nelements(self.ptr))

    @property
    def n_bytes(self) -> int:
        """Bytes from the first to the last element."""
        return int(lib.ggml_nbytes(self.ptr))

    @property
    def op(self) -> str:
        """The operation that makes it, by ggml's name; ``NONE`` for a leaf."""
        return str(ffi.string(lib.ggml_op_desc(self.ptr)).decode())

    @property
    def is_contiguous(self) -> bool:
        return bool(lib.ggml_is_contiguous(self.ptr))

    @property
    def is_allocated(self) -> bool:
        """Whether it has memory: data can be set and read."""
        return bool(
            self.ptr.buffer != ffi.NULL
            or (self.ptr.view_src != ffi.NULL and self.ptr.view_src.buffer != ffi.NULL)
        )

    @property
    def buffer_name(self) -> str:
        """The type of the buffer it lives in, e.g. ``CPU``; empty while it has none."""
        source = self.ptr if self.ptr.view_src == ffi.NULL else self.ptr.view_src
        if source.buffer == ffi.NULL:
            return ""
        return str(ffi.string(lib.ggml_backend_buffer_name(source.buffer)).decode())

    def sources(self) -> list[Tensor]:
        """The operands of the node."""
        return [Tensor(s, self.arena) for s in self.ptr.src if s != ffi.NULL]

    def __repr__(self) -> str:
        where = self.buffer_name or "no memory"
        label = f" {self.name!r}" if self.name else ""
        return f"<Tensor{label} {self.dtype.name} {self.op} ggml{list(self.shape)} numpy{self.numpy_shape} {where}>"

    # -- data in and out ----------------------------------------------------------------------------------------

    def _need_memory(self, verb: str) -> None:
        if not self.is_allocated:
            raise BackendError(
                f"cannot {verb} {self!r}: it has no memory yet; compute a graph with it as an output, or allocate its arena"
            )

    def set(self, values: npt.ArrayLike) -> Tensor:
        """Copy ``values`` in: same number of elements, shape in numpy order or flat; converted to :attr:`dtype`.

        Raises:
            ShapeError: the shapes differ.
            DTypeError: ggml cannot write this type.
            BackendError: the tensor has no memory.
        """
        array = np.asarray(values)
        if array.size != self.n_elements or (
            array.ndim > 1 and _squeeze(array.shape) != _squeeze(self.numpy_shape)
        ):
            raise ShapeError(f"{self!r} takes numpy shape {self.numpy_shape}, got {array.shape}")
        if not self.is_contiguous:
            raise ShapeError(f"{self!r} is not contiguous; set the tensor it is a view of")
        wanted = numpy_dtype(self.dtype)
        if wanted is not None:
            self.set_bytes(np.ascontiguousarray(array, wanted))
        else:
            self.set_bytes(quantize(array.reshape(-1, self.ne[0]), self.dtype))
        return self

    def set_bytes(self, data: Any, *, offset: int = 0) -> None:
        """Copy raw bytes (any object with the buffer protocol) to ``offset`` bytes from the start."""
        self._need_memory("write")
        view = data if isinstance(data, np.ndarray) else ffi.from_buffer(data)
        size = view.nbytes if isinstance(view, np.ndarray) else len(view)
        if offset < 0 or offset + size > self.n_bytes:
            raise ShapeError(f"{self!r} holds {self.n_bytes} bytes; {size} at offset {offset} do not fit")
        source = ffi.cast("void *", view.ctypes.data) if isinstance(view, np.ndarray) else view
        if size:
            lib.ggml_backend_tensor_set(self.ptr, source, offset, size)

    def bytes(self) -> npt.NDArray[np.uint8]:
        """A copy of the raw memory, from the first to the last element."""
        self._need_memory("read")
        out = np.empty(self.n_bytes, np.uint8)
        if out.size:
            lib.ggml_backend_tensor_get(self.ptr, ffi.cast("void *", out.ctypes.data), 0, out.size)
        return out

    def numpy(self) -> npt.NDArray[Any]:
        """A copy as a numpy array of :attr:`numpy_shape`; block types and bf16 become float32.

        Raises:
            BackendError: the tensor has no memory (it was not computed).
            DTypeError: ggml has no conversion from this type.
        """
        raw = self.bytes()
        dtype = numpy_dtype(self.dtype)
        shape = self.numpy_shape
        if dtype is not None:
            strides = self.nb[: len(shape)][::-1]
            return np.ndarray(shape, dtype, raw, strides=strides).copy()
        if not self.is_contiguous:
            raise DTypeError(f"{self!r} is not contiguous; call cont() in the graph before numpy()")
        return dequantize(raw, self.dtype, self.n_elements).reshape(shape)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        if copy is False:
            raise ValueError("a tensor's data is always copied; numpy asked for no copy")
        array = self.numpy()
        return array if dtype is None else array.astype(dtype)

    def item(self) -> float | int:
        """The value of a tensor with one element."""
        value: float | int = self.numpy().item()
        return value

    # -- operators ----------------------------------------------------------------------------------------------

    def __add__(self, other: Tensor | float) -> Tensor:
        return (
            ops.add(self, other)
            if isinstance(other, Tensor)
            else ops.scale_bias(self, scale=1.0, bias=float(other))
        )

    __radd__ = __add__

    def __sub__(self, other: Tensor | float) -> Tensor:
        return (
            ops.sub(self, other)
            if isinstance(other, Tensor)
            else ops.scale_bias(self, scale=1.0, bias=-float(other))
        )

    def __rsub__(self, other: float) -> Tensor:
        return ops.scale_bias(self, scale=-1.0, bias=float(other))

    def __mul__(self, other: Tensor | float) -> Tensor:
        return ops.mul(self, other) if isinstance(other, Tensor) else ops.scale(self, factor=float(other))

    __rmul__ = __mul__

    def __truediv__(self, other: Tensor | float) -> Tensor:
        return (
            ops.div(self, other) if isinstance(other, Tensor) else ops.scale(self, factor=1.0 / float(other))
        )

    def __neg__(self) -> Tensor:
        return ops.neg(self)

    def __matmul__(self, other: Tensor) -> Tensor:
        return ops.matmul(self, other)

    # -- shape --------------------------------------------------------------------------------------------------

    def reshape(self, *shape: int) -> Tensor:
        """The same elements as ``shape`` (ggml order); one dimension may be -1."""
        return ops.reshape(self, *shape)

    def permute(self, *axes: int) -> Tensor:
        """Dimension ``i`` of this tensor becomes dimension ``axes[i]`` of the result (ggml's convention)."""
        return ops.permute(self, *axes)

    @property
    def T(self) -> Tensor:
        """The first two dimensions swapped, without a copy."""
        return ops.transpose(self)

    def cont(self) -> Tensor:
        """A contiguous copy."""
        return ops.cont(self)

    def cast(self, dtype: DType) -> Tensor:
        """A copy as another element type."""
        return ops.cast(self, dtype=dtype)

    def softmax(self) -> Tensor:
        """Softmax over the first dimension (ggml order): over a row."""
        return ops.soft_max(self)


def _squeeze(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)
