"""Weights by name: checks what a model asks for against the file, decides where each lives, and loads it.

A model's constructor asks for its tensors through a :class:`Scope`; nothing is read before :meth:`Weights.load`, so a
missing or misshapen tensor is reported at once. On a device that shares the host's memory (CPU, Metal) weights are used
in place from the mapped file; weights that the CPU can multiply faster in rearranged form are copied.
"""

import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from pyggml._ffi import ffi, lib
from pyggml.errors import MissingTensorError, ModelError
from pyggml.gguf import GGUFFile
from pyggml.tensor import Arena, Buffer, BufferUsage, Device, DryBufferType, DType, Tensor, ops

__all__ = ["Scope", "Use", "Weights"]


class Use(Enum):
    """What a weight is for: it decides which back ends and buffers can hold it."""

    MUL_MAT = "mul_mat"
    GET_ROWS = "get_rows"
    ELEMENT = "element"


@dataclass
class _Group:
    """Tensors that share a buffer type. ``buffer_type`` None: used in place in the mapped file."""

    device: Device
    buffer_type: Any
    arena: Arena = field(default_factory=lambda: Arena(static=True))
    tensors: dict[str, Tensor] = field(default_factory=dict)

    @property
    def raw_type(self) -> Any:
        """The buffer type by which sizes are known."""
        return self.device.buffer_type if self.buffer_type is None else self.buffer_type


