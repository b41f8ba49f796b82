"""From messages to requests of the engine, and back."""

import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from pyggml.engine import Drafter, Engine, GenerationStats, Piece, PromptLookup, Request, Task, TextJob
from pyggml.errors import ContextFullError, PyggmlError
from pyggml.grammar import Grammar, GrammarKind
from pyggml.sampling import SamplingParams, TokenLogprobs
from pyggml_server.protocol import (
    Done,
    Embed,
    Failed,
    Generate,
    GrammarText,
    LogProbs,
    MetricsReply,
    Rerank,
    Text,
    Vectors,
)

__all__ = ["Answer", "TextWork", "create_request", "failure", "read_metrics"]

log = logging.getLogger("pyggml.runner")

_NS: Final = 10**9


def failure(id: int, error: Exception) -> Failed:
    """An exception as a message; one that is not the library's own is a bug, and its stack is logged."""
    if isinstance(error, PyggmlError):
        return Failed(id, type(error).__name__, str(error))
    log.error("request %d failed", id, exc_info=error)
    return Failed(id, "internal", f"{type(error).__name__}: {error}")


def create_request(message: Generate, engine: Engine, drafts: Drafter | None = None) -> tuple[Request, int]:
    """The engine's request, and how many tokens were taken out of the prompt to fit the context that was asked for.

    Args:
        message: What is asked for.
        engine: Who answers.
        drafts: The draft model, where there is one.

    Raises:
        ContextFullError: the prompt is too long and may not be truncated.
        ParameterError: an option is out of its range. GrammarError: the grammar is wrong.
    """
    tokens, cut = message.tokens, 0
    max_tokens = message.max_tokens
    limit = message.n_ctx
    if limit is not None and limit < engine.n_ctx:
        tokens, cut = _fit(message, limit, has_bos=engine.tokenizer.adds_bos)
        if not message.shift:
            room = max(1, limit - len(tokens))
            max_tokens = room if max_tokens is None else min(max_tokens, room)
    return (
        Request(
            tokens,
            SamplingParams(**_sampling(message.sampling)),
            max_tokens=max_tokens,
            stop=message.stop,
            ignore_eos=message.ignore_eos,
            keep_special=message.keep_special,
            shift=message.shift,
            truncate=message.truncate,
            n_keep=message.n_keep,
            logprobs=message.logprobs,
            grammar=_grammar(message.grammar),
            drafter=_drafter(message, drafts),
            n_draft=message.speculate if message.speculate > 0 else 8,
            adapters=message.adapters,
            priority=message.priority,
        ),
        cut,
    )


def _drafter(message: Generate, drafts: Drafter | None) -> Drafter | None:
    if message.speculate <= 0:
        return None
    return drafts if message.by_model and drafts is not None else PromptLookup()


