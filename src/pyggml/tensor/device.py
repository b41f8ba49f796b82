"""Devices that ggml found, and back ends: a device with a stream of work of its own."""

import os
import weakref
from dataclasses import dataclass, replace
from enum import IntEnum
from pathlib import Path
from typing import Any

from pyggml._ffi import ffi, lib, load, not_null, proc_address
from pyggml.closing import Closing
from pyggml.errors import BackendError, ClosedError, ParameterError

from .available import available_memory

__all__ = [
    "Backend",
    "Device",
    "DeviceType",
    "DryBufferType",
    "devices",
    "find_device",
    "physical_cores",
]


class DeviceType(IntEnum):
    """``enum ggml_backend_dev_type``."""

    CPU = 0
    GPU = 1
    IGPU = 2
    ACCEL = 3
    META = 4


def text(pointer: Any) -> str:
    """A C string; empty for NULL."""
    return ffi.string(pointer).decode("utf-8", "replace") if pointer != ffi.NULL else ""


@dataclass(frozen=True)
class DryBufferType:
    """A buffer type from which an arena takes no memory: it only counts what its tensors would need."""

    ptr: Any


@dataclass(frozen=True)
class Device:
    """One device. Lives as long as the process; nothing to close.

    A *dry* device (:meth:`as_dry`) hands out a buffer type that only counts, to measure before loading.
    """

    ptr: Any
    name: str
    description: str
    type: DeviceType
    dry: bool = False

    def as_dry(self) -> "Device":
        """The same device, on which :meth:`Arena.allocate` takes no memory and counts bytes instead."""
        return replace(self, dry=True)

    @property
    def is_cpu(self) -> bool:
        return self.type == DeviceType.CPU

    def memory(self) -> tuple[int, int]:
        """Free and total memory in bytes, as the driver reports it now; of the CPU what this process can have."""
        free, total = ffi.new("size_t *"), ffi.new("size_t *")
        lib.ggml_backend_dev_memory(self.ptr, free, total)
        if self.is_cpu:
            limits = [(int(total[0]), int(total[0])), *available_memory()]
            return min(left for left, _ in limits), min(most for _, most in limits)
        return int(free[0]), int(total[0])

    def supports_op(self, tensor: Any) -> bool:
        """Whether the device can compute the node ``tensor`` (its type, shapes and source types)."""
        return bool(lib.ggml_backend_dev_supports_op(self.ptr, tensor.ptr))

    @property
    def buffer_type(self) -> Any:
        """The default ``ggml_backend_buffer_type_t``; a :class:`DryBufferType` of it on a dry device."""
        raw = lib.ggml_backend_dev_buffer_type(self.ptr)
        return DryBufferType(raw) if self.dry else raw

    @property
    def host_pointer_buffers(self) -> bool:
        """Whether memory that the caller owns (a mapped file) can be used in place."""
        props = ffi.new("struct ggml_backend_dev_props *")
        lib.ggml_backend_dev_get_props(self.ptr, props)
        return bool(props.caps.buffer_from_host_ptr)

    def extra_buffer_types(self) -> list[Any]:
        """Buffer types that store weights rearranged for faster kernels (CPU: repacked rows)."""
        registry = lib.ggml_backend_dev_backend_reg(self.ptr)
        function = proc_address(registry, "ggml_backend_dev_get_extra_bufts", "ggml_backend_dev_get_extra_bufts_t")
        found: list[Any] = []
        if function is not None:
            array = function(self.ptr)
            while array != ffi.NULL and array[len(found)] != ffi.NULL:
                found.append(array[len(found)])
        return found

    def features(self) -> dict[str, str]:
        """What the back end was compiled for (``ggml_backend_get_features``), e.g. ``{"AVX2": "1"}``."""
        registry = lib.ggml_backend_dev_backend_reg(self.ptr)
        function = proc_address(registry, "ggml_backend_get_features", "ggml_backend_get_features_t")
        found: dict[str, str] = {}
        if function is not None:
            entry = function(registry)
            i = 0
            while entry != ffi.NULL and entry[i].name != ffi.NULL:
                found[text(entry[i].name)] = text(entry[i].value)
                i += 1
        return found


