"""The cache of cross attention: what an encoder made of an image or a sound, for all later tokens to look at."""

from collections.abc import Sequence

import numpy as np

from pyggml.batch import Batch
from pyggml.errors import ContextFullError, ParameterError
from pyggml.tensor import Device, DType, Executor, Graph, Tensor

from .base import UNLIMITED, LayerShape, Rotate, check_range, pad_to
from .cells import BITS, Cells, CellTable, SavedCells
from .native import MaskInput
from .state import CacheState
from .storage import KVStorage, StorageView

__all__ = ["EncoderCache", "EncoderView"]

PAD = 256
NO_CELLS: Cells = np.zeros(0, np.int64)


class EncoderCache:
    """One encoder output per sequence and layer, without order: every token of the sequence sees all of it.

    Say with :meth:`expect` that the next batch brings an output; it replaces the sequence's earlier one. It belongs to
    the position of the token that brought it, and is forgotten with that. Sequences that share the position share it.

    A saved state has ``at`` (0 or 1) int32, the position; then, as :class:`~pyggml.kvcache.CacheState` describes,
    ``layers``, ``k.<layer>`` and ``v.<layer>``.
    """

    n_cells = 0  # it takes no room for tokens
    n_free = UNLIMITED
    can_shift = True
    pending_shifts = False

    def __init__(
        self,
        layers: Sequence[LayerShape],
        device_of: Sequence[Device],
        *,
        n_vectors: int,
        type_k: DType = DType.F16,
        type_v: DType = DType.F16,
        flash_attn: bool = True,
    ) -> None:
        """Allocate the cache for ``n_vectors`` encoder vectors, of all sequences together.

        Raises:
            ParameterError, OutOfMemoryError: as for :class:`~pyggml.kvcache.CausalCache`.
        """
        self.flash_attn = flash_attn
        self.n_vectors = pad_to(n_vectors, PAD)
        self.cells = CellTable(self.n_vectors)
        self.taken = NO_CELLS
        self._at: dict[int, int] = {}
        self._expected: list[tuple[int, int, int]] = []
        self._before: tuple[SavedCells, dict[int, int], list[tuple[int, int, int]]] | None = None
        self.storage = KVStorage(
            layers, device_of, n_cells=self.n_vectors, type_k=type_k, type_v=type_v, flash_attn=flash_attn
        )

    # -- a batch ------------------------------------------------------------------------------------------------

    def expect(self, seq_id: int, position: int, n: int) -> None:
        """The next batch stores ``n`` vectors for the token of ``seq_id`` at ``position``.

        With several calls, the graph's keys and values hold the outputs in the order of the calls.
        """
        if n < 1 or position < 0:
            raise ParameterError(f"an encoder output has 1 or more vectors at a position from 0, got {n} at {position}")
        self._expected.append((seq_id, position, n))

    def start(self, batch: Batch) -> None:
        """Take cells for what is expected.

        Raises:
            ContextFullError: there is no room; nothing was changed, and the outputs are still expected.
            ParameterError: some sequences of the batch have an encoder output and others have none.
        """
        table, expected = self.cells, self._expected
        self._before = (table.save(), dict(self._at), expected)
        try:
            parts = [self._store(seq_id, position, n) for seq_id, position, n in expected]
            with_output = {int(seq_id) in self._at for seq_id in np.unique(batch.seq_ids)}
            if len(with_output) > 1:
                raise ParameterError("a batch mixes sequences with and without encoder output: compute them apart")
        except (ContextFullError, ParameterError):
            self.cancel()
            raise
        self.taken = np.concatenate([NO_CELLS, *parts])
        self._expected = []

    def _store(self, seq_id: int, position: int, n: int) -> Cells:
        table = self.cells
        table.drop(seq_id, 0, None)
        cells = table.find(n)
        table.place(cells, np.arange(n, dtype=np.int32), BITS[seq_id])
        self._at[seq_id] = position
        return cells

    def cancel(self) -> None:
        """Undo the last :meth:`start`: its outputs are expected again."""
        if self._before is not None:
            saved, self._at, self._expected = self._before
            self.cells.restore(saved)
        self._before, self.taken = None, NO_CELLS

    def key(self) -> tuple[int, ...]:
        """How many vectors are stored, and how many cells are seen; 0 cells: the model must skip cross attention."""
        return (self.taken.size, min(self.n_vectors, pad_to(self.cells.end, PAD)))

    def reserve_key(self) -> tuple[int, ...]:
        return (self.n_vectors, self.n_vectors)

    def view(self, graph: Graph, n_tokens: int, key: tuple[int, ...]) -> "EncoderView":
        return EncoderView(self, graph, n_tokens, *key)

    # -- sequences ----------------------------------------------------------------------------------------------

    def sequence_length(self, seq_id: int) -> int:
        return self._at.get(seq_id, -1) + 1

    def remove(self, seq_id: int, begin: int, end: int | None = None) -> None:
        at = self._at.get(seq_id, -1)
        if at >= begin and (end is None or at < end):
            del self._at[seq_id]
            self.cells.drop(seq_id, 0, None)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """See :class:`~pyggml.kvcache.Cache`; the output is shared, if its position is."""
        at = self._at.get(source, length)
        if source != target:
            self.remove(target, 0)
        if at >= length:
            self.remove(target, length)
        elif source != target:
            self.cells.share(source, target, self.n_vectors)
            self._at[target] = at

    def can_resume(self, seq_id: int, position: int) -> bool:
        """Always: tokens before an encoder output do not need it."""
        return True

    def resume_point(self, seq_id: int, position: int) -> int:
        return position

    def check_discard(self, seq_id: int, begin: int, end: int) -> None:
        check_range(begin, end)

    def discard(self, seq_id: int, begin: int, end: int) -> None:
        """See :class:`~pyggml.kvcache.Cache`; its keys have no positions, so there is nothing to rotate."""
        check_range(begin, end)
        self.remove(seq_id, begin, end)
        if self._at.get(seq_id, -1) >= end:
            self._at[seq_id] -= end - begin

    def apply_shifts(self, executor: Executor, rotate: Rotate) -> None:
        """Nothing to rotate."""

    # -- saving -------------------------------------------------------------------------------------------------

    def save_sequence(self, seq_id: int, length: int) -> CacheState:
        at = [self._at[seq_id]] if self._at.get(seq_id, length) < length else []
        cells = self.cells.by_position(seq_id, 0, self.n_vectors) if at else NO_CELLS
        return CacheState(length, {"at": np.array(at, np.int32), **self.storage.save(cells)})

    def check_load(self, seq_id: int, state: CacheState) -> None:
        """See :class:`~pyggml.kvcache.Cache`."""
        n = self.storage.check(state)
        at = state.need("at", (-1,), np.int32)
        if at.size > 1 or (n > 0) != (at.size == 1) or (at.size and not 0 <= at[0] < state.length):
            raise ParameterError(f"the saved state has {n} encoder vectors at positions {at.tolist()}")
        saved = self.cells.save()
        try:
            self.cells.drop(seq_id, 0, None)
            self.cells.find(n)
        finally:
            self.cells.restore(saved)

    def load_sequence(self, seq_id: int, state: CacheState) -> None:
        """See :class:`~pyggml.kvcache.Cache`."""
        self.check_load(seq_id, state)
        self.remove(seq_id, 0)
        if state.arrays["at"].size:
            n = self.storage.check(state)
            self.storage.load(self._store(seq_id, int(state.arrays["at"][0]), n), state)

    # -- memory -------------------------------------------------------------------------------------------------

    @property
    def n_bytes(self) -> int:
        return self.storage.n_bytes

    def close(self) -> None:
        self.storage.close()


