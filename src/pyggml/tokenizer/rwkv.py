"""RWKV's tokenizer (``tokenizer.ggml.model`` = rwkv): greedy longest match over bytes, no merges.

Method: the "World" tokenizer of RWKV (Peng et al. 2023, "RWKV: Reinventing RNNs for the Transformer Era").
"""

import re
from collections.abc import Iterator

from pyggml.tokenizer.vocab import TokenType, Vocabulary

__all__ = ["RwkvEncoder", "unescape"]

_ESCAPES = {"t": b"\t", "n": b"\n", "r": b"\r"}
_ESCAPE = re.compile(r"\\x([0-9a-fA-F]{2})|\\(.)", re.DOTALL)


def unescape(token: str) -> bytes:
    """Bytes of a token, spelled like a Python literal: ``\\n``, ``\\xff``, anything else as UTF-8."""
    out = bytearray()
    end = 0
    for match in _ESCAPE.finditer(token):
        out += token[end : match.start()].encode("utf-8", "surrogateescape")
        digits, char = match.groups()
        out += bytes.fromhex(digits) if digits else _ESCAPES.get(char) or char.encode("utf-8", "surrogateescape")
        end = match.end()
    return bytes(out + token[end:].encode("utf-8", "surrogateescape"))


class RwkvEncoder:
    """Looks up, at each position, the candidate lengths of the next two bytes from the longest down."""

    def __init__(self, vocab: Vocabulary) -> None:
        self._unk = vocab.special.ids["unk"]
        self._ids: dict[bytes, int] = {}
        lengths: dict[bytes, set[int]] = {}
        special: dict[str, int] = {}
        hidden = set(vocab.ids_of(TokenType.CONTROL, TokenType.UNKNOWN))
        for id, token in enumerate(vocab.tokens):
            if id in hidden:
                special[token] = id
            elif text := unescape(token):
                self._ids.setdefault(text, id)
                lengths.setdefault(text[:2], set()).add(len(text))
        self._lengths = {start: sorted(found, reverse=True) for start, found in lengths.items()}
        self._special = special
        longest_first = sorted(special, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if special else None

    def encode(self, text: str, *, parse_special: bool) -> list[int]:
        """See :class:`~pyggml.tokenizer.encoders.Encoder`."""
        if not parse_special or self._split is None:
            return list(self._match(text.encode()))
        ids: list[int] = []
        for nth, part in enumerate(self._split.split(text)):
            if nth % 2:
                ids.append(self._special[part])
            else:
                ids.extend(self._match(part.encode()))
        return ids

    def _match(self, data: bytes) -> Iterator[int]:
        """Ids of ``data``; a byte that no token begins with becomes the unknown token, if there is one."""
        ids, lengths, at = self._ids, self._lengths, 0
        while at < len(data):
            for length in (*lengths.get(data[at : at + 2], ()), 1):
                id = ids.get(data[at : at + length])
                if id is not None:
                    at += length
                    yield id
                    break
            else:
                at += 1
                if self._unk is not None:
                    yield self._unk
