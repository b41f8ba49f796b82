"""One text under a grammar: which tokens may come next."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import llguidance
import numpy as np
import numpy.typing as npt

from pyggml.errors import GrammarError, ParameterError

from .spec import GrammarKind
from .translate import explain
from .vocabulary import Vocabulary

__all__ = ["Matcher", "prefetch_all"]

Mask = npt.NDArray[np.int32]


class Matcher:
    """Follows one text. Made by :meth:`GrammarCompiler.compile`; one thread at a time may use it.

    A step is ``mask``, choose a token, ``accept``. ``prefetch`` between ``accept`` and ``mask`` computes the mask on
    another thread, without the interpreter's lock, while the device computes the logits.
    """

    def __init__(
        self, inner: llguidance.LLMatcher, vocabulary: Vocabulary, kind: GrammarKind, pool: ThreadPoolExecutor
    ) -> None:
        self._inner = inner
        self._vocabulary = vocabulary
        self._kind = kind
        self._pool = pool
        self._n_tokens = 0
        self._ended = False
        # Row i: the mask after the first i tokens of the draft; the first `_n_rows` are right, `_at` is the present.
        self._rows: Mask = np.zeros((1, vocabulary.n_words), np.int32)
        self._draft: list[int] = []
        self._at = self._n_rows = 0
        self._future: Future[None] | None = None
        self._error: GrammarError | None = None

    # -- what may come ------------------------------------------------------------------------------------------

    def mask(self) -> Mask:
        """The tokens that may come next, bit ``t % 32`` of word ``t // 32`` for token ``t``.

        Returns:
            ``(ceil(n_vocab / 32))`` int32, valid until this matcher changes; not to be written to. Where the text may
            end, every token that ends generation is allowed (but not those of fill-in-the-middle).

        Raises:
            GrammarError: the grammar costs more than its limits allow, or leads nowhere from here.
        """
        self._settle()
        if self._ended:
            return self._vocabulary.end_mask
        if self._at >= self._n_rows:
            self._compute(())
        self._raise_error()
        row: Mask = self._rows[self._at]
        return row

    def prefetch(self, draft: Sequence[int] = ()) -> None:
        """Start computing the next mask on a worker, and the masks after each token of ``draft``.

        Those are used if the draft's tokens are then accepted one by one. Errors are raised by ``mask``.
        """
        if self._is_ready(draft):
            return
        try:
            self._future = self._pool.submit(self._compute, tuple(draft))
        except RuntimeError:  # the pool was shut down: mask() will compute
            self._future = None

    @property
    def is_ready(self) -> bool:
        """Whether ``mask`` would return at once: nothing is being computed. One costly grammar need not stop others."""
        return self._future is None or self._future.done()

    def forced(self) -> list[int]:
        """Tokens that must come now, because the grammar leaves no choice; often none.

        They are how the tokenizer would write the text, as far as what follows cannot change that. The caller accepts
        them and feeds them together, without sampling.
        """
        self._settle()
        self._raise_error()
        if self._ended or self._inner.is_stopped():
            return []
        return list(self._inner.compute_ff_tokens())

    def n_allowed(self, tokens: Sequence[int]) -> int:
        """How many of ``tokens`` could be accepted in a row; nothing changes."""
        self._settle()
        self._raise_error()
        if self._ended:
            return 0
        cut = next((i for i, token in enumerate(tokens) if token in self._vocabulary.stops), len(tokens))
        n = int(self._inner.validate_tokens(list(tokens[:cut])))
        if n < cut or cut == len(tokens):
            return n
        taken = self.try_accept(tokens[: cut + 1])
        self.rollback(taken)
        return taken

    @property
    def is_accepting(self) -> bool:
        """Whether the text may end here."""
        self._settle()
        return self._ended or bool(self._inner.is_accepting())

    @property
    def is_stopped(self) -> bool:
        """Whether nothing but the end can come: the generation can stop without asking the model."""
        self._settle()
        return self._ended or (bool(self._inner.is_stopped()) and not self._inner.is_error())

    @property
    def n_tokens(self) -> int:
        """Tokens accepted so far."""
        return self._n_tokens

    @property
    def warnings(self) -> tuple[str, ...]:
        """What of the grammar is ignored (``lenient`` schemas)."""
        self._settle()
        return tuple(map(str, self._inner.get_grammar_warnings()))

    # -- going on and back --------------------------------------------------------------------------------------

    def accept(self, token: int) -> None:
        """Add a token to the text.

        Raises:
            GrammarError: the grammar costs more than its limits allow.
            ParameterError: the token is not allowed here; nothing has changed.
        """
        self._settle()
        if not self._push(token):
            raise ParameterError(f"token {token} is not allowed by the grammar after {self._n_tokens} tokens")

    def try_accept(self, tokens: Sequence[int]) -> int:
        """Add tokens until one is not allowed; returns how many were.

        Raises:
            GrammarError: the grammar costs more than its limits allow.
        """
        self._settle()
        for n, token in enumerate(tokens):
            if not self._push(token):
                return n
        return len(tokens)

    def rollback(self, n: int) -> None:
        """Take the last ``n`` tokens back.

        Raises:
            ParameterError: there are not so many.
        """
        self._settle()
        if not 0 <= n <= self._n_tokens:
            raise ParameterError(f"cannot take back {n} of {self._n_tokens} tokens")
        if n == 0:
            return
        self._raise_error()
        inner = n - 1 if self._ended else n
        if inner and not self._inner.rollback(inner):
            raise explain(self._kind, self._inner.get_error())
        self._ended = False
        self._n_tokens -= n
        self._at = self._n_rows = 0

    def copy(self) -> "Matcher":
        """Another matcher at the same place."""
        self._settle()
        self._raise_error()
        other = Matcher(self._inner.deep_copy(), self._vocabulary, self._kind, self._pool)
        other._n_tokens, other._ended = self._n_tokens, self._ended
        return other

    # -- inside -------------------------------------------------------------------------------------------------

    def _push(self, token: int) -> bool:
        self._raise_error()
        if self._ended:
            return False
        if token in self._vocabulary.stops and self._inner.is_accepting():
            self._ended = True
        elif not 0 <= token < self._vocabulary.n_vocab or self._inner.try_consume_tokens([token]) != 1:
            if self._inner.is_error():
                self._error = explain(self._kind, self._inner.get_error())
                raise self._error
            return False
        self._n_tokens += 1
        if self._at + 1 < self._n_rows and self._draft[self._at] == token:
            self._at += 1
        else:
            self._at = self._n_rows = 0
        return True

    def _is_ready(self, draft: Sequence[int]) -> bool:
        self._settle()
        if self._ended or self._error is not None:
            return True
        rest = self._draft[self._at :]
        return self._at < self._n_rows and rest[: len(draft)] == list(draft)

    def _compute(self, draft: Sequence[int]) -> None:
        """Fill the rows; never raises, so that a worker can go on with the next matcher."""
        if len(self._rows) <= len(draft):
            self._rows = np.zeros((len(draft) + 1, self._vocabulary.n_words), np.int32)
        self._draft, self._at, self._n_rows = list(draft), 0, 0
        taken = 0
        self._fill()
        for token in draft:
            stop = token in self._vocabulary.stops or not 0 <= token < self._vocabulary.n_vocab
            if self._error is not None or stop or self._inner.try_consume_tokens([token]) != 1:
                break
            taken += 1
            self._fill()
        if self._error is None and taken:
            self._inner.rollback(taken)

    def _fill(self) -> None:
        row = self._rows[self._n_rows]
        self._inner.unsafe_compute_mask_ptr(row.ctypes.data, row.nbytes)
        if self._inner.is_error():
            self._error = explain(self._kind, self._inner.get_error())
        elif not row.any():
            self._error = GrammarError("no token of the vocabulary can continue the text as the grammar demands")
        else:
            self._n_rows += 1

    def _settle(self) -> None:
        if self._future is not None:
            future, self._future = self._future, None
            future.result()

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error


def prefetch_all(pool: ThreadPoolExecutor, matchers: Sequence[Matcher]) -> None:
    """Compute the next masks of several matchers as one job."""
    wanted = [matcher for matcher in matchers if not matcher._is_ready(())]
    if not wanted:
        return

    def work() -> None:
        for matcher in wanted:
            matcher._compute(())

    future = pool.submit(work)
    for matcher in wanted:
        matcher._future = future
