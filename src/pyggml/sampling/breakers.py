"""The texts that no repeat reaches across, as tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["DryBreakers"]

Ints = npt.NDArray[np.int32]


class DryBreakers:
    """Token sequences that end a repeat for DRY. Never changes: make it once per model and list of texts, and share it.

    A text can be spelled by tokens in several ways. As in llama.cpp, a sequence is a token that contains the text, or
    one that ends with a beginning of it, followed by the tokens of the rest; and here also the tokens of the text
    itself, which matter when a character of it takes several.
    """

    def __init__(self, sequences: Iterable[Sequence[int]]) -> None:
        """
        Args:
            sequences: token ids in reading order; empty ones are left out, repeated ones count once.
        """
        found = sorted({tuple(int(token) for token in sequence) for sequence in sequences if len(sequence)})
        self.sequences: tuple[tuple[int, ...], ...] = tuple(found)
        """The sequences, sorted."""
        # The form that the C code reads.
        self._heads: Ints = np.array([sequence[0] for sequence in found], np.int32)
        self._tail_at: Ints = np.zeros(len(found) + 1, np.int32)
        self._tail_at[1:] = np.cumsum([len(sequence) - 1 for sequence in found])
        self._tails: Ints = np.array([token for sequence in found for token in sequence[1:]] or [0], np.int32)

    @classmethod
    def from_texts(
        cls, texts: Iterable[str], *, pieces: Sequence[bytes], encode: Callable[[str], Sequence[int]]
    ) -> DryBreakers:
        """All sequences for ``texts``. Looks at the whole vocabulary: some 10 ms per text and 100,000 tokens.

        Args:
            texts: the texts, none of them empty.
            pieces: the bytes of every token, by id.
            encode: token ids of a text, without special tokens around it.
        """
        sequences: set[tuple[int, ...]] = set()
        for text in texts:
            data = text.encode("utf-8", "surrogatepass")
            sequences.update((token,) for token, piece in enumerate(pieces) if data in piece)
            whole = tuple(encode(text))
            if b"".join(pieces[token] for token in whole) == data:  # some vocabularies put a space before a text
                sequences.add(whole)
            for cut in range(1, len(text)):
                start = text[:cut].encode("utf-8", "surrogatepass")
                heads = [token for token, piece in enumerate(pieces) if piece.endswith(start) and data not in piece]
                if heads:
                    rest = tuple(encode(text[cut:]))
                    sequences.update((token, *rest) for token in heads)
        return cls(sequences)

    @property
    def arrays(self) -> tuple[Ints, Ints, Ints]:
        """First tokens; where each sequence's other tokens begin (one more than sequences); the other tokens."""
        return self._heads, self._tail_at, self._tails
