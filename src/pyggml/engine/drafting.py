"""Guessing the next tokens, for the model to check several at once.

A drafter only proposes: the model computes the draft in one batch, and what it would have chosen otherwise is dropped,
so drafts change the speed and not the text (:class:`Request` says how exactly).
"""

from collections.abc import Sequence
from typing import Protocol

from pyggml.errors import ParameterError

__all__ = ["Drafter", "PromptLookup"]

TAIL = 32  # known tokens that are compared with what is handed in
LONGEST_PAUSE = 64


class Drafter(Protocol):
    """Proposes tokens for one sequence."""

    def draft(self, tokens: Sequence[int], *, n_max: int) -> list[int]:
        """What may follow ``tokens``, prompt and answer so far: at most ``n_max`` tokens, often none."""

    def accepted(self, n_drafted: int, n_accepted: int) -> None:
        """Tell how the last draft fared: how much of it was computed, and how much of that the model confirmed."""


class PromptLookup:
    """Copies what followed the last time: prompt lookup decoding (Saxena 2023).

    The last n tokens are looked up in the text so far, longest n first, the most recent occurrence taken, and what came
    after it is the draft; a text that repeats itself is continued round and round. An index of all n-grams grows with
    the text, so a step costs the same however long the text is (about 10 us).

    Drafts grow while all of a draft is accepted and shrink to what was accepted. After drafts of which nothing was
    accepted, 1, 3, 7, ... calls return nothing, so that a text without repetition costs little.
    """

    def __init__(self, *, ngram_max: int = 4, ngram_min: int = 2, n_draft: int = 16) -> None:
        """
        Args:
            ngram_max: most tokens to look up.
            ngram_min: fewest; 1 finds most and is wrong most.
            n_draft: longest draft.

        Raises:
            ParameterError: not ``1 <= ngram_min <= ngram_max <= 32``, or ``n_draft`` below 1.
        """
        if not 1 <= ngram_min <= ngram_max <= TAIL:
            raise ParameterError(f"ngram_min {ngram_min} and ngram_max {ngram_max} must ascend from 1 to {TAIL}")
        if n_draft < 1:
            raise ParameterError(f"n_draft must be 1 or more, got {n_draft}")
        self._lengths = range(ngram_min, ngram_max + 1)
        self._n_draft = n_draft
        self._length = n_draft
        self._misses = self._pause = 0
        self.reset()

    def reset(self) -> None:
        """Forget the text, not what was learnt about drafting."""
        self._tokens: list[int] = []
        # Per length: the n-gram, 32 bits a token, to where its last occurrence but the one at the end was followed.
        self._index: list[dict[int, int]] = [{} for _ in self._lengths]
        self._keys = [0 for _ in self._lengths]

    def draft(self, tokens: Sequence[int], *, n_max: int) -> list[int]:
        """See :meth:`Drafter.draft`.

        Args:
            tokens: the text; usually the last one with tokens added. A text that is shorter, or differs in the last 32
                tokens known, is indexed anew; :meth:`reset` after any other change.
            n_max: longest draft wanted now.
        """
        self._follow(tokens)
        if self._pause:
            self._pause -= 1
            return []
        n = min(n_max, self._length)
        if n < 1:
            return []
        begin = self._find()
        return [] if begin is None else self._copy(begin, n)

    def accepted(self, n_drafted: int, n_accepted: int) -> None:
        """See :meth:`Drafter.accepted`.

        Raises:
            ParameterError: not ``0 <= n_accepted <= n_drafted``.
        """
        if not 0 <= n_accepted <= n_drafted:
            raise ParameterError(f"{n_accepted} of {n_drafted} drafted tokens cannot have been accepted")
        if n_drafted == 0:
            return
        if n_accepted == n_drafted:
            self._length = min(self._n_draft, max(self._length, 2 * n_drafted))
        else:
            self._length = min(self._n_draft, n_accepted + 1)
        self._misses = 0 if n_accepted else self._misses + 1
        self._pause = min(2**self._misses - 1, LONGEST_PAUSE)

    def _follow(self, tokens: Sequence[int]) -> None:
        """Bring the index up to ``tokens``."""
        known = len(self._tokens)
        if len(tokens) < known or list(tokens[max(0, known - TAIL) : known]) != self._tokens[-TAIL:]:
            self.reset()
            known = 0
        for token in tokens[known:]:
            self._append(token)

    def _append(self, token: int) -> None:
        end = len(self._tokens)
        for i, n in enumerate(self._lengths):
            if end >= n:
                self._index[i][self._keys[i]] = end
            self._keys[i] = (self._keys[i] << 32 | token) & ((1 << 32 * n) - 1)
        self._tokens.append(token)

    def _find(self) -> int | None:
        """Where the longest n-gram at the end was followed before."""
        for i in reversed(range(len(self._lengths))):
            # Keys of fewer tokens than n cannot be in the index by mistake: those had n.
            if len(self._tokens) >= self._lengths[i] and (at := self._index[i].get(self._keys[i])) is not None:
                return at
        return None

    def _copy(self, begin: int, n: int) -> list[int]:
        out = self._tokens[begin : begin + n]
        period = len(self._tokens) - begin
        while len(out) < n:
            out.append(out[len(out) - period])
        return out
