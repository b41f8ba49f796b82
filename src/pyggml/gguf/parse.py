"""Reads the header of one GGUF file: metadata and tensor table. The input is taken for hostile.

Format: the GGUF specification in ggml's ``docs/gguf.md`` and the comment at the top of ``gguf.h``. Nothing is
allocated for a count before the rest of the file was found long enough to hold that many items.
"""

import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from mmap import mmap
from typing import Any, Final

import numpy as np

from pyggml.errors import GGUFError
from pyggml.gguf.strings import LENGTH_BYTES, StringArray
from pyggml.gguf.types import FieldType, GGMLType, TensorInfo, ValueType

__all__ = ["DEFAULT_ALIGNMENT", "MAX_TENSOR_NAME", "Header", "parse_header"]

MAGIC: Final = b"GGUF"
DEFAULT_ALIGNMENT: Final = 32
MAX_DIMS: Final = 4
MAX_TENSOR_NAME: Final = 64
# Far above any real model, low enough that the work stays in seconds.
MAX_KEY: Final = 65535
MAX_STRING: Final = 256 << 20
MAX_KEYS: Final = 1 << 16
MAX_TENSORS: Final = 1 << 20
MAX_NUMBERS: Final = 1 << 28
MAX_STRINGS: Final = 1 << 24
MAX_NESTED_ITEMS: Final = 1 << 20
MAX_DEPTH: Final = 4
INT64_MAX: Final = (1 << 63) - 1

# The least a metadata entry (length, one byte of key, type, one byte of value) and a tensor entry can take.
_MIN_KEY_BYTES: Final = 8 + 1 + 4 + 1
_MIN_TENSOR_BYTES: Final = 8 + 1 + 4 + 4 + 8

_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_VALUE_TYPES: Final = {int(t): t for t in ValueType}
_TENSOR_TYPES: Final = {int(t): t for t in GGMLType}
_SCALARS: Final = {
    ValueType.UINT8: struct.Struct("<B"),
    ValueType.INT8: struct.Struct("<b"),
    ValueType.UINT16: struct.Struct("<H"),
    ValueType.INT16: struct.Struct("<h"),
    ValueType.UINT32: _U32,
    ValueType.INT32: struct.Struct("<i"),
    ValueType.FLOAT32: struct.Struct("<f"),
    ValueType.UINT64: _U64,
    ValueType.INT64: struct.Struct("<q"),
    ValueType.FLOAT64: struct.Struct("<d"),
    ValueType.BOOL: struct.Struct("<?"),
}


@dataclass(frozen=True, slots=True)
class Header:
    """What stands in front of the tensor data of one file."""

    version: int
    metadata: dict[str, Any]
    types: dict[str, FieldType]
    tensors: dict[str, TensorInfo]
    alignment: int
    data_offset: int


class _Cursor:
    """A position in the mapped file; each read checks the end of the file first."""

    def __init__(self, buf: mmap, size: int, label: str) -> None:
        self.buf = buf
        self.size = size
        self.pos = 0
        self.label = label
        self.nested_items = 0

    def fail(self, field: str, problem: str) -> GGUFError:
        return GGUFError(f"{self.label}: {field}: {problem}")

    def need(self, n: int, field: str) -> None:
        if n > self.size - self.pos:
            raise self.fail(
                field, f"the file ends at byte {self.size}, {n} bytes are needed at {self.pos} (truncated?)"
            )

    def scalar(self, fmt: struct.Struct, field: str) -> Any:
        self.need(fmt.size, field)
        (value,) = fmt.unpack_from(self.buf, self.pos)
        self.pos += fmt.size
        return value

    def u32(self, field: str) -> int:
        return int(self.scalar(_U32, field))

    def u64(self, field: str) -> int:
        return int(self.scalar(_U64, field))

    def string(self, field: str, *, limit: int = MAX_STRING) -> str:
        n = self.u64(f"{field}: length")
        if n > limit:
            raise self.fail(field, f"a string of {n} bytes is over the limit of {limit}")
        self.need(n, field)
        raw = self.buf[self.pos : self.pos + n]
        self.pos += n
        return str(raw, "utf-8", "surrogateescape")

    def value_type(self, field: str) -> ValueType:
        number = self.u32(f"{field}: type")
        if number not in _VALUE_TYPES:
            raise self.fail(field, f"unknown value type {number}")
        return _VALUE_TYPES[number]


