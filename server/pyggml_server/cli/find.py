"""Which model an argument of the command line means."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pyggml_server.errors import ModelNotFoundError
from pyggml_server.names import Name

if TYPE_CHECKING:
    from pyggml_server.store import StoredModel

__all__ = ["FoundModel", "find_model"]


@dataclass(frozen=True)
class FoundModel:
    """A model file, and what the store says of it."""

    label: str
    path: Path
    stored: StoredModel | None = None
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def system(self) -> str | None:
        """The system text of the stored model."""
        return self.stored.system if self.stored is not None else None


def find_model(model: str, *, pull: bool = False) -> FoundModel:
    """The file behind ``model``: a path to a GGUF file, or a name in the store.

    Args:
        model: the argument as it was typed.
        pull: fetch a name that the store lacks.

    Raises:
        ModelNotFoundError: the store lacks it (without ``pull``).
        TransferError: it could not be fetched.
    """
    path = Path(model).expanduser()
    if path.is_file() or model.startswith(("/", "./", "../", "~")):
        return FoundModel(model, path)
    from pyggml_server.cli.storing import open_store  # here: a file needs no store, and what it loads is 25 MiB

    store = open_store()
    name = Name.parse(model)
    try:
        stored = store.get(name)
    except ModelNotFoundError:
        if not pull:
            raise
        from pyggml_server.cli.progress import show_progress
        from pyggml_server.store import Puller

        with show_progress() as report:
            stored = Puller(store).pull(model, report=report)
    return FoundModel(stored.name.display, stored.path, stored, dict(stored.params))
