"""The tensor: a node of a graph, or a place for data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyggml._ffi import ffi, lib
from pyggml.errors import BackendError, ClosedError, DTypeError, ParameterError, ShapeError

from . import ops
from .display import describe, html
from .dtype import DType, dequantize, numpy_dtype, quantize, row_size
from .index import Key, select
from .ops.core import broadcasts

if TYPE_CHECKING:
    from .arena import Arena

__all__ = ["Tensor"]

_VIEWS = frozenset((lib.GGML_OP_VIEW, lib.GGML_OP_RESHAPE, lib.GGML_OP_PERMUTE, lib.GGML_OP_TRANSPOSE))


class Tensor:
    """A ``ggml_tensor``. Owns nothing: its metadata belongs to :attr:`arena`, its memory to a buffer.

    ``shape`` is in ggml order (``ne``, fastest dimension first); ``numpy_shape`` is the same reversed. Operators build
    graph nodes; nothing is computed before the graph is. Subscripts are in numpy order.
    """

    __slots__ = ("__weakref__", "_dtype", "_ne", "_ptr", "arena")
    # numpy must leave ``array * tensor`` to us.
    __array_priority__ = 1000
    __array_ufunc__ = None

    def __init__(self, ptr: Any, arena: Arena) -> None:
        self._ptr = ptr
        self.arena = arena
        self._ne: tuple[int, int, int, int] | None = None
        self._dtype: DType | None = None

    @property
    def ptr(self) -> Any:
        """The ``ggml_tensor *``.

        Raises:
            ClosedError: its arena, or one that it was computed from, was closed.
        """
        if self.arena.closed:
            raise ClosedError(f"the tensor cannot be used any more: {self.arena.closed}")
        return self._ptr

    # -- what it is ---------------------------------------------------------------------------------------------

    @property
    def address(self) -> int:
        """Where the metadata lies: equal for two objects of one tensor."""
        return int(ffi.cast("uintptr_t", self._ptr))

    @property
    def name(self) -> str:
        return str(ffi.string(self.ptr.name).decode("utf-8", "replace"))

    @name.setter
    def name(self, value: str) -> None:
        lib.ggml_set_name(self.ptr, value.encode())  # ggml cuts at GGML_MAX_NAME - 1 bytes

    @property
    def dtype(self) -> DType:
        if self._dtype is None:
            self._dtype = DType(self.ptr.type)
        return self._dtype

    @property
    def ne(self) -> tuple[int, int, int, int]:
        """The four dimensions, fastest first."""
        if self._ne is None:
            ne = self.ptr.ne
            self._ne = (ne[0], ne[1], ne[2], ne[3])
        return self._ne

    @property
    def nb(self) -> tuple[int, int, int, int]:
        """The four strides in bytes, fastest first."""
        nb = self.ptr.nb
        return (nb[0], nb[1], nb[2], nb[3])

    @property
    def shape(self) -> tuple[int, ...]:
        """The dimensions in ggml order, trailing ones dropped."""
        ne = self.ne
        n = 4
        while n > 1 and ne[n - 1] == 1:
            n -= 1
        return ne[:n]

    @property
    def numpy_shape(self) -> tuple[int, ...]:
        """The dimensions in numpy order (slowest first)."""
        return self.shape[::-1]

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __len__(self) -> int:
        """The slowest dimension, as numpy has it."""
        return self.numpy_shape[0]

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

    def _home(self) -> Any:
        """The tensor that owns the memory: itself, or the one it is a view of."""
        ptr = self.ptr
        return ptr if ptr.view_src == ffi.NULL else ptr.view_src

    @property
    def is_allocated(self) -> bool:
        """Whether it has memory: data can be set and read. A view has it when what it looks at was allocated."""
        ptr = self.ptr
        if ptr.data == ffi.NULL or self._home().buffer == ffi.NULL:
            return False
        while ptr.op in _VIEWS and ptr.src[0] != ffi.NULL:
            ptr = ptr.src[0]
        # A node that works in place has an address from the start, but a buffer only once it is in an allocated graph.
        return bool(ptr.op == lib.GGML_OP_NONE or ptr.buffer != ffi.NULL)

    @property
    def buffer_name(self) -> str:
        """The type of the buffer it lives in, e.g. ``CPU``; empty while it has none."""
        buffer = self._home().buffer
        return "" if buffer == ffi.NULL else str(ffi.string(lib.ggml_backend_buffer_name(buffer)).decode())

    @property
    def is_host(self) -> bool:
        """Whether its memory can be read by the CPU where it is."""
        return self.is_allocated and bool(lib.ggml_backend_buffer_is_host(self._home().buffer))

    def sources(self) -> list[Tensor]:
        """The operands of the node."""
        own = self.ptr  # a cast names itself as an operand
        return [Tensor(s, self.arena) for s in own.src if s not in (ffi.NULL, own)]

    def __repr__(self) -> str:
        return describe(self)

    def _repr_html_(self) -> str:
        return html(self)

    # -- data in and out ----------------------------------------------------------------------------------------

    def _need_memory(self, verb: str) -> None:
        if self.is_allocated:
            return
        if verb == "read" and self.arena.on_demand is not None:
            self.arena.on_demand(self)
            return
        raise BackendError(
            f"cannot {verb} {self!r}: it has no memory; compute a graph with it as an output, or allocate its arena"
        )

    def set(self, values: npt.ArrayLike) -> Tensor:
        """Copy ``values`` in: same number of elements, shape in numpy order or flat; converted to :attr:`dtype`.

        Raises:
            ShapeError: the shapes differ.
            DTypeError: ggml cannot write this type, or numpy cannot convert to it.
            BackendError: the tensor has no memory.
        """
        self.ptr  # noqa: B018  # a closed arena is the first thing to say
        try:
            array = np.asarray(values)
        except (ValueError, TypeError) as error:
            raise DTypeError(f"{self!r} takes an array of numbers: {error}") from error
        if array.size != self.n_elements or (array.ndim > 1 and _squeeze(array.shape) != _squeeze(self.numpy_shape)):
            raise ShapeError(f"{self!r} takes numpy shape {self.numpy_shape}, got {array.shape}")
        if not self.is_contiguous:
            raise ShapeError(f"{self!r} is not contiguous; set the tensor it is a view of")
        if array.dtype.kind not in "biuf" and not str(array.dtype).startswith("bfloat16"):
            raise DTypeError(f"{self!r} takes numbers, got numpy {array.dtype}")
        wanted = numpy_dtype(self.dtype)
        if wanted is not None:
            self.set_bytes(np.ascontiguousarray(array, wanted))
        else:
            self.set_bytes(quantize(array.reshape(-1, self.ne[0]), self.dtype))
        return self

    def set_bytes(self, data: Any, *, offset: int = 0) -> None:
        """Copy raw bytes (any contiguous object with the buffer protocol) to ``offset`` bytes from the start."""
        self._need_memory("write")
        if isinstance(data, np.ndarray):
            data = np.ascontiguousarray(data)
            size, source = data.nbytes, ffi.cast("void *", data.ctypes.data)
        else:
            try:
                source = ffi.from_buffer(data)
            except (TypeError, ValueError, BufferError) as error:
                raise DTypeError(f"{self!r} takes bytes or an array: {error}") from error
            size = len(source)
        if offset < 0 or offset + size > self.n_bytes:
            raise ShapeError(f"{self!r} holds {self.n_bytes} bytes; {size} at offset {offset} do not fit")
        if size:
            lib.ggml_backend_tensor_set(self.ptr, source, offset, size)

    def bytes(self, *, offset: int = 0, size: int | None = None) -> npt.NDArray[np.uint8]:
        """A copy of the raw memory, from the first to the last element or ``size`` bytes from ``offset``."""
        self._need_memory("read")
        total = self.n_bytes
        wanted = total - offset if size is None else size
        if offset < 0 or wanted < 0 or offset + wanted > total:
            raise ShapeError(f"{self!r} holds {total} bytes; {size} at offset {offset} are not in it")
        out = np.empty(wanted, np.uint8)
        if wanted:
            lib.ggml_backend_tensor_get(self.ptr, ffi.cast("void *", out.ctypes.data), offset, wanted)
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

    def rows(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows ``start`` to ``stop`` (the dimensions above the first counted through) as ``(stop - start, n)``.

        Only their bytes are read and converted: a way to look at large quantized weights.

        Raises:
            ShapeError: the rows are not all in the tensor, or it is not contiguous.
        """
        n, total = self.ne[0], self.n_elements // max(self.ne[0], 1)
        if not 0 <= start <= stop <= total:
            raise ShapeError(f"{self!r} has rows 0 to {total}, not {start} to {stop}")
        if not self.is_contiguous:
            raise ShapeError(f"{self!r} is not contiguous; call cont() in the graph before rows()")
        size = row_size(self.dtype, n)
        raw = self.bytes(offset=start * size, size=(stop - start) * size)
        dtype = numpy_dtype(self.dtype)
        flat = raw.view(dtype) if dtype is not None else dequantize(raw, self.dtype, (stop - start) * n)
        return flat.reshape(stop - start, n)

    def first(self, n: int) -> npt.NDArray[Any]:
        """Up to ``n`` elements from the start of the first row (a few bytes are read)."""
        dtype, block = self.dtype, self.dtype.block_size
        if self.nb[0] != dtype.type_size:
            raise ShapeError(f"the rows of a tensor with strides {self.nb} are not contiguous")
        count = min(-(-n // block) * block, self.ne[0])
        if count % block:
            raise ShapeError(f"the rows of a {dtype.name} tensor of shape {list(self.ne)} are not whole blocks")
        raw = self.bytes(size=row_size(dtype, count))
        plain = numpy_dtype(dtype)
        return (raw.view(plain) if plain is not None else dequantize(raw, dtype, count))[:n]

    def numpy_view(self) -> npt.NDArray[Any]:
        """The memory itself as a numpy array, no copy: writing to it writes to the tensor.

        Only for data tensors (weights, inputs of a session) in memory that the CPU can read, whose type numpy knows.
        The array stays valid when the arena is closed; the memory is freed with the last view.

        Raises:
            BackendError: the tensor is on another device, or a graph's intermediate result.
            DTypeError: numpy has no such type.
        """
        dtype = numpy_dtype(self.dtype)
        if dtype is None:
            raise DTypeError(f"numpy has no type for {self.dtype.name}; call numpy() for a float32 copy")
        self._need_memory("read")
        home = self._home().buffer
        owner = next((b for a in self.arena.family() for b in a.buffers if b.holds(home)), None)
        if owner is None or not self.is_host:
            raise BackendError(f"{self!r} cannot be shared with numpy without a copy; call numpy()")
        shape = self.numpy_shape
        flat = np.asarray(owner.export(self.ptr.data, self.n_bytes))
        strides = self.nb[: len(shape)][::-1]
        return np.lib.stride_tricks.as_strided(flat.view(dtype), shape, strides)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        array = self.numpy_view() if copy is False else self.numpy()
        return array if dtype is None or array.dtype == dtype else array.astype(dtype)

    def __dlpack__(self, **options: Any) -> Any:
        """Zero-copy exchange (``numpy.from_dlpack``, ``torch.from_dlpack``), see :meth:`numpy_view`."""
        view: Any = self.numpy_view()
        return view.__dlpack__(**options)

    def __dlpack_device__(self) -> tuple[int, int]:
        if not self.is_host:
            raise BackendError(f"{self!r} is not in memory that other libraries can read; call numpy()")
        return (1, 0)  # kDLCPU

    def item(self) -> float | int:
        """The value of a tensor with one element."""
        if self.n_elements != 1:
            raise ShapeError(f"{self!r} has {self.n_elements} elements, not one")
        value: float | int = self.numpy().item()
        return value

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __bool__(self) -> bool:
        raise ParameterError("a tensor has no truth value; compute it and compare its numpy() array")

    # -- operators ----------------------------------------------------------------------------------------------

    def _constant(self, value: object) -> float:
        if isinstance(value, (int, float, np.integer, np.floating)):
            return float(value)
        raise DTypeError(f"{self!r} works with tensors and numbers, not {type(value).__name__}")

    def __add__(self, other: Tensor | float) -> Tensor:
        if isinstance(other, Tensor):
            return ops.add(self, other) if broadcasts(other, self) else ops.add(other, self)
        return ops.scale_bias(self, scale=1.0, bias=self._constant(other))

    def __radd__(self, other: float) -> Tensor:
        return ops.scale_bias(self, scale=1.0, bias=self._constant(other))

    def __sub__(self, other: Tensor | float) -> Tensor:
        if isinstance(other, Tensor):
            return ops.sub(self, other)
        return ops.scale_bias(self, scale=1.0, bias=-self._constant(other))

    def __rsub__(self, other: float) -> Tensor:
        return ops.scale_bias(self, scale=-1.0, bias=self._constant(other))

    def __mul__(self, other: Tensor | float) -> Tensor:
        if isinstance(other, Tensor):
            return ops.mul(self, other) if broadcasts(other, self) else ops.mul(other, self)
        return ops.scale(self, factor=self._constant(other))

    def __rmul__(self, other: float) -> Tensor:
        return ops.scale(self, factor=self._constant(other))

    def __truediv__(self, other: Tensor | float) -> Tensor:
        if isinstance(other, Tensor):
            return ops.div(self, other)
        value = self._constant(other)
        if value == 0.0:
            raise ParameterError(f"{self!r} / 0")
        return ops.scale(self, factor=1.0 / value)

    def __neg__(self) -> Tensor:
        return ops.neg(self)

    def __matmul__(self, other: Tensor) -> Tensor:
        if not isinstance(other, Tensor):
            raise DTypeError(f"{self!r} @ {type(other).__name__}: make a tensor of it first")
        if isinstance(other, Transposed):
            return ops.mul_mat(other.source, self)
        return ops.matmul(self, other)

    def __getitem__(self, key: Key) -> Tensor:
        """A view, in numpy order: integers, slices of step 1, ``...``; an integer drops its dimension."""
        return select(self, key)

    # -- shape --------------------------------------------------------------------------------------------------

    def reshape(self, *shape: int) -> Tensor:
        """The same elements as ``shape`` (ggml order); one dimension may be -1."""
        return ops.reshape(self, *shape)

    def permute(self, *axes: int) -> Tensor:
        """Dimension ``i`` of this tensor becomes dimension ``axes[i]`` of the result (ggml's convention)."""
        return ops.permute(self, *axes)

    @property
    def T(self) -> Tensor:
        """The first two dimensions swapped, without a copy. Of a quantized tensor it is good for ``x @ w.T`` only."""
        return Transposed(self) if self.dtype.is_quantized else ops.transpose(self)

    def cont(self) -> Tensor:
        """A contiguous copy."""
        return ops.cont(self)

    def cast(self, dtype: DType) -> Tensor:
        """A copy as another element type."""
        return ops.cast(self, dtype=dtype)

    def softmax(self) -> Tensor:
        """Softmax over the first dimension (ggml order): over a row."""
        return ops.soft_max(self)


class Transposed(Tensor):
    """The transpose of quantized weights, whose blocks lie along the other dimension: right operand of ``@``."""

    __slots__ = ("source",)

    def __init__(self, source: Tensor) -> None:
        super().__init__(source.ptr, source.arena)
        self.source = source

    @property
    def ptr(self) -> Any:
        raise DTypeError(f"the transpose of {self.source!r} can only be the right operand of @; cast() it to F32")

    @property
    def T(self) -> Tensor:
        return self.source

    def __repr__(self) -> str:
        return f"<transpose of {self.source!r}>"


def _squeeze(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n for n in shape if n != 1)
