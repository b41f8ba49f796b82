"""Reads safetensors files: mapped, checked, without trust in the file.

Format: eight bytes with the header's length, a JSON header, the data. As its specification asks, the header
is at most 100 MB long, and the tensors fill the data section without overlaps.
"""

import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from mmap import ACCESS_READ, mmap
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeGuard

import numpy as np

from pyggml.closing import Closing
from pyggml.errors import ClosedError, ModelError

__all__ = ["SafetensorsFile", "SourceTensor"]

MAX_HEADER: Final = 100_000_000
MAX_DIMS: Final = 16
# numpy has no bfloat16: its bits are widened to float32 when read
_DTYPES: Final = {
    "BOOL": "|b1",
    "U8": "|u1",
    "I8": "|i1",
    "U16": "<u2",
    "I16": "<i2",
    "U32": "<u4",
    "I32": "<i4",
    "U64": "<u8",
    "I64": "<i8",
    "F16": "<f2",
    "BF16": "<u2",
    "F32": "<f4",
    "F64": "<f8",
}


@dataclass(frozen=True, slots=True)
class SourceTensor:
    """Where a tensor lies.

    Attributes:
        name: Its name.
        dtype: The element type as the format names it, e.g. ``BF16``.
        shape: Dimensions in numpy order (the last one is contiguous).
        start: First byte, from the start of the file.
        n_bytes: Size of the data.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    n_bytes: int


class SafetensorsFile(Closing):
    """An open safetensors file; a context manager.

    Raises:
        ModelError: the file breaks the format; the message names file and tensor.
        OSError: the file cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path: Final = Path(path)
        with self.path.open("rb") as file:
            size = file.seek(0, 2)
            if size < 8:
                raise ModelError(f"{self.path}: {size} bytes are too short for a safetensors file")
            self._map = mmap(file.fileno(), size, access=ACCESS_READ)
        try:
            tensors = _read_header(self._map, size, self.path)
        except BaseException:
            self.close()
            raise
        self.tensors: Final[Mapping[str, SourceTensor]] = MappingProxyType(tensors)
        """All tensors by name."""

    def numpy(self, name: str) -> np.ndarray:
        """A tensor as an array of its own; BF16 becomes float32 (exactly).

        Raises:
            KeyError: no tensor has that name.
            ClosedError: the file was closed.
        """
        array = self.raw(name)
        if self.tensors[name].dtype == "BF16":
            return (array.astype(np.uint32) << 16).view(np.float32)
        return array

    def raw(self, name: str) -> np.ndarray:
        """A tensor as an array of its own; BF16 as its bits, in uint16.

        Raises:
            KeyError: no tensor has that name.
            ClosedError: the file was closed.
        """
        if self._map.closed:
            raise ClosedError(f"{self.path}: the file was closed")
        info = self.tensors[name]
        data = self._map[info.start : info.start + info.n_bytes]
        return np.frombuffer(data, np.dtype(_DTYPES[info.dtype])).reshape(info.shape)

    def close(self) -> None:
        """Unmap the file; arrays given out are copies and stay valid."""
        self._map.close()


def _read_header(buf: mmap, size: int, path: Path) -> dict[str, SourceTensor]:
    (length,) = struct.unpack_from("<Q", buf, 0)
    if length > MAX_HEADER or length > size - 8:
        raise ModelError(f"{path}: a header of {length} bytes is too long for the format or the file (truncated?)")
    try:
        header = json.loads(buf[8 : 8 + length], object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path}: the header is not valid JSON ({error})") from error
    if not isinstance(header, dict):
        raise ModelError(f"{path}: the header is no JSON object")
    header.pop("__metadata__", None)
    data = 8 + length
    tensors = [_read_entry(name, value, data, path) for name, value in header.items()]
    place = data
    for info in sorted(tensors, key=lambda t: (t.start, t.n_bytes)):
        if info.start != place:
            raise ModelError(f"{path}: tensor {info.name!r}: begins at {info.start}, not at {place}: overlap or gap")
        place += info.n_bytes
    if place != size:
        raise ModelError(f"{path}: the tensors end at byte {place}, the file at {size} (truncated?)")
    return {info.name: info for info in tensors}


def _read_entry(name: str, value: Any, data: int, path: Path) -> SourceTensor:
    if not isinstance(value, dict):
        raise ModelError(f"{path}: tensor {name!r}: its entry is no JSON object")
    dtype, shape, offsets = value.get("dtype"), value.get("shape"), value.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise ModelError(f"{path}: tensor {name!r}: the type {dtype!r} is not known ({', '.join(_DTYPES)} are)")
    if not _are_counts(shape) or len(shape) > MAX_DIMS:
        raise ModelError(f"{path}: tensor {name!r}: {shape!r} is no shape")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise ModelError(f"{path}: tensor {name!r}: {offsets!r} are no offsets")
    n_bytes = prod(shape) * np.dtype(_DTYPES[dtype]).itemsize
    if offsets[1] - offsets[0] != n_bytes:
        raise ModelError(
            f"{path}: tensor {name!r}: {offsets[1] - offsets[0]} bytes do not fit {dtype} of shape {tuple(shape)}"
        )
    return SourceTensor(name, dtype, tuple(shape), data + offsets[0], n_bytes)


def _are_counts(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(v) is int and 0 <= v < 1 << 63 for v in value)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key stands twice")
    return result