class EncoderView:
    """An :class:`EncoderCache` as one graph sees it."""

    def __init__(self, cache: EncoderCache, graph: Graph, n_tokens: int, n_stored: int, n_kv: int) -> None:
        self.cache = cache
        self.flash_attn = cache.flash_attn
        self.n_stored = n_stored
        """How many vectors this graph stores; 0: use :meth:`seen`."""
        self.n_kv = n_kv
        """How many cells it sees; 0: no sequence of the batch has an encoder output."""
        self._storage = StorageView(cache.storage, graph, n_stored, n_kv, label="_encoder")
        self._mask: MaskInput | None = None
        if n_kv:
            self._mask = MaskInput(graph, n_kv, n_tokens, half=cache.flash_attn, name="encoder_mask")

    def put(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Store keys and values of ``n_stored`` encoder vectors; see :class:`~pyggml.kvcache.CacheView`."""
        self._storage.put(layer, k, v)
        return self.seen(layer)

    def seen(self, layer: int) -> tuple[Tensor, Tensor, Tensor]:
        """What :meth:`put` returns, for a batch that stores nothing.

        Raises:
            ParameterError: there is no encoder output.
        """
        if self._mask is None:
            raise ParameterError("no sequence of the batch has an encoder output: skip cross attention")
        return *self._storage.seen(layer), self._mask.tensor

    def set_inputs(self, batch: Batch) -> None:
        """Write row indices and mask."""
        self._storage.write(self.cache.taken)
        if self._mask is not None:
            self._mask.fill(self.cache.cells, batch, window=0, chunk=0, causal=False)
