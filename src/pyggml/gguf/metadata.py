"""Typed access to the metadata of a model, with the architecture's prefix put in front of the keys."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeVar

import numpy as np

from pyggml.errors import GGUFError
from pyggml.gguf.reader import GGUFFile
from pyggml.gguf.strings import StringArray

__all__ = ["ModelMetadata"]

# Keys of these groups are not the architecture's own and are looked up as they are.
_GLOBAL_PREFIXES: Final = ("general.", "tokenizer.", "split.", "adapter.", "quantize.")

_T = TypeVar("_T", int, float, str, bool)


class _Missing:
    """Marks that no default was given (None may be one)."""


_MISSING: Final = _Missing()


class ModelMetadata:
    """The metadata of one model file.

    Keys are given without the architecture: ``get_int("block_count")`` reads ``llama.block_count``. Keys that
    start with ``general.``, ``tokenizer.``, ``split.``, ``adapter.`` or ``quantize.`` are read as they stand.

    Every getter takes a ``default``; without one the key is required. A value of another type than asked for
    is an error also where a default is given.

    Raises:
        GGUFError: a required key is absent or a value has the wrong type; the message names file and full
            key.
    """

    def __init__(self, file: GGUFFile) -> None:
        self.path: Final = file.path
        self._values: Final[Mapping[str, Any]] = file.metadata
        self.architecture: Final[str] = self.get_str("general.architecture")
        """``general.architecture``, e.g. ``llama``."""
        if not self.architecture:
            raise GGUFError(f"{self.path}: key 'general.architecture': is empty")

    def key(self, name: str) -> str:
        """The full key that ``name`` stands for."""
        if name.startswith(_GLOBAL_PREFIXES):
            return name
        return f"{self.architecture}.{name}"

    def __contains__(self, name: str) -> bool:
        return self.key(name) in self._values

    def get_int(self, name: str, *, default: int | _Missing = _MISSING) -> int:
        """An integer of any width."""
        return self._get(name, int, default)

    def get_float(self, name: str, *, default: float | _Missing = _MISSING) -> float:
        """A float; an integer is taken as one."""
        return self._get(name, float, default)

    def get_str(self, name: str, *, default: str | _Missing = _MISSING) -> str:
        """A string."""
        return self._get(name, str, default)

    def get_bool(self, name: str, *, default: bool | _Missing = _MISSING) -> bool:
        """A bool."""
        return self._get(name, bool, default)

    def get_ints(
        self, name: str, *, n: int | None = None, default: int | tuple[int, ...] | _Missing = _MISSING
    ) -> tuple[int, ...]:
        """Integers: an array, or a single integer repeated ``n`` times (keys that may differ per layer).

        Args:
            name: The key.
            n: How many are wanted; an array of another length is an error. Without it a scalar gives one.
            default: Used when the key is absent; a single integer is repeated ``n`` times too.
        """
        value = self._find(name, default)
        if isinstance(value, int) and not isinstance(value, bool):
            return (value,) * (1 if n is None else n)
        if isinstance(value, tuple):
            ints = value
        elif isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            ints = tuple(int(v) for v in value)
        else:
            raise self._wrong(name, value, "an integer or an array of integers")
        return self._of_length(name, ints, n)

    def get_floats(self, name: str, *, n: int | None = None) -> tuple[float, ...]:
        """An array of numbers; ``n`` is the length that it must have."""
        value = self._find(name, _MISSING)
        if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf":
            raise self._wrong(name, value, "an array of numbers")
        return self._of_length(name, tuple(float(v) for v in value), n)

    def get_array(self, name: str) -> np.ndarray:
        """An array of numbers or bools as the read-only numpy array in the file's own dtype."""
        value = self._find(name, _MISSING)
        if not isinstance(value, np.ndarray):
            raise self._wrong(name, value, "an array of numbers")
        return value

    def get_strs(self, name: str) -> Sequence[str]:
        """An array of strings (e.g. the vocabulary)."""
        value = self._find(name, _MISSING)
        if isinstance(value, np.ndarray) and value.size == 0:
            return ()
        if not isinstance(value, StringArray):
            raise self._wrong(name, value, "an array of strings")
        return value

    def _find(self, name: str, default: object) -> Any:
        value = self._values.get(self.key(name), _MISSING)
        if not isinstance(value, _Missing):
            return value
        if isinstance(default, _Missing):
            raise GGUFError(f"{self.path}: key {self.key(name)!r}: is required and absent")
        return default

    def _get(self, name: str, kind: type[_T], default: _T | _Missing) -> _T:
        value = self._find(name, default)
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return kind(value)
        # bool is a subclass of int, and True is no count.
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise self._wrong(name, value, f"a value of type {kind.__name__}")
        return value

    def _of_length(self, name: str, values: tuple[Any, ...], n: int | None) -> tuple[Any, ...]:
        if n is not None and len(values) != n:
            raise GGUFError(f"{self.path}: key {self.key(name)!r}: has {len(values)} items, {n} are needed")
        return values

    def _wrong(self, name: str, value: object, wanted: str) -> GGUFError:
        got = f"an array of {len(value)}" if isinstance(value, (list, StringArray, np.ndarray)) else repr(value)
        return GGUFError(f"{self.path}: key {self.key(name)!r}: {wanted} is needed, found {got}")
