"""Operations written in Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pyggml._ffi import CustomCallback, ffi, lib
from pyggml.errors import DTypeError, ShapeError

from ..dtype import DType, numpy_dtype
from .core import arena_of, make

if TYPE_CHECKING:
    from ..tensor import Tensor

__all__ = ["custom"]

MAX_OPERANDS = 9  # GGML_MAX_SRC - 1

Function = Callable[..., None]


def custom(function: Function, *operands: Tensor, dtype: DType, shape: tuple[int, ...]) -> Tensor:
    """A node that calls ``function(out, *operands)`` with numpy arrays when it is computed, on the CPU.

    The arrays are the tensors' own memory in numpy order: ``function`` fills ``out`` and must neither change the
    operands nor keep any of them. What it raises is raised by ``Executor.compute``. It holds the interpreter lock and
    runs on one thread: for tools and trials, not for inner loops.

    Args:
        function: fills ``out``.
        operands: 1 to 9 tensors of types that numpy has.
        dtype: of the result, one that numpy has.
        shape: of the result, ggml order.
    """
    if not 1 <= len(operands) <= MAX_OPERANDS:
        raise ShapeError(f"custom: 1 to {MAX_OPERANDS} operands, got {len(operands)}")
    for kind in (dtype, *(t.dtype for t in operands)):
        if numpy_dtype(kind) is None:
            raise DTypeError(f"custom: numpy has no type for {kind.name}; cast() to F32 first")
    if not 1 <= len(shape) <= 4 or min(shape) < 1:
        raise ShapeError(f"custom: the result needs 1 to 4 dimensions of 1 or more, got {shape}")
    arena = arena_of(*operands)
    count = len(operands)

    def call(node: Any) -> None:
        function(_array(node), *(_array(node.src[i], writable=False) for i in range(count)))

    callback = CustomCallback(call)
    arena.callbacks.append(callback)
    args = ffi.new("struct ggml_tensor *[]", [t.ptr for t in operands])
    ne = (*shape, 1, 1, 1)[:4]
    ptr = lib.ggml_custom_4d(arena.raw(), int(dtype), *ne, args, count, lib.pyggml_on_custom, 1, callback.handle)
    return make(ptr, arena, operands[0])


def _array(ptr: Any, *, writable: bool = True) -> npt.NDArray[Any]:
    """A tensor's memory as an array that lives as long as the call."""
    n = lib.ggml_n_dims(ptr)
    shape = tuple(ptr.ne[i] for i in range(n))[::-1]
    strides = tuple(ptr.nb[i] for i in range(n))[::-1]
    memory = ffi.buffer(ptr.data, lib.ggml_nbytes(ptr))
    array = np.ndarray(shape, numpy_dtype(DType(ptr.type)), memory, strides=strides)
    array.flags.writeable = writable
    return array
