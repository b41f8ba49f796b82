"""The cell table: which position of which sequences each cell holds."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyggml.batch import MAX_SEQUENCES, Batch
from pyggml.errors import ContextFullError, ParameterError

__all__ = ["CellTable", "SavedCells"]


@dataclass(frozen=True)
class SavedCells:
    """A copy of a table's state."""

    pos: npt.NDArray[np.int32]
    seqs: npt.NDArray[np.uint64]
    n_used: int
    end: int
    next: int


class CellTable:
    """``n_cells`` cells; a cell holds one position and the set of sequences that share it.

    A cell without sequences is free. Cells are taken lowest first, scattered if need be: keys and values are written by
    row index, so nothing has to be contiguous.
    """

    def __init__(self, n_cells: int) -> None:
        self.n_cells = n_cells
        self.pos: npt.NDArray[np.int32] = np.full(n_cells, -1, np.int32)
        self.seqs: npt.NDArray[np.uint64] = np.zeros(n_cells, np.uint64)
        self.n_used = 0
        self.end = 0
        """One past the highest cell in use."""
        self._next = 0

    def take(self, batch: Batch) -> npt.NDArray[np.int64]:
        """Take one cell for each token of the batch and return their indices.

        Raises:
            ContextFullError: not enough free cells; nothing was changed.
        """
        n = batch.n_tokens
        if self.n_used + n > self.n_cells:
            raise ContextFullError(
                f"the KV cache has {self.n_cells - self.n_used} of {self.n_cells} cells free; the batch needs {n}"
            )
        begin = self._next
        if begin + n <= self.n_cells and not self.seqs[begin : begin + n].any():
            found = np.arange(begin, begin + n, dtype=np.int64)
        else:
            found = np.flatnonzero(self.seqs == 0)[:n]
        self.pos[found] = batch.positions
        self.seqs[found] = np.left_shift(np.uint64(1), batch.seq_ids.astype(np.uint64))
        self.n_used += n
        last = int(found[-1]) + 1
        self.end = max(self.end, last)
        self._next = last
        return found

    def give_back(self, taken: npt.NDArray[np.int64]) -> None:
        """Undo the last :meth:`take`: its cells are free again."""
        self.pos[taken] = -1
        self.seqs[taken] = 0
        self.n_used -= taken.size
        self._settle()

    def save(self) -> SavedCells:
        """What :meth:`restore` brings back."""
        return SavedCells(self.pos.copy(), self.seqs.copy(), self.n_used, self.end, self._next)

    def restore(self, saved: SavedCells) -> None:
        """Make the table what it was at :meth:`save`."""
        self.pos[...] = saved.pos
        self.seqs[...] = saved.seqs
        self.n_used, self.end, self._next = saved.n_used, saved.end, saved.next

    def of(self, seq_id: int) -> npt.NDArray[np.bool_]:
        """Which cells below :attr:`end` belong to the sequence."""
        if not 0 <= seq_id < MAX_SEQUENCES:
            raise ParameterError(f"a sequence id is 0 to {MAX_SEQUENCES - 1}, got {seq_id}")
        held: npt.NDArray[np.bool_] = (self.seqs[: self.end] & np.uint64(1 << seq_id)) != 0
        return held

    def drop(self, seq_id: int, begin: int, end: int | None) -> None:
        """Take the sequence out of its cells at positions ``begin`` to ``end`` (excluded)."""
        held = self.pos[: self.end]
        chosen = self.of(seq_id) & (held >= begin)
        if end is not None:
            chosen &= held < end
        self._release(chosen, seq_id)

    def drop_below(self, seq_id: int, position: int) -> None:
        """Take the sequence out of its cells at positions below ``position``."""
        self._release(self.of(seq_id) & (self.pos[: self.end] < position), seq_id)

    def _release(self, chosen: npt.NDArray[np.bool_], seq_id: int) -> None:
        if not chosen.any():
            return
        seqs = self.seqs[: self.end]
        seqs[chosen] &= ~np.uint64(1 << seq_id)
        free = chosen & (seqs == 0)
        self.pos[: self.end][free] = -1
        self.n_used -= int(np.count_nonzero(free))
        self._settle()

    def _settle(self) -> None:
        """Cells became free: find the end and the first gap again."""
        seqs = self.seqs[: self.end]
        used = np.flatnonzero(seqs)
        self.end = int(used[-1]) + 1 if used.size else 0
        gaps = np.flatnonzero(seqs[: self.end] == 0)
        self._next = int(gaps[0]) if gaps.size else self.end

    def share(self, source: int, target: int, length: int) -> None:
        """Add ``target`` to the cells of ``source`` below position ``length``; it leaves all others."""
        if source == target:
            self.drop(target, length, None)
            return
        self.drop(target, 0, None)
        chosen = self.of(source) & (self.pos[: self.end] < length)
        self.seqs[: self.end][chosen] |= np.uint64(1 << target)

    def positions(self, seq_id: int) -> npt.NDArray[np.int32]:
        """The positions that the sequence holds, in no order."""
        return self.pos[: self.end][self.of(seq_id)]
