"""A request at work: its tokens, its slot, and what it has to say so far."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from pyggml.sampling import Sampler, TokenLogprobs
from pyggml.tokenizer import StreamDecoder, Tokenizer

from .request import Request
from .slots import Slot
from .stop import StopMatcher

if TYPE_CHECKING:
    from pyggml.grammar import Matcher

__all__ = ["GenerationStats", "Piece", "Task"]


@dataclass(frozen=True)
class Piece:
    """One generated token and the text that it completes (empty while a character is unfinished).

    ``token`` is None for the last piece, when text was held back until the end. ``logprobs`` is there when asked for.
    """

    token: int | None
    text: str
    logprobs: TokenLogprobs | None = None


@dataclass
class GenerationStats:
    """Counts and seconds of one generation; ``eval`` is about the answer, ``prompt`` about reading the prompt.

    Attributes:
        prompt_tokens: tokens of the prompt as it was read, after truncation.
        cached_tokens: how many of them the cache had.
        truncated_tokens: how many were taken out because the prompt was too long.
        queue_seconds: from the request to its first batch.
        prompt_seconds: time in batches that read the prompt.
        eval_tokens: tokens of the answer, its end included; a grammar left no choice about ``forced_tokens`` of them.
        eval_seconds: time in batches after the first token, and for choosing tokens.
        drafted_tokens: tokens proposed by the drafter; ``accepted_tokens`` of them were right.
        shifts: how often the context was shifted.
        finish_reason: ``stop`` (the model ended, a stop string, a complete grammar), ``length`` (``max_tokens`` or the
            context), ``cancelled`` or ``error``; None while it runs.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    truncated_tokens: int = 0
    queue_seconds: float = 0.0
    prompt_seconds: float = 0.0
    eval_tokens: int = 0
    forced_tokens: int = 0
    eval_seconds: float = 0.0
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    shifts: int = 0
    finish_reason: str | None = None

    @property
    def prompt_rate(self) -> float:
        """Tokens per second while reading what was not cached."""
        return (self.prompt_tokens - self.cached_tokens) / self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def eval_rate(self) -> float:
        """Tokens per second of the answer."""
        return self.eval_tokens / self.eval_seconds if self.eval_seconds else 0.0


class Task:
    """State of one request between steps of the scheduler."""

    def __init__(
        self, request: Request, tokenizer: Tokenizer, sampler: Sampler, *, matcher: Matcher | None, n_keep: int
    ) -> None:
        self.request = request
        self.sampler = sampler
        self.matcher = matcher
        self.n_keep = n_keep
        self.tokens = list(request.ids)
        """What the context must hold: prompt and answer, less what was shifted out."""
        self.generated: list[int] = []
        self.outputs: deque[Piece] = deque()
        """Pieces that nobody has taken yet."""
        self.stats = GenerationStats(prompt_tokens=len(self.tokens))
        self.slot: Slot | None = None
        self.error: Exception | None = None
        self.cancelled = False
        self.arrived = 0.0
        self.draft: list[int] = []
        # what the model thinks of a token is known only where it is computed
        self._one_by_one = matcher is not None and request.logprobs is not None
        self._eog = tokenizer.eog_ids
        self._decoder = StreamDecoder(tokenizer, skip_special=not request.keep_special, text_start=False)
        self._stop = StopMatcher(request.stop)
        sampler.accept(self.tokens)

    @property
    def finished(self) -> bool:
        return self.stats.finish_reason is not None

    @property
    def decoding(self) -> bool:
        """Whether the first token of the answer was chosen."""
        return bool(self.generated)

    @property
    def pending(self) -> int:
        """Tokens that the cache does not hold yet."""
        return len(self.tokens) - (len(self.slot.tokens) if self.slot is not None else 0)

    @property
    def stop_string(self) -> str | None:
        """The stop string that ended the answer."""
        return self._stop.found

    def choose(self, logits: npt.NDArray[np.float32]) -> int:
        """The next token, by the request's parameters and grammar."""
        if self._one_by_one:
            forced = next(iter(self._forced()), None)
            if forced is not None:
                self.stats.forced_tokens += 1
                return forced
        mask = None if self.matcher is None else self.matcher.mask()
        return self.sampler.sample(logits, mask=mask)

    def _forced(self) -> list[int]:
        """Tokens about which the grammar leaves no choice now."""
        tokens = [] if self.matcher is None else self.matcher.forced()
        return list(takewhile(lambda token: token not in self._eog, tokens))

    def accept(self, token: int, logprobs: TokenLogprobs | None = None) -> None:
        """Take a chosen token, and those that a grammar forces after it, unless each needs its log-probability."""
        self.stats.eval_tokens += 1
        if token in self._eog:
            self.finish("stop")
            return
        self._emit(token, logprobs)
        if self.matcher is None or self.finished:
            return
        self.matcher.accept(token)
        for forced in () if self._one_by_one else self._forced():
            if self.finished:
                return
            self.matcher.accept(forced)
            self.stats.eval_tokens += 1
            self.stats.forced_tokens += 1
            self._emit(forced, None)
        if self.finished:
            return
        if self.matcher.is_stopped:
            self.finish("stop")
        else:
            self.matcher.prefetch()

    def _emit(self, token: int, logprobs: TokenLogprobs | None) -> None:
        self.sampler.accept((token,))
        self.tokens.append(token)
        self.generated.append(token)
        self.outputs.append(Piece(token, self._stop.push(self._decoder.push(token)), logprobs))
        if self._stop.found is not None:
            self.stats.finish_reason = "stop"
        elif len(self.generated) == self.request.max_tokens:
            self.finish("length")

    def finish(self, reason: str) -> None:
        """No more tokens: let the held back text out."""
        if self.finished:
            return
        rest = self._stop.push(self._decoder.flush()) + self._stop.flush()
        self.stats.finish_reason = "stop" if self._stop.found is not None else reason
        if rest:
            self.outputs.append(Piece(None, rest))

    def fail(self, error: Exception) -> None:
        """End with an exception, which the reader of the pieces gets."""
        if not self.finished:
            self.error = error
            self.stats.finish_reason = "error"
