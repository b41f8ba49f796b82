"""The continuation of one prompt."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyggml.errors import ContextFullError, ParameterError
from pyggml.sampling import Sampler, SamplingParams
from pyggml.tokenizer import StreamDecoder

from .stop import StopMatcher

if TYPE_CHECKING:
    from .engine import Engine

__all__ = ["Generation", "GenerationStats", "Piece"]


@dataclass(frozen=True)
class Piece:
    """One generated token and the text that it completes (empty while a character is unfinished).

    ``token`` is None for the last piece, when text was held back until the end.
    """

    token: int | None
    text: str


@dataclass
class GenerationStats:
    """Counts and seconds of one generation; ``eval`` is about the answer, ``prompt`` about reading the prompt."""

    prompt_tokens: int = 0
    cached_tokens: int = 0
    prompt_seconds: float = 0.0
    eval_tokens: int = 0
    eval_seconds: float = 0.0
    finish_reason: str | None = None

    @property
    def prompt_rate(self) -> float:
        """Tokens per second while reading what was not cached."""
        return (self.prompt_tokens - self.cached_tokens) / self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def eval_rate(self) -> float:
        """Tokens per second of the answer."""
        return self.eval_tokens / self.eval_seconds if self.eval_seconds else 0.0


class Generation:
    """Iterate over it once: each step computes one token and yields a :class:`Piece`.

    ``finish_reason`` in :attr:`stats` is ``stop`` (the model ended, or a stop string appeared) or ``length``
    (``max_tokens`` or the context).
    """

    def __init__(
        self,
        engine: Engine,
        ids: list[int],
        params: SamplingParams,
        *,
        max_tokens: int | None = None,
        stop: Sequence[str] = (),
    ) -> None:
        if max_tokens is not None and max_tokens < 1:
            raise ParameterError(f"max_tokens must be 1 or more, got {max_tokens}")
        if len(ids) > engine.n_ctx:
            raise ContextFullError(
                f"the prompt has {len(ids)} tokens; the context holds {engine.n_ctx}: raise n_ctx or shorten the prompt"
            )
        self.stats = GenerationStats(prompt_tokens=len(ids))
        self.tokens: list[int] = []
        """The ids generated so far."""
        self._engine = engine
        self._ids = ids
        self._params = params
        self._max_tokens = max_tokens
        self._stop = StopMatcher(stop)
        self._steps = self._run()

    def __iter__(self) -> Iterator[Piece]:
        return self._steps

    def text(self) -> str:
        """Run to the end and return the whole text."""
        return "".join(piece.text for piece in self)

    def _run(self) -> Iterator[Piece]:
        engine, stats, stop = self._engine, self.stats, self._stop
        sampler = Sampler(self._params, n_ctx=engine.n_ctx)
        sampler.accept(self._ids)
        decoder = StreamDecoder(engine.tokenizer, text_start=False)
        began = time.perf_counter()
        row, stats.cached_tokens = engine.advance(self._ids)
        version = engine.version
        stats.prompt_seconds = time.perf_counter() - began
        while True:
            began = time.perf_counter()
            if self.tokens and engine.version == version:
                row = engine.extend(self.tokens[-1])
            elif self.tokens:  # somebody else used the engine since the last token
                row, _ = engine.advance(self._ids + self.tokens)
            version = engine.version
            token = sampler.sample(row[0])
            stats.eval_tokens += 1
            stats.eval_seconds += time.perf_counter() - began
            if token in engine.tokenizer.eog_ids:
                stats.finish_reason = "stop"
                break
            sampler.accept((token,))
            self.tokens.append(token)
            yield Piece(token, stop.push(decoder.push(token)))
            if stop.found is not None:
                stats.finish_reason = "stop"
                return
            if len(self.tokens) == self._max_tokens or len(self._ids) + len(self.tokens) > engine.n_ctx:
                stats.finish_reason = "length"
                break
        rest = stop.push(decoder.flush()) + stop.flush()
        if stop.found is not None:
            stats.finish_reason = "stop"
        if rest:
            yield Piece(None, rest)