def parse_header(buf: mmap, *, size: int, label: str) -> Header:
    """Read the header of the file mapped at ``buf``.

    Args:
        buf: The whole file.
        size: Its length in bytes.
        label: What to call the file in error messages.

    Raises:
        GGUFError: the file breaks the format, is truncated or is of a version that is not read here.
    """
    cur = _Cursor(buf, size, label)
    version = _read_version(cur)
    n_tensors = _read_count(cur, "tensor count", limit=MAX_TENSORS, least=_MIN_TENSOR_BYTES)
    n_keys = _read_count(cur, "metadata count", limit=MAX_KEYS, least=_MIN_KEY_BYTES)
    metadata: dict[str, Any] = {}
    types: dict[str, FieldType] = {}
    for index in range(n_keys):
        key = cur.string(f"key {index}", limit=MAX_KEY)
        if not key:
            raise cur.fail(f"key {index}", "the name is empty")
        if key in metadata:
            raise cur.fail(f"key {key!r}", "stands twice in the metadata")
        field = f"key {key!r}"
        metadata[key], types[key] = _read_value(cur, cur.value_type(field), field, depth=0)
    alignment = _alignment(cur, metadata, types)
    entries = [_read_tensor_entry(cur, index) for index in range(n_tensors)]
    data_offset = -(-cur.pos // alignment) * alignment
    tensors = _place_tensors(cur, entries, data_offset=data_offset, alignment=alignment)
    return Header(version, metadata, types, tensors, alignment, data_offset)


def _read_version(cur: _Cursor) -> int:
    cur.need(4, "magic")
    magic = cur.buf[:4]
    cur.pos = 4
    if magic == MAGIC[::-1]:
        raise cur.fail("magic", "this is a byte-swapped GGUF file; only little-endian files are read")
    if magic != MAGIC:
        raise cur.fail("magic", f"starts with {magic!r}, not with {MAGIC!r}: not a GGUF file")
    version = cur.u32("version")
    if version & 0xFFFF == 0 and version:
        raise cur.fail("version", "the file is big-endian; only little-endian files are read: convert it")
    if version not in (2, 3):
        raise cur.fail("version", f"GGUF version {version} is not supported (2 and 3 are)")
    return version


def _read_count(cur: _Cursor, field: str, *, limit: int, least: int) -> int:
    n = cur.u64(field)
    if n > limit:
        raise cur.fail(field, f"{n} is over the limit of {limit}")
    if n * least > cur.size - cur.pos:
        raise cur.fail(field, f"{n} entries cannot fit into the {cur.size - cur.pos} bytes left (truncated?)")
    return n


def _read_value(cur: _Cursor, kind: ValueType, field: str, *, depth: int) -> tuple[Any, FieldType]:
    if kind is ValueType.ARRAY:
        return _read_array(cur, field, depth=depth + 1)
    if kind is ValueType.STRING:
        return cur.string(field), FieldType(kind)
    return cur.scalar(_SCALARS[kind], field), FieldType(kind)


def _read_array(cur: _Cursor, field: str, *, depth: int) -> tuple[Any, FieldType]:
    if depth > MAX_DEPTH:
        raise cur.fail(field, f"arrays are nested deeper than {MAX_DEPTH}")
    item = cur.value_type(f"{field}: item")
    if item is ValueType.STRING:
        n = _read_count(cur, f"{field}: array length", limit=MAX_STRINGS, least=8)
        return _read_strings(cur, n, field), FieldType(ValueType.ARRAY, item, n)
    if item is ValueType.ARRAY:
        n = _read_count(cur, f"{field}: array length", limit=MAX_NESTED_ITEMS, least=12)
        cur.nested_items += n
        if cur.nested_items > MAX_NESTED_ITEMS:
            raise cur.fail(field, f"more than {MAX_NESTED_ITEMS} nested arrays in one file")
        items = [_read_array(cur, f"{field}[{i}]", depth=depth + 1)[0] for i in range(n)]
        return items, FieldType(ValueType.ARRAY, item, n)
    n = _read_count(cur, f"{field}: array length", limit=MAX_NUMBERS, least=_SCALARS[item].size)
    return _read_numbers(cur, n, item), FieldType(ValueType.ARRAY, item, n)


def _read_numbers(cur: _Cursor, n: int, item: ValueType) -> np.ndarray:
    # A copy, so that metadata outlives the mapping. Any byte but 0 counts as true, as in ggml.
    dtype = np.dtype("|u1" if item is ValueType.BOOL else item.numpy_dtype)
    if n == 0:
        values = np.empty(0, dtype)
    else:
        values = np.frombuffer(cur.buf, dtype, count=n, offset=cur.pos).copy()
    cur.pos += n * dtype.itemsize
    if item is ValueType.BOOL:
        values = values != 0
    values.flags.writeable = False
    return values


def _read_strings(cur: _Cursor, n: int, field: str) -> StringArray:
    # The hot loop of opening a file (a vocabulary has 262,144 tokens): local names, no calls of our own.
    begin = pos = cur.pos
    buf, size = cur.buf, cur.size
    unpack: Callable[[Any, int], tuple[int]] = _U64.unpack_from
    starts = array("q")
    append = starts.append
    for index in range(n):
        start = pos + LENGTH_BYTES
        if start > size:
            raise cur.fail(f"{field}[{index}]", "the file ends inside the length of the string (truncated?)")
        (length,) = unpack(buf, pos)
        pos = start + length
        if pos > size or length > MAX_STRING:
            raise cur.fail(f"{field}[{index}]", f"a string of {length} bytes ends beyond the file (truncated?)")
        append(start - begin)
    append(pos - begin + LENGTH_BYTES)
    cur.pos = pos
    # No copy: a view holds the mapping, and pages that nobody reads take no memory.
    offsets = np.array(starts, np.uint32 if starts[-1] < 1 << 32 else np.uint64)
    return StringArray(memoryview(buf)[begin:pos], offsets)


def _alignment(cur: _Cursor, metadata: dict[str, Any], types: dict[str, FieldType]) -> int:
    key = "general.alignment"
    if key not in metadata:
        return DEFAULT_ALIGNMENT
    if types[key].type is not ValueType.UINT32:
        raise cur.fail(f"key {key!r}", f"must be uint32, is {types[key]}")
    alignment = int(metadata[key])
    if alignment <= 0 or alignment & (alignment - 1):
        raise cur.fail(f"key {key!r}", f"{alignment} is not a power of two")
    return alignment


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of the tensor table, before the place of the data is known."""

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    offset: int
    n_bytes: int


def _read_tensor_entry(cur: _Cursor, index: int) -> _Entry:
    name = cur.string(f"tensor {index}: name", limit=MAX_TENSOR_NAME)
    if not name or "\0" in name:
        raise cur.fail(f"tensor {index}: name", f"{name!r} is empty or holds a NUL")
    field = f"tensor {name!r}"
    n_dims = cur.u32(f"{field}: n_dims")
    if n_dims > MAX_DIMS:
        raise cur.fail(f"{field}: n_dims", f"{n_dims} dimensions, at most {MAX_DIMS} are possible")
    shape = tuple(cur.u64(f"{field}: dimension {i}") for i in range(n_dims)) or (1,)
    number = cur.u32(f"{field}: type")
    if number not in _TENSOR_TYPES:
        raise cur.fail(f"{field}: type", f"unknown or withdrawn tensor type {number}")
    kind = _TENSOR_TYPES[number]
    offset = cur.u64(f"{field}: offset")
    return _Entry(name, shape, kind, offset, _checked_size(cur, field, shape, kind))


def _checked_size(cur: _Cursor, field: str, shape: tuple[int, ...], kind: GGMLType) -> int:
    n_elements = 1
    for i, n in enumerate(shape):
        # Each dimension on its own too: a zero elsewhere must not hide an absurd one.
        n_elements *= n
        if n > INT64_MAX or n_elements > INT64_MAX:
            raise cur.fail(f"{field}: dimension {i}", f"the shape {shape} overflows 63 bits")
    if shape[0] % kind.block_size:
        raise cur.fail(
            f"{field}: dimension 0",
            f"{shape[0]} is not a multiple of the {kind.name} block of {kind.block_size}",
        )
    return kind.n_bytes(n_elements)


def _place_tensors(cur: _Cursor, entries: list[_Entry], *, data_offset: int, alignment: int) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for entry in entries:
        field = f"tensor {entry.name!r}"
        if entry.name in tensors:
            raise cur.fail(field, "stands twice in the tensor table")
        if entry.offset % alignment:
            raise cur.fail(f"{field}: offset", f"{entry.offset} is not a multiple of the alignment {alignment}")
        start = data_offset + entry.offset
        if start + entry.n_bytes > cur.size:
            raise cur.fail(
                f"{field}: offset",
                f"its data ends at byte {start + entry.n_bytes}, the file at {cur.size} (truncated?)",
            )
        tensors[entry.name] = TensorInfo(entry.name, entry.shape, entry.type, start, entry.n_bytes)
    by_place = sorted((t for t in tensors.values() if t.n_bytes), key=lambda t: t.offset)
    for left, right in pairwise(by_place):
        if left.offset + left.n_bytes > right.offset:
            raise cur.fail(f"tensor {right.name!r}: offset", f"its data overlaps tensor {left.name!r}")
    return tensors
