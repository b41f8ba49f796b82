"""Writes GGUF files: small ones for tests, whole models for conversion and import.

The file appears under its name only when it is complete: it is written beside it, flushed to disk and
renamed.
"""

import os
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from pyggml.errors import GGUFError
from pyggml.gguf.encode import encode_string, encode_value
from pyggml.gguf.parse import DEFAULT_ALIGNMENT, MAX_DIMS, MAX_TENSOR_NAME
from pyggml.gguf.reader import GGUFFile
from pyggml.gguf.types import GGMLType, ValueType

__all__ = ["GGUFWriter", "TensorData", "copy_gguf"]

RawBytes = bytes | bytearray | memoryview
TensorData = RawBytes | np.ndarray | Callable[[], RawBytes | np.ndarray | Iterable[RawBytes]]
"""The bytes of a tensor: at hand, or from a function that is called when they are written."""

_VERSION: Final = 3
_NUMPY_TYPES: Final = {
    "float32": GGMLType.F32,
    "float16": GGMLType.F16,
    "float64": GGMLType.F64,
    "int8": GGMLType.I8,
    "int16": GGMLType.I16,
    "int32": GGMLType.I32,
    "int64": GGMLType.I64,
}


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    type: GGMLType
    n_bytes: int
    data: TensorData


