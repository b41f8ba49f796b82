"""Encoders: what turns text into ids once the vocabulary is read, without BOS and EOS."""

import threading
from collections.abc import Mapping
from typing import Protocol

import tokenizers
from tokenizers import AddedToken
from tokenizers.models import Model
from tokenizers.normalizers import Normalizer
from tokenizers.pre_tokenizers import PreTokenizer

from pyggml.tokenizer.vocab import TokenType, Vocabulary

__all__ = ["Encoder", "LibraryEncoder"]

# Characters from which the GIL is worth releasing: below, handing over costs more than it saves.
_LONG_TEXT = 2048


class Encoder(Protocol):
    """Turns valid Unicode text into token ids. Implementations are safe to call from several threads."""

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        """Ids of ``text``; texts of control tokens in it become those tokens if ``parse_special``."""
        ...


class LibraryEncoder:
    """An algorithm of the ``tokenizers`` library over one GGUF vocabulary.

    Whether special tokens are recognised is a property of a ``tokenizers.Tokenizer`` and not of a call, so
    there are two of them, made when first needed. They share the model, which is nearly all of their memory.
    """

    def __init__(
        self,
        vocab: Vocabulary,
        model: Model,
        *,
        normalizer: Normalizer | None,
        pre_tokenizer: PreTokenizer | None,
        renumber: Mapping[str, int] | None = None,
    ) -> None:
        """
        Args:
            vocab: gives the special tokens.
            model: the library's model; its ids are the vocabulary's.
            normalizer: applied to the text between special tokens.
            pre_tokenizer: cuts that text into words.
            renumber: text to id of special tokens that ``model`` does not contain.
        """
        self._vocab = vocab
        self._model = model
        self._normalizer = normalizer
        self._pre_tokenizer = pre_tokenizer
        self._absent = renumber or {}
        self._renumbered: dict[int, int] = {}
        self._built: dict[bool, tokenizers.Tokenizer] = {}
        self._lock = threading.Lock()

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        """See :class:`Encoder`."""
        engine = self._built.get(parse_special) or self._build(parse_special=parse_special)
        ids: list[int]
        if len(text) < _LONG_TEXT:
            ids = engine.encode(text, add_special_tokens=False).ids
        else:
            # Unlike encode(), the batch call lets other threads run.
            ids = engine.encode_batch_fast([text], add_special_tokens=False)[0].ids
        if self._renumbered:
            renumbered = self._renumbered
            return [renumbered.get(id, id) for id in ids]
        return ids

    def _build(self, *, parse_special: bool) -> tokenizers.Tokenizer:
        with self._lock:
            if parse_special not in self._built:
                engine = tokenizers.Tokenizer(self._model)
                if self._normalizer is not None:
                    engine.normalizer = self._normalizer
                if self._pre_tokenizer is not None:
                    engine.pre_tokenizer = self._pre_tokenizer
                engine.add_tokens(self._added(TokenType.USER_DEFINED))
                if parse_special:
                    engine.add_special_tokens(self._added(TokenType.UNKNOWN, TokenType.CONTROL))
                for text, id in self._absent.items():
                    given = engine.token_to_id(text)
                    if given is not None:
                        self._renumbered[given] = id
                self._built[parse_special] = engine
            return self._built[parse_special]

    def _added(self, *types: TokenType) -> list[AddedToken]:
        vocab = self._vocab
        return [
            AddedToken(
                vocab.tokens[id],
                normalized=False,
                lstrip=id in vocab.strip_left,
                rstrip=id in vocab.strip_right,
            )
            for id in vocab.findable_ids(*types)
        ]
