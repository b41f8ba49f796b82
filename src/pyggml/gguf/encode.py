"""Turns Python and numpy values into the bytes of GGUF metadata."""

import struct
from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from pyggml.gguf.strings import StringArray
from pyggml.gguf.types import ValueType

__all__ = ["encode_string", "encode_value"]

_BY_DTYPE: Final = {np.dtype(t.numpy_dtype).newbyteorder("="): t for t in ValueType if t.numpy_dtype is not None}
_RANGES: Final = {
    t: (np.iinfo(t.numpy_dtype).min, np.iinfo(t.numpy_dtype).max)
    for t in ValueType
    if t.numpy_dtype is not None and np.dtype(t.numpy_dtype).kind in "iu"
}
_SCALAR_INTS: Final = (ValueType.UINT32, ValueType.INT32, ValueType.UINT64, ValueType.INT64)
_ARRAY_INTS: Final = (ValueType.INT32, ValueType.UINT32, ValueType.INT64, ValueType.UINT64)


def encode_string(value: str | bytes) -> bytes:
    """A GGUF string: its length in 64 bits, then UTF-8 (lone surrogates give back their raw bytes)."""
    raw = value.encode("utf-8", "surrogateescape") if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def encode_value(value: Any, *, type: ValueType | None = None, item: ValueType | None = None) -> bytes:
    """The type number and the bytes of a metadata value; see :meth:`GGUFWriter.add`.

    Raises:
        ValueError: the value does not fit into the type.
        TypeError: no GGUF type holds such a value.
    """
    is_array = isinstance(value, (list, tuple, StringArray)) or (isinstance(value, np.ndarray) and value.ndim > 0)
    if type is not None and is_array != (type is ValueType.ARRAY):
        raise TypeError(f"a {value.__class__.__name__} is no {type.name}")
    if is_array:
        return struct.pack("<I", ValueType.ARRAY) + _encode_array(value, item)
    kind = _scalar_type(value) if type is None else type
    return struct.pack("<I", kind) + _encode_scalar(value, kind)


def _encode_array(value: Any, item: ValueType | None) -> bytes:
    if _is_nested(value):
        head = struct.pack("<IQ", ValueType.ARRAY, len(value))
        return head + b"".join(_encode_array(v, item) for v in value)
    kind = _item_type(value) if item is None else item
    head = struct.pack("<IQ", kind, len(value))
    if kind is ValueType.STRING:
        return head + b"".join(_encode_scalar(v, kind) for v in value)
    if kind is ValueType.ARRAY:
        if len(value):
            raise TypeError("the items of the array are no arrays")
        return head
    return head + _encode_numbers(value, kind)


def _encode_numbers(value: Any, kind: ValueType) -> bytes:
    numbers = np.asarray(value)
    if kind in _RANGES and numbers.dtype.kind == "f" and all(isinstance(v, int) for v in value):
        numbers = np.asarray(value, object)  # numpy makes floats of integers around 2^63
    if numbers.size == 0:
        return b""
    if kind in _RANGES:
        low, high = _RANGES[kind]
        if numbers.dtype.kind not in "iuO" or int(numbers.min()) < low or int(numbers.max()) > high:
            raise ValueError(f"not all items are integers that fit {kind.name}")
    elif kind is ValueType.BOOL and numbers.dtype.kind != "b":
        raise TypeError("not all items are bools")
    elif numbers.dtype.kind not in "iufb":
        raise TypeError(f"not all items are numbers that fit {kind.name}")
    return numbers.astype(np.dtype(kind.numpy_dtype)).tobytes()


def _encode_scalar(value: Any, kind: ValueType) -> bytes:
    if kind is ValueType.STRING:
        if not isinstance(value, (str, bytes)):
            raise TypeError(f"{value!r} is no string")
        return encode_string(value)
    return _encode_numbers([value], kind)


def _scalar_type(value: Any) -> ValueType:
    if isinstance(value, (bool, np.bool_)):
        return ValueType.BOOL
    if isinstance(value, (str, bytes)):
        return ValueType.STRING
    if isinstance(value, np.generic) and value.dtype in _BY_DTYPE:
        return _BY_DTYPE[value.dtype]
    if isinstance(value, int):
        return _int_type(value, value, _SCALAR_INTS)
    if isinstance(value, float):
        return ValueType.FLOAT32
    raise TypeError(f"GGUF has no type for a {value.__class__.__name__}")


def _item_type(values: Sequence[Any] | np.ndarray) -> ValueType:
    if isinstance(values, np.ndarray):
        kind = _BY_DTYPE.get(values.dtype.newbyteorder("="))
        if kind is None:
            raise TypeError(f"GGUF has no type for numpy's {values.dtype}")
        return kind
    kinds = {_scalar_type(v) for v in values}
    if not kinds:
        raise ValueError("an empty list needs an item type")
    if kinds <= set(_SCALAR_INTS):
        return _int_type(min(values), max(values), _ARRAY_INTS)
    if kinds <= {*_SCALAR_INTS, ValueType.FLOAT32}:
        return ValueType.FLOAT32
    if len(kinds) > 1:
        raise TypeError(f"a list holds values of one type, not of {sorted(k.name for k in kinds)}")
    return kinds.pop()


def _int_type(low: int, high: int, choice: Sequence[ValueType]) -> ValueType:
    for kind in choice:
        if _RANGES[kind][0] <= low and high <= _RANGES[kind][1]:
            return kind
    raise ValueError(f"no 64-bit integer type holds {low} to {high}")


def _is_nested(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim > 1
    return len(value) > 0 and all(isinstance(v, (list, tuple, StringArray, np.ndarray)) for v in value)
