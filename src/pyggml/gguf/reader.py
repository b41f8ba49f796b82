"""Opens GGUF files: one file, or all the parts of a split model seen as one."""

import re
from collections.abc import Mapping
from mmap import ACCESS_READ, MADV_DONTNEED, PAGESIZE, mmap
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Self

from pyggml.closing import Closing
from pyggml.errors import ClosedError, GGUFError
from pyggml.gguf.parse import Header, parse_header
from pyggml.gguf.types import FieldType, TensorInfo

__all__ = ["GGUFFile"]

_SPLIT_NAME: Final = re.compile(r"(?P<stem>.+)-(?P<no>\d{5})-of-(?P<count>\d{5})\.gguf\Z", re.DOTALL)
MAX_PARTS: Final = 4096


class GGUFFile(Closing):
    """A GGUF model file, mapped into memory and checked; versions 2 and 3, little-endian.

    Opening reads the header only (a vocabulary of 262,144 tokens takes about 0.2 s). Every offset, size and
    count has been checked when the constructor returns: :meth:`data` cannot point outside the file. The file
    must not be changed or cut while it is open, as with any memory map.

    A split model (``NAME-00001-of-0000N.gguf``) is opened by its first part: the siblings are found beside
    it, and
    :attr:`tensors` holds the tensors of all parts.

    Metadata values are ``int``, ``float``, ``bool``, ``str``, read-only numpy arrays (arrays of numbers or
    bools), :class:`StringArray` (arrays of strings) or lists of those (nested arrays). A string that is not valid
    UTF-8 keeps its bytes as lone surrogates: ``text.encode("utf-8", "surrogateescape")`` gives them back
    exactly.

    Use it as a context manager, or call :meth:`close`.

    Raises:
        GGUFError: the file breaks the format; the message names the file and the field.
        OSError: the file cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path: Final = Path(path)
        """The file that was asked for; the first part of a split model."""
        self._maps: list[mmap] = []
        try:
            header = self._map(self.path)
            self.parts: Final = _part_paths(self.path, header)
            """All files of the model in order; one for a model that is not split."""
            tensors = dict(header.tensors)
            for index, part in enumerate(self.parts[1:], start=1):
                _add_part(tensors, self._map_part(part, index, len(self.parts)), part, index)
            _check_split_total(self.path, header, len(tensors))
        except BaseException:
            self.close()
            raise
        self.version: Final = header.version
        """The version of the format."""
        self.metadata: Final[Mapping[str, Any]] = MappingProxyType(header.metadata)
        """All key-values, in file order (those of the first part, if split)."""
        self.types: Final[Mapping[str, FieldType]] = MappingProxyType(header.types)
        """The stored type of each metadata value."""
        self.tensors: Final[Mapping[str, TensorInfo]] = MappingProxyType(tensors)
        """All tensors by name, in file order."""
        self.alignment: Final = header.alignment
        """The alignment of tensor data, in bytes."""
        self.data_offset: Final = header.data_offset
        """Where tensor data begins in :attr:`path`, in bytes."""
        self.size: Final = sum(len(m) for m in self._maps)
        """Bytes of all files together."""

    @classmethod
    def open(cls, path: str | Path) -> Self:
        """The same as the constructor."""
        return cls(path)

    def data(self, name: str) -> memoryview:
        """The bytes of a tensor, read-only and without a copy.

        The view stays valid after :meth:`close`; the file is unmapped when the last view is gone.

        Raises:
            KeyError: no tensor has that name.
            ClosedError: the file was closed.
        """
        info = self.tensors[name]
        return self.mapping(part=info.part)[info.offset : info.offset + info.n_bytes]

    def mapping(self, *, part: int = 0) -> memoryview:
        """A whole file as mapped (page-aligned), read-only; :attr:`TensorInfo.offset` counts from its start.

        Raises:
            ClosedError: the file was closed.
        """
        if not self._maps:
            raise ClosedError(f"{self.path}: the GGUF file was closed")
        return memoryview(self._maps[part])

    @property
    def closed(self) -> bool:
        """True after :meth:`close`."""
        return not self._maps

    def close(self) -> None:
        """Let go of the mappings. Views given out before stay valid, and so do :attr:`metadata`,
        :attr:`tensors`.
        """
        for mapping in self._maps:
            try:
                mapping.close()
            except BufferError:
                continue  # a view is still held; the mapping goes with it
        self._maps = []

    def __repr__(self) -> str:
        state = " closed" if self.closed else ""
        return f"<GGUFFile {str(self.path)!r} version {self.version}, {len(self.tensors)} tensors{state}>"

    def _map(self, path: Path) -> Header:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size == 0:
                raise GGUFError(f"{path}: magic: the file is empty")
            mapping = mmap(file.fileno(), size, access=ACCESS_READ)
        self._maps.append(mapping)
        header = parse_header(mapping, size=size, label=str(path))
        mapping.madvise(
            MADV_DONTNEED, 0, header.data_offset // PAGESIZE * PAGESIZE
        )  # copied, or read again when looked at
        return header

    def _map_part(self, path: Path, index: int, count: int) -> Header:
        if not path.is_file():
            raise GGUFError(f"{path}: part {index + 1} of {count} of the split model is missing")
        header = self._map(path)
        for key, want in (("split.no", index), ("split.count", count)):
            if header.metadata.get(key) != want:
                raise GGUFError(f"{path}: key {key!r}: is {header.metadata.get(key)!r}, should be {want}")
        return header


def _part_paths(path: Path, header: Header) -> tuple[Path, ...]:
    count, no = (header.metadata.get(key, default) for key, default in (("split.count", 1), ("split.no", 0)))
    if not isinstance(count, int) or not 0 <= count <= MAX_PARTS:
        raise GGUFError(f"{path}: key 'split.count': {count!r} is not a number of parts up to {MAX_PARTS}")
    if count <= 1:
        return (path,)
    if no != 0:
        raise GGUFError(f"{path}: key 'split.no': this is part {no} (from 0) of {count}; open the first part")
    match = _SPLIT_NAME.match(path.name)
    if match is None or int(match["no"]) != 1 or int(match["count"]) != count:
        raise GGUFError(
            f"{path}: the first of {count} parts must be called NAME-00001-of-{count:05}.gguf, "
            "or its other parts cannot be found"
        )
    return tuple(path.with_name(f"{match['stem']}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1))


def _add_part(tensors: dict[str, TensorInfo], header: Header, path: Path, index: int) -> None:
    for info in header.tensors.values():
        if info.name in tensors:
            raise GGUFError(f"{path}: tensor {info.name!r}: stands in more than one part of the split model")
        tensors[info.name] = TensorInfo(info.name, info.shape, info.type, info.offset, info.n_bytes, part=index)


def _check_split_total(path: Path, header: Header, n_tensors: int) -> None:
    total = header.metadata.get("split.tensors.count")
    if total is not None and total != n_tensors:
        raise GGUFError(f"{path}: key 'split.tensors.count': is {total}, the parts hold {n_tensors} tensors")