def devices() -> list[Device]:
    """Every device of this process, in ggml's order (GPUs first, the CPU last)."""
    load()
    found = []
    for i in range(lib.ggml_backend_dev_count()):
        ptr = lib.ggml_backend_dev_get(i)
        found.append(
            Device(
                ptr,
                text(lib.ggml_backend_dev_name(ptr)),
                text(lib.ggml_backend_dev_description(ptr)),
                DeviceType(lib.ggml_backend_dev_type(ptr)),
            )
        )
    return found


def find_device(name: str = "CPU") -> Device:
    """The device called ``name`` (any case), or the best GPU for ``"gpu"``.

    Raises:
        BackendError: there is none; the message lists those there are.
    """
    found = devices()
    wanted = name.lower()
    for device in found:
        if device.name.lower() == wanted or (wanted == "gpu" and device.type in (DeviceType.GPU, DeviceType.IGPU)):
            return device
    raise BackendError(f"no device {name!r}; this installation has {', '.join(d.name for d in found)}")


def physical_cores() -> int:
    """CPU cores this process may use, a core with two hardware threads counted once."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = set()
    for cpu in allowed:
        try:
            siblings = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
            cores.add(siblings.read_text(encoding="ascii").strip())
        except OSError:
            return max(1, len(allowed))
    return max(1, len(cores))


class Backend(Closing):
    """A stream of work on one device (``ggml_backend_t``), with its thread pool when the device is the CPU.

    Closing it closes the executors that use it first; buffers of the device live on. Use as a context manager.
    """

    def __init__(self, device: Device, *, n_threads: int | None = None, poll: int = 50) -> None:
        """Open ``device``.

        Args:
            device: from :func:`devices` or :func:`find_device`.
            n_threads: CPU threads; default: one per physical core. Ignored by devices that are not in the CPU.
            poll: 0 to 100, how long an idle worker spins before it sleeps.

        Raises:
            ParameterError: ``n_threads`` or ``poll`` out of range.
            OutOfMemoryError: the device refused.
        """
        limit = lib.GGML_MAX_N_THREADS
        if n_threads is not None and not 1 <= n_threads <= limit:
            raise ParameterError(f"n_threads must be 1 to {limit}, got {n_threads}")
        if not 0 <= poll <= 100:
            raise ParameterError(f"poll must be 0 to 100, got {poll}")
        self.device = device
        self.users: weakref.WeakSet[Any] = weakref.WeakSet()
        self._pool = ffi.NULL
        self._ptr = not_null(lib.ggml_backend_dev_init(device.ptr, ffi.NULL), f"opening device {device.name}")
        self.n_threads = n_threads or physical_cores()
        self._abort = [False]
        self._handle = ffi.new_handle(self._abort)
        if device.is_cpu:
            params = ffi.new("struct ggml_threadpool_params *")
            lib.ggml_threadpool_params_init(params, self.n_threads)
            params.poll = poll
            cpu = lib.pyggml_cpu
            self._pool = not_null(cpu.ggml_threadpool_new(params), f"starting {self.n_threads} threads")
            cpu.ggml_backend_cpu_set_n_threads(self._ptr, self.n_threads)
            cpu.ggml_backend_cpu_set_threadpool(self._ptr, self._pool)
        elif device.type == DeviceType.ACCEL:
            registry = lib.ggml_backend_dev_backend_reg(device.ptr)
            found = lib.ggml_backend_reg_get_proc_address(registry, b"ggml_backend_set_n_threads")
            if found != ffi.NULL:
                ffi.cast("ggml_backend_set_n_threads_t", found)(self._ptr, self.n_threads)

    @property
    def ptr(self) -> Any:
        if self._ptr == ffi.NULL:
            raise ClosedError(f"the back end on {self.device.name} was closed")
        return self._ptr

    def synchronize(self) -> None:
        """Wait until all queued work is done."""
        lib.ggml_backend_synchronize(self.ptr)

    def close(self) -> None:
        """Stop the threads and free the back end; a second call does nothing."""
        if self._ptr != ffi.NULL:
            for user in list(self.users):
                user.close()
            lib.ggml_backend_free(self._ptr)
            self._ptr = ffi.NULL
            if self._pool != ffi.NULL:
                lib.pyggml_cpu.ggml_threadpool_free(self._pool)
                self._pool = ffi.NULL
