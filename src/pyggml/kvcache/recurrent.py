"""The cache of recurrent layers (Mamba, linear attention): one state per sequence instead of keys and values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pyggml.batch import Batch
from pyggml.errors import ParameterError
from pyggml.inputs import HostInput
from pyggml.tensor import Arena, Device, DType, Executor, Graph, Tensor, ops

from .base import UNLIMITED, Rotate, check_range
from .native import get_rows, set_rows
from .slots import StateSlots
from .state import CacheState

__all__ = ["RecurrentCache", "RecurrentView", "StateShape"]


@dataclass(frozen=True)
class StateShape:
    """What one layer keeps per sequence: the number of float32 elements of each of its states (conv, ssm, ...)."""

    layer: int
    sizes: tuple[int, ...]


class RecurrentCache:
    """States of every layer, one row per slot; which rows a batch reads and writes is an input of the graph.

    A state is what is left of all tokens so far, so a sequence can only go on where it ends, or at a *checkpoint*: a
    state that was kept on the way. As rows read and rows written are given apart, neither keeping a state nor forking
    a sequence copies anything: the next state is written to another slot.

    A saved state has ``layers`` ``(n_layers, 1 + states)`` int32, layer and sizes, and ``s.<layer>.<i>`` ``(size)``
    float32.
    """

    flash_attn = False
    n_cells = 0  # it takes no room for tokens
    n_free = UNLIMITED
    can_shift = True
    pending_shifts = False

    def __init__(
        self,
        layers: Sequence[StateShape],
        device_of: Sequence[Device],
        *,
        n_sequences: int,
        n_checkpoints: int = 24,
        checkpoint_first: int = 16,
        checkpoint_every: int = 1664,
    ) -> None:
        """Allocate the cache.

        Args:
            layers: the layers it serves; all of them have as many states.
            device_of: for each of them, the device that holds its part.
            n_sequences: how many sequences there is room for.
            n_checkpoints: how many states can be kept on the way, of all sequences together; at the end of batches.
            checkpoint_first: none is kept before this position.
            checkpoint_every: no two of a sequence are nearer than this.

        Raises:
            OutOfMemoryError: a device has no room.
            ParameterError: a number is out of its range.
        """
        if n_sequences < 1 or n_checkpoints < 0 or checkpoint_every < 1 or not layers:
            raise ParameterError("a recurrent cache needs layers, n_sequences and checkpoint_every of 1 or more")
        self.n_sequences = n_sequences
        self.slots = StateSlots(n_sequences + n_checkpoints, first=checkpoint_first, every=checkpoint_every)
        self._layers = {shape.layer: shape for shape in layers}
        self._states: dict[int, tuple[Tensor, ...]] = {}
        self._arenas: dict[str, Arena] = {}
        self._before: Any = None
        self.rows = np.zeros((2, 0), np.int64)
        """Of each sequence of the batch, the row it is read from and the one it is written to."""
        for shape, device in zip(layers, device_of, strict=True):
            arena = self._arenas.setdefault(device.name, Arena(static=True))
            self._states[shape.layer] = tuple(
                arena.new_tensor(DType.F32, (size, self.slots.n_rows), name=f"cache_s{i}_l{shape.layer}")
                for i, size in enumerate(shape.sizes)
            )
        by_name = {device.name: device for device in device_of}
        try:
            for name, arena in self._arenas.items():
                for buffer in arena.allocate(by_name[name].buffer_type, f"the states on {name}"):
                    buffer.clear(0)  # row 0 stays so: what a sequence starts from
        except BaseException:
            self.close()
            raise

    def states(self, layer: int) -> tuple[Tensor, ...]:
        """The layer's states, ``(size, rows)`` each."""
        return self._states[layer]

    # -- a batch ------------------------------------------------------------------------------------------------

    def start(self, batch: Batch) -> None:
        """Choose the rows to read and to write.

        Raises:
            ContextFullError: more sequences than there are slots; nothing was changed.
            ParameterError: the batch is not a grid of sequences with as many tokens each, one after the other, or a
                sequence does not go on where its state stands.
        """
        ids, n = self._grid(batch)
        before = self.slots.copy()
        rows = []
        try:
            for i, seq_id in enumerate(ids):
                first = int(batch.positions[i * n])
                length = self.slots.length(seq_id)
                if first != length:
                    raise ParameterError(f"sequence {seq_id} has a state after {length} tokens, not before {first}")
                rows.append(self.slots.advance(seq_id, length + n))
        except Exception:
            self.slots = before
            raise
        self._before = before
        self.rows = np.array(rows, np.int64).T.copy()

    def _grid(self, batch: Batch) -> tuple[list[int], int]:
        """The sequences of a batch, in its order, and how many tokens each has."""
        changes = np.flatnonzero(np.diff(batch.seq_ids)) + 1
        starts = np.concatenate([[0], changes])
        ids = batch.seq_ids[starts].tolist()
        n = batch.n_tokens // len(ids)
        table = batch.positions.reshape(len(ids), n) if n * len(ids) == batch.n_tokens else None
        even = table is not None and np.array_equal(starts, np.arange(len(ids)) * n) and len(set(ids)) == len(ids)
        if not even or table is None or (np.diff(table, axis=1) != 1).any():
            raise ParameterError("recurrent layers take sequences one after the other with as many tokens each")
        return ids, n

    def cancel(self) -> None:
        """Undo the last :meth:`start`."""
        if self._before is not None:
            self.slots = self._before
        self._before, self.rows = None, np.zeros((2, 0), np.int64)

    def key(self) -> tuple[int, ...]:
        """The number of sequences in the batch."""
        return (self.rows.shape[1],)

    def reserve_key(self) -> tuple[int, ...]:
        return (self.n_sequences,)

    def view(self, graph: Graph, n_tokens: int, key: tuple[int, ...]) -> "RecurrentView":
        return RecurrentView(self, graph, key[0])

    # -- sequences ----------------------------------------------------------------------------------------------

    def sequence_length(self, seq_id: int) -> int:
        return self.slots.length(seq_id)

    def remove(self, seq_id: int, begin: int, end: int | None = None) -> None:
        """Fall back to the last state at or before ``begin``: nothing can be taken out of the middle of a state."""
        self.slots.cut(seq_id, begin)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """See :class:`~pyggml.kvcache.Cache`; the target gets the states up to ``length``."""
        self.slots.share(source, target, length)

    def can_resume(self, seq_id: int, position: int) -> bool:
        return self.slots.row_at(seq_id, position) is not None

    def resume_point(self, seq_id: int, position: int) -> int:
        return self.slots.last_point(seq_id, position)

    def check_discard(self, seq_id: int, begin: int, end: int) -> None:
        check_range(begin, end)

    def discard(self, seq_id: int, begin: int, end: int) -> None:
        """See :class:`~pyggml.kvcache.Cache`. Positions are renumbered; the state still knows what was dropped."""
        check_range(begin, end)
        self.slots.close_gap(seq_id, begin, end)

    def apply_shifts(self, executor: Executor, rotate: Rotate) -> None:
        """Nothing to rotate: states have no positions."""

    # -- saving -------------------------------------------------------------------------------------------------

    def _description(self) -> npt.NDArray[np.int32]:
        return np.array([(s.layer, *s.sizes) for s in self._layers.values()], np.int32)

    def save_sequence(self, seq_id: int, length: int) -> CacheState:
        """See :class:`~pyggml.kvcache.Cache`."""
        row = self.slots.row_at(seq_id, length)
        if length < 1 or row is None:
            raise ParameterError(f"sequence {seq_id} has no state after {length} tokens")
        arrays: dict[str, npt.NDArray[Any]] = {"layers": self._description()}
        for layer, states in self._states.items():
            for i, state in enumerate(states):
                raw = np.empty((1, 4 * state.ne[0]), np.uint8)
                get_rows(state, raw, row)
                arrays[f"s.{layer}.{i}"] = raw.view(np.float32)[0]
        return CacheState(length, arrays)

    def _named(self) -> Mapping[str, Tensor]:
        return {f"s.{layer}.{i}": s for layer, states in self._states.items() for i, s in enumerate(states)}

    def check_load(self, seq_id: int, state: CacheState) -> None:
        """See :class:`~pyggml.kvcache.Cache`."""
        wanted = self._description()
        if not np.array_equal(state.need("layers", wanted.shape, np.int32), wanted) or state.length < 1:
            raise ParameterError("the saved state is of other layers or state sizes than this cache has")
        for name, tensor in self._named().items():
            state.need(name, (tensor.ne[0],), np.float32)
        self._replace(self.slots.copy(), seq_id, state.length)

    def _replace(self, slots: StateSlots, seq_id: int, length: int) -> int:
        slots.cut(seq_id, 0)
        return slots.advance(seq_id, length)[1]

    def load_sequence(self, seq_id: int, state: CacheState) -> None:
        """See :class:`~pyggml.kvcache.Cache`."""
        self.check_load(seq_id, state)
        row = self._replace(self.slots, seq_id, state.length)
        for name, tensor in self._named().items():
            set_rows(tensor, np.ascontiguousarray(state.arrays[name])[None].view(np.uint8), row)

    # -- memory -------------------------------------------------------------------------------------------------

    @property
    def n_bytes(self) -> int:
        return sum(arena.n_bytes for arena in self._arenas.values())

    def close(self) -> None:
        for arena in self._arenas.values():
            arena.close()


