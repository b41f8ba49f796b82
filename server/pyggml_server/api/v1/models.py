"""``GET /v1/models`` and ``GET /v1/models/{model}``."""

from datetime import datetime
from typing import Final

import msgspec
from starlette.requests import Request

from pyggml_server.api.catalog import Catalog
from pyggml_server.api.v1.decode import encode
from pyggml_server.names import Name

__all__ = ["ModelCard", "ModelList", "Models", "OneModel"]


class ModelCard(msgspec.Struct):
    """A model: its name, the second it was stored, its namespace."""

    id: str
    created: int
    owned_by: str
    object: str = "model"


class ModelList(msgspec.Struct):
    """All models, the newest first."""

    data: list[ModelCard]
    object: str = "list"


class Models:
    """The handler of the list.

    Args:
        catalog: The models.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog: Final = catalog

    async def __call__(self, request: Request) -> bytes:
        """Answer."""
        entries = await self._catalog.run(self._catalog.store.list)
        return encode(ModelList([_card(entry.name, entry.modified) for entry in entries]))


class OneModel:
    """The handler of one.

    Args:
        catalog: The models.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog: Final = catalog

    async def __call__(self, request: Request) -> bytes:
        """Answer; the id is the one that was asked for, as in Ollama.

        Raises:
            ModelNotFoundError: there is none of that name.
        """
        text: str = request.path_params["model"]
        stored = await self._catalog.find(text)
        card = _card(stored.name, stored.modified)
        card.id = text
        return encode(card)


def _card(name: Name, modified: datetime) -> ModelCard:
    return ModelCard(name.display, int(modified.timestamp()), name.namespace)
