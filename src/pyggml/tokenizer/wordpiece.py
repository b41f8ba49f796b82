"""WordPiece (``tokenizer.ggml.model`` = bert): greedy longest match inside words.

Method: Devlin et al. 2018, "BERT: Pre-training of Deep Bidirectional Transformers for Language
Understanding".
"""

from tokenizers import normalizers, pre_tokenizers
from tokenizers.models import WordPiece

from pyggml.errors import TokenizerError
from pyggml.tokenizer.encoders import LibraryEncoder
from pyggml.tokenizer.vocab import TokenType, Vocabulary

__all__ = ["build_wordpiece"]

# As in BERT: a longer word is unknown. Without a limit one word of 100,000 letters takes an hour.
_MAX_WORD = 100


def build_wordpiece(vocab: Vocabulary) -> LibraryEncoder:
    """An encoder over BERT's spelling, which GGUF turned round.

    GGUF marks the start of a word with U+2581 and leaves continuations bare; BERT leaves starts bare and
    marks continuations with ``##``.

    Raises:
        TokenizerError: the vocabulary has no unknown token.
    """
    unk = vocab.special.ids["unk"]
    if unk is None or unk in vocab.broken:
        raise TokenizerError("tokenizer.ggml.unknown_token_id is missing: WordPiece cannot work without it")
    words: dict[str, int] = {}
    verbatim = set(vocab.ids_of(TokenType.CONTROL, TokenType.UNKNOWN, TokenType.USER_DEFINED)) | {unk}
    for id, token in enumerate(vocab.tokens):
        if id in verbatim:
            text = token
        elif token.startswith("▁"):
            text = token[1:]
        else:
            text = "##" + token
        if id not in vocab.broken:
            words.setdefault(text, id)
    model = WordPiece(words, unk_token=vocab.tokens[unk], max_input_chars_per_word=_MAX_WORD)
    normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=True,
        strip_accents=vocab.strip_accents,
        lowercase=vocab.lowercase,
    )
    return LibraryEncoder(vocab, model, normalizer=normalizer, pre_tokenizer=pre_tokenizers.BertPreTokenizer())