class RecurrentView:
    """A :class:`RecurrentCache` as one graph sees it: the states of ``n_sequences`` sequences."""

    flash_attn = False

    def __init__(self, cache: RecurrentCache, graph: Graph, n_sequences: int) -> None:
        self.cache = cache
        self.graph = graph
        self.n_sequences = n_sequences
        self._sources = graph.input(DType.I32, n_sequences, name="state_sources")
        self._targets = graph.input(DType.I64, n_sequences, name="state_targets")
        self._hosts: tuple[HostInput, HostInput] | None = None

    def states(self, layer: int) -> list[Tensor]:
        """The layer's states before the batch, ``(size, n_sequences)`` each, zero for a sequence that begins."""
        return [ops.get_rows(state, self._sources) for state in self.cache.states(layer)]

    def store(self, layer: int, states: Sequence[Tensor]) -> None:
        """Keep the layer's states after the batch, ``(size, n_sequences)`` each."""
        for store, state in zip(self.cache.states(layer), states, strict=True):
            self.graph.add(ops.set_rows(store, state, self._targets))

    def put(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """
        Raises:
            ParameterError: always: recurrent layers have no keys and values; see :meth:`states`.
        """
        raise ParameterError(f"layer {layer} is recurrent: it has states, not keys and values")

    def set_inputs(self, batch: Batch) -> None:
        """Write the rows to read and to write."""
        if self._hosts is None:
            self._hosts = (HostInput(self._sources, np.int32), HostInput(self._targets, np.int64))
        for host, rows in zip(self._hosts, self.cache.rows, strict=True):
            host.write(rows)
