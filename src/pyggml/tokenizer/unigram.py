"""Unigram language model (``tokenizer.ggml.model`` = t5): the most probable segmentation.

Method: Kudo 2018, "Subword Regularization: Improving Neural Network Translation Models with Multiple Subword
Candidates".
"""

import numpy as np
from tokenizers import Regex, normalizers, pre_tokenizers
from tokenizers.models import Unigram

from pyggml.errors import TokenizerError
from pyggml.tokenizer.encoders import LibraryEncoder
from pyggml.tokenizer.vocab import TokenType, Vocabulary

__all__ = ["build_unigram"]

_MATCHABLE = (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED)


def build_unigram(vocab: Vocabulary) -> LibraryEncoder:
    """An encoder over the pieces that text may become; control tokens are only found as special tokens.

    Raises:
        TokenizerError: the vocabulary has no unknown token, or its normalisation table is damaged.
    """
    unk = vocab.special.ids["unk"]
    if unk is None or unk in vocab.broken:
        raise TokenizerError("tokenizer.ggml.unknown_token_id is missing: Unigram cannot work without it")
    # A piece with a space in it is never found, since spaces are spelled U+2581 by then.
    pieces = [(f" {id}", 0.0) for id in range(len(vocab.tokens))]
    scores = np.where(vocab.types == TokenType.USER_DEFINED, 0, vocab.scores).tolist()
    for id in vocab.findable_ids(*_MATCHABLE):
        pieces[id] = (vocab.tokens[id], scores[id])
    hidden = {vocab.tokens[id]: id for id in vocab.findable_ids(TokenType.CONTROL, TokenType.UNKNOWN)}
    return LibraryEncoder(
        vocab,
        Unigram(pieces, unk, byte_fallback=False),
        normalizer=_normalizer(vocab),
        pre_tokenizer=pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="never", split=True),
        renumber=hidden,
    )


def _normalizer(vocab: Vocabulary) -> normalizers.Normalizer:
    steps: list[normalizers.Normalizer] = []
    if vocab.charsmap is not None:
        _check_charsmap(vocab.charsmap)
        try:
            steps.append(normalizers.Precompiled(vocab.charsmap))
        except Exception as error:  # the library raises nothing narrower
            raise TokenizerError(f"tokenizer.ggml.precompiled_charsmap cannot be read: {error}") from error
    if vocab.remove_extra_whitespaces:
        steps.append(normalizers.Replace(Regex(r"\A +| +\z| +(?= )"), ""))
    if vocab.add_space_prefix or vocab.remove_extra_whitespaces:
        steps.append(normalizers.Prepend("▁"))
    steps.append(normalizers.Replace(" ", "▁"))
    return normalizers.Sequence(steps)


def _check_charsmap(data: bytes) -> None:
    """Raise unless no input can lead the library outside the table, which it does not check while it normalises.

    The table is a little-endian length, a Darts double array of 32-bit units, and zero-terminated replacements. A
    unit with the top bit set holds the offset of a replacement; any other one leads, by an offset and one byte of
    input, to the next unit.
    """
    size = int.from_bytes(data[:4], "little")
    if len(data) < 4 or size % 4 or not 4 <= size <= len(data) - 5:
        raise TokenizerError("tokenizer.ggml.precompiled_charsmap is cut off")
    units = np.frombuffer(data, dtype="<u4", count=size // 4, offset=4).astype(np.int64)
    is_value = units >> 31 == 1
    offsets = (units >> 10) << ((units & (1 << 9)) >> 6)
    furthest = (np.arange(len(units)) ^ offsets) | 0xFF
    strings = np.frombuffer(data, dtype=np.uint8, offset=4 + size)
    starts = np.append(np.flatnonzero(strings == 0) + 1, 0)
    if (
        (furthest[~is_value] >= len(units)).any()
        or strings[-1] != 0
        or not np.isin(units[is_value] & 0x7FFFFFFF, starts[starts < len(strings)]).all()
    ):
        raise TokenizerError("tokenizer.ggml.precompiled_charsmap is damaged: it points outside itself")
