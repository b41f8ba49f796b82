"""What a lease gives: the engine of one model."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any

from pyggml_server.protocol import Done, Embed, Generate, Loaded, Metrics, MetricsReply, Rerank, Text, Vectors
from pyggml_server.scheduler.process import RunnerProcess

__all__ = ["Runner"]


class Runner:
    """A loaded model, for as long as its lease lasts.

    Attributes:
        info: What was loaded.
        n_ctx: Tokens of context that this request has: what it asked for, or all there is.
        load_duration_ns: How long it waited for the model to load; 0 when it was there.
        queue_position: Requests that are served before this one; 0: it has its turn.
    """

    def __init__(
        self,
        process: RunnerProcess,
        info: Loaded,
        *,
        num_ctx: int | None,
        load_duration_ns: int,
        queue_position: int,
        priority: int,
    ) -> None:
        """For :class:`~pyggml_server.scheduler.ModelScheduler`."""
        self._process = process
        self._priority = priority
        self.info = info
        self.n_ctx = info.n_ctx if num_ctx is None else min(num_ctx, info.n_ctx)
        self.load_duration_ns = load_duration_ns
        self.queue_position = queue_position

    def generate(self, **fields: Any) -> AsyncGenerator[Text | Done, None]:
        """Continue a prompt.

        Args:
            fields: of :class:`pyggml_server.protocol.Generate`, without ``id``; ``priority`` is the lease's where it is
                left out.

        Returns:
            an iterator that ends with :class:`Done`. Closing it cancels the request before the next batch.

        Raises:
            ContextTooLongError, InvalidOptionError, InvalidGrammarError, RequestRefusedError: the engine refused.
            RunnerDiedError: the process ended.
        """
        fields.setdefault("priority", self._priority)
        if self.n_ctx < self.info.n_ctx:
            fields.setdefault("n_ctx", self.n_ctx)
        return self._process.stream(Generate, **fields)

    async def embed(
        self,
        texts: Sequence[Sequence[int]],
        *,
        normalize: bool = True,
        dimensions: int | None = None,
        truncate: bool = True,
    ) -> Vectors:
        """Vectors of texts, given as tokens. Exceptions as for :meth:`generate`."""
        reply: Vectors = await self._process.ask(
            Embed,
            texts=[list(text) for text in texts],
            normalize=normalize,
            dimensions=dimensions,
            truncate=truncate,
        )
        return reply

    async def rerank(self, query: str, documents: Sequence[str], *, truncate: bool = True) -> Vectors:
        """A score for each document, one column. Exceptions as for :meth:`generate`."""
        reply: Vectors = await self._process.ask(Rerank, query=query, documents=list(documents), truncate=truncate)
        return reply

    async def metrics(self) -> MetricsReply:
        """Counters of the engine."""
        reply: MetricsReply = await self._process.ask(Metrics)
        return reply
