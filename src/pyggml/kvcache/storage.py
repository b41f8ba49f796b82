"""Where keys and values lie: one tensor each per layer, a row (or a column) per cell."""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from pyggml.closing import Closing
from pyggml.errors import DTypeError, ParameterError
from pyggml.inputs import HostInput
from pyggml.tensor import Arena, Device, DType, Graph, Tensor, ops, row_size

from .base import LayerShape
from .cells import Cells
from .native import get_columns, get_rows, set_columns, set_rows
from .state import CacheState

__all__ = ["CacheTypes", "KVStorage", "StorageView"]

Bytes = npt.NDArray[np.uint8]
GAP = 16384  # cells so few bytes apart are moved in one piece, what lies between them included


class KVStorage(Closing):
    """The tensors of a cache.

    Keys are ``(d_k * n_head_kv, n_cells)``. Values are ``(d_v * n_head_kv, n_cells)`` for fused attention, and
    transposed, ``(n_cells, d_v * n_head_kv)``, without it.
    """

    def __init__(
        self,
        layers: Sequence[LayerShape],
        device_of: Sequence[Device],
        *,
        n_cells: int,
        type_k: DType,
        type_v: DType,
        flash_attn: bool,
    ) -> None:
        """Allocate them, zeroed.

        Raises:
            ParameterError: types and ``flash_attn`` do not go together, rows do not hold whole blocks, or a device
                lacks a kernel.
            OutOfMemoryError: a device has no room.
        """
        self.n_cells = n_cells
        self.flash_attn = flash_attn
        self.types = CacheTypes(type_k, type_v, flash_attn)
        self.shapes = {shape.layer: shape for shape in layers}
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        self._arenas: dict[str, Arena] = {}
        self.can_rotate = True
        for shape, device in zip(layers, device_of, strict=True):
            self.types.check(shape, device)
            self.can_rotate &= self.types.can_rotate(shape, device)
        try:
            self._allocate(layers, device_of)
        except BaseException:
            self.close()
            raise

    def _allocate(self, layers: Sequence[LayerShape], device_of: Sequence[Device]) -> None:
        for shape, device in zip(layers, device_of, strict=True):
            arena = self._arenas.setdefault(device.name, Arena(static=True))
            n_k, n_v = shape.d_k * shape.n_head_kv, shape.d_v * shape.n_head_kv
            in_rows = (n_v, self.n_cells) if self.flash_attn else (self.n_cells, n_v)
            layer, types = shape.layer, self.types
            self.keys[layer] = arena.new_tensor(types.k, (n_k, self.n_cells), name=f"cache_k_l{layer}")
            self.values[layer] = arena.new_tensor(types.v, in_rows, name=f"cache_v_l{layer}")
        by_name = {device.name: device for device in device_of}
        for name, arena in self._arenas.items():
            for buffer in arena.allocate(by_name[name].buffer_type, f"the KV cache on {name}"):
                buffer.clear(0)  # NaN in a cell that was never written would survive its mask

    @property
    def n_bytes(self) -> int:
        """Bytes of memory."""
        return sum(arena.n_bytes for arena in self._arenas.values())

    def row_bytes(self, layer: int) -> tuple[int, int]:
        """Bytes of one cell's key and value."""
        shape = self.shapes[layer]
        return (
            row_size(self.types.k, shape.d_k * shape.n_head_kv),
            row_size(self.types.v, shape.d_v * shape.n_head_kv),
        )

    # -- the bytes of cells -------------------------------------------------------------------------------------

    def read(self, layer: int, cells: Cells) -> tuple[Bytes, Bytes]:
        """Raw keys and values of ``cells``, one row each, in their order: ``(n, bytes)`` in numpy order."""
        n_k, n_v = self.row_bytes(layer)
        k = self._read_rows(self.keys[layer], cells, n_k)
        values = self.values[layer]
        return k, self._read_rows(values, cells, n_v) if self.flash_attn else self._read_columns(values, cells)

    def write(self, layer: int, cells: Cells, k: Bytes, v: Bytes) -> None:
        """Set raw keys and values of ``cells`` as :meth:`read` returned them."""
        self._write_rows(self.keys[layer], cells, k)
        if self.flash_attn:
            self._write_rows(self.values[layer], cells, v)
        else:
            self._write_columns(self.values[layer], cells, v)

    def copy(self, sources: Cells, targets: Cells) -> None:
        """Copy keys and values of all layers from ``sources`` to ``targets``, which are other cells."""
        if sources.size:
            for layer in self.shapes:
                self.write(layer, targets, *self.read(layer, sources))

    def save(self, cells: Cells) -> dict[str, npt.NDArray[np.generic]]:
        """``layers``, ``k.<layer>`` and ``v.<layer>`` of a :class:`~pyggml.kvcache.CacheState`."""
        arrays: dict[str, npt.NDArray[np.generic]] = {"layers": self._description()}
        for layer in self.shapes:
            arrays[f"k.{layer}"], arrays[f"v.{layer}"] = self.read(layer, cells)
        return arrays

    def _description(self) -> npt.NDArray[np.int32]:
        types = (int(self.types.k), int(self.types.v))
        return np.array([(s.layer, s.n_head_kv, s.d_k, s.d_v, *types) for s in self.shapes.values()], np.int32)

    def check(self, state: CacheState) -> int:
        """How many cells the state fills.

        Raises:
            ParameterError: it is not what :meth:`save` gives.
        """
        if not np.array_equal(state.need("layers", (-1, 6), np.int32), self._description()):
            raise ParameterError("the saved state is of other layers, head sizes or cache types than this cache has")
        n = -1
        for layer in self.shapes:
            for name, width in zip("kv", self.row_bytes(layer), strict=True):
                n = state.need(f"{name}.{layer}", (n, width), np.uint8).shape[0]
        return n

    def load(self, cells: Cells, state: CacheState) -> None:
        """Write what :meth:`save` saved, after :meth:`check`."""
        for layer in self.shapes:
            self.write(layer, cells, state.arrays[f"k.{layer}"], state.arrays[f"v.{layer}"])

    def _read_rows(self, store: Tensor, cells: Cells, width: int) -> Bytes:
        out = np.empty((cells.size, width), np.uint8)
        for first, n, where, rows in _pieces(cells, width):
            if isinstance(where, slice):
                get_rows(store, out[where], first)
                continue
            piece = np.empty((n, width), np.uint8)
            get_rows(store, piece, first)
            out[where] = piece[rows]
        return out

    def _write_rows(self, store: Tensor, cells: Cells, data: Bytes) -> None:
        width = data.shape[1]
        data = np.ascontiguousarray(data)
        for first, n, where, rows in _pieces(cells, width):
            if isinstance(where, slice):
                set_rows(store, data[where], first)
                continue
            piece = np.empty((n, width), np.uint8)
            if n != rows.size:
                get_rows(store, piece, first)
            piece[rows] = data[where]
            set_rows(store, piece, first)

    def _read_columns(self, store: Tensor, cells: Cells) -> Bytes:
        n_v, word = store.ne[1], _word(store.dtype)
        out = np.empty((cells.size, n_v), word)
        for first, n, where, columns in _pieces(cells, word.itemsize):
            piece = np.empty((n_v, n), word)
            get_columns(store, piece, first)
            out[where] = piece[:, columns].T
        return out.view(np.uint8)

    def _write_columns(self, store: Tensor, cells: Cells, data: Bytes) -> None:
        n_v, word = store.ne[1], _word(store.dtype)
        rows = data.view(word)
        for first, n, where, columns in _pieces(cells, word.itemsize):
            piece = np.empty((n_v, n), word)
            if n != columns.size:
                get_columns(store, piece, first)
            piece[:, columns] = rows[where].T
            set_columns(store, piece, first)

    def close(self) -> None:
        for arena in self._arenas.values():
            arena.close()


