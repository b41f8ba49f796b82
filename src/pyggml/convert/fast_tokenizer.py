"""``tokenizer.json``: byte pair encoding, over bytes or in SentencePiece's manner, to GGUF's vocabularies."""

import re
from collections.abc import Mapping
from typing import Any, Final

from pyggml.convert.pretokenizers import is_byte_level, pre_tokenizer_name
from pyggml.convert.vocabulary import AddedToken, TokenKind, Vocabulary
from pyggml.errors import TokenizerError

__all__ = ["read_added_tokens", "read_fast_tokenizer"]

_BYTE: Final = re.compile(r"<0x[0-9A-Fa-f]{2}>")
# below the score of every merge
_UNMERGED: Final = -1e6
Pair = tuple[str, str]


def read_fast_tokenizer(document: Mapping[str, Any], *, n_rows: int) -> Vocabulary:
    """The vocabulary, without added tokens.

    A model over bytes becomes ``gpt2``. One with a fallback to bytes is SentencePiece's: it becomes ``llama``, with
    scores in the order of the merges, so that pairs are joined in the same order.

    Args:
        document: A ``tokenizer.json`` that was read.
        n_rows: Rows of the embedding.

    Raises:
        TokenizerError: it is broken, or another kind of tokenizer.
    """
    model = document.get("model")
    if not isinstance(model, Mapping) or model.get("type", "BPE") != "BPE" or "merges" not in model:
        kind = model.get("type") if isinstance(model, Mapping) else None
        raise TokenizerError(f"tokenizer.json holds a model of the type {kind!r}; only BPE can be converted")
    tokens, known = _tokens(model.get("vocab"), n_rows)
    merges = _merges(model["merges"])
    kinds = [TokenKind.NORMAL if i in known else TokenKind.UNUSED for i in range(len(tokens))]
    if model.get("byte_fallback") is not True:
        if not is_byte_level(document):
            raise TokenizerError("tokenizer.json works neither over bytes nor with a fallback to them")
        pre = pre_tokenizer_name(document)
        # a space in a merge stands for itself in few models; GGUF parts the two halves by one
        lines = [" ".join(part.replace(" ", "Ġ") for part in pair) for pair in merges]
        return Vocabulary("gpt2", pre, tokens, kinds, merges=lines)
    for i, text in enumerate(tokens):
        if _BYTE.fullmatch(text):
            kinds[i] = TokenKind.BYTE
        elif i in known and text == model.get("unk_token"):
            kinds[i] = TokenKind.UNKNOWN
    ranks: dict[str, int] = {}
    for rank, (left, right) in enumerate(merges):
        ranks.setdefault(left + right, rank)
    scores = [float(-ranks[text]) if text in ranks else _UNMERGED for text in tokens]
    prefix = _adds_space(document.get("normalizer")) or _adds_space(document.get("pre_tokenizer"))
    return Vocabulary("llama", "default", tokens, kinds, scores=scores, add_space_prefix=prefix)


def read_added_tokens(document: Mapping[str, Any]) -> list[AddedToken]:
    """The ``added_tokens`` of a ``tokenizer.json``.

    Raises:
        TokenizerError: one is broken.
    """
    found = []
    entries = document.get("added_tokens") or []
    for entry in entries if isinstance(entries, list) else [entries]:
        match entry:
            case {"id": int(id), "content": str(text)} if not isinstance(id, bool):
                found.append(AddedToken(id, text, special=entry.get("special") is True))
            case _:
                raise TokenizerError(f"tokenizer.json: {str(entry)[:80]} is no added token")
    return found


def _tokens(vocab: Any, n_rows: int) -> tuple[list[str], set[int]]:
    """Texts by id, and the ids that have one."""
    if not isinstance(vocab, Mapping) or not vocab:
        raise TokenizerError("tokenizer.json has no vocabulary")
    texts: dict[int, str] = {}
    for text, id in vocab.items():
        if type(id) is not int or not 0 <= id < n_rows or id in texts:
            raise TokenizerError(
                f"tokenizer.json: the token {text[:40]!r} has the id {str(id)[:40]}; each of the {n_rows} rows of the "
                "embedding has at most one"
            )
        texts[id] = text
    return [texts.get(i, f"[PAD{i}]") for i in range(max(texts) + 1)], set(texts)


def _merges(value: Any) -> list[Pair]:
    pairs = list[Pair]()
    for entry in value if isinstance(value, list) else ():
        match entry:
            case [str(left), str(right)]:
                pairs.append((left, right))
            case str(line) if (at := line.find(" ", 1)) > 0:
                pairs.append((line[:at], line[at + 1 :]))
            case _:
                raise TokenizerError(f"tokenizer.json: {str(entry)[:80]} is no merge")
    return pairs


def _adds_space(value: Any) -> bool:
    """Whether a normalizer or a pre-tokenizer puts a space before the text."""
    match value:
        case {"type": "Prepend", "prepend": "▁"}:
            return True
        case {"type": "Metaspace"}:
            scheme = value.get("prepend_scheme", "always" if value.get("add_prefix_space", True) else "never")
            return bool(scheme != "never")
        case {"type": "Sequence"}:
            inner = value.get("normalizers") or value.get("pretokenizers")
            return isinstance(inner, list) and any(_adds_space(part) for part in inner)
    return False
