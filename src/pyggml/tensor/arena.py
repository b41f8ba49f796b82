"""Arenas: where the metadata of tensors lives."""

from types import TracebackType
from typing import Any, Self

from pyggml._ffi import ffi, lib, load, not_null
from pyggml.errors import ClosedError, ShapeError

from .buffer import Buffer
from .dtype import DType, row_size
from .tensor import Tensor

__all__ = ["Arena"]

CHUNK = 512  # tensors per ggml context


class Arena:
    """Metadata of tensors (``ggml_context`` with ``no_alloc``), growing in chunks: nobody guesses a size.

    A *static* arena holds weights and caches; an operation never puts its result there. The arena owns its contexts and
    the buffers made by :meth:`allocate`; ``close()`` frees both, after which its tensors must not be used.
    """

    def __init__(self, *, static: bool = False) -> None:
        load()
        self.static = static
        self._overhead = lib.ggml_tensor_overhead()
        self._contexts: list[Any] = []
        self._left = 0
        self._closed = False
        self.buffers: list[Buffer] = []

    def raw(self) -> Any:
        """A ``ggml_context *`` with room for at least one more operation (which may make a few tensors)."""
        if self._left < 4:
            self._grow()
        self._left -= 4
        return self._contexts[-1]

    def _grow(self) -> None:
        if self._closed:
            raise ClosedError("the arena was closed")
        params = ffi.new("struct ggml_init_params *")
        params.mem_size = (CHUNK * 4 + 4) * self._overhead
        params.no_alloc = True
        self._contexts.append(not_null(lib.ggml_init(params[0]), "creating a ggml context"))
        self._left = CHUNK * 4

    def new_tensor(self, dtype: DType, shape: tuple[int, ...], *, name: str = "") -> Tensor:
        """An unallocated tensor of ``shape`` (ggml order, 1 to 4 dimensions).

        Raises:
            ShapeError: a dimension is below 1, or there are more than 4.
            DTypeError: the first dimension does not hold whole blocks.
        """
        if not 1 <= len(shape) <= 4 or any(n < 0 for n in shape):
            raise ShapeError(f"a tensor has 1 to 4 dimensions of size 0 or more, got {shape}")
        row_size(dtype, shape[0])
        if dtype.type_size * max(1, *shape) >= 1 << 62:
            raise ShapeError(f"shape {shape} is too large")
        ptr = lib.ggml_new_tensor(self.raw(), int(dtype), len(shape), list(shape))
        tensor = Tensor(ptr, self)
        if name:
            tensor.name = name
        return tensor

    def allocate(self, buffer_type: Any, what: str) -> list[Buffer]:
        """Give every tensor that has no memory yet a place in new buffers of ``buffer_type``.

        Raises:
            OutOfMemoryError: the device has no room; ``what`` is named in the message.
        """
        made = []
        for context in self._contexts:
            if not _needs_memory(context):
                continue
            raw = lib.ggml_backend_alloc_ctx_tensors_from_buft(context, buffer_type)
            buffer = Buffer(not_null(raw, f"allocating {what}"))
            made.append(buffer)
        self.buffers += made
        return made

    @property
    def n_bytes(self) -> int:
        """Bytes of the buffers this arena allocated."""
        return sum(buffer.size for buffer in self.buffers)

    def tensors(self) -> list[Tensor]:
        """Every tensor made in this arena, oldest first."""
        found = []
        for context in self._contexts:
            ptr = lib.ggml_get_first_tensor(context)
            while ptr != ffi.NULL:
                found.append(Tensor(ptr, self))
                ptr = lib.ggml_get_next_tensor(context, ptr)
        return found

    def close(self) -> None:
        """Free the buffers, then the contexts; a second call does nothing."""
        self._closed = True
        for buffer in self.buffers:
            buffer.close()
        for context in self._contexts:
            lib.ggml_free(context)
        self.buffers, self._contexts, self._left = [], [], 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _needs_memory(context: Any) -> bool:
    ptr = lib.ggml_get_first_tensor(context)
    while ptr != ffi.NULL:
        if ptr.data == ffi.NULL and ptr.view_src == ffi.NULL:
            return True
        ptr = lib.ggml_get_next_tensor(context, ptr)
    return False
