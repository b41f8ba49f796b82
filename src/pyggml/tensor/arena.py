"""Arenas: where the metadata of tensors lives."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from pyggml._ffi import CustomCallback, ffi, lib, load, not_null
from pyggml.closing import Closing
from pyggml.errors import ClosedError, ShapeError

from .buffer import Buffer
from .device import DryBufferType
from .dtype import DType, row_size
from .tensor import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Arena"]

TENSORS = 2048  # per ggml context
PER_OPERATION = 16  # the most that one operation makes (conv_3d makes 9)


class Arena(Closing):
    """Metadata of tensors (``ggml_context`` with ``no_alloc``), growing in chunks: nobody guesses a size.

    A *static* arena holds weights and caches; an operation never puts its result there, but into :attr:`results` of
    its first operand that has one. The arena owns its contexts and the buffers made by :meth:`allocate`; ``close()``
    frees both. After that every use of its tensors, and of tensors that were computed from them, raises
    :class:`~pyggml.errors.ClosedError`.
    """

    def __init__(self, *, static: bool = False) -> None:
        load()
        self.static = static
        self.results: Arena | None = None if static else self
        """Where results of operations on these tensors go; None: nowhere."""
        self.on_demand: Callable[[Tensor], None] | None = None
        """Called when the value of a tensor without memory is asked for (see :class:`~pyggml.tensor.Session`)."""
        self.closed = ""
        """Why the tensors cannot be used any more; empty while they can."""
        self.buffers: list[Buffer] = []
        self.callbacks: list[CustomCallback] = []
        """Python functions behind custom nodes; ggml keeps only their addresses."""
        self._overhead = lib.ggml_tensor_overhead()
        self._contexts: list[Any] = []
        self._left = 0
        self._uses: set[Arena] = set()
        self._users: weakref.WeakSet[Arena] = weakref.WeakSet()

    def raw(self) -> Any:
        """A ``ggml_context *`` with room for at least one more operation (which may make a few tensors)."""
        if self._left < PER_OPERATION:
            self._grow()
        self._left -= PER_OPERATION
        return self._contexts[-1]

    def _grow(self) -> None:
        if self.closed:
            raise ClosedError(self.closed)
        # What the operations since the last look really took is given back.
        if self._contexts:
            context = self._contexts[-1]
            free = lib.ggml_get_mem_size(context) - lib.ggml_used_mem(context)
            self._left = int(free) // self._overhead - 1
            if self._left >= PER_OPERATION * 8:
                return
        params = ffi.new("struct ggml_init_params *")
        params.mem_size = (TENSORS + 1) * self._overhead
        params.no_alloc = True
        self._contexts.append(not_null(lib.ggml_init(params[0]), "creating a ggml context"))
        self._left = TENSORS

    def use(self, other: Arena) -> None:
        """Tensors of this arena refer to tensors of ``other``: when that closes, this one cannot be used either."""
        if other not in self._uses:
            self._uses.add(other)
            other._users.add(self)

    def family(self) -> list[Arena]:
        """This arena and those whose tensors it refers to."""
        return [self, *self._uses]

    def new_tensor(self, dtype: DType, shape: tuple[int, ...], *, name: str = "") -> Tensor:
        """An unallocated tensor of ``shape`` (ggml order, 1 to 4 dimensions).

        Raises:
            ShapeError: a dimension is below 0, there are more than 4, or the size overflows.
            DTypeError: the first dimension does not hold whole blocks.
        """
        if not 1 <= len(shape) <= 4 or any(n < 0 for n in shape):
            raise ShapeError(f"a tensor has 1 to 4 dimensions of size 0 or more, got {shape}")
        total = row_size(dtype, shape[0])
        for n in shape[1:]:
            total *= max(n, 1)
        if total >= 1 << 60 or max(shape) >= 1 << 31:
            raise ShapeError(f"shape {shape} is too large")
        ptr = lib.ggml_new_tensor(self.raw(), int(dtype), len(shape), list(shape))
        tensor = Tensor(ptr, self)
        if name:
            tensor.name = name
        return tensor

    def allocate(self, buffer_type: Any, what: str) -> list[Buffer]:
        """Give every tensor that has no memory yet a place in new buffers of ``buffer_type``.

        From a :class:`~pyggml.tensor.DryBufferType` they get a stand-in that only counts.

        Raises:
            OutOfMemoryError: the device has no room; ``what`` is named in the message.
        """
        made = []
        for context in self._contexts:
            if not _needs_memory(context):
                continue
            if isinstance(buffer_type, DryBufferType):
                buffer = self._count(context, buffer_type.ptr)
            else:
                raw = lib.ggml_backend_alloc_ctx_tensors_from_buft(context, buffer_type)
                buffer = Buffer(not_null(raw, f"allocating {what}"))
                buffer.use_huge_pages()
            buffer.tenants.add(self)
            made.append(buffer)
        self.buffers += made
        return made

    def _count(self, context: Any, buffer_type: Any) -> Buffer:
        """An empty buffer that knows how large a real one would be; the scheduler sees whose tensors they are."""
        size = lib.ggml_backend_alloc_ctx_tensors_from_buft_size(context, buffer_type)
        raw = not_null(lib.ggml_backend_buft_alloc_buffer(buffer_type, 0), "making an empty buffer")
        ptr = lib.ggml_get_first_tensor(context)
        while ptr != ffi.NULL:
            if ptr.data == ffi.NULL and ptr.view_src == ffi.NULL and ptr.buffer == ffi.NULL:
                ptr.buffer = raw
            ptr = lib.ggml_get_next_tensor(context, ptr)
        return Buffer(raw, counted=int(size))

    @property
    def n_bytes(self) -> int:
        """Bytes of the buffers this arena allocated."""
        return sum(buffer.size for buffer in self.buffers)

    def _pointers(self) -> Iterator[Any]:
        for context in self._contexts:
            ptr = lib.ggml_get_first_tensor(context)
            while ptr != ffi.NULL:
                yield ptr
                ptr = lib.ggml_get_next_tensor(context, ptr)

    def tensors(self) -> list[Tensor]:
        """Every tensor made in this arena, oldest first."""
        return [Tensor(ptr, self) for ptr in self._pointers()]

    def forget(self, buffer: Any) -> None:
        """The ``ggml_backend_buffer_t`` is about to be freed: tensors in it have no memory from now on."""
        if not self.closed:
            for ptr in self._pointers():
                if ptr.buffer == buffer:
                    ptr.data = ptr.buffer = ffi.NULL

    def _break(self, reason: str) -> None:
        if not self.closed:
            self.closed = reason
            for user in list(self._users):
                user._break("an arena whose tensors this one uses was closed")

    def close(self) -> None:
        """Free the buffers, then the contexts; a second call does nothing."""
        self._break("the arena was closed")
        self.closed = "the arena was closed"
        for buffer in self.buffers:
            buffer.close()
        for context in self._contexts:
            lib.ggml_free(context)
        self.buffers, self._contexts, self._left = [], [], 0
        self._uses.clear()


def _needs_memory(context: Any) -> bool:
    ptr = lib.ggml_get_first_tensor(context)
    while ptr != ffi.NULL:
        placed = ptr.data != ffi.NULL or ptr.buffer != ffi.NULL  # a dry buffer gives no address
        if not placed and ptr.view_src == ffi.NULL and lib.ggml_nelements(ptr):
            return True
        ptr = lib.ggml_get_next_tensor(context, ptr)
    return False