class GGUFWriter:
    """Collects metadata and tensors, then :meth:`write` makes the file.

    Args:
        path: The file to make. An existing one is replaced.
        architecture: ``general.architecture``; None writes no such key (it may then be added as any other).
        alignment: Of the tensor data, in bytes; a power of two.

    Raises:
        GGUFError: a name or a shape that GGUF cannot hold.
    """

    def __init__(
        self, path: str | Path, *, architecture: str | None = None, alignment: int = DEFAULT_ALIGNMENT
    ) -> None:
        self.path: Final = Path(path)
        self.alignment: Final = alignment
        if alignment <= 0 or alignment & (alignment - 1) or alignment >= 1 << 32:
            raise GGUFError(f"{self.path}: alignment: {alignment} is not a power of two")
        self._metadata: dict[str, bytes] = {}
        self._tensors: dict[str, _Tensor] = {}
        if architecture is not None:
            self.add("general.architecture", architecture)
        if alignment != DEFAULT_ALIGNMENT:
            self.add("general.alignment", alignment, type=ValueType.UINT32)

    def add(self, key: str, value: Any, *, type: ValueType | None = None, item: ValueType | None = None) -> None:
        """Add a metadata value.

        Args:
            key: The full key.
            value: A Python or numpy value; lists and numpy arrays become arrays, lists of lists nested ones.
            type: The stored type. By default bool → BOOL, str and bytes → STRING, float → FLOAT32, int → the
                first of UINT32, INT32, UINT64, INT64 that holds it, numpy scalars their own type.
            item: For an array, the type of its innermost items. By default the numpy dtype; for lists as
                above, but integers become INT32 where they fit, as llama.cpp writes them.

        Raises:
            GGUFError: the key is taken, or the value does not fit into the type.
        """
        if not key or len(key.encode("utf-8", "surrogateescape")) > 65535:
            raise GGUFError(f"{self.path}: key {key[:80]!r}: is empty or longer than 65535 bytes")
        if key in self._metadata:
            raise GGUFError(f"{self.path}: key {key!r}: was added twice")
        try:
            self._metadata[key] = encode_value(value, type=type, item=item)
        except (ValueError, TypeError, OverflowError, struct.error) as error:
            raise GGUFError(f"{self.path}: key {key!r}: {error}") from error

    def add_tensor(
        self,
        name: str,
        data: TensorData,
        *,
        type: GGMLType | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        """Add a tensor.

        Args:
            name: Its name, at most 64 bytes.
            data: A numpy array, bytes in ggml's layout, or a function that returns either (or chunks of
                bytes) and is called when the tensor is written, so that one tensor at a time is in memory.
            type: The element type; only a numpy array brings its own.
            shape: Dimensions in ggml order (``ne``, first one contiguous); only a numpy array brings its own.

        Raises:
            GGUFError: the name is taken or too long, or type, shape and data do not fit together.
        """
        field = f"{self.path}: tensor {name!r}"
        if not name or "\0" in name or len(name.encode("utf-8", "surrogateescape")) > MAX_TENSOR_NAME:
            raise GGUFError(f"{field}: a name has 1 to {MAX_TENSOR_NAME} bytes and no NUL")
        if name in self._tensors:
            raise GGUFError(f"{field}: was added twice")
        if isinstance(data, np.ndarray) and type is None:
            type = _NUMPY_TYPES.get(data.dtype.name)
            shape = shape or (data.shape[::-1] or (1,))
        if type is None or shape is None:
            raise GGUFError(f"{field}: type and shape must be given (only common numpy arrays bring their own)")
        if not 1 <= len(shape) <= MAX_DIMS or min(shape) < 0 or shape[0] % type.block_size:
            raise GGUFError(f"{field}: {type.name} cannot have the shape {shape} (ggml order)")
        self._tensors[name] = _Tensor(name, tuple(shape), type, type.n_bytes(prod(shape)), data)

    def write(self) -> None:
        """Write the file, atomically.

        Raises:
            GGUFError: the data of a tensor has another size than its type and shape say.
            OSError: the file cannot be written.
        """
        temporary = self.path.with_name(f".{self.path.name[:200]}.{os.urandom(8).hex()}.tmp")
        try:
            with temporary.open("xb") as file:
                self.write_to(file)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(self.path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def write_to(self, file: BinaryIO) -> None:
        """Write everything to an open binary file; for callers with their own way of making files appear."""
        header = self._header()
        file.write(header)
        self._pad(file, len(header))
        for tensor in self._tensors.values():
            written = 0
            for chunk in _chunks(tensor.data):
                written += file.write(chunk)
            if written != tensor.n_bytes:
                raise GGUFError(
                    f"{self.path}: tensor {tensor.name!r}: its data has {written} bytes, "
                    f"{tensor.type.name} of shape {tensor.shape} has {tensor.n_bytes}"
                )
            self._pad(file, written)

    def _header(self) -> bytes:
        parts = [struct.pack("<4sIQQ", b"GGUF", _VERSION, len(self._tensors), len(self._metadata))]
        for key, value in self._metadata.items():
            parts += [encode_string(key), value]
        offset = 0
        for tensor in self._tensors.values():
            dims = len(tensor.shape)
            fields = struct.pack(f"<I{dims}QIQ", dims, *tensor.shape, tensor.type, offset)
            parts += [encode_string(tensor.name), fields]
            offset += -(-tensor.n_bytes // self.alignment) * self.alignment
        return b"".join(parts)

    def _pad(self, file: BinaryIO, written: int) -> None:
        file.write(bytes(-written % self.alignment))


def copy_gguf(source: GGUFFile, path: str | Path, *, changes: Mapping[str, Any] | None = None) -> None:
    """Write an open model to one new file, e.g. to join a split one (the ``split.*`` keys are left out).

    Args:
        source: The model; its tensors are streamed.
        path: The file to make.
        changes: Metadata to set; a value of None leaves the key out.
    """
    changes = dict(changes or {})
    writer = GGUFWriter(path, alignment=source.alignment)
    for key, value in source.metadata.items():
        if key.startswith("split.") or key == "general.alignment":
            continue
        if key in changes:
            value = changes.pop(key)
            if value is not None:
                writer.add(key, value)
            continue
        kind = source.types[key]
        writer.add(key, value, type=kind.type, item=None if kind.item is ValueType.ARRAY else kind.item)
    for key, value in changes.items():
        if value is not None:
            writer.add(key, value)
    for info in source.tensors.values():
        writer.add_tensor(info.name, source.data(info.name), type=info.type, shape=info.shape)
    writer.write()


def _chunks(data: TensorData) -> Iterable[memoryview]:
    value = data() if callable(data) else data
    if isinstance(value, np.ndarray):
        little = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
        return [little.reshape(-1).view(np.uint8).data] if little.size else []
    if isinstance(value, (bytes, bytearray, memoryview)):
        return [memoryview(value).cast("B")]
    return (memoryview(chunk).cast("B") for chunk in value)
