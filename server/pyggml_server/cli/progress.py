"""Draws progress: a bar per stage on a terminal, one line per stage elsewhere."""

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars

from pyggml_server.store import Progress, Report

__all__ = ["show_progress"]


@contextmanager
def show_progress() -> Iterator[Report]:
    """Give a function that takes progress and draws it on stderr while the context is open."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Bars(*_columns(), console=console) as bars:
            yield _Bars(bars)
    else:
        yield _Lines(console)


def _columns() -> list[ProgressColumn]:
    counted = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    return [TextColumn("{task.description}", markup=False), *(_Counted(column) for column in counted)]


class _Counted(ProgressColumn):
    """A column that stays empty for stages that count no bytes."""

    def __init__(self, column: ProgressColumn) -> None:
        super().__init__()
        self._column = column

    def render(self, task: Task) -> RenderableType:
        """Draw the column."""
        return self._column.render(task) if task.completed or task.total else ""


class _Bars:
    """One bar per status text."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._status = ""
        self._task: TaskID | None = None

    def __call__(self, progress: Progress) -> None:
        if self._task is None or progress.status != self._status:
            if self._task is not None:
                self._bars.stop_task(self._task)
            self._status = progress.status
            self._task = self._bars.add_task(progress.status, total=progress.total)
        self._bars.update(self._task, completed=progress.completed, total=progress.total)


class _Lines:
    """One line per status text, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._status = ""

    def __call__(self, progress: Progress) -> None:
        if progress.status != self._status:
            self._status = progress.status
            self._console.print(progress.status, markup=False, highlight=False, soft_wrap=True)
