"""Element types: ggml's own enumeration, and how each type meets numpy."""

from typing import Any

import numpy as np
import numpy.typing as npt

from pyggml._ffi import ffi, lib
from pyggml.errors import DTypeError
from pyggml.gguf import GGMLType as DType

__all__ = ["DType", "can_dequantize", "dequantize", "dtype_of", "numpy_dtype", "quantize", "row_size"]

_NUMPY: dict[DType, np.dtype[Any]] = {
    DType.F32: np.dtype(np.float32),
    DType.F16: np.dtype(np.float16),
    DType.F64: np.dtype(np.float64),
    DType.I8: np.dtype(np.int8),
    DType.I16: np.dtype(np.int16),
    DType.I32: np.dtype(np.int32),
    DType.I64: np.dtype(np.int64),
}
_FROM_NUMPY: dict[np.dtype[Any], DType] = {value: key for key, value in _NUMPY.items()}


def numpy_dtype(dtype: DType) -> np.dtype[Any] | None:
    """The numpy dtype with the same bytes, or None for block types and bf16."""
    return _NUMPY.get(dtype)


def dtype_of(array: npt.NDArray[Any]) -> DType:
    """The ggml type with the same bytes as ``array``.

    Raises:
        DTypeError: ggml has no such type; the message lists those it has.
    """
    found = _FROM_NUMPY.get(array.dtype.newbyteorder("="))
    if found is None:
        names = ", ".join(str(d) for d in _FROM_NUMPY)
        raise DTypeError(f"ggml has no element type for numpy {array.dtype}; convert to one of {names}")
    return found


def row_size(dtype: DType, n: int) -> int:
    """Bytes of ``n`` elements, which must fill whole blocks."""
    blocks, rest = divmod(n, dtype.block_size)
    if rest:
        raise DTypeError(f"{dtype.name} holds blocks of {dtype.block_size} elements; {n} is not a multiple")
    return blocks * dtype.type_size


def can_dequantize(dtype: DType) -> bool:
    """Whether :func:`dequantize` knows the type."""
    return dtype == DType.F32 or bool(lib.ggml_get_type_traits(int(dtype)).to_float != ffi.NULL)


def dequantize(data: bytes | memoryview | npt.NDArray[np.uint8], dtype: DType, n: int) -> npt.NDArray[np.float32]:
    """``n`` elements of ``dtype`` from raw ``data`` as float32, with ggml's own conversion.

    Raises:
        DTypeError: the type has no conversion, or ``data`` is too short.
    """
    need = row_size(dtype, n)
    source = ffi.from_buffer(data)
    if len(source) < need:
        raise DTypeError(f"{n} {dtype.name} elements take {need} bytes; {len(source)} were given")
    if dtype == DType.F32:
        return np.frombuffer(data, np.float32, n).copy()
    traits = lib.ggml_get_type_traits(int(dtype))
    if traits.to_float == ffi.NULL:
        raise DTypeError(f"ggml cannot convert {dtype.name} to float32")
    result = np.empty(n, np.float32)
    if n:
        traits.to_float(source, ffi.cast("float *", result.ctypes.data), n)
    return result


def quantize(values: npt.ArrayLike, dtype: DType, *, importance: npt.ArrayLike | None = None) -> npt.NDArray[np.uint8]:
    """``values`` (rows along the last axis) as the raw bytes of ``dtype``, with ``ggml_quantize_chunk``.

    Args:
        values: any shape; the last axis must hold whole blocks.
        dtype: the target type, float or quantized.
        importance: one weight per column (an "imatrix" row); types below 2.5 bits need it.

    Raises:
        DTypeError: ggml cannot write this type, or the type needs ``importance``.
    """
    array = np.ascontiguousarray(values, np.float32)
    n_per_row = array.shape[-1] if array.ndim else 1
    n_rows = array.size // n_per_row if n_per_row else 0
    total = row_size(dtype, n_per_row) * n_rows
    if dtype == DType.F32:
        return array.reshape(-1).view(np.uint8).copy()
    if not dtype.is_quantized and dtype not in (DType.F16, DType.BF16):
        raise DTypeError(f"{dtype.name} is not a type to quantize to; use numpy's astype")
    if dtype in (DType.Q8_1, DType.Q8_K):
        raise DTypeError(f"{dtype.name} is an intermediate type of ggml's kernels; use Q8_0")
    weights = ffi.NULL
    if importance is not None:
        matrix = np.ascontiguousarray(importance, np.float32)
        if matrix.shape != (n_per_row,):
            raise DTypeError(f"importance must hold one weight per column ({n_per_row}), got shape {matrix.shape}")
        weights = ffi.cast("float *", matrix.ctypes.data)
    elif lib.ggml_quantize_requires_imatrix(int(dtype)):
        raise DTypeError(f"{dtype.name} needs importance: one weight per column")
    out = np.empty(total, np.uint8)
    if total:
        lib.ggml_quantize_chunk(
            int(dtype),
            ffi.cast("float *", array.ctypes.data),
            ffi.cast("void *", out.ctypes.data),
            0,
            n_rows,
            n_per_row,
            weights,
        )
    return out