def _fit(message: Generate, limit: int, *, has_bos: bool) -> tuple[list[int], int]:
    """As the engine cuts prompts to its own context."""
    excess = len(message.tokens) - limit
    if excess <= 0:
        return message.tokens, 0
    if not message.truncate:
        raise ContextFullError(
            f"the prompt's {len(message.tokens)} tokens do not fit into a context of {limit}; raise num_ctx or shorten "
            "the prompt"
        )
    keep = min(max(message.n_keep, 0) + has_bos, limit // 2)
    return message.tokens[:keep] + message.tokens[keep + excess :], excess


def _sampling(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Maps have text as keys on their way here, biases are by token id."""
    chosen = dict(fields)
    if biases := chosen.get("logit_bias"):
        pairs = biases.items() if isinstance(biases, Mapping) else biases
        chosen["logit_bias"] = {int(token): float(bias) for token, bias in pairs}
    return chosen


def _grammar(grammar: GrammarText | None) -> Grammar | None:
    if grammar is None:
        return None
    return Grammar(GrammarKind(grammar.kind), grammar.text, lenient=grammar.lenient)


class Answer:
    """A generation on its way out: what was not sent yet."""

    def __init__(self, id: int, task: Task, *, cut: int) -> None:
        self.id, self.task, self._cut = id, task, cut
        self._tokens: list[int] = []
        self._logprobs: list[LogProbs] = []

    def messages(self) -> list[Text | Done | Failed]:
        """What the task has to say since the last call. Tokens wait for the text that they begin."""
        task, texts, found = self.task, [], []
        outputs = task.outputs
        while outputs:
            piece: Piece = outputs.popleft()
            if piece.token is not None:
                self._tokens.append(piece.token)
            if piece.logprobs is not None:
                self._logprobs.append(_logprobs(piece.logprobs))
            if piece.text:
                texts.append(piece.text)
        if texts or (task.finished and self._tokens):
            found.append(Text(self.id, self._tokens, "".join(texts), self._logprobs))
            self._tokens, self._logprobs = [], []
        if task.finished:
            return [*found, self._end()]
        return [*found]

    def _end(self) -> Done | Failed:
        task = self.task
        if task.error is not None:
            return failure(self.id, task.error)
        stats: GenerationStats = task.stats
        return Done(
            self.id,
            stats.finish_reason or "stop",
            task.stop_string,
            prompt_tokens=stats.prompt_tokens,
            cached_tokens=stats.cached_tokens,
            truncated_tokens=stats.truncated_tokens + self._cut,
            shifts=stats.shifts,
            eval_tokens=stats.eval_tokens,
            drafted_tokens=stats.drafted_tokens,
            accepted_tokens=stats.accepted_tokens,
            queue_ns=int(stats.queue_seconds * _NS),
            prompt_ns=int(stats.prompt_seconds * _NS),
            eval_ns=int(stats.eval_seconds * _NS),
        )


def _logprobs(found: TokenLogprobs) -> LogProbs:
    return LogProbs(found.token, found.logprob, [(token, value) for token, value in found.top])


class TextWork:
    """Texts to embed or to score, prepared when their turn comes and computed batch by batch."""

    def __init__(self, message: Embed | Rerank, engine: Engine) -> None:
        """
        Raises:
            ContextFullError, ModelError, ParameterError: as for :class:`pyggml.engine.Embedder`.
        """
        self.id = message.id
        self._message, self._embedder = message, engine.embedder
        self._cut = 0
        self.job: TextJob
        if isinstance(message, Rerank):
            self.job = self._embedder.start_rerank(message.query, message.documents, truncate=message.truncate)
        else:
            texts = [self._keep_end(text, engine) for text in message.texts] if message.truncate else message.texts
            self.job = self._embedder.start(texts, truncate=message.truncate)

    def _keep_end(self, ids: list[int], engine: Engine) -> list[int]:
        """A text that is too long still ends as the model knows it."""
        n_ctx, tokenizer = self._embedder.n_ctx, engine.tokenizer
        if len(ids) <= n_ctx or not tokenizer.adds_eos or n_ctx < 2:
            return ids
        self._cut += 1
        return [*ids[: n_ctx - 1], ids[-1]]

    def reply(self) -> Vectors:
        """The vectors or scores of a job that is done."""
        message = self._message
        if isinstance(message, Rerank):
            scores = self._embedder.scores(self.job)
            data = scores.scores.astype("<f4").tobytes()
            return Vectors(self.id, len(scores.scores), 1, data, scores.n_tokens, scores.n_truncated)
        found = self._embedder.embeddings(self.job, normalize=message.normalize, dimensions=message.dimensions)
        rows, columns = found.vectors.shape
        data = found.vectors.astype("<f4").tobytes()
        return Vectors(self.id, rows, columns, data, found.n_tokens, found.n_truncated + self._cut)


def read_metrics(id: int, engine: Engine) -> MetricsReply:
    """Counters as they are now; any thread may read them."""
    counters = {name: float(value) for part in (engine.metrics, engine.stats) for name, value in asdict(part).items()}
    scheduler = engine.scheduler
    return MetricsReply(id, counters, len(scheduler.running), scheduler.n_waiting)
