"""The vocabulary of a GGUF file in the form that llguidance wants."""

from collections.abc import Sequence

import llguidance
import numpy as np
import numpy.typing as npt

from pyggml.errors import GrammarError, ParameterError
from pyggml.tokenizer import Tokenizer

__all__ = ["Vocabulary"]

# llguidance takes a token that begins with this byte, which UTF-8 never has, for a special one.
SPECIAL = b"\xff"
# A control character that no vocabulary joins with text; it keeps the space that SentencePiece puts before a text off
# our text.
GUARD = "\x02"


class Vocabulary:
    """Tokens as bytes, the trie over them, and which of them end a text."""

    def __init__(self, tokenizer: Tokenizer, *, n_vocab: int) -> None:
        """
        Args:
            tokenizer: the model's.
            n_vocab: width of the model's logits; ids beyond the tokenizer's are never allowed.

        Raises:
            GrammarError: the vocabulary has no token that ends a text.
            ParameterError: ``n_vocab`` is smaller than the vocabulary.
        """
        if n_vocab < tokenizer.n_vocab:
            raise ParameterError(f"n_vocab {n_vocab} is less than the {tokenizer.n_vocab} tokens of the vocabulary")
        self.n_vocab = n_vocab
        self.n_words = -(-n_vocab // 32)
        self.stops = _stops(tokenizer)
        self.end_mask = _bits(self.stops, n_words=self.n_words)
        wrapper = llguidance.TokenizerWrapper(_Source(tokenizer, self.stops, n_vocab))
        self.trie = llguidance.LLTokenizer(wrapper, eos_token=list(self.stops))


def _stops(tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens that end generation, without those of fill-in-the-middle: they end code, not an answer."""
    middle = {tokenizer.fim_pad_id, tokenizer.fim_repo_id, tokenizer.fim_file_id}
    stops = tokenizer.eog_ids - middle or tokenizer.eog_ids
    if not stops:
        raise GrammarError("the vocabulary has no token that ends a text, so a grammar could never be left")
    return tuple(sorted(stops))


def _bits(ids: Sequence[int], *, n_words: int) -> npt.NDArray[np.int32]:
    words = np.zeros(n_words, np.uint32)
    for id in ids:
        words[id // 32] |= np.uint32(1 << id % 32)
    words.flags.writeable = False
    return words.view(np.int32)


class _Source:
    """What llguidance reads from a tokenizer; the names are its own."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[int], n_vocab: int) -> None:
        special = tokenizer.special_ids | set(stops)
        table = [tokenizer.token_bytes(id) for id in range(tokenizer.n_vocab)]
        for id in special:
            table[id] = SPECIAL + table[id]
        # An empty token is never allowed.
        self.tokens = table + [b""] * (n_vocab - len(table))
        self.special_token_ids = sorted(special)
        eos = tokenizer.eos_id
        self.eos_token_id = eos if eos in stops else stops[0]
        self.bos_token_id = tokenizer.bos_id
        self._tokenizer = tokenizer
        self._ids: dict[bytes, int] | None = None
        self._longest = 0

    def __call__(self, data: str | bytes) -> list[int]:
        """Tokens of a text in the middle of another."""
        text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
        encode = self._tokenizer.encode
        if not self._tokenizer.strips_leading_space:
            return encode(text, add_special=False, parse_special=False)
        ids = encode(GUARD + text, add_special=False, parse_special=False)
        before = b""
        for n, id in enumerate(ids):
            if before.endswith(GUARD.encode()):
                return ids[n:]
            before += self._tokenizer.token_bytes(id)
        return self._longest_first(text.encode())

    def _longest_first(self, data: bytes) -> list[int]:
        """Some tokens for a text, where the vocabulary has no such character; llguidance relies on getting some."""
        if self._ids is None:
            special = set(self.special_token_ids)
            self._ids = {piece: id for id, piece in enumerate(self.tokens) if piece and id not in special}
            self._longest = max(map(len, self._ids), default=0)
        ids: list[int] = []
        at = 0
        while at < len(data):
            ends = range(min(len(data), at + self._longest), at, -1)
            end = next((end for end in ends if data[at:end] in self._ids), None)
            if end is None:
                return ids  # what cannot be written is not allowed by any mask either
            ids.append(self._ids[data[at:end]])
            at = end
        return ids
