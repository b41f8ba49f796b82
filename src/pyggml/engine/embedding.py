"""Vectors and scores of many texts, computed in shared batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import index

import numpy as np
import numpy.typing as npt

from pyggml.batch import MAX_SEQUENCES, Batch
from pyggml.errors import ContextFullError, ModelError, ParameterError
from pyggml.gguf import ModelMetadata
from pyggml.models import CacheKind, Pooling
from pyggml.tokenizer import Tokenizer

from .decoder import Decoder
from .packing import Part, pack
from .pairs import pair_ids
from .pooling import pool, wanted_tokens

__all__ = ["Embedder", "Embeddings", "Scores", "TextJob"]

Floats = npt.NDArray[np.float32]

PACKED = 256
"""Tokens of a batch that texts share when each of them looks at all of it: attention's work grows with the square."""


@dataclass(frozen=True)
class Embeddings:
    """One vector per text.

    Attributes:
        vectors: ``(n_texts, dimensions)`` float32.
        n_tokens: computed of each text.
        n_truncated: how many texts were cut.
    """

    vectors: Floats
    n_tokens: list[int]
    n_truncated: int


@dataclass(frozen=True)
class Scores:
    """How well each document answers a query.

    Attributes:
        scores: ``(n_documents)`` float32: what the model's head gives, unbounded; higher is better.
        n_tokens: computed for each document, query included.
        n_truncated: how many documents were cut.
    """

    scores: Floats
    n_tokens: list[int]
    n_truncated: int


@dataclass
class _Text:
    ids: list[int]
    segments: list[int] | None = None
    truncated: bool = False
    rows: list[Floats] = field(default_factory=list)


class TextJob:
    """Texts on their way through the model; every :meth:`step` computes one batch, so that others can go between.

    One job of an :class:`Embedder` at a time: they use the same sequences.
    """

    def __init__(self, owner: Embedder, texts: list[_Text], pooling: int, adapters: Mapping[int, float]) -> None:
        """For :class:`Embedder`."""
        self.texts = texts
        self.pooling = pooling
        self._owner = owner
        self._adapters = adapters
        self._batches = owner.plan(texts)
        self._next = 0

    @property
    def done(self) -> bool:
        """Whether every text was computed."""
        return self._next == len(self._batches)

    def step(self) -> bool:
        """Compute a batch.

        Returns:
            Whether there is another.

        Raises:
            ContextFullError: the cache has no room for the batch.
            ComputeError: a device failed.
        """
        if not self.done:
            parts = self._batches[self._next]
            last = all(part.end == len(self.texts[part.text].ids) for part in parts)
            self._owner.compute(self.texts, parts, self.pooling, self._adapters, last=last)
            self._next += 1
        return not self.done

    def cancel(self) -> None:
        """Give up: forget what the cache holds of a text that is not finished."""
        self._owner.clear()
        self._next = len(self._batches)

    def run(self) -> None:
        """Compute all batches; exceptions as for :meth:`step`."""
        while self.step():
            pass


