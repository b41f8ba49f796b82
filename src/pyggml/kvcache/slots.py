"""Who uses which row of a recurrent cache."""

from dataclasses import dataclass, field

from pyggml.errors import ContextFullError

__all__ = ["StateSlots"]


@dataclass
class _Sequence:
    """Row and length of the current state, and of the checkpoints, shortest first."""

    length: int = 0
    row: int = 0
    checkpoints: list[tuple[int, int]] = field(default_factory=list)

    def points(self) -> list[tuple[int, int]]:
        """Every (length, row) it can go on from, shortest first; the current state last."""
        return [(0, 0), *self.checkpoints, (self.length, self.row)]

    def rows(self) -> list[int]:
        return [self.row, *(row for _, row in self.checkpoints)]


class StateSlots:
    """Rows 1 to ``n`` hold states, row 0 the empty one. A row may serve several sequences, and as a checkpoint."""

    def __init__(self, n: int, *, first: int, every: int) -> None:
        self.n_rows = n + 1
        self._first, self._every = first, every
        self._sequences: dict[int, _Sequence] = {}

    def copy(self) -> "StateSlots":
        """An independent copy."""
        other = StateSlots(self.n_rows - 1, first=self._first, every=self._every)
        other._sequences = {
            seq_id: _Sequence(s.length, s.row, list(s.checkpoints)) for seq_id, s in self._sequences.items()
        }
        return other

    def _uses(self, row: int) -> int:
        return sum(s.rows().count(row) for s in self._sequences.values())

    # -- looking ------------------------------------------------------------------------------------------------

    def length(self, seq_id: int) -> int:
        """How many tokens the current state has seen."""
        return self._sequences[seq_id].length if seq_id in self._sequences else 0

    def row_at(self, seq_id: int, length: int) -> int | None:
        """The row of the state after ``length`` tokens, if there is one."""
        points = self._sequences.get(seq_id, _Sequence()).points()
        return next((row for n, row in reversed(points) if n == length), None)

    def last_point(self, seq_id: int, length: int) -> int:
        """The longest state of at most ``length`` tokens."""
        return max(n for n, _ in self._sequences.get(seq_id, _Sequence()).points() if n <= length)

    # -- changing -----------------------------------------------------------------------------------------------

    def advance(self, seq_id: int, length: int) -> tuple[int, int]:
        """The sequence grows to ``length``: the row to read and the row to write.

        Raises:
            ContextFullError: no row is free, not even when checkpoints are given up.
        """
        s = self._sequences.setdefault(seq_id, _Sequence())
        last = s.checkpoints[-1][0] if s.checkpoints else -self._every
        if s.length >= max(1, self._first) and s.length - last >= self._every:
            s.checkpoints.append((s.length, s.row))
        source = s.row
        if source == 0 or self._uses(source) > 1:
            s.row = self._free_row(s)
        s.length = length
        return source, s.row

    def _free_row(self, s: _Sequence) -> int:
        while True:
            used = {row for other in self._sequences.values() for row in other.rows()}
            row = next((row for row in range(1, self.n_rows) if row not in used), None)
            if row is not None:
                return row
            if s.row and self._uses(s.row) == 1:
                return s.row  # kept as a checkpoint a moment ago, and given up: write in place
            most = max(self._sequences.values(), key=lambda other: len(other.checkpoints))
            if not most.checkpoints:
                raise ContextFullError(f"all {self.n_rows - 1} states are in use: finish a sequence first")
            most.checkpoints.pop(0)

    def cut(self, seq_id: int, length: int) -> None:
        """Fall back to the longest state of at most ``length`` tokens."""
        s = self._sequences.get(seq_id)
        if s is None or s.length <= length:
            return
        s.checkpoints = [point for point in s.checkpoints if point[0] <= length]
        if not s.checkpoints:
            del self._sequences[seq_id]
        else:
            s.length, s.row = s.checkpoints[-1]

    def share(self, source: int, target: int, length: int) -> None:
        """``target`` becomes ``source`` as it was after at most ``length`` tokens."""
        if source != target:
            self._sequences.pop(target, None)
            if source in self._sequences:
                s = self._sequences[source]
                self._sequences[target] = _Sequence(s.length, s.row, list(s.checkpoints))
        self.cut(target, length)

    def close_gap(self, seq_id: int, begin: int, end: int) -> None:
        """Renumber: what came after ``end`` comes after ``begin``; states in between are dropped."""
        s = self._sequences.get(seq_id)
        if s is None or begin == end:
            return
        if s.length <= end:
            self.cut(seq_id, begin)
            return
        by = end - begin
        moved = [(n - by, row) for n, row in s.checkpoints if n > end]
        s.checkpoints = [point for point in s.checkpoints if point[0] <= begin] + moved
        s.length -= by
