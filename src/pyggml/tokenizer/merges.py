"""Merges for vocabularies that come with priorities of pieces instead of merges.

SentencePiece's BPE joins the neighbours whose union is the best-scored piece (Kudo and Richardson 2018,
"SentencePiece: A simple and language independent subword tokenizer"); tiktoken's joins those whose union
has the lowest rank. Either is a list of merges: every way to split a piece into two pieces, ordered by the priority of
the whole.
"""

import numpy as np
from numpy.typing import NDArray

from pyggml.tokenizer.vocab import TokenType, Vocabulary

__all__ = ["merge_pairs", "name_pairs"]

# A piece longer than this is not split: the work is quadratic in its length, and real pieces stay below 100.
_MAX_PIECE = 256
_MULTIPLIER = 0x9E3779B97F4A7C15


def name_pairs(vocab: Vocabulary, pairs: NDArray[np.int32]) -> list[tuple[str, str]]:
    """(n, 2) ids to n pairs of texts."""
    texts = np.array(vocab.tokens, dtype=object)
    return list(zip(texts[pairs[:, 0]].tolist(), texts[pairs[:, 1]].tolist(), strict=True))


def merge_pairs(vocab: Vocabulary, *, ranks: bool = False) -> NDArray[np.int32]:
    """All merges of ``vocab``, best first, as (n, 2) ids: by descending score, or by ascending id.

    Ties go to the lower id of the whole, then of the left part. Only normal and user-defined tokens take
    part: the text of a control token never becomes that token by merging.
    """
    ids = np.array(vocab.findable_ids(TokenType.NORMAL, TokenType.USER_DEFINED), dtype=np.int64)
    whole, left, right = _find_splits([vocab.tokens[id] for id in ids])
    order = np.argsort((whole << 32) | left, kind="stable")
    whole, left, right = ids[whole[order]], ids[left[order]], ids[right[order]]
    if not ranks:
        order = np.argsort(-vocab.scores[whole], kind="stable")
        left, right = left[order], right[order]
    return np.stack([left, right], axis=1).astype(np.int32)


def _find_splits(pieces: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Every (whole, left, right), as indices into ``pieces``, with whole = left + right.

    Substrings are compared by a 64-bit polynomial hash of code points, all of them at once; in Python loops
    the same takes seconds for a vocabulary of 262,144.
    """
    lengths = np.fromiter(map(len, pieces), dtype=np.int64, count=len(pieces))
    text = "".join(pieces).encode("utf-32-le", "surrogatepass")
    hasher = _SubstringHasher(np.frombuffer(text, dtype="<u4"))
    ends = np.cumsum(lengths)
    starts = ends - lengths
    table = _HashTable(hasher.hash(starts, ends))

    n_splits = np.where(lengths <= _MAX_PIECE, np.maximum(lengths - 1, 0), 0)
    whole = np.repeat(np.arange(len(pieces)), n_splits)
    nth = np.arange(len(whole)) - np.repeat(np.cumsum(n_splits) - n_splits, n_splits)
    cuts = starts[whole] + nth + 1
    left, found = table.find(hasher.hash(starts[whole], cuts))
    whole, cuts = whole[found], cuts[found]
    right, found = table.find(hasher.hash(cuts, ends[whole]))
    return whole[found], left[found], right


class _SubstringHasher:
    """Hashes of any substring of one text, each in constant time, modulo 2**64 (wrapping is intended)."""

    def __init__(self, codes: NDArray[np.uint32]) -> None:
        mixed = (codes.astype(np.uint64) + np.uint64(0x1234567)) * np.uint64(0xD6E8FEB86659FD93)
        mixed ^= mixed >> np.uint64(32)
        self._sums = np.zeros(len(codes) + 1, dtype=np.uint64)
        np.cumsum(mixed * _powers(_MULTIPLIER, len(codes)), out=self._sums[1:])
        self._shifts = _powers(pow(_MULTIPLIER, -1, 1 << 64), len(codes) + 1)

    def hash(self, starts: NDArray[np.int64], ends: NDArray[np.int64]) -> NDArray[np.uint64]:
        """Hash of each text[start:end]; equal substrings have equal hashes wherever they stand."""
        return (self._sums[ends] - self._sums[starts]) * self._shifts[starts]


def _powers(base: int, n: int) -> NDArray[np.uint64]:
    powers = np.full(n, base, dtype=np.uint64)
    powers[:1] = 1
    return np.multiply.accumulate(powers)


class _HashTable:
    """Finds keys in a sorted copy, through the range that shares their top bits: a few keys at most."""

    _BITS = 20
    _MAX_RANGE = 32

    def __init__(self, keys: NDArray[np.uint64]) -> None:
        self._order = np.argsort(keys, kind="stable")
        self._keys = np.append(keys[self._order], np.uint64(0))  # a last one, so that any start is an index
        counts = np.bincount(self._bucket(keys), minlength=1 << self._BITS)
        self._starts = np.cumsum(counts) - counts
        self._longest = int(counts.max())

    def find(self, wanted: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Indices of the keys that equal ``wanted``, for those that exist, and a mask of those."""
        n_keys = len(self._order)
        if self._longest > self._MAX_RANGE:  # a vocabulary made to collide
            at = np.searchsorted(self._keys[:-1], wanted)
        else:
            at = self._starts[self._bucket(wanted)]
            for _ in range(self._longest):
                smaller = (self._keys[at] < wanted) & (at < n_keys)
                at += smaller
        found = (self._keys[at] == wanted) & (at < n_keys)
        return self._order[at[found]], found

    def _bucket(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        return (keys >> np.uint64(64 - self._BITS)).astype(np.int64)
