"""Unigram language model (``tokenizer.ggml.model`` = t5): the most probable segmentation.

Method: Kudo 2018, "Subword Regularization: Improving Neural Network Translation Models with Multiple Subword
Candidates".
"""

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
    if unk is None:
        raise TokenizerError("tokenizer.ggml.unknown_token_id is missing: Unigram cannot work without it")
    # A piece with a space in it is never found, since spaces are spelled U+2581 by then.
    pieces = [(f" {id}", 0.0) for id in range(len(vocab.tokens))]
    for id in vocab.ids_of(*_MATCHABLE):
        free = vocab.types[id] == TokenType.USER_DEFINED
        pieces[id] = (vocab.tokens[id], 0.0 if free else float(vocab.scores[id]))
    hidden = {vocab.tokens[id]: id for id in vocab.ids_of(TokenType.CONTROL, TokenType.UNKNOWN)}
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