class Embedder:
    """Texts to vectors, and pairs of texts to scores, by one model.

    Texts of different lengths share batches as different sequences, so short ones cost what their tokens cost.
    """

    def __init__(
        self,
        decoder: Decoder,
        tokenizer: Tokenizer,
        metadata: ModelMetadata,
        *,
        n_ctx: int,
        n_batch: int,
        sequences: Sequence[int] = range(MAX_SEQUENCES),
        make_room: Callable[[], bool] | None = None,
    ) -> None:
        """
        Args:
            decoder: computes batches.
            tokenizer: of the model.
            metadata: of the model's file.
            n_ctx: most tokens of a text.
            n_batch: tokens of a batch.
            sequences: numbers of sequences in the cache that nobody else uses; they are empty before and after. A model
                without cached keys has no use for them.
            make_room: called when the cache is full; returns whether it freed something.
        """
        self.decoder, self.tokenizer, self.metadata = decoder, tokenizer, metadata
        shape = decoder.model.shape
        self.n_ctx, self.n_batch = min(n_ctx, shape.n_ctx_train), n_batch
        self.causal = shape.cache != CacheKind.BATCH_ONLY
        self.sequences = list(sequences if self.causal else range(MAX_SEQUENCES))
        self._make_room = make_room
        if not self.sequences:
            raise ParameterError("embedding needs at least one sequence of the cache; lower n_parallel")

    # -- what users call ----------------------------------------------------------------------------------------

    def embed(
        self,
        texts: Sequence[str | Sequence[int]],
        *,
        normalize: bool = True,
        dimensions: int | None = None,
        truncate: bool = False,
        pooling: int | None = None,
        adapters: Mapping[int, float] | None = None,
    ) -> Embeddings:
        """One vector per text.

        Args:
            texts: texts or token ids.
            normalize: scale each vector to length 1.
            dimensions: keep so many numbers of each (before normalising); None: all.
            truncate: cut texts that are too long; False: refuse them.
            pooling: ``Pooling.MEAN``, ``CLS`` or ``LAST``; None: the model's own, or the mean for a model that names
                none.
            adapters: scale of each LoRA adapter by index.

        Raises:
            ContextFullError: a text is longer than the context.
            ModelError: the model ranks, and no pooling was given.
            ParameterError: a text without tokens, an id outside of the vocabulary, or an option out of its range.
        """
        n_embd = self.decoder.model.shape.n_embd
        if dimensions is not None and not 1 <= dimensions <= n_embd:
            raise ParameterError(
                f"dimensions must be 1 to {n_embd}, the size of this model's vectors; got {dimensions}"
            )
        job = self.start(texts, truncate=truncate, pooling=pooling, adapters=adapters)
        job.run()
        return self.embeddings(job, normalize=normalize, dimensions=dimensions)

    def start(
        self,
        texts: Sequence[str | Sequence[int]],
        *,
        truncate: bool = False,
        pooling: int | None = None,
        adapters: Mapping[int, float] | None = None,
    ) -> TextJob:
        """Prepare what :meth:`embed` does, to be computed step by step; arguments and exceptions as there."""
        chosen = self._pooling(pooling)
        prepared = [self._text(i, text, truncate=truncate) for i, text in enumerate(texts)]
        return TextJob(self, prepared, chosen, adapters or {})

    def embeddings(self, job: TextJob, *, normalize: bool = True, dimensions: int | None = None) -> Embeddings:
        """The vectors of a job that is done."""
        vectors = [
            pool(np.concatenate(text.rows), job.pooling, normalize=normalize, dimensions=dimensions)
            for text in job.texts
        ]
        n_embd = dimensions or self.decoder.model.shape.n_embd
        array = np.stack(vectors) if vectors else np.empty((0, n_embd), np.float32)
        return Embeddings(array, [len(text.ids) for text in job.texts], sum(text.truncated for text in job.texts))

    def token_states(
        self,
        texts: Sequence[str | Sequence[int]],
        *,
        truncate: bool = False,
        adapters: Mapping[int, float] | None = None,
    ) -> list[Floats]:
        """The state of every token, ``(n_tokens, n_embd)`` per text, neither pooled nor normalised.

        Exceptions as for :meth:`embed`.
        """
        job = self.start(texts, truncate=truncate, pooling=Pooling.NONE, adapters=adapters)
        job.run()
        return [np.concatenate(text.rows) for text in job.texts]

    def rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        truncate: bool = False,
        adapters: Mapping[int, float] | None = None,
    ) -> Scores:
        """How well each document answers the query, by a cross-encoder.

        Args:
            query: the question.
            documents: possible answers; each is read together with the query.
            truncate: cut documents that are too long; False: refuse them.
            adapters: scale of each LoRA adapter by index.

        Raises:
            ContextFullError: query and document are longer than the context.
            ModelError: the model does not rank.
        """
        job = self.start_rerank(query, documents, truncate=truncate, adapters=adapters)
        job.run()
        return self.scores(job)

    def start_rerank(
        self,
        query: str,
        documents: Sequence[str],
        *,
        truncate: bool = False,
        adapters: Mapping[int, float] | None = None,
    ) -> TextJob:
        """Prepare what :meth:`rerank` does, to be computed step by step; arguments and exceptions as there."""
        shape, path = self.decoder.model.shape, self.metadata.path
        if shape.pooling != Pooling.RANK:
            raise ModelError(
                f"{path}: the model does not rank (its pooling_type is not 4); use a cross-encoder, or compare "
                "embeddings"
            )
        if shape.n_scores != 1:
            raise ModelError(f"{path}: the model's head gives {shape.n_scores} classes; a reranker gives one score")
        pairs = [self._pair(i, query, document, truncate=truncate) for i, document in enumerate(documents)]
        return TextJob(self, pairs, Pooling.RANK, adapters or {})

    def scores(self, job: TextJob) -> Scores:
        """The scores of a job that is done."""
        values = np.array([text.rows[0][0, 0] for text in job.texts], np.float32)
        return Scores(values, [len(text.ids) for text in job.texts], sum(text.truncated for text in job.texts))

    # -- from texts to tokens -----------------------------------------------------------------------------------

    def _pooling(self, pooling: int | None) -> int:
        path, own = self.metadata.path, self.decoder.model.shape.pooling
        known = (Pooling.NONE, Pooling.MEAN, Pooling.CLS, Pooling.LAST)
        if pooling is not None:
            if pooling not in known:
                raise ParameterError(f"pooling must be 0 (none), 1 (mean), 2 (cls) or 3 (last), got {pooling}")
            return pooling
        if own == Pooling.RANK:
            raise ModelError(f"{path}: the model ranks (pooling_type 4) and has no vectors of its own; give a pooling")
        if own not in known:
            raise ModelError(f"{path}: pooling_type {own} is not supported; give a pooling")
        return own or Pooling.MEAN

    def _text(self, i: int, text: str | Sequence[int], *, truncate: bool) -> _Text:
        if isinstance(text, str):
            ids = self.tokenizer.encode(text)
            n_end = int(self.tokenizer.adds_eos)  # a text that was cut still ends as the model knows it
        else:
            ids, n_end = [index(token) for token in text], 0
        self._check(i, ids)
        over = len(ids) - self.n_ctx
        if over <= 0:
            return _Text(ids)
        if not truncate:
            raise ContextFullError(
                f"text {i} has {len(ids)} tokens; the context holds {self.n_ctx}: shorten it, or let it be truncated"
            )
        end = len(ids) - n_end
        return _Text(ids[: max(0, end - over)] + ids[end:], truncated=True)

    def _check(self, i: int, ids: list[int]) -> None:
        """ggml ends the process on a row that the embedding lacks."""
        n_vocab = self.decoder.model.shape.n_vocab or self.tokenizer.n_vocab
        if not ids:
            raise ParameterError(f"text {i} has no tokens: there is nothing to compute")
        if min(ids) < 0 or max(ids) >= n_vocab:
            bad = next(token for token in ids if not 0 <= token < n_vocab)
            raise ParameterError(f"text {i}: token id {bad} is outside of the vocabulary of {n_vocab}")

    def _pair(self, i: int, query: str, document: str, *, truncate: bool) -> _Text:
        pair = pair_ids(self.tokenizer, self.metadata, query, document)
        over = len(pair.ids) - self.n_ctx
        if over > 0:
            if not truncate or over >= pair.document[1] - pair.document[0]:
                raise ContextFullError(
                    f"the query and document {i} have {len(pair.ids)} tokens; the context holds {self.n_ctx}: shorten "
                    "the query, or let documents be truncated"
                )
            end = pair.document[1]
            del pair.ids[end - over : end], pair.segments[end - over : end]
        self._check(i, pair.ids)
        segments = pair.segments if self.decoder.model.shape.n_segments > 1 else None
        return _Text(pair.ids, segments, truncated=over > 0)

    # -- computing, for TextJob ---------------------------------------------------------------------------------

    def plan(self, texts: Sequence[_Text]) -> list[list[Part]]:
        """Which texts share a batch."""
        return pack(
            [len(text.ids) for text in texts],
            capacity=self.n_batch if self.causal else min(self.n_batch, PACKED),
            n_texts=min(len(self.sequences), MAX_SEQUENCES),
            split=self.causal,
        )

    def compute(
        self, texts: Sequence[_Text], parts: Sequence[Part], pooling: int, adapters: Mapping[int, float], *, last: bool
    ) -> None:
        """Compute a batch, and keep the rows that its texts need; ``last``: the texts end here."""
        where = Pooling.LAST if self.causal else Pooling.CLS  # a causal model scores at the end, as llama.cpp has it
        batch, counts = self._batch(texts, parts, where if pooling == Pooling.RANK else pooling, adapters)
        try:
            rows = self._run(batch, states=pooling != Pooling.RANK)
        except BaseException:
            self.clear()
            raise
        begin = 0
        for part, n in zip(parts, counts, strict=True):
            if n:
                texts[part.text].rows.append(rows[begin : begin + n].copy())
            begin += n
        if last:
            self.clear(len(parts))

    def _batch(
        self, texts: Sequence[_Text], parts: Sequence[Part], pooling: int, adapters: Mapping[int, float]
    ) -> tuple[Batch, list[int]]:
        """The batch, and how many outputs each part has."""
        lengths = [part.end - part.begin for part in parts]
        tokens = [token for part in parts for token in texts[part.text].ids[part.begin : part.end]]
        outputs, counts, first = [], [], 0
        for part, length in zip(parts, lengths, strict=True):
            wanted = wanted_tokens(pooling, begin=part.begin, end=part.end, length=len(texts[part.text].ids))
            outputs += [first + at - part.begin for at in wanted]
            counts.append(len(wanted))
            first += length
        n = len(tokens)
        batch = Batch(
            np.array(tokens, np.int32),
            np.concatenate([np.arange(part.begin, part.end, dtype=np.int32) for part in parts]),
            np.repeat(np.array(self.sequences[: len(parts)], np.int32), lengths),
            np.array(outputs, np.int32),
            {i: np.full(n, scale, np.float32) for i, scale in adapters.items()},
            _segments(texts, parts),
        )
        return batch, counts

    def _run(self, batch: Batch, *, states: bool) -> Floats:
        while True:
            try:
                return self.decoder.run(batch, states=states)
            except ContextFullError:
                if self._make_room is None or not self._make_room():
                    raise

    def clear(self, n: int | None = None) -> None:
        """Empty the first ``n`` sequences; None: all."""
        for seq_id in self.sequences[:n] if self.causal else ():
            self.decoder.cache.remove(seq_id, 0)


def _segments(texts: Sequence[_Text], parts: Sequence[Part]) -> npt.NDArray[np.int32] | None:
    def each() -> Iterator[int]:
        for part in parts:
            yield from (texts[part.text].segments or [])[part.begin : part.end]

    if texts[parts[0].text].segments is None:
        return None
    return np.fromiter(each(), np.int32)
