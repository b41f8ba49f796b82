"""The causal cache, with or without a sliding window."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pyggml._ffi import ffi, lib
from pyggml.batch import Batch
from pyggml.errors import ContextFullError, ParameterError
from pyggml.inputs import HostInput
from pyggml.tensor import Arena, Device, DType, Graph, Tensor, ops

from .base import LayerShape, pad_to
from .cells import CellTable, SavedCells

__all__ = ["CausalCache", "CausalView"]

PAD = 256
"""Graphs see the cache in steps of this many cells: a decode graph lasts that long, and flash attention wants it."""


class CausalCache:
    """Keys and values of every layer in one table of cells.

    Keys and values are written with ``set_rows`` at row indices that are an input of the graph, and masks are an input
    too, so a graph depends only on how many tokens it takes and on how many cells it sees.

    With a ``window``, a token sees itself and the ``window - 1`` positions before it (Beltagy et al. 2020), and cells
    that no later token can see are given up when room is needed.
    """

    def __init__(
        self,
        layers: Sequence[LayerShape],
        device_of: Sequence[Device],
        *,
        n_cells: int,
        type_k: DType = DType.F16,
        type_v: DType = DType.F16,
        flash_attn: bool = True,
        window: int = 0,
    ) -> None:
        """Allocate the cache.

        Args:
            layers: the layers it serves.
            device_of: for each of them, the device that holds its part.
            n_cells: how many tokens there is room for; rounded up to a multiple of 256.
            type_k: element type of keys.
            type_v: element type of values; quantized values need ``flash_attn``.
            flash_attn: values are kept as rows for fused attention, or transposed without it.
            window: above 0: a sliding window of that many positions.

        Raises:
            ParameterError: types and ``flash_attn`` do not go together, or rows do not hold whole blocks.
            OutOfMemoryError: a device has no room.
        """
        if type_v.is_quantized and not flash_attn:
            raise ParameterError(f"a {type_v.name} V cache needs flash attention; turn it on or use F16")
        self.flash_attn = flash_attn
        self.window = window
        self.n_cells = pad_to(n_cells, PAD)
        self.cells = CellTable(self.n_cells)
        self._taken: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._before_giving_up: SavedCells | None = None
        self._shapes = {shape.layer: shape for shape in layers}
        self._arenas: dict[str, Arena] = {}
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        try:
            self._allocate(layers, device_of, type_k, type_v)
        except BaseException:
            self.close()
            raise

    def _allocate(
        self, layers: Sequence[LayerShape], device_of: Sequence[Device], type_k: DType, type_v: DType
    ) -> None:
        for shape, device in zip(layers, device_of, strict=True):
            arena = self._arenas.setdefault(device.name, Arena(static=True))
            self._add_layer(arena, shape, type_k, type_v)
        by_name = {device.name: device for device in device_of}
        for name, arena in self._arenas.items():
            for buffer in arena.allocate(by_name[name].buffer_type, f"the KV cache on {name}"):
                buffer.clear(0)  # NaN in a cell that was never written would survive its mask

    def _add_layer(self, arena: Arena, shape: LayerShape, type_k: DType, type_v: DType) -> None:
        n_k, n_v = shape.d_k * shape.n_head_kv, shape.d_v * shape.n_head_kv
        for label, dtype, d in (("K", type_k, shape.d_k), ("V", type_v, shape.d_v)):
            if d % dtype.block_size:
                raise ParameterError(
                    f"a {dtype.name} {label} cache needs a head size that is a multiple of {dtype.block_size}, "
                    f"layer {shape.layer} has {d}; use F16"
                )
        value_shape = (n_v, self.n_cells) if self.flash_attn else (self.n_cells, n_v)
        self.keys[shape.layer] = arena.new_tensor(type_k, (n_k, self.n_cells), name=f"cache_k_l{shape.layer}")
        self.values[shape.layer] = arena.new_tensor(type_v, value_shape, name=f"cache_v_l{shape.layer}")

    # -- for the engine -----------------------------------------------------------------------------------------

    def start(self, batch: Batch) -> None:
        """Find cells for the batch and take them; see :class:`~pyggml.kvcache.Cache`."""
        self._before_giving_up = None
        try:
            self._taken = self.cells.take(batch)
        except ContextFullError:
            if self.window <= 0:
                raise
            saved = self.cells.save()
            self._give_up_old(batch)
            try:
                self._taken = self.cells.take(batch)
            except ContextFullError:
                self.cells.restore(saved)
                raise
            self._before_giving_up = saved

    def cancel(self) -> None:
        """Undo the last :meth:`start`; see :class:`~pyggml.kvcache.Cache`."""
        if self._before_giving_up is not None:
            self.cells.restore(self._before_giving_up)
        else:
            self.cells.give_back(self._taken)
        self._before_giving_up, self._taken = None, np.zeros(0, np.int64)

    def _give_up_old(self, batch: Batch) -> None:
        for seq_id in np.unique(batch.seq_ids):
            first = int(batch.positions[batch.seq_ids == seq_id].min())
            self.cells.drop_below(int(seq_id), first - self.window + 1)

    def key(self) -> tuple[int, ...]:
        """The number of cells that the current batch's graph must see."""
        return (min(self.n_cells, pad_to(self.cells.end, PAD)),)

    def reserve_key(self) -> tuple[int, ...]:
        return (self.n_cells,)

    def view(self, graph: Graph, n_tokens: int, key: tuple[int, ...]) -> "CausalView":
        return CausalView(self, graph, n_tokens, key[0])

    def remove(self, seq_id: int, begin: int, end: int | None = None) -> None:
        self.cells.drop(seq_id, begin, end)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        self.cells.share(source, target, length)

    def can_resume(self, seq_id: int, position: int) -> bool:
        held = self.cells.positions(seq_id)
        first = max(0, position - self.window + 1) if self.window > 0 else 0
        return int(np.count_nonzero((held >= first) & (held < position))) == position - first

    @property
    def taken(self) -> npt.NDArray[np.int64]:
        """The cells of the current batch, in its order."""
        return self._taken

    @property
    def n_bytes(self) -> int:
        return sum(arena.n_bytes for arena in self._arenas.values())

    def shape(self, layer: int) -> LayerShape:
        """What ``layer`` stores."""
        return self._shapes[layer]

    def close(self) -> None:
        for arena in self._arenas.values():
            arena.close()


