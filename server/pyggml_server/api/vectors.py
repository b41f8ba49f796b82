"""Embeddings and scores of rerankers, from texts to numbers."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pyggml_server.api.catalog import Catalog, OpenModel
from pyggml_server.api.options import Options, merge_options
from pyggml_server.config import KeepAlive
from pyggml_server.errors import BadRequestError, CapabilityError, ContextTooLongError, RequestRefusedError
from pyggml_server.protocol import Vectors
from pyggml_server.scheduler import ModelScheduler

__all__ = ["VectorResult", "VectorService"]


@dataclass(frozen=True, kw_only=True, slots=True)
class VectorResult:
    """Rows of float32 numbers, one per text, and what they took.

    Attributes:
        model: The model that made them.
        rows: Shape (texts, dimensions); of a reranker (documents, 1).
        n_tokens: Tokens computed, of all texts together.
        n_truncated: Texts that were cut because they were too long.
        load_ns: Loading the model; 0 when it was there.
        total_ns: From the request to the end.
    """

    model: OpenModel
    rows: npt.NDArray[np.float32]
    n_tokens: int
    n_truncated: int
    load_ns: int
    total_ns: int


class VectorService:
    """Turns texts into vectors and scores.

    Args:
        catalog: The models.
        scheduler: Loads them.
    """

    def __init__(self, catalog: Catalog, scheduler: ModelScheduler) -> None:
        self._catalog: Final = catalog
        self._scheduler: Final = scheduler

    async def embed(
        self,
        model: str,
        texts: Sequence[str] | Sequence[Sequence[int]],
        *,
        dimensions: int | None = None,
        normalize: bool = True,
        truncate: bool = True,
        options: Mapping[str, Any] | None = None,
        keep_alive: KeepAlive | None = None,
        priority: int = 0,
    ) -> VectorResult:
        """A vector for each text; without texts, the model is only loaded.

        Args:
            model: Name of the model.
            texts: Texts, or their tokens, which are taken as they are.
            dimensions: Keep only so many numbers of each vector; None: all.
            normalize: Give vectors of length 1.
            truncate: Cut texts that are too long; False: refuse them.
            options: Options by Ollama's names.
            keep_alive: How long the model stays loaded afterwards.
            priority: Higher ones are served first.

        Raises:
            ContextTooLongError: a text is too long and must not be cut.
            ServerError: of every other kind.
        """
        if dimensions is not None and dimensions < 1:
            raise BadRequestError(f"dimensions must be 1 or more, got {dimensions}")
        started = time.monotonic_ns()
        opened = await self._catalog.open(model)
        merged = merge_options(opened.stored.params, options or {})
        ids = await self._catalog.run(_encode, opened, texts)
        spec = opened.spec(merged.load)
        async with self._scheduler.lease(spec, keep_alive=keep_alive, priority=priority) as runner:
            _check_lengths(ids, _limit(opened, runner.n_ctx), truncate=truncate)
            if not ids:
                found = Vectors(0, 0, 0, b"")
            else:
                found = await runner.embed(texts=ids, normalize=normalize, dimensions=dimensions, truncate=truncate)
            return _result(opened, found, load_ns=runner.load_duration_ns, started=started)

    async def rerank(
        self,
        model: str,
        query: str,
        documents: Sequence[str],
        *,
        truncate: bool = True,
        options: Mapping[str, Any] | None = None,
        keep_alive: KeepAlive | None = None,
        priority: int = 0,
    ) -> VectorResult:
        """A score for each document: how well it answers the query, by a cross-encoder.

        Raises:
            CapabilityError: the model gives no scores.
            ServerError: of every other kind.
        """
        started = time.monotonic_ns()
        opened = await self._catalog.open(model)
        if not opened.can("rerank") and not opened.can("embedding"):
            raise CapabilityError(f'"{model}" does not support reranking')
        merged: Options = merge_options(opened.stored.params, options or {})
        spec = opened.spec(merged.load)
        async with self._scheduler.lease(spec, keep_alive=keep_alive, priority=priority) as runner:
            if documents:
                found = await runner.rerank(query=query, documents=list(documents), truncate=truncate)
            else:
                found = Vectors(0, 0, 1, b"")
            return _result(opened, found, load_ns=runner.load_duration_ns, started=started)


def _encode(model: OpenModel, texts: Sequence[str] | Sequence[Sequence[int]]) -> list[list[int]]:
    vocabulary = range(model.tokenizer.n_vocab)
    ids = []
    for text in texts:
        if isinstance(text, str):
            ids.append(model.tokenizer.encode(text))
        elif all(token in vocabulary for token in text):
            ids.append(list(text))
        else:
            raise BadRequestError(f"a token is not in the vocabulary of {len(vocabulary)} tokens")
    return ids


def _limit(model: OpenModel, n_ctx: int) -> int:
    return min(n_ctx, model.n_ctx_train) if model.n_ctx_train else n_ctx


def _check_lengths(ids: list[list[int]], limit: int, *, truncate: bool) -> None:
    longest = max(map(len, ids), default=0)
    if longest > limit and not truncate:
        raise ContextTooLongError(
            f"the input length exceeds the context length: {longest} tokens, the context has {limit}",
            error="ContextFullError",
        )


def _result(model: OpenModel, found: Vectors, *, load_ns: int, started: int) -> VectorResult:
    rows = np.frombuffer(found.data, "<f4").reshape(found.rows, found.columns)
    if not np.isfinite(rows).all():
        raise RequestRefusedError(f"{model.stored.name.display} gave numbers that are not finite", error="internal")
    return VectorResult(
        model=model,
        rows=rows,
        n_tokens=sum(found.n_tokens),
        n_truncated=found.n_truncated,
        load_ns=load_ns,
        total_ns=time.monotonic_ns() - started,
    )