class Weights:
    """The weights of one model on its devices."""

    def __init__(
        self,
        file: GGUFFile,
        devices: Sequence[Device],
        *,
        use_mmap: bool = True,
        repack: bool = True,
        place: Callable[[str, Use], Sequence[Device]] | None = None,
        dry: bool = False,
    ) -> None:
        """
        Args:
            file: the model's file; it must stay open as long as the weights.
            devices: where weights may live, the preferred one first.
            use_mmap: use them in place from the mapped file where a device can.
            repack: rearrange them where the CPU has faster kernels for that.
            place: tells by name and use which devices to try for a weight; default: ``devices``.
            dry: :meth:`load` takes no memory and reads nothing; :meth:`sizes` tells what it would take.
        """
        self.file = file
        self.devices = list(devices)
        self.use_mmap = use_mmap
        self.repack = repack
        self.dry = dry
        self._devices_for = place
        self._groups: dict[tuple[str, int], _Group] = {}
        self._mapped: list[Buffer] = []
        self._asked: set[str] = set()
        self._choices: dict[tuple[tuple[str, ...], DType, tuple[int, ...], Use], tuple[Device, Any]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self.file.tensors

    def scope(self, prefix: str = "") -> "Scope":
        """A view whose names start with ``prefix``."""
        return Scope(self, prefix)

    def get(self, name: str, shape: tuple[int, ...], *, use: Use) -> Tensor:
        """The tensor ``name``, unloaded until :meth:`load`.

        Raises:
            MissingTensorError: the file has no such tensor.
            ModelError: it has another shape (both are named, ggml order).
        """
        info = self.file.tensors.get(name)
        if info is None:
            raise MissingTensorError(f"{self.file.path}: tensor {name!r} is missing; the file is incomplete")
        full = info.shape + (1,) * (4 - len(info.shape))
        if full != shape + (1,) * (4 - len(shape)):
            raise ModelError(
                f"{self.file.path}: tensor {name!r} has ggml shape {list(info.shape)}; "
                f"the metadata asks for {list(shape)}"
            )
        self._asked.add(name)
        devices = self.devices if self._devices_for is None else self._devices_for(name, use)
        device, buffer_type = self._place(devices, info.type, info.shape, use)
        key = (device.name, 0 if buffer_type is None else int(ffi.cast("uintptr_t", buffer_type)))
        group = self._groups.setdefault(key, _Group(device, buffer_type))
        if name not in group.tensors:
            group.tensors[name] = group.arena.new_tensor(DType(info.type), info.shape, name=name)
        return group.tensors[name]

    def _place(self, devices: Sequence[Device], dtype: DType, shape: tuple[int, ...], use: Use) -> tuple[Device, Any]:
        key = (tuple(device.name for device in devices), dtype, shape, use)
        if key not in self._choices:
            self._choices[key] = self._decide(devices, dtype, shape, use)
        return self._choices[key]

    def _decide(self, devices: Sequence[Device], dtype: DType, shape: tuple[int, ...], use: Use) -> tuple[Device, Any]:
        for device in devices:
            if self.repack and use is Use.MUL_MAT:
                for extra in device.extra_buffer_types():
                    if _supports(device, extra, dtype, shape, use):
                        return device, extra
            if device.is_cpu or _supports(device, device.buffer_type, dtype, shape, use):
                in_place = self.use_mmap and device.host_pointer_buffers
                return device, None if in_place else device.buffer_type
        raise ModelError(f"no device can use {dtype.name} weights for {use.value}; add the CPU to the devices")

    def load(self, *, progress: Callable[[float], None] | None = None) -> None:
        """Give every asked-for tensor its memory and data; when dry, only what the scheduler needs to see.

        Args:
            progress: called with the fraction of bytes done, 0 to 1.

        Raises:
            OutOfMemoryError: a device has no room.
        """
        if self.dry:
            for group in self._groups.values():
                for buffer in group.arena.allocate(DryBufferType(group.raw_type), f"weights on {group.device.name}"):
                    buffer.set_usage(BufferUsage.WEIGHTS)
            return
        total = sum(self.file.tensors[n].n_bytes for g in self._groups.values() for n in g.tensors) or 1
        done = 0
        for group in self._groups.values():
            if group.buffer_type is None:
                self._map(group)
                done += sum(self.file.tensors[n].n_bytes for n in group.tensors)
            else:
                for buffer in group.arena.allocate(group.buffer_type, f"weights on {group.device.name}"):
                    buffer.set_usage(BufferUsage.WEIGHTS)
                for name, tensor in group.tensors.items():
                    data = self.file.data(name)
                    tensor.set_bytes(data)
                    self._release(name)
                    done += len(data)
                    if progress is not None:
                        progress(done / total)
        if progress is not None:
            progress(1.0)

    def _map(self, group: _Group) -> None:
        for part in range(len(self.file.parts)):
            inside = [self.file.tensors[n] for n in group.tensors if self.file.tensors[n].part == part]
            if not inside:
                continue
            largest = max(info.n_bytes for info in inside)
            buffer = Buffer.over_memory(group.device, self.file.mapping(part=part), max_tensor_size=largest)
            buffer.set_usage(BufferUsage.WEIGHTS)
            self._mapped.append(buffer)
            for info in inside:
                buffer.place(group.tensors[info.name], info.offset)

    def _release(self, name: str) -> None:
        """Let the kernel drop the pages of a tensor that was copied, unless another group maps them."""
        if any(g.buffer_type is None and name in g.tensors for g in self._groups.values()):
            return
        info = self.file.tensors[name]
        page = mmap.PAGESIZE
        start = -(-info.offset // page) * page
        length = (info.offset + info.n_bytes - start) // page * page
        if length > 0:
            self.file.mapping(part=info.part).obj.madvise(mmap.MADV_DONTNEED, start, length)  # type: ignore[attr-defined]

    def device_of(self, name: str) -> Device:
        """The device of a weight that the model asked for (of its first use, if it has two).

        Raises:
            MissingTensorError: the model asked for no such weight.
        """
        for group in self._groups.values():
            if name in group.tensors:
                return group.device
        raise MissingTensorError(f"{self.file.path}: the model uses no tensor {name!r}")

    def sizes(self) -> Iterator[tuple[str, Device, int]]:
        """Name, device and bytes there of each asked-for weight; one with two uses may come twice."""
        for group in self._groups.values():
            for name, tensor in group.tensors.items():
                if group.buffer_type is None:
                    yield name, group.device, self.file.tensors[name].n_bytes
                else:
                    size = lib.ggml_backend_buft_get_alloc_size(group.buffer_type, tensor.ptr)
                    alignment = lib.ggml_backend_buft_get_alignment(group.buffer_type)
                    yield name, group.device, -(-int(size) // alignment) * alignment

    def unused(self) -> list[str]:
        """Tensors of the file that nothing asked for."""
        return [name for name in self.file.tensors if name not in self._asked]

    def summary(self) -> dict[str, int]:
        """Bytes per buffer type, e.g. ``{"CPU_Mapped": ..., "CPU_REPACK": ...}``."""
        sizes: dict[str, int] = {}
        for group in self._groups.values():
            name = (
                "mapped"
                if group.buffer_type is None
                else ffi.string(lib.ggml_backend_buft_name(group.buffer_type)).decode()
            )
            n_bytes = sum(self.file.tensors[n].n_bytes for n in group.tensors)
            label = f"{group.device.name}_mapped" if group.buffer_type is None else name
            sizes[label] = sizes.get(label, 0) + n_bytes
        return sizes

    def close(self) -> None:
        """Free all buffers, then the metadata; a second call does nothing."""
        for buffer in self._mapped:
            buffer.close()
        for group in self._groups.values():
            group.arena.close()
        self._mapped, self._groups = [], {}


@dataclass(frozen=True)
class Scope:
    """Names below a prefix: ``scope / "blk.0"`` then ``scope.get("attn_q.weight", ...)``."""

    weights: Weights
    prefix: str = ""

    def __truediv__(self, name: str) -> "Scope":
        return Scope(self.weights, f"{self.prefix}{name}.")

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.weights

    def get(self, name: str, *shape: int, use: Use = Use.ELEMENT) -> Tensor:
        """The tensor ``prefix + name`` of ``shape`` (ggml order); see :meth:`Weights.get`."""
        return self.weights.get(self.prefix + name, shape, use=use)

    def find(self, name: str, *shape: int, use: Use = Use.ELEMENT) -> Tensor | None:
        """The tensor, or None when the file lacks it."""
        return self.get(name, *shape, use=use) if name in self else None


def _supports(device: Device, buffer_type: Any, dtype: DType, shape: tuple[int, ...], use: Use) -> bool:
    """Ask the device whether it can run the weight's operation with the weight in such a buffer."""
    if use is Use.ELEMENT:
        return True
    raw = lib.ggml_backend_buft_alloc_buffer(buffer_type, 0)
    if raw == ffi.NULL:
        return False
    with Arena() as arena, Buffer(raw):
        weight = arena.new_tensor(dtype, shape)
        weight.ptr.buffer = raw
        if use is Use.GET_ROWS:
            node = ops.get_rows(weight, arena.new_tensor(DType.I32, (512,)))
        elif len(shape) == 3:
            rows = arena.new_tensor(DType.F32, (shape[0], 2, 512))
            node = ops.mul_mat_id(weight, rows, arena.new_tensor(DType.I32, (2, 512)))
        else:
            node = ops.mul_mat(weight, arena.new_tensor(DType.F32, (shape[0], 512)))
        answer = device.supports_op(node)
        weight.ptr.buffer = ffi.NULL
        return answer
