"""``POST /v1/rerank``, in the form that Cohere and Jina share."""

import math
from typing import Any, Final

import msgspec
from starlette.requests import Request

from pyggml_server.api.v1.common_types import Extras
from pyggml_server.api.v1.decode import decode, encode, settings_of
from pyggml_server.api.v1.errors import FieldError
from pyggml_server.api.v1.ids import new_id
from pyggml_server.api.v1.options import plain_options
from pyggml_server.api.vectors import VectorService

__all__ = ["Rerank", "RerankRequest", "RerankResult", "Reranking"]


class RerankRequest(Extras, kw_only=True):
    """The body: a document is a text, or an object with a ``text``."""

    model: str
    query: str
    documents: list[str | dict[str, Any]]
    top_n: int | None = None
    return_documents: bool = False


class RerankResult(msgspec.Struct, omit_defaults=True):
    """A document by its number in the request, with its score from 0 to 1."""

    index: int
    relevance_score: float
    document: dict[str, Any] | None = None


class Reranking(msgspec.Struct):
    """The answer, the best document first."""

    id: str
    model: str
    results: list[RerankResult]
    usage: dict[str, int]
    object: str = "list"


_DECODER: Final = msgspec.json.Decoder(RerankRequest)


class Rerank:
    """The handler.

    Args:
        vectors: Gives the scores.
    """

    def __init__(self, vectors: VectorService) -> None:
        self._vectors: Final = vectors

    async def __call__(self, request: Request) -> bytes:
        """Answer.

        Raises:
            ServerError: of every kind.
        """
        asked = await decode(request, _DECODER)
        if not asked.documents:
            raise FieldError("documents must not be empty", param="documents")
        if asked.top_n is not None and asked.top_n < 1:
            raise FieldError("top_n must be 1 or more", param="top_n")
        texts = [_text(document, index) for index, document in enumerate(asked.documents)]
        settings = settings_of(asked, plain_options(asked))
        found = await self._vectors.rerank(
            asked.model,
            asked.query,
            texts,
            truncate=settings.truncate,
            options=settings.options,
            keep_alive=settings.keep_alive,
            priority=settings.priority,
        )
        results = [RerankResult(index, _probability(float(row[0]))) for index, row in enumerate(found.rows)]
        results.sort(key=lambda result: (-result.relevance_score, result.index))
        del results[asked.top_n or len(results) :]
        if asked.return_documents:
            for result in results:
                result.document = {"text": texts[result.index]}
        usage = {"prompt_tokens": found.n_tokens, "total_tokens": found.n_tokens}
        return encode(Reranking(new_id("rerank-"), asked.model, results, usage))


def _text(document: str | dict[str, Any], index: int) -> str:
    text = document if isinstance(document, str) else document.get("text")
    if not isinstance(text, str):
        raise FieldError(f"documents[{index}] has no text", param=f"documents[{index}]")
    return text


def _probability(logit: float) -> float:
    """Cross-encoders of one label are trained on the logistic function of what they give."""
    if logit >= 0:
        return 1 / (1 + math.exp(-logit))
    small = math.exp(logit)
    return small / (1 + small)
