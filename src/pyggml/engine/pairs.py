"""A query and a document as the tokens of one text."""

from dataclasses import dataclass

from pyggml.errors import ModelError
from pyggml.gguf import ModelMetadata
from pyggml.tokenizer import Tokenizer

__all__ = ["Pair", "pair_ids"]

TEMPLATE = "tokenizer.chat_template.rerank"


@dataclass
class Pair:
    """What a cross-encoder reads.

    Attributes:
        ids: tokens of both texts, and those that the vocabulary wants around and between them.
        segments: 0 for each token of the query, 1 for those of the document (and the separator behind it).
        document: where in ``ids`` the document begins and ends.
    """

    ids: list[int]
    segments: list[int]
    document: tuple[int, int]


def pair_ids(tokenizer: Tokenizer, metadata: ModelMetadata, query: str, document: str) -> Pair:
    """Put two texts together: BOS, query, EOS, SEP, document, EOS, each special token where the vocabulary wants it.

    That is BERT's ``[CLS] query [SEP] document [SEP]`` (Devlin et al. 2018) and RoBERTa's
    ``<s> query </s></s> document </s>``. A file with a template for reranking (``tokenizer.chat_template.rerank``) has
    its way instead.

    Special tokens that the texts spell out are taken for text.

    Raises:
        ModelError: the vocabulary has no token that separates texts.
    """
    if TEMPLATE in metadata:
        return _from_template(tokenizer, metadata.get_str(TEMPLATE), query, document)
    sep = tokenizer.sep_id
    end = sep if tokenizer.eos_id is None else tokenizer.eos_id
    after = [end] if end is not None and tokenizer.adds_eos else []
    between = list(after)
    if sep is not None and metadata.get_bool("tokenizer.ggml.add_sep_token", default=not after):
        between.append(sep)
    if not between:
        raise ModelError(f"{metadata.path}: the vocabulary has no token that separates a query from a document")
    before = [tokenizer.bos_id] if tokenizer.bos_id is not None and tokenizer.adds_bos else []
    first = [*before, *tokenizer.encode(query, add_special=False, parse_special=False), *between]
    second = tokenizer.encode(document, add_special=False, parse_special=False)
    ids = [*first, *second, *after]
    segments = [0] * len(first) + [1] * (len(second) + len(after))
    return Pair(ids, segments, (len(first), len(first) + len(second)))


def _from_template(tokenizer: Tokenizer, template: str, query: str, document: str) -> Pair:
    """The template's own special tokens count; those in the texts do not."""
    before, mark, after = template.partition("{document}")
    if not mark or "{query}" not in before:
        raise ModelError(f"{TEMPLATE}: the template must hold {{query}} and, after it, {{document}}")
    head, _, middle = before.partition("{query}")
    ids = [
        *tokenizer.encode(head, add_special=False),
        *tokenizer.encode(query, add_special=False, parse_special=False),
        *tokenizer.encode(middle, add_special=False),
    ]
    begin = len(ids)
    ids += tokenizer.encode(document, add_special=False, parse_special=False)
    end = len(ids)
    ids += tokenizer.encode(after, add_special=False)
    return Pair(ids, [0] * begin + [1] * (len(ids) - begin), (begin, end))
