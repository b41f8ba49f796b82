"""Checked access to the ``tokenizer.*`` keys of GGUF metadata."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from pyggml.errors import TokenizerError

__all__ = ["Metadata"]


class Metadata:
    """Getters over a plain mapping that turn a value of the wrong kind into a :class:`TokenizerError`.

    Arrays of numbers may be numpy arrays or sequences; arrays of strings are sequences of ``str``.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def string(self, key: str, default: str = "") -> str:
        """The string under ``key``."""
        value = self._values.get(key, default)
        if not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def boolean(self, key: str, *, default: bool) -> bool:
        """The flag under ``key``."""
        value = self._values.get(key, default)
        if not isinstance(value, bool | np.bool_):
            raise self._wrong(key, "a boolean")
        return bool(value)

    def integer(self, key: str) -> int | None:
        """The integer under ``key``, or None."""
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, bool | np.bool_) or not isinstance(value, int | np.integer):
            raise self._wrong(key, "an integer")
        return int(value)

    def integers(self, key: str) -> list[int]:
        """The array of integers under ``key``; empty without it."""
        array = self._array(key)
        if array is None or len(array) == 0:
            return []
        if array.dtype.kind not in "iu":
            raise self._wrong(key, "an array of integers")
        return [int(value) for value in array]

    def strings(self, key: str) -> list[str] | None:
        """The array of strings under ``key``, or None."""
        value = self._values.get(key)
        if value is None:
            return None
        if isinstance(value, str | bytes) or not isinstance(value, Sequence):
            raise self._wrong(key, "an array of strings")
        texts = value if isinstance(value, list) else list(value)
        if not all(type(text) is str for text in texts):
            raise self._wrong(key, "an array of strings")
        return texts

    def numbers(self, key: str, *, length: int) -> NDArray[np.float64] | None:
        """The first ``length`` numbers of the array under ``key``, or None."""
        array = self._array(key)
        if array is None:
            return None
        if len(array) < length:
            raise TokenizerError(f"{key} holds {len(array)} values, but the vocabulary has {length} tokens")
        return array[:length].astype(np.float64)

    def blob(self, key: str) -> bytes | None:
        """The array of bytes under ``key``, or None; empty counts as None."""
        value = self._values.get(key)
        if isinstance(value, bytes):
            return value or None
        array = self._array(key)
        if array is None or len(array) == 0:
            return None
        if array.dtype.kind not in "iu":
            raise self._wrong(key, "an array of bytes")
        return array.astype(np.uint8).tobytes()

    def _array(self, key: str) -> NDArray[np.generic] | None:
        value = self._values.get(key)
        if value is None:
            return None
        try:
            array = np.asarray(value)
        except (ValueError, TypeError):
            raise self._wrong(key, "an array of numbers") from None
        if array.ndim != 1 or (array.dtype.kind not in "iuf" and array.size):
            raise self._wrong(key, "an array of numbers")
        return array

    def _wrong(self, key: str, expected: str) -> TokenizerError:
        found = type(self._values[key]).__name__
        return TokenizerError(f"{key} must be {expected}, but it is of type {found}")