def _pieces(cells: Cells, width: int) -> Iterator[tuple[int, int, slice | Cells, Cells]]:
    """Cut ``cells`` into ranges worth one transfer: first cell, length, which of ``cells`` are inside, and where.

    A slice stands for neighbours in order, without anything between them.
    """
    if not cells.size:
        return
    order = np.argsort(cells, kind="stable")
    ascending = cells[order]
    cuts = np.flatnonzero(np.diff(ascending) * width > max(GAP, width)) + 1
    for part in np.split(np.arange(cells.size), cuts):
        first, n = int(ascending[part[0]]), int(ascending[part[-1]] - ascending[part[0]]) + 1
        where = order[part]
        if n == where.size and (np.diff(where) == 1).all():
            yield first, n, slice(int(where[0]), int(where[0]) + n), ascending[part] - first
        else:
            yield first, n, where, ascending[part] - first


def _word(dtype: DType) -> np.dtype[np.generic]:
    """An integer as wide as one element."""
    return np.dtype(np.uint32 if dtype.type_size == 4 else np.uint16)


class CacheTypes:
    """The element types of a cache, and whether a device can work with them."""

    def __init__(self, k: DType, v: DType, flash_attn: bool) -> None:
        if v.is_quantized and not flash_attn:
            raise ParameterError(f"a {v.name} V cache needs flash attention; turn it on or use F16")
        self.k, self.v, self.flash_attn = k, v, flash_attn

    def check(self, shape: LayerShape, device: Device) -> None:
        """
        Raises:
            ParameterError: rows do not hold whole blocks, or the device lacks a kernel; the message says which.
        """
        for label, dtype, d in (("K", self.k, shape.d_k), ("V", self.v, shape.d_v)):
            if d % dtype.block_size:
                raise ParameterError(
                    f"a {dtype.name} {label} cache needs a head size that is a multiple of {dtype.block_size}, "
                    f"layer {shape.layer} has {d}; use F16"
                )
            if not self._can_store(dtype, d * shape.n_head_kv, device):
                raise ParameterError(f"device {device.name} cannot store a {dtype.name} {label} cache; use F16")
        if not self._can_attend(shape, device):
            how = "with" if self.flash_attn else "without"
            raise ParameterError(
                f"device {device.name} has no attention {how} flash attention for a {self.k.name} K and "
                f"{self.v.name} V cache with head sizes {shape.d_k} and {shape.d_v}; use F16"
            )

    def _can_store(self, dtype: DType, n: int, device: Device) -> bool:
        with Arena() as arena:
            store, rows = arena.new_tensor(dtype, (n, 256)), arena.new_tensor(DType.F32, (n, 1))
            try:
                node = ops.set_rows(store, rows, arena.new_tensor(DType.I64, (1,)))
            except DTypeError:
                return False
            return device.supports_op(node)

    def _can_attend(self, shape: LayerShape, device: Device) -> bool:
        """With the strides that a graph has: some kernels take quantized keys only when they are contiguous."""
        n, heads = 256, shape.n_head_kv
        with Arena() as arena:
            q = arena.new_tensor(DType.F32, (shape.d_k, 1, heads))
            k = _by_head(arena.new_tensor(self.k, (shape.d_k * heads, n)), shape.d_k, n, heads)
            try:
                if self.flash_attn:
                    v = _by_head(arena.new_tensor(self.v, (shape.d_v * heads, n)), shape.d_v, n, heads)
                    mask = arena.new_tensor(DType.F16, (n, 1))
                    return device.supports_op(ops.flash_attn(q, k, v, mask, scale=1.0))
                v = arena.new_tensor(self.v, (2 * n, shape.d_v, heads))
                v = ops.view(v, (n, shape.d_v, heads), strides=v.nb[1:3])
                scores = ops.mul_mat(k, q, prec=ops.PREC_F32)
                return device.supports_op(scores) and device.supports_op(ops.mul_mat(v, scores))
            except DTypeError:
                return False

    def can_rotate(self, shape: LayerShape, device: Device) -> bool:
        """Whether stored keys can be read back in a graph, to be rotated."""
        with Arena() as arena:
            store = arena.new_tensor(self.k, (shape.d_k * shape.n_head_kv, 256))
            try:
                node = ops.get_rows(store, arena.new_tensor(DType.I32, (1,)))
            except DTypeError:
                return False
            return device.supports_op(node)


