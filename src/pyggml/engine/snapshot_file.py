"""The file of one snapshot: tokens and the arrays that a cache holds for them.

Version 1, little endian::

    0   8   magic "PYGGMLKV"
    8   4   u32  version
    12  4   u32  J, bytes of the JSON text, at most 1 MiB
    16  8   u64  bytes of the whole file
    24  4   u32  T, number of tokens, at most 2**24
    28  4   u32  CRC-32 of bytes 0 to D, with this field and the next as zeros
    32  4   u32  CRC-32 of bytes D to the end
    36  4   zero
    40  J   JSON: {"model": text, "meta": {name: text or integer}, "arrays": [[name, type, [n, ...]], ...]}
    ..  4T  i32  tokens
    D       the arrays in this order, C order, each at the next multiple of 64; gaps are zeros

``D`` is the first multiple of 64 after the tokens. Types are numpy's, ``<f4`` and the like: booleans, integers and
floats only. Nothing in a file is executed, and nothing is allocated that the file does not hold.
"""

import json
import math
import mmap
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from pyggml.errors import ParameterError

__all__ = ["VERSION", "BrokenSnapshotError", "Header", "map_arrays", "read_header", "write_file"]

VERSION = 1
MAGIC = b"PYGGMLKV"
FIXED = struct.Struct("<8sIIQIIII")
ALIGN = 64
MAX_JSON = 1 << 20
MAX_DIMS = 8
MAX_TOKENS = 1 << 24
PIECE = 1 << 24
TYPES = frozenset(["|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8"])

Array = npt.NDArray[Any]


class BrokenSnapshotError(ValueError):
    """The file is not what was written; the message says what is wrong."""


@dataclass(frozen=True)
class ArrayPlace:
    """Where an array lies in the file."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int

    @property
    def n_bytes(self) -> int:
        """Bytes of its elements."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Header:
    """Everything but the arrays."""

    model_key: str
    meta: Mapping[str, str | int]
    tokens: bytes = field(repr=False)
    """int32, big endian: in this form, they compare like the lists of numbers."""
    arrays: tuple[ArrayPlace, ...]
    data_begin: int
    file_bytes: int
    data_crc: int


def write_file(
    file: BinaryIO, *, model_key: str, tokens: Array, arrays: Mapping[str, Array], meta: Mapping[str, str | int]
) -> int:
    """Write a snapshot to an empty file that can seek; returns its size. The caller syncs it.

    Args:
        file: open for writing in binary.
        model_key: what the arrays belong to.
        tokens: ``(n)`` int32.
        arrays: by name; booleans, integers and floats.
        meta: notes.

    Raises:
        ParameterError: an array of another type, notes that are neither text nor integers, or names and notes of more
            than 1 MiB.
    """
    ready = {name: _portable(name, array) for name, array in arrays.items()}
    listed = [[name, array.dtype.str, list(array.shape)] for name, array in ready.items()]
    for name, value in meta.items():
        if not isinstance(value, str) and (isinstance(value, bool) or not isinstance(value, int)):
            raise ParameterError(f"the note {name!r} is {type(value).__name__}, not text or an integer")
    text = json.dumps({"model": model_key, "meta": dict(meta), "arrays": listed}).encode()
    if len(text) > MAX_JSON or len(tokens) > MAX_TOKENS:
        raise ParameterError(
            f"names and notes take {len(text)} bytes for {len(tokens)} tokens, more than {MAX_JSON} or {MAX_TOKENS}"
        )
    after = text + tokens.astype("<i4").tobytes()
    begin = _align(FIXED.size + len(after))
    after += bytes(begin - FIXED.size - len(after))
    file.write(bytes(begin))
    crc, at = 0, begin
    for piece in _pieces(ready, begin):
        file.write(piece)
        crc = zlib.crc32(piece, crc)
        at += len(piece)
    fields = (MAGIC, VERSION, len(text), at, len(tokens))
    head_crc = zlib.crc32(FIXED.pack(*fields, 0, 0, 0) + after)
    file.seek(0)
    file.write(FIXED.pack(*fields, head_crc, crc, 0) + after)
    return at


