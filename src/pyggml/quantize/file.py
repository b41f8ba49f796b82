"""Writes a model in other element types."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from pyggml.convert import Mix, MixModel, choose_types, sort_key
from pyggml.errors import ParameterError
from pyggml.gguf import GGMLType, GGUFFile, GGUFWriter, ModelMetadata, TensorInfo, ValueType
from pyggml.tensor import dequantize, quantize, row_size

__all__ = ["quantize_file"]

_FLOATS: Final = frozenset({GGMLType.F32, GGMLType.F16, GGMLType.BF16})
_VERSION_KEY: Final = "general.quantization_version"
_TYPE_KEY: Final = "general.file_type"
_VERSION: Final = 2
# elements per task: large enough to hide the cost of a thread, small enough to keep memory low
_SLICE: Final = 1 << 20


def quantize_file(
    source: str | Path,
    target: str | Path,
    mix: Mix,
    *,
    requantize: bool = False,
    n_threads: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Quantize a model.

    Args:
        source: A GGUF file with F32, F16 or BF16 weights; also the first part of a split one.
        target: The file to make, atomically.
        mix: The mix of types.
        requantize: Accept weights that are quantized already (they only get worse).
        n_threads: Threads; None: one per processor.
        progress: Called with bytes of the source that are done, and all of them.

    Raises:
        ParameterError: the weights are quantized already.
        GGUFError: the source is damaged.
        DTypeError: a tensor has a type that ggml cannot read.
    """
    with GGUFFile(source) as file:
        tensors = sorted(file.tensors.values(), key=lambda info: sort_key(info.name))
        types = choose_types(tensors, mix, _describe(file))
        _check_source(tensors, types, requantize=requantize)
        writer = GGUFWriter(target, alignment=file.alignment)
        _copy_metadata(file, writer, mix)
        total = sum(info.n_bytes for info in tensors)
        with ThreadPoolExecutor(n_threads or os.cpu_count() or 1) as pool:
            work = _Work(file, pool, progress, total)
            for info in tensors:
                writer.add_tensor(
                    info.name, work.convert(info, types[info.name]), type=types[info.name], shape=info.shape
                )
            writer.write()


class _Work:
    """Converts tensors when the writer asks for them."""

    def __init__(
        self, file: GGUFFile, pool: ThreadPoolExecutor, progress: Callable[[int, int], None], total: int
    ) -> None:
        self._file: Final = file
        self._pool: Final = pool
        self._progress: Final = progress
        self._total: Final = total
        self._done = 0

    def convert(self, info: TensorInfo, wanted: GGMLType) -> Callable[[], Iterator[memoryview]]:
        def chunks() -> Iterator[memoryview]:
            data = self._file.data(info.name)
            if wanted is info.type:
                yield data
                self._add(info.n_bytes)
                return
            n_columns = info.shape[0]
            rows = max(1, _SLICE // max(n_columns, 1))
            n_rows = info.n_elements // n_columns if n_columns else 0
            size = row_size(info.type, n_columns)

            def one(first: int) -> npt.NDArray[np.uint8]:
                n = min(rows, n_rows - first)
                values = dequantize(data[first * size : (first + n) * size], info.type, n * n_columns)
                return quantize(values.reshape(n, n_columns), wanted)

            starts = range(0, n_rows, rows)
            for batch in range(0, len(starts), 16):
                part = starts[batch : batch + 16]
                for first, made in zip(part, self._pool.map(one, part), strict=True):
                    yield made.data
                    self._add(min(rows, n_rows - first) * size)

        return chunks

    def _add(self, n: int) -> None:
        self._done += n
        self._progress(self._done, self._total)


def _describe(file: GGUFFile) -> MixModel:
    metadata = ModelMetadata(file)

    def number(key: str) -> int:
        value = file.metadata.get(f"{metadata.architecture}.{key}", 0)
        numbers = np.atleast_1d(np.asarray(value if isinstance(value, (int, np.ndarray, list)) else 0))
        return int(numbers.flat[0]) if numbers.size else 0

    n_head, n_head_kv = number("attention.head_count"), number("attention.head_count_kv")
    return MixModel(n_gqa=n_head // n_head_kv if n_head_kv else 1, n_expert=number("expert_count"))


def _check_source(tensors: list[TensorInfo], types: dict[str, GGMLType], *, requantize: bool) -> None:
    if requantize:
        return
    for info in tensors:
        if types[info.name] is not info.type and info.type not in _FLOATS:
            raise ParameterError(
                f"quantization is only supported for F16 and F32 models: {info.name} is {info.type.name} already"
            )


def _copy_metadata(file: GGUFFile, writer: GGUFWriter, mix: Mix) -> None:
    for key, value in file.metadata.items():
        if key.startswith("split.") or key in ("general.alignment", _VERSION_KEY, _TYPE_KEY):
            continue
        kind = file.types[key]
        writer.add(key, value, type=kind.type, item=None if kind.item is ValueType.ARRAY else kind.item)
    writer.add(_VERSION_KEY, _VERSION, type=ValueType.UINT32)
    writer.add(_TYPE_KEY, mix.file_type, type=ValueType.UINT32)
