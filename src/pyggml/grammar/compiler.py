"""Makes matchers for one vocabulary."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import llguidance

from pyggml.closing import Closing
from pyggml.errors import ClosedError, ParameterError
from pyggml.tokenizer import Tokenizer

from .limits import GrammarLimits
from .matcher import Matcher, prefetch_all
from .spec import Grammar
from .translate import explain, translate
from .vocabulary import Vocabulary

__all__ = ["GrammarCompiler"]


class GrammarCompiler(Closing):
    """Compiles grammars for one vocabulary; one per engine. Safe to share between threads.

    The trie over the vocabulary is built with the first grammar, or by :meth:`warm`: 0.3 s for 49,152 tokens, 2 s for
    262,144, with the interpreter's lock held, so better before anybody waits for an answer.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        n_vocab: int | None = None,
        n_workers: int = 1,
        limits: GrammarLimits | None = None,
    ) -> None:
        """
        Args:
            tokenizer: the model's.
            n_vocab: width of the model's logits, where it is more than the vocabulary.
            n_workers: threads that compute masks ahead.
            limits: what one grammar may cost.

        Raises:
            ParameterError: ``n_vocab`` is smaller than the vocabulary, or ``n_workers`` below 1.
        """
        self.n_vocab = tokenizer.n_vocab if n_vocab is None else n_vocab
        if self.n_vocab < tokenizer.n_vocab:
            raise ParameterError(f"n_vocab {n_vocab} is less than the {tokenizer.n_vocab} tokens of the vocabulary")
        if n_workers < 1:
            raise ParameterError(f"n_workers must be 1 or more, got {n_workers}")
        self.limits = limits or GrammarLimits()
        self._tokenizer = tokenizer
        self._vocabulary: Vocabulary | None = None
        self._lock = Lock()
        self._n_workers = n_workers
        self._pool = ThreadPoolExecutor(n_workers, thread_name_prefix="pyggml-grammar")
        self._closed = False

    def warm(self) -> None:
        """Build what every grammar needs; a second call does nothing."""
        self._get_vocabulary()

    def compile(self, spec: Grammar) -> Matcher:
        """A matcher at the beginning of its text, its first mask already computed.

        Takes about a millisecond for a usual schema; the limits bound it to about a second. The interpreter's lock is
        released meanwhile.

        Raises:
            ClosedError: the compiler was closed.
            GrammarError: the grammar is wrong, not supported, over a limit, or no text satisfies it.
        """
        text = translate(spec, self.limits)
        vocabulary = self._get_vocabulary()
        inner = llguidance.LLMatcher(vocabulary.trie, text, log_level=0, limits=self._parser_limits())
        if inner.is_error():
            raise explain(spec.kind, inner.get_error())
        matcher = Matcher(inner, vocabulary, spec.kind, self._pool)
        matcher.mask()
        return matcher

    def prefetch(self, matchers: Iterable[Matcher]) -> None:
        """Start computing the next masks of many matchers, spread over the workers.

        Raises:
            ClosedError: the compiler was closed.
        """
        self._need_open()
        wanted = list(matchers)
        share = -(-len(wanted) // self._n_workers)
        for begin in range(0, len(wanted), max(1, share)):
            prefetch_all(self._pool, wanted[begin : begin + share])

    def _get_vocabulary(self) -> Vocabulary:
        self._need_open()
        with self._lock:
            if self._vocabulary is None:
                self._vocabulary = Vocabulary(self._tokenizer, n_vocab=self.n_vocab)
            return self._vocabulary

    def _parser_limits(self) -> llguidance.LLParserLimits:
        limits = self.limits
        return llguidance.LLParserLimits(
            max_items_in_row=limits.items_in_row,
            initial_lexer_fuel=limits.lexer_fuel,
            step_lexer_fuel=limits.lexer_fuel_per_step,
            step_max_items=limits.items_per_step,
            max_lexer_states=limits.lexer_states,
            max_grammar_size=limits.symbols,
            verbose_errors=False,
        )

    def _need_open(self) -> None:
        if self._closed:
            raise ClosedError("the grammar compiler was closed")

    def close(self) -> None:
        """End the workers; matchers that exist go on without computing ahead. A second call does nothing."""
        self._closed = True
        self._pool.shutdown(wait=True, cancel_futures=False)
