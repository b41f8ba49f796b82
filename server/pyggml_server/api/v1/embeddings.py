"""``POST /v1/embeddings``."""

import base64
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
from starlette.requests import Request

from pyggml_server.api.bodies import Int32
from pyggml_server.api.v1.common_types import Extras
from pyggml_server.api.v1.decode import decode, encode, settings_of
from pyggml_server.api.v1.errors import FieldError
from pyggml_server.api.v1.options import plain_options
from pyggml_server.api.vectors import VectorService

__all__ = ["EmbeddingList", "EmbeddingRequest", "Embeddings"]


class EmbeddingRequest(Extras, kw_only=True):
    """The body: a text, tokens, or a list of either."""

    model: str
    input: str | list[str | int | list[int]] = ""
    dimensions: Int32 | None = None
    encoding_format: str | None = None


class EmbeddingItem(msgspec.Struct):
    """A vector: numbers, or the base64 of little-endian float32."""

    embedding: list[float] | str
    index: int
    object: str = "embedding"


class EmbeddingUsage(msgspec.Struct):
    """Tokens computed."""

    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct):
    """The answer."""

    data: list[EmbeddingItem]
    model: str
    usage: EmbeddingUsage
    object: str = "list"


_DECODER: Final = msgspec.json.Decoder(EmbeddingRequest)


class Embeddings:
    """The handler.

    Args:
        vectors: Makes the vectors.
    """

    def __init__(self, vectors: VectorService) -> None:
        self._vectors: Final = vectors

    async def __call__(self, request: Request) -> bytes:
        """Answer.

        Raises:
            ServerError: of every kind.
        """
        asked = await decode(request, _DECODER)
        texts = texts_of(asked.input)
        if asked.encoding_format not in (None, "float", "base64"):
            raise FieldError("encoding_format must be float or base64", param="encoding_format")
        settings = settings_of(asked, plain_options(asked))
        found = await self._vectors.embed(
            asked.model,
            texts,
            dimensions=asked.dimensions,
            truncate=settings.truncate,
            options=settings.options,
            keep_alive=settings.keep_alive,
            priority=settings.priority,
        )
        write = _base64 if asked.encoding_format == "base64" else _numbers
        items = [EmbeddingItem(write(row), index) for index, row in enumerate(found.rows)]
        return encode(EmbeddingList(items, asked.model, EmbeddingUsage(found.n_tokens, found.n_tokens)))


def texts_of(given: str | list[str | int | list[int]]) -> list[str] | list[list[int]]:
    """Texts, or tokens of texts.

    Raises:
        FieldError: nothing, an empty text, or a mixture.
    """
    items: list[Any] = [given] if isinstance(given, str) else given
    if items and all(isinstance(item, int) for item in items):
        items = [items]
    kinds = {type(item) for item in items}
    if kinds not in ({str}, {list}) or not all(items):
        raise FieldError("invalid input: a text, tokens, or a list of either is wanted, none empty", param="input")
    return items


def _base64(row: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(row.astype("<f4").tobytes()).decode()


def _numbers(row: npt.NDArray[np.float32]) -> list[float]:
    found: list[float] = row.tolist()
    return found
