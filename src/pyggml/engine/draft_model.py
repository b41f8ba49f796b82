"""Drafts by a smaller model (Leviathan et al. 2023, Chen et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pyggml.errors import ContextFullError, ModelError, ParameterError
from pyggml.tokenizer import Tokenizer

from .engine import Engine

__all__ = ["DraftModel"]

MOST_DIFFERENT = 128  # vocabularies of a family are padded differently


class DraftModel:
    """Proposes what a smaller model with the same vocabulary finds most likely.

    One object serves any number of requests of one scheduler: the draft engine keeps a sequence for each as long as it
    has as many (``n_parallel``), and computes only what is new.
    """

    def __init__(self, engine: Engine, target: Tokenizer, *, p_min: float = 0.75) -> None:
        """
        Args:
            engine: the draft model, open; the caller closes it.
            target: the tokenizer of the model that verifies.
            p_min: the draft ends before a token that is less likely than this; 0: never.

        Raises:
            ModelError: the vocabularies differ.
            ParameterError: ``p_min`` is no probability.
        """
        if not 0.0 <= p_min <= 1.0:
            raise ParameterError(f"p_min must be 0 to 1, got {p_min}")
        self.engine = engine
        self.p_min = p_min
        self._n_vocab = check_vocabularies(engine, target)

    def draft(self, tokens: Sequence[int], *, n_max: int) -> list[int]:
        """See :meth:`~pyggml.engine.Drafter.draft`; nothing beyond the draft model's context."""
        engine = self.engine
        n = min(n_max, engine.n_ctx - len(tokens))
        if n < 1:
            return []
        try:
            row, _ = engine.advance(list(tokens))
        except ContextFullError:
            return []
        found: list[int] = []
        while True:
            token, likely = self._best(row[0])
            if not likely or token in engine.tokenizer.eog_ids:
                return found  # (an end is not worth a place in the batch)
            found.append(token)
            if len(found) == n:
                return found
            row = engine.extend(token)

    def accepted(self, n_drafted: int, n_accepted: int) -> None:
        """Nothing is learnt: the next call goes on from the longest beginning that is still right."""

    def _best(self, row: npt.NDArray[np.float32]) -> tuple[int, bool]:
        known = row[: self._n_vocab]  # ids beyond the other's vocabulary cannot be right
        best = int(known.argmax())
        if self.p_min <= 0.0:
            return best, True
        return best, float(np.exp(known - known[best]).sum(dtype=np.float64)) * self.p_min <= 1.0


def check_vocabularies(engine: Engine, target: Tokenizer) -> int:
    """How many ids the two vocabularies share.

    Raises:
        ModelError: they differ by more than padding at the end.
    """
    own = engine.tokenizer
    n = min(own.n_vocab, target.n_vocab)
    path = engine.file.path
    if abs(own.n_vocab - target.n_vocab) > MOST_DIFFERENT:
        raise ModelError(
            f"{path}: the draft model has {own.n_vocab} tokens, the model {target.n_vocab}; take one of its family"
        )
    for token in range(n):
        if own.token_bytes(token) != target.token_bytes(token):
            raise ModelError(
                f"{path}: token {token} is {own.token_bytes(token)!r} for the draft model and "
                f"{target.token_bytes(token)!r} for the model; take one of its family"
            )
    return n
