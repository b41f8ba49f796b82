"""The continuation of one prompt, read piece by piece."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .task import GenerationStats, Piece, Task

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["Generation"]


class Generation:
    """Iterate over it once: each step yields a :class:`Piece`.

    Several may run at once: whichever is read drives all of them, each on its own sequence while there are any; the
    others wait. Closing one, or dropping it, cancels it.
    """

    def __init__(self, engine: Engine, task: Task) -> None:
        self._engine = engine
        self._task = task

    @property
    def stats(self) -> GenerationStats:
        """Counts and seconds so far; ``finish_reason`` is set when it has ended."""
        return self._task.stats

    @property
    def tokens(self) -> Sequence[int]:
        """The ids generated so far."""
        return self._task.generated

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the text."""
        return self._task.stop_string

    def __iter__(self) -> Iterator[Piece]:
        return self

    def __next__(self) -> Piece:
        task = self._task
        while not task.outputs:
            if task.finished:
                if task.error is not None:
                    raise task.error
                raise StopIteration
            self._engine.step()
        return task.outputs.popleft()

    def text(self) -> str:
        """Run to the end and return the whole text."""
        return "".join(piece.text for piece in self)

    def close(self) -> None:
        """Cancel what is left of it; the pieces so far stay readable."""
        self._engine.scheduler.cancel(self._task)

    def __del__(self) -> None:
        if not self._task.finished:
            self.close()
