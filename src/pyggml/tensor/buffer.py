"""Device memory with an owner."""

import weakref
from typing import Any, Self

from pyggml._ffi import ffi, lib, not_null
from pyggml.closing import Closing
from pyggml.errors import BackendError, ClosedError

from .device import Device

__all__ = ["Buffer", "BufferUsage", "trim_memory"]


class BufferUsage:
    """``enum ggml_backend_buffer_usage``: a hint for the scheduler."""

    ANY = 0
    WEIGHTS = 1
    COMPUTE = 2


class Buffer(Closing):
    """A ``ggml_backend_buffer_t``. ``keep`` holds Python objects whose memory the buffer borrows.

    A buffer with ``counted`` bytes is a stand-in without memory: its tensors belong to a device but have no data.
    """

    def __init__(self, ptr: Any, *, keep: object = None, counted: int = 0) -> None:
        self._ptr = ptr
        self._keep = keep
        self._counted = counted
        self._views: weakref.WeakSet[_Export] = weakref.WeakSet()
        self.tenants: weakref.WeakSet[Any] = weakref.WeakSet()
        """The arenas with tensors in this buffer."""

    @classmethod
    def on(cls, device: Device, size: int) -> Self:
        """``size`` new bytes on ``device``.

        Raises:
            OutOfMemoryError: the device has no room.
        """
        raw = lib.ggml_backend_buft_alloc_buffer(device.buffer_type, max(size, 1))
        return cls(not_null(raw, f"allocating {size} bytes on {device.name}"))

    @classmethod
    def over_memory(cls, device: Device, memory: Any, *, max_tensor_size: int) -> Self:
        """A buffer over memory that the caller owns (a mapped file), used in place.

        Args:
            device: must offer :attr:`Device.host_pointer_buffers`.
            memory: an object with the buffer protocol; kept alive by this object.
            max_tensor_size: bytes of the largest tensor that will be placed in it.

        Raises:
            BackendError: the device cannot, or the memory is not aligned as the device wants.
        """
        view = ffi.from_buffer(memory)
        alignment = lib.ggml_backend_buft_get_alignment(device.buffer_type)
        if int(ffi.cast("uintptr_t", view)) % alignment:
            raise BackendError(f"memory given to {device.name} must be aligned to {alignment} bytes")
        if not device.host_pointer_buffers:
            raise BackendError(f"device {device.name} cannot use the host's memory in place; copy instead")
        ptr = lib.ggml_backend_dev_buffer_from_host_ptr(device.ptr, view, len(view), max_tensor_size)
        return cls(not_null(ptr, f"mapping {len(view)} bytes for {device.name}"), keep=(memory, view))

    @property
    def ptr(self) -> Any:
        if self._ptr == ffi.NULL:
            raise ClosedError("the buffer was closed")
        return self._ptr

    @property
    def name(self) -> str:
        """The name of the buffer's type, e.g. ``CPU`` or ``CPU_REPACK``."""
        return str(ffi.string(lib.ggml_backend_buffer_name(self.ptr)).decode())

    @property
    def size(self) -> int:
        """Bytes."""
        return self._counted or int(lib.ggml_backend_buffer_get_size(self.ptr))

    @property
    def is_host(self) -> bool:
        """Whether the memory can be read by the CPU at ``tensor.data``."""
        return bool(lib.ggml_backend_buffer_is_host(self.ptr))

    def set_usage(self, usage: int) -> None:
        """Tell the scheduler what the buffer holds (:class:`BufferUsage`)."""
        lib.ggml_backend_buffer_set_usage(self.ptr, usage)

    def use_huge_pages(self) -> int:
        """Ask the system to back memory of the CPU by huge pages, before it is touched; returns the bytes asked for."""
        device = lib.ggml_backend_buft_get_device(lib.ggml_backend_buffer_get_type(self.ptr))
        if device == ffi.NULL or lib.ggml_backend_dev_type(device) != lib.GGML_BACKEND_DEVICE_TYPE_CPU:
            return 0
        return int(lib.pyggml_use_huge_pages(lib.ggml_backend_buffer_get_base(self.ptr), self.size))

    def clear(self, value: int = 0) -> None:
        """Set every byte to ``value``."""
        lib.ggml_backend_buffer_clear(self.ptr, value)

    def place(self, tensor: Any, offset: int) -> None:
        """Put the unallocated ``tensor`` at ``offset`` bytes from the buffer's start.

        Raises:
            BackendError: it does not fit.
        """
        base = ffi.cast("char *", lib.ggml_backend_buffer_get_base(self.ptr))
        need = lib.ggml_backend_buffer_get_alloc_size(self.ptr, tensor.ptr)
        if offset < 0 or offset + need > self.size:
            raise BackendError(f"tensor {tensor.name!r}: {need} bytes at {offset} do not fit into {self.size} bytes")
        if tensor.ptr.data != ffi.NULL or tensor.ptr.view_src != ffi.NULL:
            raise BackendError(f"{tensor!r} has memory already")
        status = lib.ggml_backend_tensor_alloc(self.ptr, tensor.ptr, base + offset)
        self.tenants.add(tensor.arena)
        if status != lib.GGML_STATUS_SUCCESS:
            raise BackendError(f"tensor {tensor.name!r} could not be placed in a {self.name} buffer")

    def holds(self, ptr: Any) -> bool:
        """Whether ``ptr`` is this buffer."""
        return bool(self._ptr != ffi.NULL and self._ptr == ptr)

    def export(self, address: Any, n_bytes: int) -> "_Export":
        """A writable window on host memory of this buffer, which stays valid when the buffer is closed."""
        window = _Export(self.ptr, self._keep, ffi.buffer(address, n_bytes))
        self._views.add(window)
        return window

    def close(self) -> None:
        """Free the memory (not the borrowed one); a second call does nothing.

        While windows from :meth:`export` live, the memory is kept for them and freed with the last one.
        """
        if self._ptr == ffi.NULL:
            return
        for arena in list(self.tenants):
            arena.forget(self._ptr)
        windows = list(self._views)
        if windows:
            share = _Share(self._ptr)
            for window in windows:
                window.share = share
        else:
            lib.ggml_backend_buffer_free(self._ptr)
        self._ptr = ffi.NULL
        self._keep = None


class _Share:
    """Frees a buffer with its last window."""

    def __init__(self, ptr: Any) -> None:
        self.ptr = ptr

    def __del__(self) -> None:
        lib.ggml_backend_buffer_free(self.ptr)


class _Export:
    """The owner behind a numpy view. Has the array interface, so that numpy keeps it alive as the base."""

    def __init__(self, buffer: Any, keep: object, window: Any) -> None:
        self.buffer = buffer
        self.keep = keep
        self.window = window
        self.share: _Share | None = None
        self.__array_interface__ = {
            "shape": (len(window),),
            "typestr": "|u1",
            "data": (int(ffi.cast("uintptr_t", ffi.from_buffer(window))), False),
            "version": 3,
        }


def trim_memory() -> None:
    """Give memory that was freed back to the system, where malloc keeps it (glibc)."""
    lib.pyggml_trim_memory()
