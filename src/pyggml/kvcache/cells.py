"""The cell table: which position of which sequences each cell holds."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pyggml.batch import MAX_SEQUENCES, Batch
from pyggml.errors import ContextFullError, ParameterError

__all__ = ["CellTable", "Cells", "SavedCells"]

Cells = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
BITS = np.left_shift(np.uint64(1), np.arange(MAX_SEQUENCES, dtype=np.uint64))
BITS.flags.writeable = False


@dataclass(frozen=True)
class SavedCells:
    """A copy of a table's state."""

    pos: npt.NDArray[np.int32]
    seqs: npt.NDArray[np.uint64]
    delta: npt.NDArray[np.int32]
    n_used: int
    end: int
    next: int


class CellTable:
    """``n_cells`` cells; a cell holds one position and the set of sequences that share it.

    A cell without sequences is free. Cells are taken lowest first, scattered if need be: keys and values are written by
    row index, so nothing has to be contiguous.

    ``delta`` is how far a cell has moved since its key was last rotated; a free cell has none.
    """

    def __init__(self, n_cells: int) -> None:
        self.n_cells = n_cells
        # Never rebound: C keeps their addresses.
        self.pos: npt.NDArray[np.int32] = np.full(n_cells, -1, np.int32)
        self.seqs: npt.NDArray[np.uint64] = np.zeros(n_cells, np.uint64)
        self.delta: npt.NDArray[np.int32] = np.zeros(n_cells, np.int32)
        self.n_used = 0
        self.end = 0
        """One past the highest cell in use."""
        self._next = 0

    @property
    def n_free(self) -> int:
        """Cells that no sequence uses."""
        return self.n_cells - self.n_used

    # -- taking cells -------------------------------------------------------------------------------------------

    def find(self, n: int) -> Cells:
        """The free cells that would be taken next, ascending.

        Raises:
            ContextFullError: there are fewer than ``n``.
        """
        if n > self.n_free:
            raise ContextFullError(f"the KV cache has {self.n_free} of {self.n_cells} cells free; {n} are needed")
        begin = self._next
        if begin + n <= self.n_cells and not self.seqs[begin : begin + n].any():
            return np.arange(begin, begin + n, dtype=np.int64)
        return np.flatnonzero(self.seqs == 0)[:n]

    def take(self, batch: Batch) -> Cells:
        """Take one cell for each token of the batch and return their indices.

        Raises:
            ContextFullError: not enough free cells; nothing was changed.
        """
        found = self.find(batch.n_tokens)
        self.place(found, batch.positions, BITS[batch.seq_ids])
        return found

    def place(self, cells: Cells, positions: npt.NDArray[np.int32], seqs: npt.NDArray[np.uint64] | np.uint64) -> None:
        """Put positions into free cells from :meth:`find`."""
        if not cells.size:
            return
        self.pos[cells] = positions
        self.seqs[cells] = seqs
        self.n_used += cells.size
        last = int(cells[-1]) + 1
        self.end = max(self.end, last)
        self._next = last

    def give_back(self, taken: Cells) -> None:
        """Undo the last :meth:`take`: its cells are free again."""
        self.pos[taken] = -1
        self.seqs[taken] = 0
        self.n_used -= taken.size
        self._settle()

    def save(self) -> SavedCells:
        """What :meth:`restore` brings back."""
        return SavedCells(self.pos.copy(), self.seqs.copy(), self.delta.copy(), self.n_used, self.end, self._next)

    def restore(self, saved: SavedCells) -> None:
        """Make the table what it was at :meth:`save`."""
        self.pos[...] = saved.pos
        self.seqs[...] = saved.seqs
        self.delta[...] = saved.delta
        self.n_used, self.end, self._next = saved.n_used, saved.end, saved.next

    # -- what a sequence holds ----------------------------------------------------------------------------------

    def of(self, seq_id: int) -> Flags:
        """Which cells below :attr:`end` belong to the sequence."""
        if not 0 <= seq_id < MAX_SEQUENCES:
            raise ParameterError(f"a sequence id is 0 to {MAX_SEQUENCES - 1}, got {seq_id}")
        held: Flags = (self.seqs[: self.end] & BITS[seq_id]) != 0
        return held

    def positions(self, seq_id: int) -> npt.NDArray[np.int32]:
        """The positions that the sequence holds, in no order."""
        return self.pos[: self.end][self.of(seq_id)]

    def last(self, seq_id: int) -> int:
        """The highest position that the sequence holds; -1 when it holds none."""
        return int(self.positions(seq_id).max(initial=-1))

    def by_position(self, seq_id: int, begin: int, end: int) -> Cells:
        """The cells of the sequence at positions ``begin`` to ``end`` (excluded), in the order of their positions."""
        cells = np.flatnonzero(self._between(seq_id, begin, end))
        return cells[np.argsort(self.pos[cells], kind="stable")]

    def in_use(self) -> list[int]:
        """The sequences that hold anything, ascending."""
        bits = int(np.bitwise_or.reduce(self.seqs[: self.end], initial=0))
        return [i for i in range(bits.bit_length()) if bits >> i & 1]

    def _between(self, seq_id: int, begin: int, end: int | None) -> Flags:
        held = self.pos[: self.end]
        chosen = self.of(seq_id) & (held >= begin)
        if end is not None:
            chosen &= held < end
        return chosen

    # -- changing it --------------------------------------------------------------------------------------------

    def drop(self, seq_id: int, begin: int, end: int | None) -> None:
        """Take the sequence out of its cells at positions ``begin`` to ``end`` (excluded)."""
        self._release(self._between(seq_id, begin, end), seq_id)

    def drop_below(self, seq_id: int, position: int) -> None:
        """Take the sequence out of its cells at positions below ``position``."""
        self._release(self.of(seq_id) & (self.pos[: self.end] < position), seq_id)

    def _release(self, chosen: Flags, seq_id: int) -> None:
        if not chosen.any():
            return
        seqs = self.seqs[: self.end]
        seqs[chosen] &= ~BITS[seq_id]
        free = chosen & (seqs == 0)
        self.pos[: self.end][free] = -1
        self.delta[: self.end][free] = 0
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
        self.seqs[: self.end][chosen] |= BITS[target]

    # -- moving positions ---------------------------------------------------------------------------------------

    def n_copies(self, seq_id: int, begin: int, end: int) -> tuple[int, int]:
        """What :meth:`close_gap` needs: how many cells must be copied first, and how many the gap itself frees."""
        others = ~BITS[seq_id]
        seqs = self.seqs[: self.end]
        shared = self._between(seq_id, end, None) & ((seqs & others) != 0)
        freed = self._between(seq_id, begin, end) & ((seqs & others) == 0)
        return int(np.count_nonzero(shared)), int(np.count_nonzero(freed))

    def close_gap(self, seq_id: int, begin: int, end: int) -> tuple[Cells, Cells]:
        """Drop positions ``begin`` to ``end`` (excluded) and move those from ``end`` on down to ``begin``.

        Cells to be moved that other sequences share are left to those; the sequence gets cells of its own.

        Returns:
            Sources and targets of the cells to copy, key, value and pending rotation being those of the source.

        Raises:
            ContextFullError: there is no room for the copies; nothing was changed.
        """
        n_copies, n_freed = self.n_copies(seq_id, begin, end)
        if n_copies > self.n_free + n_freed:
            raise ContextFullError(
                f"{n_copies} cells that sequence {seq_id} shares must be copied before they move, and only "
                f"{self.n_free + n_freed} of {self.n_cells} cells are free"
            )
        self.drop(seq_id, begin, end)
        moved = self._between(seq_id, end, None)
        sources = np.flatnonzero(moved & ((self.seqs[: self.end] & ~BITS[seq_id]) != 0))
        own = np.flatnonzero(moved)
        own = own[self.seqs[own] == BITS[seq_id]]
        targets = self.find(sources.size)
        self.seqs[sources] &= ~BITS[seq_id]
        self.place(targets, self.pos[sources], BITS[seq_id])
        self.delta[targets] = self.delta[sources]
        moved_cells = np.concatenate([own, targets])
        self.pos[moved_cells] -= end - begin
        self.delta[moved_cells] -= end - begin
        return sources, targets
