"""Arrays of strings, left where the file is mapped until somebody looks."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final, SupportsIndex, overload

import numpy as np
from numpy.typing import NDArray

__all__ = ["LENGTH_BYTES", "StringArray"]

LENGTH_BYTES: Final = 8
"""What stands before each string in a GGUF file: its length."""


class StringArray(Sequence[str]):
    """A read-only sequence of ``str`` over the bytes of a GGUF file's array; compares equal to a list of the same.

    A vocabulary of 262,144 tokens takes 17 MiB as a list, and a process that only computes never reads it. Each look at
    an item decodes it: take ``list(array)`` for many. It stays valid when the file is closed: the mapping goes with its
    last view.

    A string that is not valid UTF-8 keeps its bytes as lone surrogates (``surrogateescape``).
    """

    __hash__ = None  # type: ignore[assignment]  # as a list: it compares by its items

    def __init__(self, data: memoryview, starts: NDArray[np.generic]) -> None:
        """
        Args:
            data: strings as the file holds them, each behind its length of 8 bytes.
            starts: where in ``data`` the text of each begins, and at last where one after them would.
        """
        self._data = data
        self._starts = starts

    def __len__(self) -> int:
        return len(self._starts) - 1

    @overload
    def __getitem__(self, index: SupportsIndex) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: SupportsIndex | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self._text(i) for i in range(*index.indices(len(self)))]
        at = index.__index__()
        if not -len(self) <= at < len(self):
            raise IndexError(f"index {at} is out of range for {len(self)} strings")
        return self._text(at % len(self))

    def _text(self, i: int) -> str:
        begin, after = int(self._starts[i]), int(self._starts[i + 1])
        return str(self._data[begin : after - LENGTH_BYTES], "utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        data, starts = self._data, self._starts.tolist()
        for begin, after in pairwise(starts):
            yield str(data[begin : after - LENGTH_BYTES], "utf-8", "surrogateescape")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, StringArray):
            return self._data == other._data
        return isinstance(other, list | tuple) and len(self) == len(other) and all(map(_equal, self, other))

    def __repr__(self) -> str:
        shown = ", ".join(map(repr, self[:3]))
        return f"<{len(self)} strings: {shown}{', ...' if len(self) > 3 else ''}>"


def _equal(left: str, right: Any) -> bool:
    return bool(left == right)