class CausalView:
    """A :class:`CausalCache` as one graph sees it: its first ``n_kv`` cells."""

    def __init__(self, cache: CausalCache, graph: Graph, n_tokens: int, n_kv: int) -> None:
        self.cache = cache
        self.graph = graph
        self.n_tokens = n_tokens
        self.n_kv = n_kv
        self.flash_attn = cache.flash_attn
        label = "_swa" if cache.window else ""
        self.rows = graph.input(DType.I64, n_tokens, name=f"cache_rows{label}")
        self.mask = graph.input(DType.F16 if self.flash_attn else DType.F32, n_kv, n_tokens, name=f"cache_mask{label}")
        self._value_rows: dict[int, Tensor] = {}
        self._inputs: list[tuple[HostInput, int]] = []
        self._host_rows: HostInput | None = None
        self._host_mask: HostInput | None = None

    def put(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Store ``k`` and ``v``; see :class:`~pyggml.kvcache.CacheView`."""
        shape = self.cache.shape(layer)
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        self.graph.add(ops.set_rows(keys, _rows(k, self.n_tokens), self.rows))
        if self.flash_attn:
            self.graph.add(ops.set_rows(values, _rows(v, self.n_tokens), self.rows))
        else:
            self._put_transposed(values, v)
        return self._seen(keys, shape.d_k, shape.n_head_kv), self._seen_values(values, shape), self.mask

    def _put_transposed(self, values: Tensor, v: Tensor) -> None:
        """Every element is a row of its own: channel c of cell j lies at ``c * n_cells + j``."""
        n = values.ne[1]
        if n not in self._value_rows:
            self._value_rows[n] = self.graph.input(DType.I64, n * self.n_tokens, name=f"cache_value_rows_{n}")
        single = self._in_graph(values, (1, values.n_elements))
        flat = ops.reshape(_rows(v, self.n_tokens), 1, n * self.n_tokens)
        self.graph.add(ops.set_rows(single, flat, self._value_rows[n]))

    def _in_graph(self, tensor: Tensor, shape: tuple[int, ...], strides: tuple[int, ...] = ()) -> Tensor:
        """A view of a cache tensor whose metadata lives in the graph, not in the cache's arena."""
        here = Tensor(tensor.ptr, self.graph.arena)
        return ops.view(here, shape, strides=strides)

    def _seen(self, store: Tensor, d: int, n_head_kv: int) -> Tensor:
        """``(d, n_kv, n_head_kv)`` of a store with one row per cell."""
        head = store.dtype.n_bytes(d)
        return self._in_graph(store, (d, self.n_kv, n_head_kv), (head * n_head_kv, head))

    def _seen_values(self, store: Tensor, shape: LayerShape) -> Tensor:
        if self.flash_attn:
            return self._seen(store, shape.d_v, shape.n_head_kv)
        row = store.nb[1]
        return self._in_graph(store, (self.n_kv, shape.d_v, shape.n_head_kv), (row, row * shape.d_v))

    def set_inputs(self, batch: Batch) -> None:
        """Write row indices and mask of the batch that the cache took last."""
        cells, taken = self.cache.cells, self.cache.taken
        if self._host_rows is None or self._host_mask is None:
            self._host_rows = HostInput(self.rows, np.int64)
            self._host_mask = HostInput(self.mask, np.uint16 if self.flash_attn else np.float32)
            self._inputs = [(HostInput(tensor, np.int64), n) for n, tensor in self._value_rows.items()]
        self._host_rows.write(taken)
        for host, n in self._inputs:
            channels = np.arange(n, dtype=np.int64) * self.cache.n_cells
            host.write((taken[:, None] + channels).reshape(-1))
        lib.pyggml_fill_mask(
            self._host_mask.address,
            self.flash_attn,
            self.n_kv,
            ffi.cast("int32_t *", cells.pos.ctypes.data),
            ffi.cast("uint64_t *", cells.seqs.ctypes.data),
            self.n_tokens,
            self.n_tokens,
            ffi.cast("int32_t *", batch.positions.ctypes.data),
            ffi.cast("int32_t *", batch.seq_ids.ctypes.data),
            ffi.NULL,
            self.cache.window,
            0,
        )
        self._host_mask.flush()


def _rows(x: Tensor, n_tokens: int) -> Tensor:
    """``(d, n_head, n_tokens)`` as one row per token."""
    flat = x if x.is_contiguous else ops.cont(x)
    return ops.reshape(flat, flat.ne[0] * flat.ne[1], n_tokens)
