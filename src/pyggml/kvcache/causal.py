"""The causal cache: everything, a sliding window, or chunks."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from pyggml.batch import Batch
from pyggml.errors import ContextFullError, ParameterError
from pyggml.tensor import Device, DType, Executor, Graph, Tensor

from .base import LayerShape, Rotate, check_range, pad_to
from .cells import BITS, Cells, CellTable, SavedCells
from .shift import rotate_keys
from .state import CacheState
from .storage import KVStorage
from .view import CausalView

__all__ = ["CausalCache"]

PAD = 256
"""Graphs see the cache in steps of this many cells: a decode graph lasts that long, and flash attention wants it."""
NO_CELLS: Cells = np.zeros(0, np.int64)


class CausalCache:
    """Keys and values of every layer in one table of cells.

    Keys and values are written with ``set_rows`` at row indices that are an input of the graph, and masks are an input
    too, so a graph depends only on how many tokens it takes and on how many cells it sees.

    With a ``window``, a token sees itself and the ``window - 1`` positions before it (Beltagy et al. 2020); with a
    ``chunk``, it sees back to the last position that is a multiple of it (Llama 4). Cells that no later token can see
    are given up when room is needed.
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
        chunk: int = 0,
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
            chunk: above 0: chunks of that many positions.

        Raises:
            ParameterError: types and ``flash_attn`` do not go together, rows do not hold whole blocks, a device lacks
                a kernel for them, or a number is below 0.
            OutOfMemoryError: a device has no room.
        """
        if n_cells < 1 or window < 0 or chunk < 0:
            raise ParameterError(
                f"n_cells must be 1 or more, window and chunk 0 or more; got {n_cells}, {window}, {chunk}"
            )
        self.flash_attn = flash_attn
        self.window = window
        self.chunk = chunk
        self.n_cells = pad_to(n_cells, PAD)
        self.cells = CellTable(self.n_cells)
        self.taken = NO_CELLS
        """The cells of the current batch, in its order."""
        self._before_giving_up: SavedCells | None = None
        self._moved = False
        self.storage = KVStorage(
            layers, device_of, n_cells=self.n_cells, type_k=type_k, type_v=type_v, flash_attn=flash_attn
        )

    @property
    def keys(self) -> Mapping[int, Tensor]:
        """By layer, ``(d_k * n_head_kv, n_cells)``."""
        return self.storage.keys

    @property
    def values(self) -> Mapping[int, Tensor]:
        """By layer, ``(d_v * n_head_kv, n_cells)``; transposed without flash attention."""
        return self.storage.values

    # -- a batch ------------------------------------------------------------------------------------------------

    def start(self, batch: Batch) -> None:
        """Find cells for the batch and take them; see :class:`~pyggml.kvcache.Cache`."""
        table = self.cells
        if self.pending_shifts:
            raise ParameterError("keys in the cache wait for their rotation: call apply_shifts() before the next batch")
        self._before_giving_up = None
        if batch.n_tokens > table.n_free and self._forgets:
            saved = table.save()
            self._make_room(batch.n_tokens, _first_positions(batch))
            try:
                self.taken = table.take(batch)
            except ContextFullError:
                table.restore(saved)
                raise
            self._before_giving_up = saved
        else:
            self.taken = table.take(batch)

    def cancel(self) -> None:
        """Undo the last :meth:`start`; see :class:`~pyggml.kvcache.Cache`."""
        if self._before_giving_up is not None:
            self.cells.restore(self._before_giving_up)
        else:
            self.cells.give_back(self.taken)
        self._before_giving_up, self.taken = None, NO_CELLS

    @property
    def _forgets(self) -> bool:
        return self.window > 0 or self.chunk > 0

    def _first_seen(self, position: int) -> int:
        """The lowest position that a token at ``position`` looks at."""
        first = max(0, position - self.window + 1) if self.window else 0
        return max(first, position - position % self.chunk) if self.chunk else first

    def _first_kept(self, seq_id: int, again: int = 0) -> int:
        """The lowest position that an idle sequence needs; the last one, at least, says where it stands."""
        last = self.cells.last(seq_id)
        return max(0, min(last, self._first_seen(max(0, last + 1 - again))))

    def _make_room(self, n: int, firsts: Mapping[int, int]) -> None:
        """Give up what no token of the future sees, until ``n`` cells are free or nothing is left to give up.

        A sequence in ``firsts`` goes on at that position, any other one after its last position, or at it again: the
        last token is computed once more when nothing follows it but its logits are wanted. That is given up last.
        """
        table = self.cells
        for again in (1, 0):
            for seq_id in table.in_use():
                if seq_id in firsts:
                    table.drop_below(seq_id, self._first_seen(firsts[seq_id]))
                else:
                    table.drop_below(seq_id, self._first_kept(seq_id, again))
            if n <= table.n_free:
                return

    def key(self) -> tuple[int, ...]:
        """The number of cells that the current batch's graph must see."""
        return (min(self.n_cells, pad_to(self.cells.end, PAD)),)

    def reserve_key(self) -> tuple[int, ...]:
        return (self.n_cells,)

    def view(self, graph: Graph, n_tokens: int, key: tuple[int, ...]) -> CausalView:
        return CausalView(self, graph, n_tokens, key[0])

    # -- sequences ----------------------------------------------------------------------------------------------

    @property
    def n_free(self) -> int:
        """How many tokens of sequences that go on where they end could be taken now."""
        table = self.cells
        if not self._forgets:
            return table.n_free
        pos = table.pos[: table.end]
        needed = np.zeros(table.end, np.bool_)
        for seq_id in table.in_use():
            needed |= table.of(seq_id) & (pos >= self._first_kept(seq_id))
        return self.n_cells - int(np.count_nonzero(needed))

    def sequence_length(self, seq_id: int) -> int:
        return self.cells.last(seq_id) + 1

    def remove(self, seq_id: int, begin: int, end: int | None = None) -> None:
        self.cells.drop(seq_id, begin, end)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        self.cells.share(source, target, length)

    def can_resume(self, seq_id: int, position: int) -> bool:
        held = self.cells.positions(seq_id)
        first = self._first_seen(position)
        return int(np.count_nonzero((held >= first) & (held < position))) == position - first

    def resume_point(self, seq_id: int, position: int) -> int:
        """See :class:`~pyggml.kvcache.Cache`."""
        held = np.zeros(position + 1, np.int64)  # how many positions below each one are there
        positions = self.cells.positions(seq_id)
        held[positions[positions < position] + 1] = 1
        held = np.cumsum(held)
        at = np.arange(position + 1)
        first = np.maximum(0, at - self.window + 1) if self.window else np.zeros_like(at)
        if self.chunk:
            first = np.maximum(first, at - at % self.chunk)
        return int(np.flatnonzero(held[at] - held[first] == at - first)[-1])

    # -- moving positions ---------------------------------------------------------------------------------------

    @property
    def can_shift(self) -> bool:
        return self.storage.can_rotate

    def check_discard(self, seq_id: int, begin: int, end: int) -> None:
        """See :class:`~pyggml.kvcache.Cache`."""
        check_range(begin, end)
        if not self.can_shift:
            raise ParameterError(
                f"keys of type {self.storage.types.k.name} cannot be moved on this device: it cannot read them; use F16"
            )
        saved = self.cells.save()
        try:
            self._close_gap(seq_id, begin, end)
        finally:
            self.cells.restore(saved)

    def discard(self, seq_id: int, begin: int, end: int) -> None:
        """See :class:`~pyggml.kvcache.Cache`."""
        self.check_discard(seq_id, begin, end)
        self.storage.copy(*self._close_gap(seq_id, begin, end))
        self._moved = True

    def _close_gap(self, seq_id: int, begin: int, end: int) -> tuple[Cells, Cells]:
        if self._forgets:
            n_copies, n_freed = self.cells.n_copies(seq_id, begin, end)
            if n_copies > self.cells.n_free + n_freed:
                self._make_room(n_copies - n_freed, {seq_id: 0})  # what it holds may come into sight again
        return self.cells.close_gap(seq_id, begin, end)

    @property
    def pending_shifts(self) -> bool:
        return self._moved and bool(self.cells.delta.any())

    def apply_shifts(self, executor: Executor, rotate: Rotate) -> None:
        """See :class:`~pyggml.kvcache.Cache`."""
        delta = self.cells.delta
        rotate_keys(self.storage, executor, rotate, np.flatnonzero(delta), delta)
        self._moved = False

    # -- saving -------------------------------------------------------------------------------------------------

    def save_sequence(self, seq_id: int, length: int) -> CacheState:
        """See :class:`~pyggml.kvcache.Cache`. A window or chunk is saved with what its last token sees, if held."""
        if length < 1 or not self.can_resume(seq_id, length):
            raise ParameterError(f"sequence {seq_id} cannot be saved at length {length}: it does not hold all of it")
        again = self._first_seen(length - 1) if self.can_resume(seq_id, length - 1) else self._first_seen(length)
        cells = self.cells.by_position(seq_id, min(again, length - 1), length)
        table = self.cells
        return CacheState(
            length, {"positions": table.pos[cells], "delta": table.delta[cells], **self.storage.save(cells)}
        )

    def check_load(self, seq_id: int, state: CacheState) -> None:
        """See :class:`~pyggml.kvcache.Cache`."""
        positions = self._check_state(state)
        saved = self.cells.save()
        try:
            self._take_for(seq_id, positions)
        finally:
            self.cells.restore(saved)

    def _check_state(self, state: CacheState) -> npt.NDArray[np.int32]:
        n = self.storage.check(state)
        positions = state.need("positions", (n,), np.int32)
        state.need("delta", (n,), np.int32)
        if not np.array_equal(positions, np.arange(state.length - n, state.length)):
            raise ParameterError(f"the saved state's positions are not the last {n} of {state.length}")
        first = state.length - n
        if state.length < 1 or not 0 <= first <= self._first_seen(state.length):
            raise ParameterError(f"the saved state's {n} positions are too few to go on at {state.length}")
        return positions

    def _take_for(self, seq_id: int, positions: npt.NDArray[np.int32]) -> Cells:
        self.cells.drop(seq_id, 0, None)
        if self._forgets and positions.size > self.cells.n_free:
            self._make_room(positions.size, {})
        cells = self.cells.find(positions.size)
        self.cells.place(cells, positions, BITS[seq_id])
        return cells

    def load_sequence(self, seq_id: int, state: CacheState) -> None:
        """See :class:`~pyggml.kvcache.Cache`."""
        self.check_load(seq_id, state)
        cells = self._take_for(seq_id, state.arrays["positions"])
        self.cells.delta[cells] = state.arrays["delta"]
        self._moved |= bool(self.cells.delta[cells].any())
        self.storage.load(cells, state)

    # -- memory -------------------------------------------------------------------------------------------------

    @property
    def n_bytes(self) -> int:
        return self.storage.n_bytes

    def close(self) -> None:
        self.storage.close()


def _first_positions(batch: Batch) -> dict[int, int]:
    """By sequence of the batch, its lowest position in it."""
    ids, which = np.unique(batch.seq_ids, return_inverse=True)
    lowest = np.full(ids.size, np.iinfo(np.int32).max)
    np.minimum.at(lowest, which, batch.positions)
    return {int(seq_id): int(position) for seq_id, position in zip(ids, lowest, strict=True)}