def read_header(file: BinaryIO, *, size: int) -> Header:
    """Read and check everything but the arrays.

    Args:
        file: at its beginning.
        size: bytes of the file.

    Raises:
        BrokenSnapshotError: the file is damaged, cut, or something else.
    """
    fixed = file.read(FIXED.size)
    if len(fixed) < FIXED.size or not fixed.startswith(MAGIC):
        raise BrokenSnapshotError("it is no snapshot")
    _, version, json_bytes, file_bytes, n_tokens, head_crc, data_crc, _ = FIXED.unpack(fixed)
    if version != VERSION:
        raise BrokenSnapshotError(f"it is of version {version}, not {VERSION}")
    if file_bytes != size:
        raise BrokenSnapshotError(f"it has {size} bytes instead of {file_bytes}")
    begin = _align(FIXED.size + json_bytes + 4 * n_tokens)
    if json_bytes > MAX_JSON or n_tokens > MAX_TOKENS or begin > size:
        raise BrokenSnapshotError("its header is larger than it can be")
    after = file.read(begin - FIXED.size)
    if zlib.crc32(fixed[:28] + bytes(8) + fixed[36:] + after) != head_crc:
        raise BrokenSnapshotError("the checksum of its header is wrong")
    model_key, meta, arrays = _parse(after[:json_bytes], begin, size)
    tokens = np.frombuffer(after, "<i4", n_tokens, json_bytes).astype(">i4").tobytes()
    return Header(model_key, meta, tokens, arrays, begin, size, data_crc)


def map_arrays(path: Path, header: Header) -> dict[str, Array]:
    """The arrays, read-only and mapped from the file, after their checksum was found right (about 1 GB/s).

    Raises:
        BrokenSnapshotError: it was not, or the file is another one by now.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    if len(mapped) != header.file_bytes:
        raise BrokenSnapshotError(f"it has {len(mapped)} bytes instead of {header.file_bytes}")
    crc = 0
    with memoryview(mapped) as whole:
        for at in range(header.data_begin, len(whole), PIECE):
            with whole[at : at + PIECE] as piece:
                crc = zlib.crc32(piece, crc)
    if crc != header.data_crc:
        raise BrokenSnapshotError("the checksum of its data is wrong")
    return {place.name: _view(mapped, place) for place in header.arrays}


def _view(mapped: mmap.mmap, place: ArrayPlace) -> Array:
    n = math.prod(place.shape)
    if n == 0:
        return np.empty(place.shape, place.dtype)
    flat: Array = np.frombuffer(mapped, place.dtype, n, place.offset)
    return flat.reshape(place.shape)


def _align(n: int) -> int:
    return -(-n // ALIGN) * ALIGN


def _portable(name: str, array: Array) -> Array:
    # ascontiguousarray would turn a single number into a list of one.
    out = np.asarray(array, dtype=np.asarray(array).dtype.newbyteorder("<"), order="C")
    if out.dtype.str not in TYPES or out.ndim > MAX_DIMS:
        raise ParameterError(f"the array {name!r} is {out.dtype} of {out.ndim} dimensions; that cannot be kept")
    return out


def _pieces(arrays: Mapping[str, Array], at: int) -> Iterator[bytes | memoryview]:
    for array in arrays.values():
        gap = _align(at) - at
        yield bytes(gap)
        flat = array.reshape(-1).view(np.uint8).data if array.size else memoryview(b"")
        for begin in range(0, len(flat), PIECE):
            yield flat[begin : begin + PIECE]
        at += gap + len(flat)


def _parse(text: bytes, at: int, size: int) -> tuple[str, Mapping[str, str | int], tuple[ArrayPlace, ...]]:
    try:
        parsed = json.loads(text)
        model_key, meta, listed = parsed["model"], parsed["meta"], parsed["arrays"]
        places = []
        for name, dtype, shape in listed:
            place = _place(name, dtype, shape, _align(at))
            at = place.offset + place.n_bytes
            places.append(place)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BrokenSnapshotError(f"its list of contents makes no sense ({error})") from error
    plain = isinstance(meta, dict) and all(isinstance(value, str | int) for value in meta.values())
    if not isinstance(model_key, str) or not plain or at != size or len({p.name for p in places}) < len(places):
        raise BrokenSnapshotError("its list of contents does not fit the file")
    return model_key, MappingProxyType(meta), tuple(places)


def _place(name: object, dtype: object, shape: object, offset: int) -> ArrayPlace:
    fits = isinstance(name, str) and isinstance(dtype, str) and dtype in TYPES
    if not fits or not isinstance(shape, list) or len(shape) > MAX_DIMS:
        raise BrokenSnapshotError(f"its array {str(name)[:40]!r} is of no known kind")
    if not all(type(n) is int and 0 <= n < 2**48 for n in shape):
        raise BrokenSnapshotError(f"its array {str(name)[:40]!r} has no possible shape")
    return ArrayPlace(str(name), np.dtype(str(dtype)), tuple(shape), offset)
