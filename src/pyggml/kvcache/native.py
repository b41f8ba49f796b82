"""What needs ggml and our C helpers directly: bytes in and out of tensors, and masks."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pyggml._ffi import ffi, lib
from pyggml.batch import Batch
from pyggml.inputs import HostInput
from pyggml.tensor import DType, Graph, Tensor

from .cells import CellTable

__all__ = ["MaskInput", "get_columns", "get_rows", "set_columns", "set_rows"]

Array = npt.NDArray[Any]


class MaskInput:
    """A graph's mask ``(n_kv, n_tokens)``, filled from a cell table: 0 where a token may look, -inf elsewhere."""

    def __init__(self, graph: Graph, n_kv: int, n_tokens: int, *, half: bool, name: str) -> None:
        self.tensor = graph.input(DType.F16 if half else DType.F32, n_kv, n_tokens, name=name)
        self._n_kv, self._n_tokens, self._half = n_kv, n_tokens, half
        self._host: HostInput | None = None
        self._table: CellTable | None = None
        self._pos = self._seqs = ffi.NULL

    def fill(self, table: CellTable, batch: Batch, *, window: int, chunk: int, causal: bool = True) -> None:
        """Write the mask of ``batch``; without ``causal``, tokens see all positions of their sequence."""
        if self._host is None:
            self._host = HostInput(self.tensor, np.uint16 if self._half else np.float32)
        if table is not self._table:
            self._table = table
            self._pos = ffi.cast("int32_t *", table.pos.ctypes.data)
            self._seqs = ffi.cast("uint64_t *", table.seqs.ctypes.data)
        lib.pyggml_fill_mask(
            self._host.address,
            self._half,
            self._n_kv,
            self._pos,
            self._seqs,
            self._n_tokens,
            self._n_tokens,
            ffi.from_buffer("int32_t[]", batch.positions),
            ffi.from_buffer("int32_t[]", batch.seq_ids),
            ffi.NULL if causal else ffi.new("uint8_t[]", self._n_tokens),
            window,
            chunk,
        )
        self._host.flush()


def _at(array: Array) -> object:
    return ffi.cast("void *", array.ctypes.data)


def get_rows(store: Tensor, out: Array, first: int) -> None:
    """Read ``out`` ``(n, bytes of a row)`` from row ``first`` on."""
    lib.ggml_backend_tensor_get(store.ptr, _at(out), first * out.shape[1], out.nbytes)


def set_rows(store: Tensor, rows: Array, first: int) -> None:
    """Write contiguous ``rows`` ``(n, bytes of a row)`` from row ``first`` on."""
    lib.ggml_backend_tensor_set(store.ptr, _at(rows), first * rows.shape[1], rows.nbytes)


def get_columns(store: Tensor, out: Array, first: int) -> None:
    """Read ``out`` ``(rows, n)``, items as wide as elements: ``n`` columns of every row, from ``first`` on."""
    width = out.shape[1] * out.itemsize
    lib.ggml_backend_tensor_get_2d(
        store.ptr, _at(out), first * out.itemsize, width, out.shape[0], store.ptr.nb[1], width
    )


def set_columns(store: Tensor, columns: Array, first: int) -> None:
    """Write contiguous ``columns`` ``(rows, n)``, items as wide as elements, from column ``first`` on."""
    width = columns.shape[1] * columns.itemsize
    lib.ggml_backend_tensor_set_2d(
        store.ptr, _at(columns), first * columns.itemsize, width, columns.shape[0], store.ptr.nb[1], width
    )