class StorageView:
    """A :class:`KVStorage` as one graph sees it: its first ``n_kv`` cells, and ``n_rows`` of them written."""

    def __init__(self, storage: KVStorage, graph: Graph, n_rows: int, n_kv: int, *, label: str) -> None:
        self.storage = storage
        self.graph = graph
        self.n_rows = n_rows
        self.n_kv = n_kv
        self._label = label
        self._rows = graph.input(DType.I64, n_rows, name=f"cache_rows{label}") if n_rows else None
        self._value_rows: dict[int, Tensor] = {}
        self._host_rows: HostInput | None = None
        self._host_value_rows: list[tuple[HostInput, Cells]] = []

    def put(self, layer: int, k: Tensor, v: Tensor) -> None:
        """Store ``k`` ``(d_k, n_head_kv, n_rows)`` and ``v`` ``(d_v, n_head_kv, n_rows)``."""
        if self._rows is None:
            raise ParameterError(f"layer {layer}: this graph stores nothing in its cache")
        keys, values = self.storage.keys[layer], self.storage.values[layer]
        self.graph.add(ops.set_rows(keys, _flat(k, self.n_rows), self._rows))
        if self.storage.flash_attn:
            self.graph.add(ops.set_rows(values, _flat(v, self.n_rows), self._rows))
        else:
            self._put_transposed(values, v)

    def _put_transposed(self, values: Tensor, v: Tensor) -> None:
        """Every element is a row of its own: channel c of cell j lies at ``c * n_cells + j``."""
        n = values.ne[1]
        if n not in self._value_rows:
            name = f"cache_value_rows{self._label}_{n}"
            self._value_rows[n] = self.graph.input(DType.I64, n * self.n_rows, name=name)
        single = ops.view(self._in_graph(values), (1, values.n_elements))
        flat = ops.reshape(_flat(v, self.n_rows), 1, n * self.n_rows)
        self.graph.add(ops.set_rows(single, flat, self._value_rows[n]))

    def seen(self, layer: int) -> tuple[Tensor, Tensor]:
        """Keys ``(d_k, n_kv, n_head_kv)`` and values ``(d_v, n_kv, n_head_kv)``, transposed without flash attention."""
        shape, keys, values = self.storage.shapes[layer], self.storage.keys[layer], self.storage.values[layer]
        seen_keys = _by_head(self._in_graph(keys), shape.d_k, self.n_kv, shape.n_head_kv)
        if self.storage.flash_attn:
            return seen_keys, _by_head(self._in_graph(values), shape.d_v, self.n_kv, shape.n_head_kv)
        row = values.nb[1]
        columns = (self.n_kv, shape.d_v, shape.n_head_kv)
        return seen_keys, ops.view(self._in_graph(values), columns, strides=(row, row * shape.d_v))

    def _in_graph(self, tensor: Tensor) -> Tensor:
        """A cache tensor whose views have their metadata in the graph, not in the cache's arena."""
        self.graph.arena.use(tensor.arena)
        return Tensor(tensor.ptr, self.graph.arena)

    def write(self, taken: Cells) -> None:
        """Set the row indices: the cells that this batch is stored in."""
        if self._rows is None:
            return
        if self._host_rows is None:
            self._host_rows = HostInput(self._rows, np.int64)
            self._host_value_rows = [
                (HostInput(tensor, np.int64), np.arange(n, dtype=np.int64) * self.storage.n_cells)
                for n, tensor in self._value_rows.items()
            ]
        self._host_rows.write(taken)
        for host, channels in self._host_value_rows:
            np.add(taken[:, None], channels, out=host.staging.reshape(self.n_rows, -1))
            host.flush()


def _by_head(store: Tensor, d: int, n_kv: int, n_head_kv: int) -> Tensor:
    """The first ``n_kv`` rows of ``(d * n_head_kv, n)`` as ``(d, n_kv, n_head_kv)``."""
    head = store.dtype.n_bytes(d)
    return ops.view(store, (d, n_kv, n_head_kv), strides=(head * n_head_kv, head))


def _flat(x: Tensor, n_tokens: int) -> Tensor:
    """``(d, n_head, n_tokens)`` as one row per token."""
    flat = x if x.is_contiguous else ops.cont(x)
    return ops.reshape(flat, flat.ne[0] * flat.ne[1], n_tokens)
